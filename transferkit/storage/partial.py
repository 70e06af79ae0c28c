"""Partial files of large blobs: what has arrived survives the process, and is continued by the next one.

``.partial/sha256-<hex>`` is the content so far, and ``.partial/sha256-<hex>.json`` says what it is: digest, size and
the boot it was written in. A state that does not parse, or that speaks of something else, is
discarded, never trusted. A lock keeps two processes from fetching the same bytes; nothing rests on it: the prefix is
hashed again before it is continued, and the whole digest comes last.
"""

from __future__ import annotations

import json
import os
import secrets
from typing import Any

from filelock import FileLock, Timeout

from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Flow
from transferkit.errors import TransferKitError
from transferkit.storage.disk import Disk, disk_errors
from transferkit.storage.ingest import Ingest

_VERSION = 1
_MAX_STATE = 1024 * 1024  # bytes: more is no state of ours
_POLL = 0.05  # seconds between two looks at a lock that another process holds


class PartialIngest(Ingest):
    """An ingest into a file that is kept when the attempt breaks off."""

    def interrupt(self, rest: memoryview) -> int:
        try:
            self.append(rest)
        except TransferKitError:
            pass  # the error that broke the attempt off is the one to be told
        return self.offset

    def restart(self) -> None:
        super().restart()
        with disk_errors("emptying", self._path):
            self._disk.truncate(self._fd, 0)

    def commit(self) -> os.stat_result:
        path = self._path
        status = super().commit()
        remove_quietly(self._disk, f"{path}.json")
        return status

    def discard(self) -> None:
        """Remove the file and its state: what is in it is not what was wanted."""
        path = self._path
        self.abort()
        if path:
            remove_quietly(self._disk, path)
            remove_quietly(self._disk, f"{path}.json")

    def abort(self) -> None:
        """Close, and keep what is there for the next run."""
        fd, self._fd = self._fd, -1
        self._path = ""
        try:
            if fd >= 0:
                self._disk.close(fd)
        except OSError:
            pass  # what it says about the data is found out by the hash of the prefix

    def resume(self, flow: Flow) -> None:
        """Hash what is there, and go on after it.

        Raises:
            StorageError: the file cannot be read.
        """
        with disk_errors("reading", self._path):
            there = self._disk.fstat(self._fd).st_size
            if there > self.descriptor.size:
                self._disk.truncate(self._fd, 0)
                return
            buffer = flow.buffer
            while self.offset < there:
                flow.check()
                room = min(len(buffer), there - self.offset)
                count = self._disk.preadv(self._fd, buffer[:room], self.offset)
                if not count:
                    break
                self._hasher.update(buffer[:count])
                self.offset += count
        flow.settle(self.offset)


def remove_quietly(disk: Disk, path: str) -> None:
    try:
        disk.unlink(path)
    except OSError:
        pass  # gone already; a file that cannot be removed is found and reported by whoever needs its name


def open_partial(
    descriptor: Descriptor, *, disk: Disk, folder: str, final: str, boot: str | None, durable: bool, flow: Flow
) -> PartialIngest:
    """Open the partial file of a blob, with what an earlier run left in it, hashed.

    The caller holds the lock of the blob.

    Raises:
        StorageError: the disk refused.
    """
    path = f"{folder}/{descriptor.digest.file_name}"
    state = {"version": _VERSION, "digest": descriptor.digest, "size": descriptor.size, "boot": boot}
    usable = boot is not None and _read_state(f"{path}.json") == state
    with disk_errors("opening", path):
        if not usable:
            # Whatever stands there, a planted symbolic link included, is nothing that can be continued.
            remove_quietly(disk, path)
            _write_state(disk, f"{path}.json", state)
        fd = disk.reopen(path)
    ingest = PartialIngest(descriptor, disk=disk, path=path, fd=fd, final=final, durable=durable)
    try:
        ingest.resume(flow)
    except BaseException:
        ingest.abort()
        raise
    return ingest


def _read_state(path: str) -> Any:
    try:
        with open(path, "rb") as file:
            return json.loads(file.read(_MAX_STATE))
    except (OSError, ValueError, RecursionError):
        return None


def _write_state(disk: Disk, path: str, state: dict[str, Any]) -> None:
    temporary = f"{path}.{secrets.token_hex(8)}"
    fd = disk.create(temporary)
    try:
        try:
            disk.pwrite(fd, memoryview(json.dumps(state).encode("ascii")), 0)
        finally:
            disk.close(fd)
        disk.rename(temporary, path)
    except BaseException:
        remove_quietly(disk, temporary)
        raise


class BlobLock:
    """The lock on one blob's partial file, between processes and threads; waiting for it can be cancelled."""

    def __init__(self, folder: str, descriptor: Descriptor, disk: Disk, flow: Flow) -> None:
        self._disk = disk
        self._path = f"{folder}/{descriptor.digest.file_name}.lock"
        self._flow = flow
        self._lock = FileLock(self._path, thread_local=False)

    def __enter__(self) -> BlobLock:
        with disk_errors("locking", self._path):
            while True:
                try:
                    self._lock.acquire(timeout=_POLL, poll_interval=_POLL)
                except Timeout:
                    self._flow.check()
                else:
                    return self

    def retire(self) -> None:
        """Remove the lock's file: the blob is in place, and whoever waits for the lock will find it there."""
        remove_quietly(self._disk, self._path)

    def __exit__(self, *_: object) -> None:
        self._lock.release()
