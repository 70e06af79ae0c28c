"""The locks between processes and threads. Nothing rests on them but the saving of bytes.

They are ``flock``'s, which end with their process. A soft lock would have to be waited out after a kill.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from transferkit.content.flow import Flow
from transferkit.errors import StorageError
from transferkit.storage.disk import Disk, close_quietly, is_named
from transferkit.storage.disk_errors import can_do_without, disk_errors
from transferkit.storage.folder import OpenFolder

logger = logging.getLogger(__name__)

LOOK = 0.05  # seconds between two tries
LONG = 5.0  # seconds after which a wait is worth a word
PATIENCE = 300.0  # seconds without one more byte in the partial file, after which its holder is not waited for any more

BRIEF = 30.0  # seconds after which a lock that is held for moments is not waited for any more
_SOON = 0.005  # seconds between two tries at one of those

_RACES = 10  # times that a lock is taken which others have removed
_HOLDER = re.compile(rb"([0-9]{1,20}) ([A-Za-z0-9._-]{1,255})\n", re.ASCII)
EXCLUSIVE, SHARED, NONE = 2, 1, 8  # LOCK_EX, LOCK_SH and LOCK_UN of <sys/file.h>, on Linux and macOS alike


class BlobLock:
    """Held while a blob's partial file is open: who comes second waits, and then finds the blob, or continues it.

    ``is_held``: it is ours, and keeps others away; some file systems refuse locks, and Lustre, GPFS and NFS may grant
    all of them. ``is_others``: somebody else has it, and was not waited for any more.
    """

    def __init__(self, folder: OpenFolder, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.is_held = False
        self.is_others = False
        self.path = f"{folder.path}/{name}"
        self._folder = folder
        self._name = name
        self._disk = folder.disk
        self._clock = clock
        self._fd = -1

    def acquire(self, flow: Flow, look: Callable[[], object], *, patient: bool = True) -> None:
        """Wait until it is ours, or known to keep nobody away, or until its holder seems to have stopped.

        ``look`` tells how far its holder is: where that stays the same for ``PATIENCE`` seconds, or the wait is not to
        be ``patient``, the lock ``is_others``. The wait can be cancelled.
        """
        began = moved = self._clock()
        last, is_told = None, False
        try:
            while not self.attempt():
                now, seen = self._clock(), look()
                if seen != last:
                    last, moved = seen, now
                if not patient or now - moved >= PATIENCE:
                    self.is_others = True
                    self._close()
                    break
                if now - began >= LONG and not is_told:
                    is_told = True
                    text = "waiting for %s, which is locked by %s; this goes on when that ends, or is silent for %.0f s"
                    logger.warning(text, self.path, self._holder(), PATIENCE)
                flow.wait(LOOK, "lock")
        finally:
            if is_told:
                how = "was given up, as nothing came any more" if self.is_others else "is over"
                logger.info("the wait for %s %s: %.0f s", self.path, how, self._clock() - began)

    def attempt(self) -> bool:
        """Try once; ``False``: somebody else has it.

        StorageError: what stands there cannot be opened, or the disk fails.
        """
        with disk_errors("locking", self.path):
            for _ in range(_RACES):
                if self._fd < 0:
                    self._fd = self._disk.open_lock(self._folder.at(self._name), self._folder.fd)
                try:
                    self._disk.lock(self._fd, EXCLUSIVE)
                except BlockingIOError:
                    if self._is_named():
                        return False
                except OSError as error:
                    if not can_do_without("lock", error):
                        raise
                    return True
                else:
                    if self._is_named():
                        break
                self._close()  # whoever had it has removed it: the next one takes another file, and so do we
            else:
                return True  # this file system makes up inodes
        self.is_held = not self._is_granted_again()
        with suppress(OSError):
            self._disk.write_holder(self._fd, f"{os.getpid()} {os.uname().nodename}\n".encode("ascii", "replace"))
        return True

    def _is_named(self) -> bool:
        """Whether the file that is open is the one that others will open."""
        return is_named(self._disk, self._fd, self._folder.at(self._name), self._folder.fd) is not False

    def _is_granted_again(self) -> bool:
        try:
            second = self._disk.open_lock(self._folder.at(self._name), self._folder.fd)
        except OSError:
            return True
        try:
            return is_granted(self._disk, second, SHARED)
        except OSError:
            return True
        finally:
            close_quietly(self._disk, second)

    def _holder(self) -> str:
        """Return who has the lock, as far as the file says it."""
        match = None
        with suppress(OSError):
            match = _HOLDER.match(self._disk.read_file(self._folder.at(self._name), 300, self._folder.fd))
        return f"process {match[1].decode()} on {match[2].decode()}" if match else "another process"

    def remove(self) -> None:
        """Remove the file, where nobody else may hold the lock."""
        if not self.is_others:
            with suppress(OSError):
                self._folder.remove(self._name)

    def release(self) -> None:
        """Let others have it. Never raises, twice is fine."""
        if self.is_held:
            with suppress(OSError):
                self._disk.lock(self._fd, NONE)  # closing does not unlock what a forked child has open
        self.is_held = False
        self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        close_quietly(self._disk, fd)


@contextmanager
def brief_lock(
    folder: OpenFolder,
    name: str,
    *,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Hold a lock that everybody holds for moments only. Who does not get it within ``BRIEF`` seconds does without it.

    StorageError: what stands in the place of its file cannot be opened.
    """
    lock = BlobLock(folder, name)
    until = clock() + BRIEF
    try:
        try:
            while not lock.attempt():
                if clock() >= until:
                    logger.warning("%s is locked for too long, and not waited for any more", lock.path)
                    break
                sleep(_SOON)
        except StorageError as error:
            if error.errno != errno.ENOENT:  # somebody has just removed the folder, and what was locked in it
                raise
        yield
    finally:
        if lock.is_held:
            lock.remove()
        lock.release()


@contextmanager
def patient_lock(folder: OpenFolder, name: str, flow: Flow, look: Callable[[], object] | None = None) -> Iterator[bool]:
    """Wait until nobody else holds a lock, and hold it; whether it keeps others away is what the context yields.

    ``look`` tells how far its holder is, by default by what changes in the folder; ``acquire`` has the rest.
    """
    lock = BlobLock(folder, name)
    try:
        lock.acquire(flow, look or partial(changes, folder.path))
        yield lock.is_held
    finally:
        if lock.is_held:  # else it is another one's file
            lock.remove()
        lock.release()


def holders(folder: OpenFolder) -> Iterator[tuple[str, str]]:
    """Yield the locks in a folder that somebody holds at this moment: their files' names, and who.

    StorageError: the folder cannot be read.
    """
    disk = folder.disk
    with disk_errors("reading", folder.path):
        names = sorted(name for name in os.listdir(folder.path) if name.endswith(".lock"))
    for name in names:
        with suppress(OSError):  # it has just been removed, or nobody can tell
            fd = disk.open(folder.at(name), folder.fd, follow=False)
            try:
                if not is_granted(disk, fd, SHARED):
                    yield name, BlobLock(folder, name)._holder()
            finally:
                close_quietly(disk, fd)


def changes(folder: str) -> object:
    """Tell how far somebody is who fills the folder at a path: what changes while bytes arrive."""
    with suppress(OSError), os.scandir(folder) as files:
        return [(file.name, file.stat(follow_symlinks=False).st_mtime_ns) for file in files]
    return None


def share(folder: OpenFolder) -> None:
    """Say that files in a folder are being written, for as long as it is open; ``is_idle`` hears of it."""
    for _ in range(20 if folder.fd is not None else 0):
        with disk_errors("locking", folder.path):
            try:
                if is_granted(folder.disk, folder.fd or 0, SHARED):
                    return
            except OSError as error:
                if not can_do_without("lock", error):
                    raise
                return
        time.sleep(0.005)  # somebody just has a look


def is_idle(folder: OpenFolder) -> bool:
    """Tell whether nobody writes files in a folder; ``False`` as well where nobody can tell.

    The look is over before anything is done about it: whoever begins later makes files whose names are new.
    """
    with (
        suppress(OSError),
        OpenFolder(folder.path, folder.disk) as first,
        OpenFolder(folder.path, folder.disk) as second,
    ):
        if first.fd is not None and second.fd is not None and is_granted(folder.disk, first.fd, EXCLUSIVE):
            return not is_granted(folder.disk, second.fd, SHARED)  # or everybody is granted everything
    return False


def is_granted(disk: Disk, fd: int, operation: int) -> bool:
    """Make a try at a lock; ``OSError``, but not for one that somebody else has."""
    try:
        disk.lock(fd, operation)
    except BlockingIOError:
        return False
    return True


def growth(folder: OpenFolder, name: str, size: int, flow: Flow) -> object:
    """Tell how far the holder of a lock is with a blob, and count that as progress."""
    try:
        status = folder.disk.lstat(folder.at(name), folder.fd)
    except OSError:
        return None
    flow.counter.set_position(min(size, status.st_blocks * 512 or status.st_size))
    return status.st_size, status.st_blocks, status.st_mtime_ns
