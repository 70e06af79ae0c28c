"""A blob's file on its way out: read from anywhere, hashed once, and given up where it changes meanwhile."""

from __future__ import annotations

import os

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Hasher
from transferkit.content.interfaces import Flow
from transferkit.errors import SourceError
from transferkit.storage.disk import Disk, close_quietly, disk_errors


class FileBody:
    """A blob's file, read in order and, unless it is known to be verified, hashed on the way.

    The last bytes are handed out only after the whole digest was found right, and the file unchanged since it was
    opened. What was hashed once is not hashed again where a reader goes back.
    """

    def __init__(self, fd: int, descriptor: Descriptor, path: str, disk: Disk, hasher: Hasher | None) -> None:
        self.offset = 0
        self._fd = fd
        self._descriptor = descriptor
        self._path = path
        self._disk = disk
        self._hasher = hasher
        self._at = 0
        self._hashed = 0 if hasher is not None else descriptor.size
        try:
            self._began = _version(self.status())
        except BaseException:
            self.close()
            raise

    @property
    def length(self) -> int | None:
        return self._descriptor.size - self.offset

    def readinto(self, buffer: memoryview, /) -> int:
        size, at = self._descriptor.size, self._at
        if at == size:
            return 0
        known = at < self._hashed
        with disk_errors("reading", self._path):
            count = self._disk.preadv(self._fd, buffer[: (self._hashed if known else size) - at], at)
        if not count:
            raise SourceError(f"{self._path} became shorter while it was read")
        self._at = at = at + count
        if not known and self._hasher is not None:
            self._hasher.update(buffer[:count])
            self._hashed = at
            if at == size and not self._descriptor.digest.matches(self._hasher):
                raise SourceError(
                    f"the content of {self._path} does not match its digest {self._descriptor.digest.short}"
                )
        if at == size:
            self.confirm()
        return count

    def seek(self, offset: int, *, flow: Flow) -> None:
        """Let the next read begin at ``offset``; what lies before, and was not hashed yet, is hashed first."""
        if offset > self._hashed:
            self._at = self._hashed
            while self._at < offset:
                flow.check()
                self.readinto(flow.buffer[: offset - self._at])
        self._at = offset

    def confirm(self) -> None:
        """Raise ``SourceError`` where the file is not any more what it was when it was opened."""
        if _version(self.status()) != self._began:
            raise SourceError(f"{self._path} changed while it was read")

    def status(self) -> os.stat_result:
        with disk_errors("reading", self._path):
            return self._disk.fstat(self._fd)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        close_quietly(self._disk, fd)

    def __enter__(self) -> FileBody:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class VerifiedFileBody(FileBody):
    """A file that is known to be verified: the kernel may send it, without a look at its bytes."""

    def fileno(self) -> int:
        return self._fd


def open_body(disk: Disk, descriptor: Descriptor, path: str, *, verified: bool) -> FileBody:
    """Open a blob's file for reading. Raises ``SourceError`` where it cannot be opened."""
    try:
        fd = disk.open(path)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}", errno=error.errno) from error
    if verified:
        return VerifiedFileBody(fd, descriptor, path, disk, None)
    return FileBody(fd, descriptor, path, disk, descriptor.digest.hasher())


def _version(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns
