"""Tar files: plain files in them are found once and then read in place; new ones are written whole or not at all.

Links, devices and sparse files in a tar file are nothing to anybody here. Nothing is extracted.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from transferkit.content.descriptor import Descriptor
from transferkit.content.flow import Flow
from transferkit.errors import InvalidManifestError, SourceError, StorageError
from transferkit.storage.disk import Disk
from transferkit.storage.disk_errors import disk_errors
from transferkit.storage.file_body import FileBody

_MAX_MEMBERS = 100_000
_MAX_HEADER = 1024 * 1024  # bytes: of a long name, or of what pax says of a file


@dataclass(frozen=True, slots=True)
class Part:
    """Some bytes of a file, under ``name`` in an archive."""

    name: str
    path: str
    start: int
    size: int


class _Bounded(io.FileIO):
    """A file of which only headers are read: one may ask for anything, and ``tarfile`` reads it piece by piece (since
    Python 3.13.15)."""

    header = 0
    """How many bytes were read since the last member."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0 or self.header + size > _MAX_HEADER:
            raise tarfile.ReadError(f"headers of more than {_MAX_HEADER} bytes")
        self.header += size
        return super().read(size)


class Archive:
    """The plain files in a tar file that is not compressed. Thread-safe.

    Raises:
        StorageError: it cannot be read, or is no such file.
        InvalidManifestError: it has more files than anybody can mean.
    """

    def __init__(self, path: str, disk: Disk) -> None:
        self.path = path
        self._disk = disk
        self.parts: dict[str, Part] = {}
        """By name; of several of one name the last, as for ``tar``."""
        try:
            with _Bounded(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
                for number, member in enumerate(tar):
                    if number >= _MAX_MEMBERS:
                        raise InvalidManifestError(f"{path} has more than {_MAX_MEMBERS} files")
                    file.header = 0
                    if member.size < 0:  # CVE-2025-8194: around it tarfile may go for ever
                        raise tarfile.ReadError("a file of less than no bytes")
                    name = member.name.removeprefix("./")
                    self.parts.pop(name, None)  # what a link replaces is not there any more
                    if member.isreg() and not member.issparse():
                        self.parts[name] = Part(name, path, member.offset_data, member.size)
        except (OSError, tarfile.TarError, RecursionError, ValueError) as error:
            if isinstance(error, InvalidManifestError):
                raise
            code = error.errno if isinstance(error, OSError) else None
            text = f"{path} cannot be read as a tar file that is not compressed: {str(error) or type(error).__name__}"
            raise StorageError(text, errno=code) from error

    def read(self, name: str, limit: int) -> bytes | None:
        """Return the content of a file, ``None``: there is none.

        Raises:
            StorageError: it is longer than ``limit`` bytes, or cannot be read.
        """
        part = self.parts.get(name)
        if part is None:
            return None
        if part.size > limit:
            raise StorageError(f"{name} in {self.path} is longer than {limit} bytes")
        with disk_errors("reading", self.path), open(self.path, "rb") as file:
            file.seek(part.start)
            return file.read(part.size)

    def fetch(self, descriptor: Descriptor, name: str, *, offset: int = 0, flow: Flow) -> FileBody:
        """Open a file from ``offset`` on, to be verified; ``SourceError``: it is not there, or has another size."""
        part = self.parts.get(name)
        if part is None or part.size != descriptor.size:
            raise SourceError(f"{self.path} does not have {descriptor.digest.short} with {descriptor.size} bytes")
        return FileBody(descriptor, self.path, self._disk, start=part.start).begin_at(offset, flow=flow)


def write_archive(path: str, parts: Iterable[Part], disk: Disk, *, durable: bool = False) -> None:
    """Write a tar file, whole or not at all; the same parts give the same bytes.

    Raises:
        StorageError: the disk refused, a part is shorter than it says, or a link is in its place.
    """
    temporary = f"{path}.{os.urandom(8).hex()}"
    with disk_errors("writing", path):
        fd = disk.create(temporary)
        try:
            with os.fdopen(fd, "wb", closefd=False) as file, tarfile.open(fileobj=file, mode="w|") as tar:
                for part in parts:
                    info = tarfile.TarInfo(part.name)
                    info.size, info.mode = part.size, 0o644
                    with os.fdopen(disk.open(part.path, follow=part.start > 0), "rb") as source:
                        source.seek(part.start)
                        tar.addfile(info, source)
            if durable:
                disk.fsync(fd)
            closing, fd = fd, -1
            disk.close(closing)
            disk.rename(temporary, path)
        finally:
            if fd >= 0:
                with suppress(OSError):
                    disk.close(fd)
            with suppress(OSError):
                disk.unlink(temporary)
