"""Partial files of large blobs: what has arrived survives the process, and is continued by the next one.

``.partial/sha256-<hex>`` is the content so far, possibly with holes; its state is beside it (``storage.journal``). One
process at a time writes to a file (an inode): the lock says who. Where there are no locks that could be trusted, the
file is renamed to a name of our own while it is filled, and renamed back when it is kept. Where somebody holds the lock
and does nothing, his file is left alone, and another one is filled beside it.
"""

from __future__ import annotations

import threading
from contextlib import suppress

from transferkit.content.chunk import MIN_CHUNK, Chunk, Ranges
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Hasher
from transferkit.content.flow import Flow, Notify
from transferkit.errors import DigestMismatchError, SizeMismatchError, TransferKitError
from transferkit.storage.disk import close_quietly, is_file, is_named, remove_quietly, sync
from transferkit.storage.disk_errors import disk_errors
from transferkit.storage.folder import OpenFolder
from transferkit.storage.index import VerifiedIndex
from transferkit.storage.ingest import FileIngest
from transferkit.storage.journal import Journal
from transferkit.storage.lock import BlobLock
from transferkit.storage.pace import Pace


class Partial(FileIngest):
    """A large blob's ``Ingest``: what is written at ``offset`` is hashed from memory, the rest by ``follow``.

    ``kept`` is the name under which it is left to the next run, ``own`` one that nobody else uses.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        index: VerifiedIndex,
        folder: OpenFolder,
        lock: BlobLock,
        *,
        kept: str,
        own: str,
        pace: Pace,
    ) -> None:
        super().__init__(descriptor, index, folder, kept if lock.is_held else own, -1)
        self._kept = own if lock.is_others else kept
        self._journal = Journal(folder, f"{self._name}.json", descriptor)
        self._file_lock = lock
        self._pace = pace
        self._lock = threading.Lock()
        self._hashing = threading.Lock()
        self._unsynced = 0
        self._syncing = 0
        self._has_identity = True  # some file systems make up other inodes for a name than for an open file
        self.is_open = True
        try:
            with disk_errors("opening", self._path):
                self._move(self._kept, self._name)
                self._open()
        except BaseException:
            self.keep()
            raise

    def _move(self, source: str, target: str) -> None:
        """Rename the file and its state. Where another process mixes them up, the digest of the whole finds it out."""
        at, fd = self._folder.at, self._folder.fd
        for ending in ("", ".json") if source != target else ():
            with suppress(OSError):  # the bytes are fetched again
                self._disk.rename(at(source + ending), at(target + ending), fd)

    def _open(self) -> None:
        """Open what an earlier run has left, or, where it is not what its state says, begin."""
        journal = self._journal
        synced = journal.load()
        is_known = journal.ranges.total + journal.unverified.total > 0
        if is_known:
            # A file of another user may be one that cannot be written to: it is replaced.
            with suppress(FileNotFoundError, PermissionError):
                self._fd = self._disk.reopen(self._folder.at(self._name), self._folder.fd)
                status = self._disk.fstat(self._fd)
                # Where it has another name as well, or is no file: whose content that is, is not for us to change.
                is_ours = is_file(status) and status.st_nlink <= 1 and self._is_named() is not False
                last = journal.ranges.to_list()[-1][1] if journal.ranges.total else -1
                if is_ours and last < status.st_size <= self.descriptor.size:
                    journal.unverified = journal.unverified.minus(_from(status.st_size, self.descriptor.size))
                    journal.rewrite(synced)
                    self._unsynced = journal.ranges.total - synced.total
                    return
        self._create(is_known=is_known)

    def _create(self, *, is_known: bool) -> None:
        """Create a new file: the old one may have got another name by now, a final one even, and is not emptied."""
        self._unsynced = 0
        self._journal.empty()
        fd, self._fd = self._fd, -1
        close_quietly(self._disk, fd)
        name, folder = self._folder.at(self._name), self._folder.fd
        remove_quietly(self._disk, name, folder)
        self._fd = self._disk.create(name, folder)
        self._has_identity = bool(self._is_named())
        if is_known:  # after a power cut the old state must not speak of new bytes
            self._journal.sync(0)

    def _count(self, count: int) -> None:
        """Count bytes that are in place, and when there are enough, make what the rows say survive a power cut."""
        with self._lock:
            self._unsynced += count
            # Where nothing is missing, the file gets its name next.
            if self._unsynced < self._pace.due(syncing=self._syncing > 0) or self.in_place == self.descriptor.size:
                return
            unsynced, self._unsynced = self._unsynced, 0
            rows = self._journal.rows
            self._syncing += 1
        try:  # Others may write meanwhile; their rows are not meant.
            with disk_errors("syncing", self._path):
                self._sync(unsynced, rows)
        finally:
            with self._lock:
                self._syncing -= 1

    def _sync(self, count: int, rows: int) -> None:
        """Sync the file, of which so many bytes need it, and say so of the first ``rows`` rows."""
        began = self._pace.clock()
        if sync(self._disk, self._fd):
            self._pace.took(count, self._pace.clock() - began)
            self._check_name()
            self._journal.sync(rows)

    def _is_named(self) -> bool | None:
        return is_named(self._disk, self._fd, self._folder.at(self._name), self._folder.fd)

    def _check_name(self) -> None:
        if self._has_identity and self._is_named() is False:
            raise self._taken_away()

    @property
    def in_place(self) -> int:
        return self._journal.ranges.total

    @property
    def unverified(self) -> int:
        return self._journal.unverified.total

    def missing_in(self, chunk: Chunk) -> list[Chunk]:
        with self._lock:
            return self._journal.ranges.missing_in(chunk)

    def write_at(self, offset: int, data: memoryview, *, final: bool = True) -> None:
        end = self._write(data, offset)
        # At the frontier, and nobody else is: hash what is in the processor's cache, not what is on its way to disk.
        if final and offset == self.offset and self._hashing.acquire(blocking=False):
            try:
                if offset == self.offset:
                    self._hasher.update(data)
                    self.offset = end
            finally:
                self._hashing.release()

    def record(self, start: int, end: int) -> None:
        with self._lock:
            self._journal.add(start, end)
        self._count(end - start + 1)

    def record_unverified(self, start: int, end: int) -> None:
        with self._lock:
            self._journal.add_unverified(start, end)

    def take_unverified(self, chunk: Chunk) -> list[Chunk]:
        with self._lock:
            return self._journal.take_unverified(chunk)

    def hash_unverified(self, chunk: Chunk, hasher: Hasher, flow: Flow) -> None:
        at, buffer = chunk.start, flow.buffer
        while at <= chunk.end:
            flow.check()
            count = self._read(buffer[: chunk.end + 1 - at], at)
            hasher.update(buffer[:count])
            at += count

    def _read(self, buffer: memoryview, at: int) -> int:
        """Read what is in the file, or there is an error: it was written once."""
        with disk_errors("reading", self._path):
            count = self._disk.preadv(self._fd, buffer, at)
        if not count:
            raise SizeMismatchError(f"{self._path} became shorter while it was filled", retryable=True)
        return count

    def follow(self, flow: Flow, notify: Notify | None = None) -> None:
        while self.offset < self._frontier() and self._hashing.acquire(blocking=False):
            try:
                self._catch_up(flow, notify)
            finally:
                self._hashing.release()

    def _catch_up(self, flow: Flow, notify: Notify | None = None) -> None:
        buffer = flow.buffer
        while self.offset < (until := self._frontier()):
            flow.check()
            count = self._read(buffer[: until - self.offset], self.offset)
            self._hasher.update(buffer[:count])
            self.offset += count
            # Once for what may be a chunk: who waits looks at all blobs, and takes the interpreter for it.
            if notify is not None and self.offset // MIN_CHUNK > (self.offset - count) // MIN_CHUNK:
                notify()

    def _frontier(self) -> int:
        with self._lock:
            return self._journal.ranges.contiguous_from(self.offset)

    def end_of(self, start: int) -> int:
        with self._lock:
            return self._journal.ranges.contiguous_from(start)

    def open_reader(self) -> tuple[int, int] | None:
        with self._lock:  # ``restart`` puts another file in its place
            return super().open_reader()

    def restart(self) -> None:
        with self._hashing, self._lock, disk_errors("emptying", self._path):
            self.generation += 1
            self._hasher = self.descriptor.digest.hasher()
            self.offset = 0
            self._create(is_known=True)

    def commit(self, flow: Flow) -> None:
        try:
            with self._hashing:
                self._catch_up(flow)
            with disk_errors("storing", self._path):
                self._check_name()
            self._store(self.in_place)
            self._remove()  # what is left beside the blob
        except DigestMismatchError:
            self.abort()  # the bytes of an earlier run may be to blame: without them the next attempt finds out
            raise
        finally:
            self.keep()

    def abort(self) -> None:
        self._remove()
        self.keep()

    def _remove(self) -> None:
        if self.is_open:
            self._unsynced = 0
            for name in (f"{self._name}.json", self._name):
                remove_quietly(self._disk, self._folder.at(name), self._folder.fd)
            self._file_lock.remove()  # last: who takes another one finds nothing that is about to be removed

    def keep(self) -> None:
        if not self.is_open:
            return
        self.is_open = False
        if self._unsynced and self._fd >= 0 and self._pace.allows(self._unsynced):
            with suppress(TransferKitError, OSError):  # it costs the next boot these bytes
                self._journal.flush()
                self._sync(self._unsynced, self._journal.rows)
        fd, self._fd = self._fd, -1
        close_quietly(self._disk, fd)
        self._journal.close()
        self._move(self._name, self._kept)
        self._file_lock.release()


def _from(start: int, size: int) -> Ranges:
    """Return the bytes of a blob from ``start`` on."""
    ranges = Ranges()
    if start < size:
        ranges.add(start, size - 1)
    return ranges
