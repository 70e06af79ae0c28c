"""A blob's file on its way out: read from anywhere, hashed once, and given up where it changes meanwhile."""

from __future__ import annotations

from copy import copy

from transferkit.content.descriptor import Descriptor
from transferkit.content.flow import Closing, Flow
from transferkit.errors import SourceError
from transferkit.storage.disk import Disk, close_quietly, is_file
from transferkit.storage.disk_errors import disk_errors
from transferkit.storage.index import version


class FileBody(Closing):
    """A blob's file, hashed on the way, but nothing of it twice where a reader goes back.

    ``SourceError``: it is missing, of another size or digest, or has changed. Its last bytes come after the checks.
    With a ``start`` it is a part of the file from there on, as of an archive.
    """

    def __init__(
        self, descriptor: Descriptor, path: str, disk: Disk, *, follow: bool = True, start: int | None = None
    ) -> None:
        self.offset = 0
        self._start = start or 0
        self._descriptor = descriptor
        self._path = path
        self._disk = disk
        self._hasher = descriptor.digest.hasher()
        self._hashed = 0
        self._at = 0
        self._fd = -1
        try:
            self._fd = disk.open(path, follow=follow)
            self.status = disk.fstat(self._fd)
            if not is_file(self.status):
                raise SourceError(f"{path} is not a file")
            if start is None and self.status.st_size != descriptor.size:
                raise SourceError(f"{path} has {self.status.st_size} bytes, expected {descriptor.size}")
            if not descriptor.size and not descriptor.digest.matches(self._hasher):  # no read would find that out
                raise SourceError(f"{path} is empty, which is not the content of {descriptor.digest.short}")
        except OSError as error:
            self.close()
            if isinstance(error, SourceError):
                raise
            raise SourceError(f"{path} cannot be read: {error.strerror}", errno=error.errno) from error

    @property
    def length(self) -> int | None:
        return self._descriptor.size - self.offset

    def readinto(self, buffer: memoryview, /) -> int:
        wanted, size, at = self._descriptor, self._descriptor.size, self._at
        if at == size:
            return 0
        is_hashed = at < self._hashed
        with disk_errors("reading", self._path):
            count = self._disk.preadv(self._fd, buffer[: (self._hashed if is_hashed else size) - at], self._start + at)
        if not count:
            raise SourceError(f"{self._path} became shorter while it was read")
        self._at = at = at + count
        if not is_hashed:
            self._hasher.update(buffer[:count])
            self._hashed = at
            if at == size and not wanted.digest.matches(self._hasher):
                raise SourceError(f"the content of {self._path} does not match its digest {wanted.digest.short}")
        if at == size:
            self.confirm()
        return count

    def seek(self, offset: int, *, flow: Flow) -> None:
        if offset > self._hashed:
            self._at = self._hashed
            while self._at < offset:
                flow.check()
                self.readinto(flow.buffer[: offset - self._at])
        self._at = offset

    def part(self, offset: int) -> FileBody:
        twin = copy(self)
        twin._fd = -1
        with disk_errors("opening", self._path):
            twin._fd = self._disk.duplicate(self._fd)
        twin._hashed = self._descriptor.size  # by whom it is a part of
        twin._at = twin.offset = offset
        return twin

    def begin_at(self, offset: int, *, flow: Flow) -> FileBody:
        """Let the body begin at ``offset``, and return it; closed where that fails."""
        try:
            self.seek(offset, flow=flow)
        except BaseException:
            self.close()
            raise
        self.offset = offset
        return self

    def confirm(self) -> None:
        with disk_errors("reading", self._path):
            status = self._disk.fstat(self._fd)
        if version(status) != version(self.status):
            raise SourceError(f"{self._path} changed while it was read")

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        close_quietly(self._disk, fd)


class VerifiedFileBody(FileBody):
    """A file that is known to be verified: the kernel may send it, without a look at its bytes."""

    def __init__(self, descriptor: Descriptor, path: str, disk: Disk, *, follow: bool = True) -> None:
        super().__init__(descriptor, path, disk, follow=follow)
        self._hashed = descriptor.size

    def fileno(self) -> int:
        return self._fd
