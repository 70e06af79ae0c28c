"""Content on its way into a folder: a file that is filled and hashed, and gets its name once it is verified."""

from __future__ import annotations

import os

from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Hasher
from transferkit.content.flow import Flow, Notify
from transferkit.errors import DigestMismatchError, SizeMismatchError, VerificationError
from transferkit.storage.disk import close_quietly, remove_quietly, sync_folder
from transferkit.storage.disk_errors import storage_error
from transferkit.storage.folder import OpenFolder
from transferkit.storage.index import VerifiedIndex


class FileIngest:
    """What small and large ingests have in common: the bytes before ``offset`` are in the file and in the hasher.

    Other threads may read what is in place (``storage.arriving``), by a descriptor of their own.
    """

    generation = 0
    """How often what was in place was thrown away."""
    is_open = True
    """Whether somebody may still fill it; ``is_stored`` is right from when it is not."""
    is_stored = False
    """Whether it was found right, and has its final name."""

    def __init__(self, descriptor: Descriptor, index: VerifiedIndex, folder: OpenFolder, name: str, fd: int) -> None:
        self.descriptor = descriptor
        self.offset = 0
        self._index = index
        self._disk = index.disk
        self._folder = folder
        self._name = name
        self._fd = fd
        self._hasher: Hasher = descriptor.digest.hasher()

    @property
    def _path(self) -> str:
        """What errors call it."""
        return f"{self._folder.path}/{self._name}"

    def _write(self, data: memoryview, offset: int) -> int:
        """Write, and return the offset of what follows."""
        wanted, end = self.descriptor, offset + len(data)
        if end > wanted.size:
            raise SizeMismatchError(f"{wanted.digest.short}: more than the {wanted.size} bytes that were expected")
        try:
            self._disk.pwrite(self._fd, data, offset)
        except OSError as error:
            raise storage_error(error, "writing", self._path) from error
        return end

    def _store(self, in_place: int) -> None:
        """Check what is in place, close the file, give it its name, and remember it."""
        wanted, disk, durable = self.descriptor, self._disk, self._index.durable
        digest = wanted.digest
        if in_place != wanted.size:
            raise SizeMismatchError(f"{digest.short}: incomplete: received {in_place}/{wanted.size} bytes")
        if not digest.matches(self._hasher):
            found = f"{digest.algorithm}:{self._hasher.hexdigest()[:12]}..."
            raise DigestMismatchError(f"{digest.short}: the content that arrived has the digest {found}")
        final = self._index.path_of(digest)
        status = self._place(final, durable=durable)
        try:
            stored = disk.stat(final)  # the rename has changed its ctime
        except OSError:
            return  # the next run looks at its content
        if stored.st_ino == status.st_ino and stored.st_size == wanted.size:
            self._index.add(digest, stored, durable=durable)

    def _place(self, final: str, *, durable: bool, into: int | None = None) -> os.stat_result:
        """Close the file, and give it its name, of the folder ``into`` or a path; return its status before."""
        disk = self._disk
        fd, self._fd = self._fd, -1
        try:
            try:
                if durable:
                    disk.fsync(fd)
                status = disk.fstat(fd)
            finally:
                disk.close(fd)  # before the rename: NFS and some quotas report a full disk here
            if status.st_size != self.descriptor.size:
                raise self._taken_away()
            target = {} if into is None else {"into": into}
            disk.rename(self._folder.prefix + self._name, final, self._folder.fd, **target)
            if durable:
                sync_folder(disk, os.path.dirname(final) or self._folder.path)
        except FileNotFoundError as error:
            raise self._taken_away() from error
        except OSError as error:
            raise storage_error(error, "storing", final) from error
        self.is_stored = True
        return status

    def _taken_away(self) -> VerificationError:
        return VerificationError(f"{self._path} was moved, removed or replaced while it was filled", retryable=True)

    def end_of(self, start: int) -> int:
        """Return where the bytes end that are in place from ``start`` on."""
        return max(start, self.offset)

    def open_reader(self) -> tuple[int, int] | None:
        """Open the file for reading, and return a descriptor and the generation that it is of; ``None``: it has gone.

        Thread-safe. The reader closes the descriptor.
        """
        generation = self.generation
        try:
            fd = self._disk.open(self._folder.prefix + self._name, self._folder.fd, follow=False)
        except FileNotFoundError:
            return None
        return fd, generation


class SmallIngest(FileIngest):
    """A temporary file that is written in order. One thread's; nothing of it outlives the attempt."""

    unverified = 0

    @property
    def in_place(self) -> int:
        return self.offset

    def missing_in(self, chunk: Chunk) -> list[Chunk]:
        return [Chunk(max(self.offset, chunk.start), chunk.end)] if self.offset <= chunk.end else []

    def write_at(self, offset: int, data: memoryview, *, final: bool = True) -> None:
        if offset != self.offset:
            raise ValueError(f"a small blob is written in order: at byte {self.offset}, not at {offset}")
        self.offset = self._write(data, offset)
        self._hasher.update(data)

    def record(self, start: int, end: int) -> None:
        """What was written is in place."""

    def record_unverified(self, start: int, end: int) -> None:
        """Nothing of it outlives the attempt."""

    def take_unverified(self, chunk: Chunk) -> list[Chunk]:
        return []

    def hash_unverified(self, chunk: Chunk, hasher: Hasher, flow: Flow) -> None:
        """There is nothing to hash."""

    def follow(self, flow: Flow, notify: Notify | None = None) -> None:
        """What was written is hashed."""

    def restart(self) -> None:
        self.generation += 1
        self.offset = 0
        self._hasher = self.descriptor.digest.hasher()

    def commit(self, flow: Flow) -> None:
        try:
            self._store(self.offset)
        except BaseException:
            self.abort()
            raise
        self.is_open = False

    def abort(self) -> None:
        self.is_open = False
        fd, self._fd = self._fd, -1
        close_quietly(self._disk, fd)
        remove_quietly(self._disk, self._folder.prefix + self._name, self._folder.fd)
        self.offset = 0

    keep = abort  # a small blob is fetched again
