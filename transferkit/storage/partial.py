"""Partial files of large blobs: what has arrived survives the process, and is continued by the next one.

``.partial/sha256-<hex>`` is the content so far, possibly with holes; its state is beside it (``storage.journal``). One
process at a time writes to a file (an inode): the lock says who. Where there are no locks that could be trusted, the
file is renamed to a name of our own while it is filled, and renamed back when it is kept.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress

from transferkit.content.chunk import Chunk, Ranges
from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Flow, Notify
from transferkit.errors import DigestMismatchError, SizeMismatchError
from transferkit.storage.disk import close_quietly, disk_errors, is_file, remove_quietly
from transferkit.storage.index import VerifiedIndex
from transferkit.storage.ingest import FileIngest
from transferkit.storage.journal import Journal
from transferkit.storage.lock import BlobLock

SYNC_EVERY = 256 * 1024 * 1024  # bytes between two syncs: what a power cut may cost


class Partial(FileIngest):
    """A large blob's ``Ingest``: what is written at ``offset`` is hashed from memory, the rest by ``follow``."""

    def __init__(self, descriptor: Descriptor, index: VerifiedIndex, path: str, lock: BlobLock) -> None:
        super().__init__(descriptor, index, path if lock.is_held else f"{path}.{os.urandom(8).hex()}", -1)
        self._kept = path
        self._journal = Journal(f"{self._path}.json", descriptor, self._disk)
        self._file_lock = lock
        self._lock = threading.Lock()
        self._hashing = threading.Lock()
        self._unsynced = 0
        self._is_open = True
        try:
            with disk_errors("opening", path):
                self._move(path, self._path)
                self._open()
        except BaseException:
            self.keep()
            raise

    def _move(self, source: str, target: str) -> None:
        """Rename the file and its state. Where another process mixes them up, the digest of the whole finds it out."""
        for ending in ("", ".json") if source != target else ():
            with suppress(OSError):  # the bytes are fetched again
                self._disk.rename(source + ending, target + ending)

    def _open(self) -> None:
        """Open what an earlier run has left, or, where it is not what its state says, begin."""
        ranges = self._journal.load()
        if ranges.total:
            with suppress(FileNotFoundError):
                self._fd = self._disk.reopen(self._path)
                status = self._disk.fstat(self._fd)
                # Where it has another name as well, or is no file: whose content that is, is not for us to change.
                is_ours = is_file(status) and status.st_nlink == 1
                if is_ours and ranges.to_list()[-1][1] < status.st_size <= self.descriptor.size:
                    self._journal.rewrite(ranges)
                    self._count(ranges.total)  # the new state does not know yet what the old one knew to be synced
                    return
        self._create(is_known=ranges.total > 0)

    def _create(self, *, is_known: bool) -> None:
        """Create a new file: the old one may have got another name by now, a final one even, and is not emptied."""
        self._unsynced = 0
        self._journal.rewrite(Ranges())
        fd, self._fd = self._fd, -1
        close_quietly(self._disk, fd)
        remove_quietly(self._disk, self._path)
        self._fd = self._disk.create(self._path)
        if is_known:  # after a power cut the old state must not speak of new bytes
            self._journal.sync(0)

    def _count(self, count: int) -> None:
        """Count bytes that are in place, and when there are enough, make what the rows say survive a power cut."""
        with self._lock:
            self._unsynced += count
            if self._unsynced < SYNC_EVERY:
                return
            rows, self._unsynced = self._journal.rows, 0
        # Others may write meanwhile; their rows are not meant.
        with disk_errors("syncing", self._path):
            self._disk.fsync(self._fd)
            self._check_name()
        self._journal.sync(rows)

    def _check_name(self) -> None:
        """See that the name is still that of the file that is open."""
        with suppress(FileNotFoundError):
            if os.path.samestat(self._disk.lstat(self._path), self._disk.fstat(self._fd)):
                return
        raise self._taken_away()

    @property
    def in_place(self) -> int:
        return self._journal.ranges.total

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
            with disk_errors("reading", self._path):
                count = self._disk.preadv(self._fd, buffer[: until - self.offset], self.offset)
            if not count:
                raise SizeMismatchError(f"{self._path} became shorter while it was filled", retryable=True)
            self._hasher.update(buffer[:count])
            self.offset += count
            if notify is not None:
                notify()

    def _frontier(self) -> int:
        with self._lock:
            return self._journal.ranges.contiguous_from(self.offset)

    def restart(self) -> None:
        with self._hashing, self._lock, disk_errors("emptying", self._path):
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
        for path in (self._journal.path, self._path, f"{self._kept}.lock") if self._is_open else ():
            remove_quietly(self._disk, path)

    def keep(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        fd, self._fd = self._fd, -1
        close_quietly(self._disk, fd)
        self._journal.close()
        self._file_lock.release()
        self._move(self._path, self._kept)
