"""A folder of blobs, flat: ``sha256-<hex>`` files, and everything unfinished in ``.partial/``.

A final name appears only by an atomic rename, after size and whole digest were checked.
"""

from __future__ import annotations

import errno
import itertools
import os
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

from transferkit.content.descriptor import MAX_SIZE, AnyBlob, Descriptor
from transferkit.content.digest import Digest
from transferkit.content.flow import Flow
from transferkit.content.interfaces import Ingest
from transferkit.errors import OutOfSpaceError, SourceError, StorageError, TransferKitError
from transferkit.report import human_bytes
from transferkit.storage.disk import Disk, is_file, remove_quietly
from transferkit.storage.disk_errors import can_do_without, disk_errors, storage_error
from transferkit.storage.file_body import FileBody, VerifiedFileBody
from transferkit.storage.folder import OpenFolder
from transferkit.storage.index import FLAT, VerifiedIndex
from transferkit.storage.ingest import FileIngest, SmallIngest
from transferkit.storage.journal import Journal
from transferkit.storage.listing import listed
from transferkit.storage.lock import BlobLock, growth
from transferkit.storage.pace import Pace
from transferkit.storage.partial import Partial
from transferkit.storage.unfinished import make_unfinished

_GONE = (errno.ENOENT, errno.ESTALE)  # what is said of files in a folder that was removed, here and on NFS


class Directory:
    """The blobs in one folder, as a source and a target. Thread-safe, and safe next to other processes."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        resume_threshold: int = 16 * 1024 * 1024,
        rehash: bool = False,
        durable: bool = False,
        follow_links: bool = True,
        names: Callable[[Digest], str] = FLAT,
        keep: bool = False,
        disk: Disk | None = None,
    ) -> None:
        self.path = os.path.abspath(os.path.expanduser(os.fspath(path)))
        self.unfinished = f"{self.path}/.partial"
        self.disk = disk = disk or Disk()
        self.resume_threshold = resume_threshold
        self._rehash = rehash
        self._is_flat = names is FLAT
        self._follow_links = follow_links
        self._index = VerifiedIndex(self.path, disk, durable=durable, names=names, keep=keep)
        self._pace = Pace()
        self._token = os.urandom(4).hex()
        self._numbers = itertools.count()
        self._folder: OpenFolder | None = None
        self._opening = threading.Lock()
        self._filled: weakref.WeakValueDictionary[Digest, FileIngest] | None = None
        self._alone: dict[Digest, str] = {}
        """Blobs whose lock somebody has who does nothing, and how the file is called that is filled meanwhile."""

    def prepare(self, descriptors: Iterable[Descriptor]) -> None:
        """Make the folder, and see that the blobs will fit that have no file of the right size; there may be none.

        Raises:
            OutOfSpaceError: they will not fit; the message has the figures.
            StorageError: the folder cannot be written to, or is no folder.
        """
        descriptors = list(descriptors)
        there = {descriptor for descriptor in self._listed(descriptors) if self._status(descriptor) is not None}
        missing = [descriptor for descriptor in descriptors if descriptor not in there] if there else descriptors
        if not missing:
            return  # the folder may be one that can only be read
        self._open_folder(self._folder)
        needed, free = self.room_for(missing)
        if needed > free:
            raise OutOfSpaceError(
                f"{self.path} has {human_bytes(free)} left, and {human_bytes(needed)} are needed: free some, and "
                "run it again; nothing was fetched",
                errno=errno.ENOSPC,
            )

    def room_for(self, descriptors: Collection[Descriptor]) -> tuple[int, int]:
        """Return how many bytes these blobs will still take on the disk, and how many are free, where that is known."""
        needed = sum(descriptor.size for descriptor in descriptors)
        received = self.received(descriptors)
        for descriptor in descriptors:
            if descriptor.size >= self.resume_threshold:
                with suppress(OSError):
                    status = self.disk.stat(f"{self.unfinished}/{descriptor.digest.file_name}")
                    # Where files are compressed they take less than they have; and some file systems say 0 of all.
                    there = max(status.st_blocks * 512, received.get(descriptor.digest, 0))
                    needed -= min(descriptor.size, there)
        folder = next(str(path) for path in Path(self.unfinished).parents if os.path.isdir(path))
        try:
            return needed, self.disk.free(folder)
        except OSError as error:
            if not can_do_without("free", error):
                raise storage_error(error, "asking for the free space of", folder) from error
            return needed, MAX_SIZE

    @property
    def index(self) -> VerifiedIndex:
        """What is known to be verified."""
        return self._index

    def blob_path(self, digest: Digest) -> str:
        """Return where the content of ``digest`` is, or would be."""
        return self._index.path_of(digest)

    @property
    def _stat(self) -> Callable[[str], os.stat_result]:
        return self.disk.stat if self._follow_links else self.disk.lstat

    def _status(self, descriptor: Descriptor) -> os.stat_result | None:
        """Return the status of a blob's file, ``None`` where there is none of the right size."""
        try:
            status = self._stat(self.blob_path(descriptor.digest))
        except (OSError, ValueError):
            return None
        return status if status.st_size == descriptor.size and is_file(status) else None

    def has(self, descriptor: Descriptor) -> bool:
        """Tell, for one ``stat``, whether there is a file of the right name and size; nobody may have verified it."""
        return self._status(descriptor) is not None

    def knows(self, descriptor: Descriptor) -> bool:
        """Tell, for one ``stat`` at most, whether the content is here and was verified by an earlier run."""
        is_possible = not self._rehash and self._index.has_row(descriptor.digest)
        status = self._status(descriptor) if is_possible else None
        return status is not None and self._index.knows(descriptor.digest, status)

    def believes(self, digest: Digest, status: os.stat_result) -> bool:
        """Tell whether the file with this status, whatever its name, was verified to be the content of ``digest``."""
        return not self._rehash and self._index.knows(digest, status)

    def known(self, blobs: Iterable[AnyBlob]) -> set[Digest]:
        """Return the digests of those blobs that are here and were verified by an earlier run.

        That costs no listing, and a ``stat`` for each of them that the index has: what was replaced is seen by that.
        """
        return set() if self._rehash else self._index.known(blobs, self._stat)

    def _listed(self, descriptors: Sequence[Descriptor]) -> Sequence[Descriptor]:
        return listed(self.path, descriptors) if self._is_flat else descriptors

    def exists(self, descriptor: Descriptor, *, flow: Flow) -> bool:
        """Tell whether the content is here; a file of the right size that nobody has verified is hashed first."""
        status = self._status(descriptor)
        if status is None:
            return False
        if not self._rehash and self._index.knows(descriptor.digest, status):
            return True
        try:
            with self._open_body(FileBody, descriptor) as body:
                while body.readinto(flow.buffer):
                    flow.check()
        except SourceError:
            return False
        self._index.add(descriptor.digest, body.status, durable=False)
        return True

    def check_source(self, descriptor: Descriptor) -> None:
        """See that a file that is to be sent can be read and has the right size; ``SourceError`` where not."""
        self._open_body(FileBody, descriptor).close()

    def _open_body(self, kind: type[FileBody], descriptor: Descriptor) -> FileBody:
        return kind(descriptor, self.blob_path(descriptor.digest), self.disk, follow=self._follow_links)

    def remember(self, digest: Digest, status: os.stat_result, *, durable: bool = False) -> None:
        """Take in that a file was found to be right; ``status`` is that of the file under its final name.

        ``durable``: its data was synced, so this counts after a power cut as well.
        """
        self._index.add(digest, status, durable=durable)

    @contextmanager
    def renamed(self, digest: Digest) -> Iterator[None]:
        """Go on believing a blob's file, if it was verified, over what changes nothing but its names and its mode."""
        before = None
        with suppress(OSError):
            before = self.disk.lstat(self.blob_path(digest))
        yield
        with suppress(OSError):
            if before is not None:
                self._index.renew(digest, before, self.disk.lstat(self.blob_path(digest)))

    def forget(self, digest: Digest) -> None:
        """Take in that a file was found to be wrong, whatever was known of it."""
        self._index.forget(digest)

    def check_place(self) -> None:
        """See that the folder is not a symbolic link, where links are not followed; StorageError: it is one."""
        if not self._follow_links and os.path.islink(self.path):
            raise StorageError(f"{self.path} is a symbolic link, which is not followed; remove it", errno=errno.ELOOP)

    def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Flow) -> FileBody:
        """Open a blob's file; of one that is not known to be verified, what lies before ``offset`` is hashed first."""
        kind = VerifiedFileBody if self.knows(descriptor) else FileBody
        return self._open_body(kind, descriptor).begin_at(offset, flow=flow)

    def ingest(self, descriptor: Descriptor, *, flow: Flow) -> Ingest | None:
        """Open a blob of any size, as ``Ingester`` has it: a temporary file for a small one, or the partial file."""
        if descriptor.size and descriptor.size >= self.resume_threshold:
            return self._ingest_large(descriptor, flow)
        return None if self.exists(descriptor, flow=flow) else self._begin(descriptor)

    def store(self, descriptor: Descriptor, content: memoryview, *, flow: Flow) -> None:
        """Make a small content that is all here visible, as ``Storer`` has it."""
        ingest = self._begin(descriptor)
        try:
            ingest.write_at(0, content)
            ingest.commit(flow)
        except BaseException:
            ingest.abort()
            raise

    def _begin(self, descriptor: Descriptor) -> SmallIngest:
        folder = self._folder or self._open_folder(None)
        name = f"{descriptor.digest.file_name}.{self._token}{next(self._numbers):08x}"  # a tenth of what a lock costs
        try:
            fd = self.disk.create(folder.prefix + name, folder.fd)
        except OSError as error:
            path = f"{self.unfinished}/{name}"
            if error.errno not in _GONE and not isinstance(error, FileExistsError):
                raise storage_error(error, "creating", path) from error
            self._token = os.urandom(4).hex()  # a forked child may have gone on with the same one
            name = f"{descriptor.digest.file_name}.{self._token}{next(self._numbers):08x}"
            folder = self._open_folder(folder)
            with disk_errors("creating", path):
                fd = self.disk.create(folder.prefix + name, folder.fd)
        ingest = SmallIngest(descriptor, self._index, folder, name, fd)
        if self._filled is not None:
            self._filled[descriptor.digest] = ingest
        return ingest

    def share(self) -> None:
        """Let others read what is begun from now on while it is filled (``storage.arriving``); few need that."""
        if self._filled is None:
            self._filled = weakref.WeakValueDictionary()

    def filled(self, digest: Digest) -> FileIngest | None:
        """Return what a thread of this process fills, or has filled at last, with the content of ``digest``."""
        return None if self._filled is None else self._filled.get(digest)

    def _ingest_large(self, descriptor: Descriptor, flow: Flow) -> Ingest | None:
        try:
            folder = self._folder
            if folder is None or not folder.is_current:
                folder = self._open_folder(folder)
            try:
                return self._open_large(descriptor, folder, flow)
            except StorageError as error:
                if error.errno not in _GONE:
                    raise
                return self._open_large(descriptor, self._open_folder(folder), flow)
        except StorageError:
            if self.exists(descriptor, flow=flow):
                return None  # a folder that can only be read may have everything
            raise

    def _open_large(self, descriptor: Descriptor, folder: OpenFolder, flow: Flow) -> Ingest | None:
        digest, name = descriptor.digest, descriptor.digest.file_name
        own = f"{name}.{self._alone.get(digest) or os.urandom(8).hex()}"
        lock = BlobLock(folder, f"{name}.lock")
        with ExitStack() as stack:
            stack.callback(lock.release)
            look = partial(growth, folder, name, descriptor.size, flow)
            lock.acquire(flow, look, patient=digest not in self._alone)
            # Whoever held the lock may have finished the blob, and may have been killed before the rest was removed.
            if not self.exists(descriptor, flow=flow):
                if lock.is_others:
                    self._alone[digest] = own.rpartition(".")[2]
                ingest = Partial(descriptor, self._index, folder, lock, kept=name, own=own, pace=self._pace)
                if self._filled is not None:
                    self._filled[digest] = ingest
                stack.pop_all()
                return ingest
            for ending in ("", ".json", ".json.new") if not lock.is_others else ():
                remove_quietly(self.disk, folder.at(name + ending), folder.fd)
            lock.remove()
        return None

    def open_unfinished(self) -> OpenFolder:
        """Return ``.partial``, made anew where it has gone; StorageError: it cannot be made."""
        folder = self._folder
        return folder if folder is not None and folder.is_current else self._open_folder(folder)

    def concerns_all(self, error: TransferKitError) -> bool:
        return isinstance(error, StorageError)  # the disk will not get better for the next blob

    def _open_folder(self, gone: OpenFolder | None) -> OpenFolder:
        """Make ``.partial`` where there is none, and open it in the place of one that has ``gone``."""
        with self._opening:
            folder = self._folder
            if folder is None or folder is gone:
                self.check_place()
                folder = make_unfinished(self.path, self.unfinished, self.disk, durable=self._index.durable)
                self._folder = folder
            return folder

    def received(self, descriptors: Iterable[Descriptor]) -> dict[Digest, int]:
        """Return what interrupted downloads have left, in bytes, which the next one will not fetch again."""
        received = {}
        with suppress(OSError), ExitStack() as stack:
            for descriptor in (each for each in descriptors if each.size >= self.resume_threshold):
                if os.path.isfile(f"{self.unfinished}/{descriptor.digest.file_name}"):
                    folder = self._folder or stack.enter_context(OpenFolder(self.unfinished, self.disk))
                    journal = Journal(folder, f"{descriptor.digest.file_name}.json", descriptor)
                    journal.load()
                    received[descriptor.digest] = journal.ranges.total + journal.unverified.total
        return received

    def flush(self) -> None:
        """Write down what was verified; StorageError as for ``close``."""
        self._index.close()

    def close(self) -> None:
        """Write down what was verified; ``StorageError`` where a symbolic link or a folder is in the place of that."""
        folder, self._folder = self._folder, None
        with folder or nullcontext():
            self._index.close()

    def __repr__(self) -> str:
        return f"<Directory {self.path}>"
