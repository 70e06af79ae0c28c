"""Syncs of folders that several threads need at the same time, each done once for all of them.

A sync makes durable whatever was in the folder when it began. Who asks while one runs cannot rest on that one, but on
the next, and so can everybody else who asks until that begins. One thread alone pays what it paid before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait

from transferkit.storage.disk import Disk


class GroupSync:
    """``sync(path)`` for many threads. Returns, or raises what ``sync`` did, once a sync that began later has ended."""

    def __init__(self, sync: Callable[[str], None]) -> None:
        self._sync = sync
        self._lock = threading.Lock()
        self._running: dict[str, Future[None]] = {}
        self._next: dict[str, Future[None]] = {}

    def __call__(self, path: str) -> None:
        with self._lock:
            shared = self._next.get(path)
            if shared is None:
                own = self._next[path] = Future()
                before = self._running.get(path)
        if shared is not None:
            shared.result()
            return
        if before is not None:
            wait([before])
        with self._lock:
            self._running[path] = self._next.pop(path)
        try:
            self._sync(path)
        except BaseException as error:
            own.set_exception(error)
            raise
        else:
            own.set_result(None)
        finally:
            with self._lock:
                if self._running.get(path) is own:  # the next one may have begun, and even have ended
                    del self._running[path]


class GroupingDisk(Disk):
    """A disk for many threads that make files in few folders, and sync each."""

    def __init__(self) -> None:
        self._group = GroupSync(super().sync_folder)

    def sync_folder(self, path: str) -> None:
        self._group(path)
