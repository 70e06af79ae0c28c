"""Partial files of large blobs: what has arrived survives the process, and is continued by the next one.

``.partial/sha256-<hex>`` is the content so far, possibly with holes; its state is beside it (``storage.state``).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from transferkit.content.chunk import Chunk, Ranges
from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Flow
from transferkit.errors import DigestMismatchError, SizeMismatchError, TransferKitError
from transferkit.storage.disk import Disk, disk_errors, is_file, remove_quietly, storage_error
from transferkit.storage.lock import BlobLock
from transferkit.storage.state import State, close_quietly

SYNC_EVERY = 256 * 1024 * 1024  # bytes between two syncs: what a power cut may cost


class Partial:
    """An open partial file, which several threads fill at once; the digest of the whole follows what is in place.

    ``write_at`` may come from any thread, for ranges that do not overlap. ``hashed`` bytes from the first on are in
    place and hashed: bytes that are written just there are hashed from memory, the others once, through the page cache,
    by ``follow``.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        *,
        disk: Disk,
        path: str,
        final: str,
        boot: str | None,
        durable: bool,
        lock: BlobLock,
        remember: Callable[[os.stat_result], None],
    ) -> None:
        self._lock_file: BlobLock | None = lock
        self._remember = remember
        self.descriptor = descriptor
        self.hashed = 0
        self.reread = 0
        """Bytes that were hashed through the page cache, for who wants to know."""
        self._disk = disk
        self._path = path
        self._state = State(f"{path}.json", descriptor, disk=disk, boot=boot)
        self._final = final
        self._durable = durable
        self._hasher = descriptor.digest.hasher()
        self._lock = threading.Lock()
        self._hashing = threading.Lock()
        self._ranges = Ranges()
        self._unsynced = 0
        self._fd = -1
        try:
            with disk_errors("opening", path):
                self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        ranges = self._state.load()
        if not ranges.total:
            # Whatever stands there, a planted symbolic link included, is nothing that can be continued.
            remove_quietly(self._disk, self._path)
        self._fd = self._disk.reopen(self._path)
        status = self._disk.fstat(self._fd)
        if status.st_nlink != 1 or not is_file(status):
            # It has another name as well, or is none: whose content that is, is not for us to change.
            ranges = Ranges()
            fd, self._fd = self._fd, -1
            self._disk.close(fd)
            self._disk.unlink(self._path)
            self._fd = self._disk.reopen(self._path)
        there = self._disk.fstat(self._fd).st_size
        if there > self.descriptor.size or any(end >= there for _, end in ranges.to_list()):
            self._forget()
            return
        self._ranges = ranges
        self._unsynced = ranges.total
        self._state.rewrite(ranges)
        if self._unsynced >= SYNC_EVERY:
            self._unsynced = 0
            self._sync(self._state.rows)  # the new state does not know yet what the old one knew to be synced

    def _sync(self, rows: int) -> None:
        """Make what these rows say survive a power cut. Others may write meanwhile, and add rows that it is not about.

        Raises:
            StorageError: the disk refused.
        """
        with disk_errors("syncing", self._path):
            self._disk.fsync(self._fd)
        self._state.sync(rows)

    def _forget(self) -> None:
        """Empty the file. Its state first, and durably: after a power cut an old one must not speak of new bytes."""
        self._ranges = Ranges()
        self._unsynced = 0
        self._state.rewrite(self._ranges)
        self._state.sync(0)
        self._disk.truncate(self._fd, 0)

    # -- filling

    @property
    def in_place(self) -> int:
        """How many bytes are there."""
        return self._ranges.total

    def missing(self) -> list[Chunk]:
        """Return the ranges that are not there."""
        with self._lock:
            return self._ranges.missing(self.descriptor.size)

    def missing_in(self, chunk: Chunk) -> list[Chunk]:
        """Return the ranges of ``chunk`` that are not there."""
        with self._lock:
            return self._ranges.missing_in(chunk)

    def write_at(self, offset: int, data: memoryview, *, final: bool = True) -> None:
        """Write ``data`` at ``offset``. With ``final`` nothing will have to be taken back but the whole.

        Raises:
            SizeMismatchError: it goes past the end.
            StorageError: the disk refused.
        """
        end = offset + len(data)
        if end > self.descriptor.size:
            raise SizeMismatchError(
                f"{self.descriptor.digest.short}: more than the {self.descriptor.size} bytes that were expected"
            )
        if not data:
            return
        try:
            self._disk.pwrite(self._fd, data, offset)
        except OSError as error:
            raise storage_error(error, "writing", self._path) from error
        # At the frontier, and nobody else is: hash what is in the processor's cache, not what is on its way to disk.
        if final and offset == self.hashed and self._hashing.acquire(blocking=False):
            try:
                if offset == self.hashed:
                    self._hasher.update(data)
                    self.hashed = end
            finally:
                self._hashing.release()

    def record(self, start: int, end: int) -> None:
        """Say that ``start`` to ``end`` (inclusive) is written and right, for this run and for the next.

        Raises:
            StorageError: the disk refused.
        """
        with self._lock:
            self._ranges.add(start, end)
            self._state.add(start, end)
            self._unsynced += end - start + 1
            if self._unsynced < SYNC_EVERY:
                return
            rows, self._unsynced = self._state.rows, 0
        self._sync(rows)

    # -- hashing

    def follow(self, flow: Flow) -> None:
        """Hash what is in place next to what is hashed; returns at once where another thread is at it.

        Raises:
            StorageError: the file cannot be read.
        """
        while self._is_behind() and self._hashing.acquire(blocking=False):
            try:
                self._catch_up(flow)
            finally:
                self._hashing.release()

    def _is_behind(self) -> bool:
        return self.hashed < self._ranges.contiguous_from(self.hashed)

    def _catch_up(self, flow: Flow) -> None:
        buffer = flow.buffer
        while True:
            with self._lock:
                until = self._ranges.contiguous_from(self.hashed)
            if self.hashed >= until:
                return
            while self.hashed < until:
                flow.check()
                room = min(len(buffer), until - self.hashed)
                with disk_errors("reading", self._path):
                    count = self._disk.preadv(self._fd, buffer[:room], self.hashed)
                if not count:
                    raise SizeMismatchError(f"{self._path} became shorter while it was filled")
                self._hasher.update(buffer[:count])
                self.hashed += count
                self.reread += count

    # -- ending

    def commit(self, flow: Flow) -> None:
        """Check size and digest, give the file its name, and close it.

        Raises:
            SizeMismatchError: something is missing; the file stays, to be continued.
            DigestMismatchError: it is not the content; the file stays, and the caller decides.
            StorageError: the disk refused.
        """
        wanted = self.descriptor
        with self._hashing:
            self._catch_up(flow)
        if self.hashed != wanted.size:
            raise SizeMismatchError(f"{wanted.digest.short}: {self.in_place} of {wanted.size} bytes are in place")
        if not wanted.digest.matches(self._hasher):
            raise DigestMismatchError(
                f"{wanted.digest.short}: the content that arrived has the digest "
                f"{wanted.digest.algorithm}:{self._hasher.hexdigest()[:12]}..."
            )
        with disk_errors("storing", self._final):
            if self._disk.fstat(self._fd).st_size != wanted.size:
                self._disk.truncate(self._fd, wanted.size)
            if self._durable:
                self._disk.fsync(self._fd)
            status = self._disk.fstat(self._fd)
            fd, self._fd = self._fd, -1
            # Before the rename: NFS and some quotas report a full disk here.
            self._disk.close(fd)
            self._disk.rename(self._path, self._final)
            if self._durable:
                self._disk.sync_folder(os.path.dirname(self._final))
        self._state.remove()
        self._remember(status)
        if self._lock_file is not None:
            self._lock_file.retire()
        self.close()

    def restart(self) -> None:
        """Begin again at the first byte: nothing of what is there is believed any more.

        Raises:
            StorageError: the disk refused.
        """
        with self._hashing, self._lock, disk_errors("emptying", self._path):
            self._hasher = self.descriptor.digest.hasher()
            self.hashed = 0
            self._forget()

    def close(self) -> None:
        """Close, and keep what is there for the next run. Never raises; more than once is fine."""
        fd, self._fd = self._fd, -1
        close_quietly(self._disk, fd)
        self._state.close()
        lock, self._lock_file = self._lock_file, None
        if lock is not None:
            lock.release()

    def discard(self) -> None:
        """Close, and remove the file and its state. Never raises."""
        self._state.remove()
        remove_quietly(self._disk, self._path)
        self.close()


class PartialIngest:
    """A partial file that is filled by one body from its first missing byte on. One thread's."""

    def __init__(self, partial: Partial, flow: Flow) -> None:
        self.descriptor = partial.descriptor
        self._partial = partial
        partial.follow(flow)
        self.offset = partial.hashed
        flow.counter.set_position(self.offset)

    def append(self, data: memoryview) -> None:
        """Write the next bytes, and hash them.

        Raises:
            SizeMismatchError: the content is longer than its descriptor says; the surplus is not written.
            StorageError: the disk refused.
        """
        if data:
            self._partial.write_at(self.offset, data)
            self._partial.record(self.offset, self.offset + len(data) - 1)
            self.offset += len(data)

    def interrupt(self, rest: memoryview) -> int:
        """Break the attempt off; ``rest`` has arrived and is not written yet. Tell how many bytes survive."""
        try:
            self.append(rest)
        except TransferKitError:
            pass  # the error that broke the attempt off is the one to be told
        return self.offset

    def restart(self) -> None:
        """Begin again at the first byte."""
        self._partial.restart()
        self.offset = 0
