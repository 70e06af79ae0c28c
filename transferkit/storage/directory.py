"""A folder of blobs, flat: ``sha256-<hex>`` files, and everything unfinished in ``.partial/``.

A final name appears only by an atomic rename, after size and whole digest were checked.
"""

from __future__ import annotations

import errno
import os
from types import TracebackType

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest, Hasher
from transferkit.content.interfaces import Fetcher, Flow, Outcome
from transferkit.errors import SourceError, StorageError, VerificationError
from transferkit.storage.disk import Disk, disk_errors, is_file, storage_error
from transferkit.storage.index import VerifiedIndex, boot_id
from transferkit.storage.ingest import Ingest, receive, temporary_name
from transferkit.storage.partial import BlobLock, open_partial

PARTIAL = ".partial"
INDEX = "verified"


class FileBody:
    """A blob's file, read in order and, unless it is known to be verified, hashed on the way.

    The last bytes are handed out only after the whole digest was found right.
    """

    def __init__(self, fd: int, descriptor: Descriptor, path: str, disk: Disk, hasher: Hasher | None) -> None:
        self.offset = 0
        self._fd = fd
        self._descriptor = descriptor
        self._path = path
        self._disk = disk
        self._hasher = hasher
        self._at = 0

    def readinto(self, buffer: memoryview, /) -> int:
        left = self._descriptor.size - self._at
        if not left:
            return 0
        with disk_errors("reading", self._path):
            count = self._disk.preadv(self._fd, buffer[:left], self._at)
        if not count:
            raise SourceError(f"{self._path} became shorter while it was read")
        if self._hasher is not None:
            self._hasher.update(buffer[:count])
            if count == left and not self._descriptor.digest.matches(self._hasher):
                raise SourceError(
                    f"the content of {self._path} does not match its digest {self._descriptor.digest.short}"
                )
        self._at += count
        return count

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._disk.close(fd)

    def __enter__(self) -> FileBody:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


class Directory:
    """The blobs in one folder, as a source and a target. Thread-safe, and safe next to other processes.

    ``close`` writes down what was verified, so that the next run need not hash it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        resume_threshold: int = 64 * 1024 * 1024,
        rehash: bool = False,
        durable: bool = False,
        disk: Disk | None = None,
    ) -> None:
        self.path = os.path.abspath(os.path.expanduser(os.fspath(path)))
        self._partial = f"{self.path}/{PARTIAL}"
        self._resume_threshold = resume_threshold
        self._rehash = rehash
        self._durable = durable
        self._disk = disk or Disk()
        self._boot = boot_id()
        self._index = VerifiedIndex(f"{self._partial}/{INDEX}", disk=self._disk, boot=self._boot)

    def prepare(self) -> None:
        """Make the folder if need be, and see that it can be written to.

        Raises:
            StorageError: it is a file, or not writable.
        """
        self._make_partial()
        if not os.access(self._partial, os.W_OK | os.X_OK):
            raise StorageError(f"{self._partial} is not writable; check the permissions", errno=errno.EACCES)

    def blob_path(self, digest: Digest) -> str:
        """Return where the content of ``digest`` is, or would be."""
        return f"{self.path}/{digest.file_name}"

    def knows(self, descriptor: Descriptor) -> bool:
        """Tell, for one ``stat``, whether the content is here and was verified by an earlier run."""
        if self._rehash:
            return False
        try:
            status = self._disk.stat(self.blob_path(descriptor.digest))
        except (OSError, ValueError):
            return False
        return is_file(status) and status.st_size == descriptor.size and self._index.knows(descriptor.digest, status)

    def exists(self, descriptor: Descriptor, *, flow: Flow) -> bool:
        """Tell whether the content is here; a file of the right size that nobody has verified is hashed first."""
        path = self.blob_path(descriptor.digest)
        try:
            status = self._disk.stat(path)
        except OSError:
            return False
        if not is_file(status) or status.st_size != descriptor.size or _is_wrongly_empty(descriptor):
            return False
        if not self._rehash and self._index.knows(descriptor.digest, status):
            return True
        try:
            with self._read(descriptor, path, hashed=True) as body:
                while body.readinto(flow.buffer):
                    flow.check()
                status = self._disk.fstat(body.fileno())
        except SourceError:
            return False
        self._index.add(descriptor.digest, status, durable=False)
        return True

    def check_source(self, descriptor: Descriptor) -> None:
        """Check existence, kind and size of a file that is to be sent, without reading it.

        Raises:
            SourceError: it is missing, no file, or of another size.
        """
        path = self.blob_path(descriptor.digest)
        try:
            status = self._disk.stat(path)
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror}", errno=error.errno) from error
        if not is_file(status):
            raise SourceError(f"{path} is not a file")
        if status.st_size != descriptor.size:
            raise SourceError(f"{path} has {status.st_size} bytes, expected {descriptor.size}")
        if _is_wrongly_empty(descriptor):
            raise SourceError(f"{path} is empty, which is not the content of {descriptor.digest.short}")
        if not os.access(path, os.R_OK):
            raise SourceError(f"{path} is not readable; check the permissions", errno=errno.EACCES)

    def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Flow) -> FileBody:
        """Open a blob's file. It is read from its first byte whatever ``offset`` says, to be hashed.

        Raises:
            SourceError: it is missing or of another size; while reading: it does not match its digest.
        """
        self.check_source(descriptor)
        return self._read(descriptor, self.blob_path(descriptor.digest), hashed=not self.knows(descriptor))

    def _read(self, descriptor: Descriptor, path: str, *, hashed: bool) -> FileBody:
        try:
            fd = self._disk.open(path)
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror}", errno=error.errno) from error
        return FileBody(fd, descriptor, path, self._disk, descriptor.digest.hasher() if hashed else None)

    def push(self, descriptor: Descriptor, source: Fetcher, *, flow: Flow) -> Outcome:
        """Make one attempt to bring the content here, verified.

        Raises:
            VerificationError: it is not what the descriptor says.
            StorageError: the disk refused.
        """
        if self.exists(descriptor, flow=flow):
            flow.settle(descriptor.size)
            return Outcome.PRESENT
        if descriptor.size and descriptor.size >= self._resume_threshold:
            return self._push_large(descriptor, source, flow)
        with self._ingest(descriptor) as ingest:
            receive(ingest, source, flow)
            self._commit(ingest, flow)
        return Outcome.MOVED

    def _push_large(self, descriptor: Descriptor, source: Fetcher, flow: Flow) -> Outcome:
        self._make_partial()
        with BlobLock(self._partial, descriptor, self._disk, flow) as lock:
            # Whoever held the lock may have finished the blob.
            if self.exists(descriptor, flow=flow):
                lock.retire()
                flow.settle(descriptor.size)
                return Outcome.PRESENT
            ingest = open_partial(
                descriptor,
                disk=self._disk,
                folder=self._partial,
                final=self.blob_path(descriptor.digest),
                boot=self._boot,
                durable=self._durable,
                flow=flow,
            )
            with ingest:
                try:
                    if ingest.offset < descriptor.size:
                        receive(ingest, source, flow)
                    self._commit(ingest, flow)
                except VerificationError:
                    # An earlier run's bytes may be to blame: without them the next attempt finds out.
                    ingest.discard()
                    flow.settle(0)
                    raise
            lock.retire()
        return Outcome.MOVED

    def _commit(self, ingest: Ingest, flow: Flow) -> None:
        try:
            status = ingest.commit()
        except BaseException:
            flow.settle(0)
            raise
        self._index.add(ingest.descriptor.digest, status, durable=self._durable)

    def _ingest(self, descriptor: Descriptor) -> Ingest:
        path = temporary_name(self._partial, descriptor)
        try:
            try:
                fd = self._disk.create(path)
            except FileNotFoundError:
                self._make_partial()
                fd = self._disk.create(path)
        except OSError as error:
            raise storage_error(error, "creating", path) from error
        final = self.blob_path(descriptor.digest)
        return Ingest(descriptor, disk=self._disk, path=path, fd=fd, final=final, durable=self._durable)

    def _make_partial(self) -> None:
        with disk_errors("making the folder", self._partial):
            self._disk.make_folder(self._partial)
        # makedirs takes a link to a folder for one, and what is in there may be anybody's.
        if os.path.islink(self._partial):
            raise StorageError(f"{self._partial} is a symbolic link; remove it", errno=errno.ELOOP)

    def close(self) -> None:
        """Write down what was verified.

        Raises:
            StorageError: the disk refused; the blobs stand all the same.
        """
        self._index.flush()

    def __repr__(self) -> str:
        return f"<Directory {self.path}>"


def _is_wrongly_empty(descriptor: Descriptor) -> bool:
    """Tell whether zero bytes are promised under another digest than theirs: no read will ever find that out."""
    return descriptor.size == 0 and not descriptor.digest.matches(descriptor.digest.hasher())
