"""Ranges of large blobs, each in a file of its own, that several processes fill at once; and the blob that they make.

A partial file has one writer (decision 20), so who brings a part of a blob writes no other's file. In ``.partial``,
``sha256-<hex>.at.<start>`` (16 hex digits) is a range that is complete; ``.part`` is behind that while it is filled.
Nothing tells whether a complete range is right: the digest of the whole does, when a blob is made of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial

from transferkit.content.blob_range import BlobRange
from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Bytes, Digest
from transferkit.content.flow import Closing, Flow, Notify
from transferkit.content.interfaces import Ingest
from transferkit.errors import SizeMismatchError, SourceError
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk, close_quietly, is_file
from transferkit.storage.disk_errors import disk_errors
from transferkit.storage.folder import OpenFolder
from transferkit.storage.index import VerifiedIndex
from transferkit.storage.lock import BlobLock, growth
from transferkit.storage.pace import Pace
from transferkit.storage.partial import Partial

_NAME = re.compile(r"(sha256-[0-9a-f]{64}|sha512-[0-9a-f]{128})\.at\.([0-9a-f]{16})\Z", re.ASCII)


class RangeStore:
    """A folder of blobs as the target of ranges of them (``BlobRange.unit``). Thread-safe."""

    resume_threshold = 0

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._pace = Pace()

    def has(self, piece: BlobRange) -> bool:
        """Tell whether a range is complete."""
        disk, path = self._directory.disk, f"{self._directory.unfinished}/{_name_of(piece)}"
        with suppress(OSError):
            status = disk.lstat(path)
            return is_file(status) and status.st_size == piece.size
        return False

    def ingest(self, descriptor: Descriptor, *, flow: Flow) -> Ingest | None:
        """Open the file of a range, once nobody else fills it; ``None``: it is complete. Raises StorageError."""
        piece, folder = BlobRange.of(descriptor), self._directory.open_unfinished()
        final = _name_of(piece)
        name = f"{final}.part"
        lock = BlobLock(folder, f"{name}.lock")
        with ExitStack() as stack:
            stack.callback(lock.release)
            lock.acquire(flow, partial(growth, folder, name, piece.size, flow))
            if self.has(piece):
                lock.remove()
                return None
            own = f"{name}.{os.urandom(8).hex()}"
            kept = _Kept(name, own, final)
            ingest = RangeFile(descriptor, self._directory.index, folder, lock, kept, pace=self._pace)
            stack.pop_all()
            return ingest

    def concerns_all(self, error: Exception) -> bool:
        return self._directory.concerns_all(error)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class _Kept:
    """What a range is called while it is filled, by whom there is no lock for, and at last."""

    name: str
    own: str
    final: str


class _Unhashed:
    """In the place of a hasher: a part of a blob has no digest that anybody knows."""

    def update(self, data: Bytes, /) -> None:
        """Take in nothing."""

    def hexdigest(self) -> str:
        return ""


class RangeFile(Partial):
    """The file of a range on its way: a partial file that is held to its size alone."""

    def __init__(
        self,
        descriptor: Descriptor,
        index: VerifiedIndex,
        folder: OpenFolder,
        lock: BlobLock,
        names: _Kept,
        *,
        pace: Pace,
    ) -> None:
        self._final = names.final
        super().__init__(descriptor, index, folder, lock, kept=names.name, own=names.own, pace=pace)
        self._hasher = _Unhashed()

    def restart(self) -> None:
        super().restart()
        self._hasher = _Unhashed()

    def _catch_up(self, flow: Flow, notify: Notify | None = None) -> None:
        self.offset = self._frontier()
        if notify is not None:
            notify()

    def _store(self, in_place: int) -> None:
        wanted = self.descriptor
        if in_place != wanted.size:
            raise SizeMismatchError(f"{wanted.digest.short}: incomplete: received {in_place}/{wanted.size} bytes")
        self._place(self._folder.at(self._final), durable=True, into=self._folder.fd)


@dataclass(frozen=True, slots=True)
class _Found:
    start: int
    end: int  # not inclusive
    name: str


class RangeFiles(Closing):
    """The complete ranges in a folder of blobs, as a source of these blobs: a ``RangeFetcher``. Thread-safe."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._folder: OpenFolder | None = None
        self._names: dict[str, list[_Found]] = {}
        self._covers: dict[Digest, list[_Found]] = {}
        with suppress(OSError):
            self._folder = OpenFolder(directory.unfinished, directory.disk)
            for name in sorted(os.listdir(directory.unfinished)):
                if match := _NAME.match(name):
                    self._names.setdefault(match[1], []).append(self._look(name, int(match[2], 16)))

    def _look(self, name: str, start: int) -> _Found:
        with suppress(OSError):
            status = self._directory.disk.lstat(f"{self._directory.unfinished}/{name}")
            return _Found(start, start + status.st_size * is_file(status), name)
        return _Found(start, start, name)  # somebody has removed it

    def have(self, blob: Descriptor) -> bool:
        """Tell whether there is all of a blob; ``fetch`` is for those of which there is."""
        cover: list[_Found] = []
        at = 0
        found = self._names.get(blob.digest.file_name, ())
        while at < blob.size:
            fitting = [file for file in found if file.start <= at < file.end <= blob.size]
            if not fitting:
                return False
            cover.append(max(fitting, key=lambda file: file.end))
            at = cover[-1].end
        self._covers[blob.digest] = cover
        return True

    def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Flow) -> RangeFilesBody:
        return self._open(descriptor, offset, descriptor.size)

    def fetch_range(self, descriptor: Descriptor, chunk: Chunk, *, flow: Flow) -> RangeFilesBody:
        return self._open(descriptor, chunk.start, chunk.end + 1)

    def _open(self, descriptor: Descriptor, start: int, end: int) -> RangeFilesBody:
        folder, cover = self._folder, self._covers[descriptor.digest]
        if folder is None:
            raise SourceError(f"{self._directory.unfinished} cannot be opened")
        return RangeFilesBody(folder, self._directory.disk, cover, start, end)

    def remove(self, blob: Descriptor) -> None:
        """Remove the ranges of a blob, which is in its place, or cannot be made of them. Never raises."""
        self._covers.pop(blob.digest, None)
        for file in self._names.pop(blob.digest.file_name, ()):
            with suppress(OSError):
                if self._folder is not None:
                    self._folder.remove(file.name)

    def close(self) -> None:
        if self._folder is not None:
            self._folder.close()


class RangeFilesBody(Closing):
    """The bytes of a blob from ``start`` to ``end``, not inclusive, out of the files of its ranges. One thread's."""

    def __init__(self, folder: OpenFolder, disk: Disk, cover: Sequence[_Found], start: int, end: int) -> None:
        self.offset = start
        self._folder = folder
        self._disk = disk
        self._cover = cover
        self._at = start
        self._end = end
        self._file: _Found | None = None
        self._fd = -1

    @property
    def length(self) -> int | None:
        return self._end - self.offset

    def readinto(self, buffer: memoryview, /) -> int:
        if self._at == self._end:
            return 0
        file = self._file
        if file is None or self._at >= file.end:
            file = self._next()
        until = min(file.end, self._end)
        with disk_errors("reading", f"{self._folder.path}/{file.name}"):
            count = self._disk.preadv(self._fd, buffer[: until - self._at], self._at - file.start)
        if not count:
            raise SourceError(f"{self._folder.path}/{file.name} became shorter while it was read")
        self._at += count
        return count

    def _next(self) -> _Found:
        self.close()
        self._file = file = next(file for file in self._cover if file.start <= self._at < file.end)
        path = f"{self._folder.path}/{file.name}"
        try:
            self._fd = self._disk.open(self._folder.at(file.name), self._folder.fd, follow=False)
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror}", errno=error.errno) from error
        return file

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        close_quietly(self._disk, fd)


def _name_of(piece: BlobRange) -> str:
    return f"{piece.blob.digest.file_name}.at.{piece.chunk.start:016x}"
