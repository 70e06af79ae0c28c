"""A folder of blobs, flat: ``sha256-<hex>`` files, and everything unfinished in ``.partial/``.

A final name appears only by an atomic rename, after size and whole digest were checked.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from types import TracebackType

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest, Hasher
from transferkit.content.interfaces import Fetcher, Flow, Outcome
from transferkit.errors import DigestMismatchError, OutOfSpaceError, SourceError, StorageError
from transferkit.report import human_bytes
from transferkit.storage.disk import Disk, disk_errors, is_file, remove_quietly, storage_error
from transferkit.storage.index import VerifiedIndex, boot_id
from transferkit.storage.ingest import Ingest, receive, temporary_name
from transferkit.storage.leftovers import PartialFile, find_partials, remove_partials
from transferkit.storage.lock import BlobLock
from transferkit.storage.partial import Partial, PartialIngest
from transferkit.storage.state import State

PARTIAL = ".partial"
INDEX = "verified"


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
        """See that the file is what it was when it was opened.

        Raises:
            SourceError: it is not.
        """
        if _version(self.status()) != self._began:
            raise SourceError(f"{self._path} changed while it was read")

    def status(self) -> os.stat_result:
        with disk_errors("reading", self._path):
            return self._disk.fstat(self._fd)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        try:
            if fd >= 0:
                self._disk.close(fd)
        except OSError:
            pass  # nothing was written, and what was read is judged by its hash

    def __enter__(self) -> FileBody:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


class VerifiedFileBody(FileBody):
    """A file that is known to be verified: the kernel may send it, without a look at its bytes."""

    def __init__(self, fd: int, descriptor: Descriptor, path: str, disk: Disk) -> None:
        super().__init__(fd, descriptor, path, disk, None)

    def fileno(self) -> int:
        return self._fd


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
        body = self._read(descriptor, self.blob_path(descriptor.digest), hashed=not self.knows(descriptor))
        try:
            body.seek(offset, flow=flow)
        except BaseException:
            body.close()
            raise
        body.offset = offset
        return body

    def _read(self, descriptor: Descriptor, path: str, *, hashed: bool) -> FileBody:
        try:
            fd = self._disk.open(path)
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror}", errno=error.errno) from error
        if hashed:
            return FileBody(fd, descriptor, path, self._disk, descriptor.digest.hasher())
        return VerifiedFileBody(fd, descriptor, path, self._disk)

    def push(self, descriptor: Descriptor, source: Fetcher, *, flow: Flow) -> Outcome:
        """Make one attempt to bring the content here, verified.

        Raises:
            VerificationError: it is not what the descriptor says.
            StorageError: the disk refused.
        """
        if self.exists(descriptor, flow=flow):
            flow.counter.set_position(descriptor.size)
            return Outcome.PRESENT
        if descriptor.size and descriptor.size >= self._resume_threshold:
            return self._push_large(descriptor, source, flow)
        with self._ingest(descriptor) as ingest:
            receive(ingest, source, flow)
            self._commit(ingest, flow)
        return Outcome.MOVED

    def _push_large(self, descriptor: Descriptor, source: Fetcher, flow: Flow) -> Outcome:
        partial = self.ingest(descriptor, flow=flow)
        if partial is None:
            flow.counter.set_position(descriptor.size)
            return Outcome.PRESENT
        try:
            ingest = PartialIngest(partial, flow)
            if ingest.offset < descriptor.size:
                receive(ingest, source, flow)
            partial.commit(flow)
        except DigestMismatchError:
            # An earlier run's bytes may be to blame: without them the next attempt finds out.
            partial.discard()
            flow.counter.set_position(0)
            raise
        finally:
            partial.close()
        return Outcome.MOVED

    def ingest(self, descriptor: Descriptor, *, flow: Flow) -> Partial | None:
        """Open the partial file of a large blob, to be filled and committed; ``None``: the content is here.

        Waits while another process, or thread, is at the same blob.

        Raises:
            StorageError: the disk refused.
        """
        self._make_partial()
        lock = BlobLock(self._partial, descriptor, self._disk)
        lock.acquire(flow)
        try:
            # Whoever held the lock may have finished the blob.
            if self.exists(descriptor, flow=flow):
                # So may have somebody who was killed before all the rest was removed.
                for name in ("", ".json", ".json.new"):
                    remove_quietly(self._disk, f"{self._partial}/{descriptor.digest.file_name}{name}")
                lock.retire()
                lock.release()
                return None
            return Partial(
                descriptor,
                disk=self._disk,
                path=f"{self._partial}/{descriptor.digest.file_name}",
                final=self.blob_path(descriptor.digest),
                boot=self._boot,
                durable=self._durable,
                lock=lock,
                remember=lambda status: self._index.add(descriptor.digest, status, durable=self._durable),
            )
        except BaseException:
            lock.release()
            raise

    def _commit(self, ingest: Ingest, flow: Flow) -> None:
        try:
            status = ingest.commit()
        except BaseException:
            flow.counter.set_position(0)
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

    def has_file(self, descriptor: Descriptor) -> bool:
        """Tell whether a file of the right size is there, whatever is in it."""
        try:
            status = self._disk.stat(self.blob_path(descriptor.digest))
        except (OSError, ValueError):
            return False
        return is_file(status) and status.st_size == descriptor.size

    def received(self, descriptor: Descriptor) -> int:
        """Return how many bytes of a blob an interrupted download has left that the next one will not fetch again."""
        path = f"{self._partial}/{descriptor.digest.file_name}"
        state = State(f"{path}.json", descriptor, disk=self._disk, boot=self._boot)
        return state.load().total if os.path.isfile(path) else 0

    def room_for(self, descriptors: Iterable[Descriptor]) -> tuple[int, int]:
        """Return how many bytes these blobs will still take on the disk, and how many are free.

        Raises:
            StorageError: the file system does not say.
        """
        needed = 0
        for descriptor in descriptors:
            needed += descriptor.size
            if descriptor.size >= self._resume_threshold:
                try:
                    status = self._disk.stat(f"{self._partial}/{descriptor.digest.file_name}")
                except OSError:
                    continue
                needed -= min(descriptor.size, getattr(status, "st_blocks", 0) * 512)
        folder = self.path
        while not os.path.isdir(folder):
            folder = os.path.dirname(folder)
        with disk_errors("asking for the free space of", folder):
            return needed, self._disk.free(folder)

    def check_room(self, descriptors: Iterable[Descriptor]) -> None:
        """Check that these blobs will fit.

        Raises:
            OutOfSpaceError: they will not; the message has the figures.
        """
        needed, free = self.room_for(descriptors)
        if needed > free:
            raise OutOfSpaceError(
                f"{self.path} has {human_bytes(free)} left, and {human_bytes(needed)} are needed: free some, and run "
                "it again; nothing was fetched",
                errno=errno.ENOSPC,
            )

    def partials(self) -> list[PartialFile]:
        """Return what interrupted downloads have left, oldest first."""
        return find_partials(self._partial, disk=self._disk)

    def discard(self, digests: Iterable[str] | None, *, older_than: float) -> list[PartialFile]:
        """Remove what interrupted downloads have left, and return it."""
        return remove_partials(self._partial, digests, older_than=older_than, disk=self._disk)

    def close(self) -> None:
        """Write down what was verified.

        Raises:
            StorageError: a symbolic link or a folder is in the place of that list.
        """
        self._index.flush()

    def __repr__(self) -> str:
        return f"<Directory {self.path}>"


def _version(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _is_wrongly_empty(descriptor: Descriptor) -> bool:
    """Tell whether zero bytes are promised under another digest than theirs: no read will ever find that out."""
    return descriptor.size == 0 and not descriptor.digest.matches(descriptor.digest.hasher())
