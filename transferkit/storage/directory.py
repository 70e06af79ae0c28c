"""A folder of blobs, flat: ``sha256-<hex>`` files, and everything unfinished in ``.partial/``.

A final name appears only by an atomic rename, after size and whole digest were checked.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.interfaces import Flow
from transferkit.errors import SourceError, StorageError, TransferKitError
from transferkit.storage.disk import Disk, disk_errors, is_file, remove_quietly, storage_error
from transferkit.storage.file_body import FileBody, open_body
from transferkit.storage.index import VerifiedIndex, boot_id
from transferkit.storage.ingest import Blobs, SmallIngest
from transferkit.storage.lock import BlobLock
from transferkit.storage.partial import Partial
from transferkit.storage.partials import PartialFile, find_partials, remove_partials
from transferkit.storage.space import Space
from transferkit.storage.state import State


class Directory:
    """The blobs in one folder, as a source and a target. Thread-safe, and safe next to other processes.

    ``close`` writes down what was verified, so that the next run need not hash it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        resume_threshold: int = 16 * 1024 * 1024,
        rehash: bool = False,
        durable: bool = False,
        disk: Disk | None = None,
    ) -> None:
        self.path = os.path.abspath(os.path.expanduser(os.fspath(path)))
        self._partial = f"{self.path}/.partial"
        self._resume_threshold = resume_threshold
        self._rehash = rehash
        self._disk = disk = disk or Disk()
        self._boot = boot_id()
        self._index = VerifiedIndex(f"{self._partial}/verified", disk=disk, boot=self._boot)
        self._blobs = Blobs(folder=self.path, index=self._index, disk=disk, durable=durable)
        self.space = Space(folder=self.path, partial=self._partial, resume_threshold=resume_threshold, disk=disk)

    def prepare(self) -> None:
        """Make the folder if need be; ``StorageError`` where it cannot be written to, or is no folder."""
        self._make_partial()
        if not os.access(self._partial, os.W_OK | os.X_OK):
            raise StorageError(f"{self._partial} is not writable; check the permissions", errno=errno.EACCES)

    def blob_path(self, digest: Digest) -> str:
        """Return where the content of ``digest`` is, or would be."""
        return f"{self.path}/{digest.file_name}"

    def _status(self, descriptor: Descriptor) -> os.stat_result | None:
        """Return the status of a blob's file, ``None`` where there is none of the right size."""
        try:
            status = self._disk.stat(f"{self.path}/{descriptor.digest.file_name}")
        except (OSError, ValueError):
            return None
        return status if status.st_size == descriptor.size and is_file(status) else None

    def has_file(self, descriptor: Descriptor) -> bool:
        """Tell whether a file of the right size is there, whatever is in it."""
        return self._status(descriptor) is not None

    def knows(self, descriptor: Descriptor) -> bool:
        """Tell, for one ``stat``, whether the content is here and was verified by an earlier run."""
        status = None if self._rehash else self._status(descriptor)
        return status is not None and self._index.knows(descriptor.digest, status)

    def exists(self, descriptor: Descriptor, *, flow: Flow) -> bool:
        """Tell whether the content is here; a file of the right size that nobody has verified is hashed first."""
        status = self._status(descriptor)
        if status is None or _is_wrongly_empty(descriptor):
            return False
        if not self._rehash and self._index.knows(descriptor.digest, status):
            return True
        path = self.blob_path(descriptor.digest)
        try:
            with open_body(self._disk, descriptor, path, verified=False) as body:
                while body.readinto(flow.buffer):
                    flow.check()
                status = body.status()
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
        """Open a blob's file. Where it is not known to be verified, what lies before ``offset`` is hashed first.

        Raises:
            SourceError: it is missing or of another size; while reading: it does not match its digest, or changed.
        """
        self.check_source(descriptor)
        path = self.blob_path(descriptor.digest)
        body = open_body(self._disk, descriptor, path, verified=self.knows(descriptor))
        try:
            body.seek(offset, flow=flow)
        except BaseException:
            body.close()
            raise
        body.offset = offset
        return body

    def ingest(self, descriptor: Descriptor, *, flow: Flow) -> SmallIngest | Partial | None:
        """Open a blob of any size, as ``Ingester`` has it: a temporary file for a small one, or the partial file."""
        name = descriptor.digest.file_name
        if descriptor.size and descriptor.size >= self._resume_threshold:
            return self._ingest_large(descriptor, f"{self._partial}/{name}", flow)
        if self.exists(descriptor, flow=flow):
            return None
        # No lock: a name that nobody else uses is enough, and costs a tenth.
        path = f"{self._partial}/{name}.{os.urandom(8).hex()}"
        try:
            try:
                fd = self._disk.create(path)
            except FileNotFoundError:
                self._make_partial()
                fd = self._disk.create(path)
        except OSError as error:
            raise storage_error(error, "creating", path) from error
        return SmallIngest(descriptor, self._blobs, disk=self._disk, fd=fd, path=path)

    def _ingest_large(self, descriptor: Descriptor, path: str, flow: Flow) -> Partial | None:
        self._make_partial()
        lock = BlobLock(self._partial, descriptor, self._disk)
        lock.acquire(flow)
        ingest = None
        try:
            # Whoever held the lock may have finished the blob, and may have been killed before the rest was removed.
            if self.exists(descriptor, flow=flow):
                for ending in ("", ".json", ".json.new"):
                    remove_quietly(self._disk, path + ending)
                lock.retire()
            else:
                ingest = Partial(descriptor, self._blobs, disk=self._disk, path=path, boot=self._boot, lock=lock)
        finally:
            if ingest is None:
                lock.release()
        return ingest

    def concerns_all(self, error: TransferKitError) -> bool:
        """Tell whether an error would be the same for every other blob: the disk will not get better for the next."""
        return isinstance(error, StorageError)

    def _make_partial(self) -> None:
        parents: list[str] = []
        folder = self._partial
        while not os.path.isdir(folder):
            folder = os.path.dirname(folder)
            parents.append(folder)
        with disk_errors("making the folder", self._partial):
            self._disk.make_folder(self._partial)
            for parent in parents if self._blobs.durable else ():
                self._disk.sync_folder(parent)
        if parents:
            with suppress(OSError):  # whoever may write to a shared folder may write here
                os.chmod(self._partial, stat.S_IMODE(os.stat(self.path).st_mode))
        # makedirs takes a link to a folder for one, and what is in there may be anybody's.
        if os.path.islink(self._partial):
            raise StorageError(f"{self._partial} is a symbolic link; remove it", errno=errno.ELOOP)

    def received(self, descriptor: Descriptor) -> int:
        """Return how many bytes of a blob an interrupted download has left that the next one will not fetch again."""
        path = f"{self._partial}/{descriptor.digest.file_name}"
        state = State(f"{path}.json", descriptor, disk=self._disk, boot=self._boot)
        return state.load().total if os.path.isfile(path) else 0

    def partials(self) -> list[PartialFile]:
        """Return what interrupted downloads have left, oldest first."""
        return find_partials(self._partial, disk=self._disk)

    def discard(self, digests: Iterable[str] | None, *, older_than: float) -> list[PartialFile]:
        """Remove what interrupted downloads have left, and return it."""
        return remove_partials(self._partial, digests, older_than=older_than, disk=self._disk)

    def close(self) -> None:
        """Write down what was verified; ``StorageError`` where a symbolic link or a folder is in the place of that."""
        self._index.flush()

    def __repr__(self) -> str:
        return f"<Directory {self.path}>"


def _is_wrongly_empty(descriptor: Descriptor) -> bool:
    """Tell whether zero bytes are promised under another digest than theirs: no read will ever find that out."""
    return descriptor.size == 0 and not descriptor.digest.matches(descriptor.digest.hasher())
