"""A blob's file on its way out: read from anywhere, hashed once, and given up where it changes meanwhile."""

from __future__ import annotations

import os

from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Flow
from transferkit.errors import SourceError
from transferkit.storage.disk import Disk, close_quietly, disk_errors
from transferkit.storage.index import version


class FileBody:
    """A blob's file, read in order and hashed on the way.

    The last bytes are handed out only after the whole digest was found right, and the file unchanged since it was
    opened. What was hashed once is not hashed again where a reader goes back.

    Raises:
        SourceError: it cannot be opened; while reading: it does not match its digest, or changed.
    """

    def __init__(self, descriptor: Descriptor, path: str, disk: Disk) -> None:
        self.offset = 0
        self._descriptor = descriptor
        self._path = path
        self._disk = disk
        self._hasher = descriptor.digest.hasher()
        self._hashed = 0
        self._at = 0
        try:
            self._fd = disk.open(path)
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror}", errno=error.errno) from error
        try:
            self._version = version(self.status())
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
        is_hashed = at < self._hashed
        with disk_errors("reading", self._path):
            count = self._disk.preadv(self._fd, buffer[: (self._hashed if is_hashed else size) - at], at)
        if not count:
            raise SourceError(f"{self._path} became shorter while it was read")
        self._at = at = at + count
        if not is_hashed:
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
        if version(self.status()) != self._version:
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

    def __init__(self, descriptor: Descriptor, path: str, disk: Disk) -> None:
        super().__init__(descriptor, path, disk)
        self._hashed = descriptor.size

    def fileno(self) -> int:
        return self._fd
