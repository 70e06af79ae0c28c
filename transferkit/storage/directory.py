"""A folder of blobs, flat: ``sha256-<hex>`` files, and everything unfinished in ``.partial/``.

A final name appears only by an atomic rename, after size and whole digest were checked.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

from transferkit.content.descriptor import MAX_SIZE, Descriptor
from transferkit.content.digest import Digest
from transferkit.content.interfaces import Flow, Ingest
from transferkit.errors import OutOfSpaceError, SourceError, StorageError, TransferKitError
from transferkit.forks import importing
from transferkit.report import human_bytes
from transferkit.storage.disk import Disk, disk_errors, is_file, remove_quietly, storage_error
from transferkit.storage.file_body import FileBody, VerifiedFileBody
from transferkit.storage.index import VerifiedIndex
from transferkit.storage.ingest import SmallIngest
from transferkit.storage.journal import Journal


class Directory:
    """The blobs in one folder, as a source and a target. Thread-safe, and safe next to other processes."""

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
        self.unfinished = f"{self.path}/.partial"
        self.disk = disk = disk or Disk()
        self._resume_threshold = resume_threshold
        self._rehash = rehash
        self._index = VerifiedIndex(self.path, disk, durable=durable)

    def prepare(self, descriptors: Iterable[Descriptor]) -> None:
        """Make the folder, and see that the blobs will fit that have no file of the right size; there may be none.

        Raises:
            OutOfSpaceError: they will not fit; the message has the figures.
            StorageError: the folder cannot be written to, or is no folder.
        """
        missing = [descriptor for descriptor in descriptors if self._status(descriptor) is None]
        if not missing:
            return  # the folder may be one that can only be read
        if any(descriptor.size >= self._resume_threshold for descriptor in missing):
            with importing:
                import transferkit.storage.partial  # noqa: F401 - now: the workers may be out of descriptors
        self._make_unfinished()
        if not os.access(self.unfinished, os.W_OK | os.X_OK):
            raise StorageError(f"{self.unfinished} is not writable; check the permissions", errno=errno.EACCES)
        needed, free = self.room_for(missing)
        if needed > free:
            raise OutOfSpaceError(
                f"{self.path} has {human_bytes(free)} left, and {human_bytes(needed)} are needed: free some, and "
                "run it again; nothing was fetched",
                errno=errno.ENOSPC,
            )

    def room_for(self, descriptors: Iterable[Descriptor]) -> tuple[int, int]:
        """Return how many bytes these blobs will still take on the disk, and how many are free, where that is known."""
        needed = 0
        for descriptor in descriptors:
            needed += descriptor.size
            if descriptor.size >= self._resume_threshold:
                with suppress(OSError):
                    status = self.disk.stat(f"{self.unfinished}/{descriptor.digest.file_name}")
                    needed -= min(descriptor.size, status.st_blocks * 512)
        folder = next(str(path) for path in Path(self.unfinished).parents if os.path.isdir(path))
        try:
            return needed, self.disk.free(folder)
        except OSError as error:
            if error.errno == errno.EIO:
                raise storage_error(error, "asking for the free space of", folder) from error
            return needed, MAX_SIZE

    def blob_path(self, digest: Digest) -> str:
        """Return where the content of ``digest`` is, or would be."""
        return f"{self.path}/{digest.file_name}"

    def _status(self, descriptor: Descriptor) -> os.stat_result | None:
        """Return the status of a blob's file, ``None`` where there is none of the right size."""
        try:
            status = self.disk.stat(f"{self.path}/{descriptor.digest.file_name}")
        except (OSError, ValueError):
            return None
        return status if status.st_size == descriptor.size and is_file(status) else None

    def knows(self, descriptor: Descriptor) -> bool:
        """Tell, for one ``stat``, whether the content is here and was verified by an earlier run."""
        status = None if self._rehash else self._status(descriptor)
        return status is not None and self._index.knows(descriptor.digest, status)

    def exists(self, descriptor: Descriptor, *, flow: Flow) -> bool:
        """Tell whether the content is here; a file of the right size that nobody has verified is hashed first."""
        status = self._status(descriptor)
        if status is None:
            return False
        if not self._rehash and self._index.knows(descriptor.digest, status):
            return True
        try:
            with FileBody(descriptor, self.blob_path(descriptor.digest), self.disk) as body:
                while body.readinto(flow.buffer):
                    flow.check()
        except SourceError:
            return False
        self._index.add(descriptor.digest, body.status, durable=False)
        return True

    def check_source(self, descriptor: Descriptor) -> None:
        """See that a file that is to be sent can be read and has the right size; ``SourceError`` where not."""
        FileBody(descriptor, self.blob_path(descriptor.digest), self.disk).close()

    def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Flow) -> FileBody:
        """Open a blob's file; of one that is not known to be verified, what lies before ``offset`` is hashed first."""
        kind = VerifiedFileBody if self.knows(descriptor) else FileBody
        with ExitStack() as stack:
            body = stack.enter_context(kind(descriptor, self.blob_path(descriptor.digest), self.disk))
            body.seek(offset, flow=flow)
            body.offset = offset
            stack.pop_all()
        return body

    def ingest(self, descriptor: Descriptor, *, flow: Flow) -> Ingest | None:
        """Open a blob of any size, as ``Ingester`` has it: a temporary file for a small one, or the partial file."""
        path = f"{self.unfinished}/{descriptor.digest.file_name}"
        if descriptor.size and descriptor.size >= self._resume_threshold:
            return self._ingest_large(descriptor, path, flow)
        if self.exists(descriptor, flow=flow):
            return None
        path = f"{path}.{os.urandom(8).hex()}"  # a name that nobody else uses costs a tenth of a lock
        try:
            fd = self.disk.create(path)
        except FileNotFoundError:
            self._make_unfinished()
            with disk_errors("creating", path):
                fd = self.disk.create(path)
        except OSError as error:
            raise storage_error(error, "creating", path) from error
        return SmallIngest(descriptor, self._index, path, fd)

    def _ingest_large(self, descriptor: Descriptor, path: str, flow: Flow) -> Ingest | None:
        from transferkit.storage.lock import BlobLock  # here: its import is a tenth of what a start takes
        from transferkit.storage.partial import Partial

        lock = BlobLock(f"{path}.lock", self.disk)
        with ExitStack() as stack:
            stack.callback(lock.release)
            try:
                self._make_unfinished()
                lock.acquire(flow)
            except StorageError:
                if self.exists(descriptor, flow=flow):
                    return None  # a folder that can only be read may have everything
                raise
            # Whoever held the lock may have finished the blob, and may have been killed before the rest was removed.
            if not self.exists(descriptor, flow=flow):
                ingest = Partial(descriptor, self._index, path, lock)
                stack.pop_all()
                return ingest
            for ending in ("", ".json", ".json.new", ".lock"):
                remove_quietly(self.disk, path + ending)
        return None

    def concerns_all(self, error: TransferKitError) -> bool:
        return isinstance(error, StorageError)  # the disk will not get better for the next blob

    def _make_unfinished(self) -> None:
        missing = [path for path in (Path(self.unfinished), *Path(self.unfinished).parents) if not os.path.isdir(path)]
        with disk_errors("making the folder", self.unfinished):
            self.disk.make_folder(self.unfinished)
            for path in missing if self._index.durable else ():
                self.disk.sync_folder(str(path.parent))
        if missing:
            with suppress(OSError):  # whoever may write to a shared folder may write here
                os.chmod(self.unfinished, stat.S_IMODE(os.stat(self.path).st_mode))
        # makedirs takes a link to a folder for one, and what is in there may be anybody's.
        if os.path.islink(self.unfinished):
            raise StorageError(f"{self.unfinished} is a symbolic link; remove it", errno=errno.ELOOP)

    def received(self, descriptor: Descriptor) -> int:
        """Return how many bytes of a blob an interrupted download has left that the next one will not fetch again."""
        if descriptor.size < self._resume_threshold:
            return 0
        path = f"{self.unfinished}/{descriptor.digest.file_name}"
        return Journal(f"{path}.json", descriptor, self.disk).load().total if os.path.isfile(path) else 0

    def close(self) -> None:
        """Write down what was verified; ``StorageError`` where a symbolic link or a folder is in the place of that."""
        self._index.flush()

    def __repr__(self) -> str:
        return f"<Directory {self.path}>"
