"""Hashing what a store has, on all processors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

from transferkit.cancellation import Cancellation
from transferkit.content.digest import Digest
from transferkit.storage.directory import Directory
from transferkit.storage.disk import close_quietly, is_file
from transferkit.storage.index import version

_BLOCK = 1024 * 1024  # bytes that are read at once
_INTERVAL = 0.1  # seconds between two calls of ``progress``


@dataclass(frozen=True, slots=True)
class Entry:
    """One blob of a store: its digest, its size in bytes, when it was written (Unix time), and where it is."""

    digest: Digest
    size: int
    time: float
    path: str


class _Scan:
    """One run over some files. ``done`` has a cell for each thread, which alone adds to it."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.is_over = False
        self.done: dict[int, int] = {}

    def is_right(self, entry: Entry, number: int) -> bool:
        """Hash one file, and tell whether it is the content of its digest; one that has gone is nobody's fault."""
        disk, hasher, buffer = self._directory.disk, entry.digest.hasher(), memoryview(bytearray(_BLOCK))
        self.done[number] = 0
        try:
            fd = disk.open(entry.path, follow=False)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        try:
            status = disk.fstat(fd)
            at = 0
            while not self.is_over and is_file(status) and (count := disk.preadv(fd, buffer, at)):
                hasher.update(buffer[:count])
                at += count
                self.done[number] = at
            if self.is_over:
                return True
            is_right = entry.digest.matches(hasher)
            now = disk.lstat(entry.path)
            if is_right and version(now) == version(status):
                self._directory.remember(entry.digest, now)
            return is_right
        except OSError:
            return False
        finally:
            close_quietly(disk, fd)


def verify(
    directory: Directory,
    entries: Iterable[Entry],
    *,
    progress: Callable[[int, int], object] | None = None,
    cancel: Cancellation | None = None,
) -> list[Entry]:
    """Hash files, the largest first, and return those that are wrong, in the order in which they were given.

    Raises:
        CancelledError: ``cancel`` was triggered.
    """
    listed = list(entries)
    total, scan = sum(entry.size for entry in listed), _Scan(directory)
    tell = progress or (lambda _completed, _total: None)
    tell(0, total)
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="transferkit-verify") as pool:
        try:
            order = sorted(range(len(listed)), key=lambda number: -listed[number].size)
            found = {number: pool.submit(scan.is_right, listed[number], number) for number in order}
            waiting = set(found.values())
            while waiting:
                _, waiting = wait(waiting, timeout=_INTERVAL)
                if cancel is not None and cancel.cancelled:
                    raise cancel.error()
                tell(sum(scan.done.values()), total)
        finally:
            scan.is_over = True
            pool.shutdown(cancel_futures=True)
    return [entry for number, entry in enumerate(listed) if not found[number].result()]
