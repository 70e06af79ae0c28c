"""Small content on its way into a folder: a temporary file, hashed on the way, and its name once it is verified.

The words are containerd's: an *ingest* is open until *commit*, which checks and always closes, *keep* or *abort*.
"""

from __future__ import annotations

from dataclasses import dataclass

from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest, Hasher
from transferkit.content.interfaces import Flow
from transferkit.errors import DigestMismatchError, SizeMismatchError, VerificationError
from transferkit.storage.disk import Disk, close_quietly, remove_quietly, storage_error
from transferkit.storage.index import VerifiedIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class Blobs:
    """The verified files of a folder: who has checked a file gives it its name here. Thread-safe."""

    folder: str
    index: VerifiedIndex
    disk: Disk
    durable: bool

    def add(self, digest: Digest, fd: int, path: str) -> None:
        """Close ``fd``, whatever happens, give its file, now at ``path``, the name of ``digest``, and remember it.

        Raises:
            VerificationError: retryable: somebody has removed the file or its folder.
            StorageError: the disk refused.
        """
        disk, final = self.disk, f"{self.folder}/{digest.file_name}"
        try:
            try:
                if self.durable:
                    disk.fsync(fd)
                status = disk.fstat(fd)
            finally:
                disk.close(fd)  # before the rename: NFS and some quotas report a full disk here
            disk.rename(path, final)
            if self.durable:
                disk.sync_folder(self.folder)
        except FileNotFoundError as error:
            raise taken_away(path) from error
        except OSError as error:
            raise storage_error(error, "storing", final) from error
        self.index.add(digest, status, durable=self.durable)


class SmallIngest:
    """A temporary file that is written in order. One thread's; nothing of it outlives the attempt."""

    def __init__(self, descriptor: Descriptor, blobs: Blobs, *, disk: Disk, fd: int, path: str) -> None:
        self.descriptor = descriptor
        self.offset = 0
        self._blobs = blobs
        self._disk = disk
        self._fd = fd
        self._path = path
        self._hasher: Hasher = descriptor.digest.hasher()

    @property
    def in_place(self) -> int:
        return self.offset

    def missing_in(self, chunk: Chunk) -> list[Chunk]:
        return [Chunk(max(self.offset, chunk.start), chunk.end)] if self.offset <= chunk.end else []

    def write_at(self, offset: int, data: memoryview, *, final: bool = True) -> None:
        if offset != self.offset:
            raise ValueError(f"a small blob is written in order: at byte {self.offset}, not at {offset}")
        end = offset + len(data)
        if end > self.descriptor.size:
            raise too_long(self.descriptor)
        try:
            self._disk.pwrite(self._fd, data, offset)
        except OSError as error:
            raise storage_error(error, "writing", self._path) from error
        self._hasher.update(data)
        self.offset = end

    def record(self, start: int, end: int) -> None:
        """What was written is in place."""

    def follow(self, flow: Flow) -> None:
        """What was written is hashed."""

    def restart(self) -> None:
        self.offset = 0
        self._hasher = self.descriptor.digest.hasher()

    def commit(self, flow: Flow) -> None:
        try:
            check(self.descriptor, self.offset, self._hasher)
            fd, self._fd = self._fd, -1
            self._blobs.add(self.descriptor.digest, fd, self._path)
        except BaseException:
            self.abort()
            raise
        self._path = ""

    def keep(self) -> None:
        """A small blob is fetched again."""
        self.abort()

    def abort(self) -> None:
        fd, self._fd = self._fd, -1
        path, self._path = self._path, ""
        self.offset = 0
        close_quietly(self._disk, fd)
        if path:
            remove_quietly(self._disk, path)
            self.offset = 0


def check(wanted: Descriptor, hashed: int, hasher: Hasher) -> None:
    """Raise where the ``hashed`` bytes that ``hasher`` has seen are not the content."""
    if hashed != wanted.size:
        raise SizeMismatchError(f"{wanted.digest.short}: {hashed} bytes arrived, {wanted.size} were expected")
    if not wanted.digest.matches(hasher):
        raise DigestMismatchError(
            f"{wanted.digest.short}: the content that arrived has the digest "
            f"{wanted.digest.algorithm}:{hasher.hexdigest()[:12]}..."
        )


def too_long(wanted: Descriptor) -> SizeMismatchError:
    """Return the error of content that is longer than its descriptor says."""
    return SizeMismatchError(f"{wanted.digest.short}: more than the {wanted.size} bytes that were expected")


def taken_away(path: str) -> VerificationError:
    """Return the error of a file whose name has gone, or is another file's: it has to be begun again."""
    return VerificationError(f"{path} was moved, removed or replaced while it was filled", retryable=True)
