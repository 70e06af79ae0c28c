"""What a store has, and whether it is right: files are listed, and hashed on all processors."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass

from transferkit.cancellation import Cancellation
from transferkit.content.digest import Digest
from transferkit.errors import shown_as
from transferkit.render.bars import progress_bar
from transferkit.storage.directory import Directory
from transferkit.storage.disk import close_quietly, is_file
from transferkit.storage.disk_errors import disk_errors, storage_error
from transferkit.storage.index import version
from transferkit.tables import human_bytes

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], object]

_BLOCK = 1024 * 1024  # bytes that are read at once
_INTERVAL = 0.1  # seconds between two calls of ``progress``
_WRONG = (errno.EIO, errno.ELOOP)  # a sector that is broken, and a link that somebody has just put there


@dataclass(frozen=True, slots=True)
class Entry:
    """One blob of a store: its digest, its size in bytes, when it was written (Unix time), and where it is."""

    digest: Digest
    size: int
    time: float
    path: str


def entries(directory: Directory) -> list[Entry]:
    """Return all blobs of a flat folder, sorted by digest; what is no blob is left out.

    Raises:
        StorageError: the folder cannot be read, or a link is in its place.
    """
    directory.check_place()
    found: list[Entry] = []
    with disk_errors("reading", directory.path), suppress(FileNotFoundError), os.scandir(directory.path) as files:
        for file in files:
            with suppress(ValueError, FileNotFoundError):
                digest = Digest.from_file_name(file.name)
                if file.is_file(follow_symlinks=False):
                    status = file.stat(follow_symlinks=False)
                    found.append(Entry(digest, status.st_size, status.st_mtime, file.path))
    return sorted(found, key=lambda entry: entry.digest)


class _Scan:
    """One run over some files. ``done`` and ``right`` have a cell for each, which only the thread that has it sets."""

    def __init__(self, directory: Directory, listed: list[Entry]) -> None:
        self._directory = directory
        self.listed = listed
        self._queue = deque(sorted(range(len(listed)), key=lambda number: -listed[number].size))
        self.done = [0] * len(listed)
        self.right = [False] * len(listed)
        self.is_over = False
        self.error: Exception | None = None

    def work(self) -> None:
        """Hash one file after the other until there is none left."""
        try:
            buffer = memoryview(bytearray(_BLOCK))
            while not self.is_over:
                try:
                    number = self._queue.popleft()
                except IndexError:
                    break
                self.right[number] = self._is_right(number, buffer)
                self.done[number] = self.listed[number].size
        except Exception as error:  # noqa: BLE001 - it is raised where this thread is waited for
            self.error = error

    def _is_right(self, number: int, buffer: memoryview) -> bool:
        """Hash one file, and tell whether it is the content of its digest; one that has gone is nobody's fault."""
        entry, fd = self.listed[number], -1
        try:
            fd = self._directory.disk.open(entry.path, follow=False)
            return self._hash(number, fd, buffer)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno in _WRONG:
                return False
            raise storage_error(error, "verifying", entry.path) from error
        finally:
            close_quietly(self._directory.disk, fd)

    def _hash(self, number: int, fd: int, buffer: memoryview) -> bool:
        entry, disk, at = self.listed[number], self._directory.disk, 0
        hasher, status = entry.digest.hasher(), disk.fstat(fd)
        while not self.is_over and is_file(status) and (count := disk.preadv(fd, buffer, at)):
            hasher.update(buffer[:count])
            at += count
            self.done[number] = min(at, entry.size)
        if self.is_over:
            return True
        is_right = entry.digest.matches(hasher)
        now = disk.lstat(entry.path)
        if version(now) != version(status):
            return True  # it was replaced meanwhile, and the new one is another matter
        if is_right:
            self._directory.remember(entry.digest, now)
        else:
            self._directory.forget(entry.digest)
        return is_right


def verify(
    directory: Directory,
    listed: list[Entry],
    *,
    progress: Progress | bool | None = None,
    cancel: Cancellation | None = None,
) -> list[Entry]:
    """Hash files, the largest first, and return those that are wrong, in the order in which they were given.

    An exception in ``progress`` is logged once, and harms nothing.

    Raises:
        CancelledError: ``cancel`` was triggered.
        StorageError: a file could not be looked at, which says nothing about its content.
    """
    total, scan = sum(entry.size for entry in listed), _Scan(directory, listed)
    with progress_bar("verify", total) if progress is True else nullcontext(progress or None) as callback:
        _run(scan, total, _guarded(callback), cancel)
    return [entry for entry, is_right in zip(listed, scan.right, strict=True) if not is_right]


def _run(scan: _Scan, total: int, tell: Progress, cancel: Cancellation | None) -> None:
    """Have everything hashed. Raises as ``verify`` does."""
    tell(0, total)
    threads: list[threading.Thread] = []
    try:
        with suppress(RuntimeError):  # the system has no more threads to give
            for _ in range(min(len(scan.listed), processors())):
                thread = threading.Thread(target=scan.work, daemon=True, name="transferkit-verify")
                thread.start()
                threads.append(thread)
        if not threads:
            scan.work()
        for thread in threads:
            while thread.is_alive():
                thread.join(_INTERVAL)
                if cancel is not None and cancel.cancelled:
                    raise cancel.error()
                tell(sum(scan.done), total)
    except KeyboardInterrupt as error:
        shown_as(error, f"stopped at {human_bytes(sum(scan.done))} of {human_bytes(total)}")
        raise
    finally:
        scan.is_over = True  # an interrupt may come at any point: then each thread ends with its block
        for thread in threads:
            thread.join()
    if scan.error is not None:
        raise scan.error
    tell(sum(scan.done), total)


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux: containers and batch systems give a part of the machine
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _guarded(progress: Progress | None) -> Progress:
    if progress is not None and not callable(progress):
        raise TypeError(f"progress is a function of two numbers of bytes, not {type(progress).__name__}")
    is_told = False

    def tell(completed: int, total: int) -> None:
        nonlocal is_told
        try:
            if progress is not None:
                progress(completed, total)
        except Exception:
            if not is_told:
                logger.warning("the progress callback raised; verifying goes on", exc_info=True)
            is_told = True

    return tell
