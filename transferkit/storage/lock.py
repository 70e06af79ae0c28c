"""The lock on one blob between processes and threads. Nothing rests on it but the saving of bytes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from filelock import FileLock, Timeout

from transferkit.content.interfaces import Flow
from transferkit.storage.disk import Disk, disk_errors

# No soft lock where there is no flock: one that a killed process leaves behind would have to be waited out.
_file_lock = partial(FileLock, thread_local=False, fallback_to_soft=False)


class BlobLock:
    """Held while a blob's partial file is open: who comes second waits, and then finds the blob, or continues it."""

    def __init__(self, path: str, disk: Disk) -> None:
        # Whether it keeps anybody away: some file systems refuse locks, and Lustre, GPFS and NFS may grant all of them.
        self.is_held = False
        self._path = path
        self._disk = disk
        self._lock = _file_lock(path)

    def acquire(self, flow: Flow) -> None:
        """Wait until it is ours, or known to keep nobody away; the wait can be cancelled."""
        while True:
            try:
                self._lock.acquire(blocking=False)
                break
            except Timeout:
                flow.wait(0.05)
            except NotImplementedError:
                return
            except OSError as error:
                # What stands there and cannot be opened is an error; a lock that is refused keeps nobody from work.
                with disk_errors("locking", self._path), suppress(FileNotFoundError):
                    if error.errno == errno.EIO:
                        raise
                    self._disk.close(self._disk.reopen(self._path))
                return
        with unheld(self._path) as is_free:
            self.is_held = not is_free

    def release(self) -> None:
        self.is_held = False
        self._lock.release()


@contextmanager
def unheld(path: str) -> Iterator[bool]:
    """Tell whether nobody else holds the lock in this file, and keep it so while the context lasts."""
    lock = _file_lock(path)
    try:
        if os.path.exists(path):
            lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    except (NotImplementedError, OSError):
        pass  # no locks here: nobody can hold one
    try:
        yield True
    finally:
        lock.release()
