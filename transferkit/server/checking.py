"""A check of a cache that runs behind a server: one at a time, and what the last one has found.

Knows ``DiskCache.verify``; knows nothing of HTTP.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transferkit.cancellation import Cancellation
from transferkit.storage.cache import DiskCache
from transferkit.storage.verifying import Entry

logger = logging.getLogger("transferkit.server")


@dataclass(frozen=True, slots=True)
class Found:
    """How far a check is, in bytes, and what it has found; ``ended`` is Unix time, ``None`` while it runs."""

    completed: int = 0
    total: int = 0
    ended: float | None = None
    wrong: Sequence[Entry] = ()
    error: str = ""


class Checking:
    """The checks of one cache. Thread-safe; ``close`` ends the one that runs."""

    def __init__(self, cache: DiskCache, *, clock: Callable[[], float] = time.time) -> None:
        self._cache = cache
        self._clock = clock
        self._lock = threading.Lock()
        self._found: Found | None = None
        self._thread: threading.Thread | None = None
        self._cancellation = Cancellation()

    def found(self) -> Found | None:
        """Return what is known of the check that runs, else of the last one; ``None``: there was none yet."""
        return self._found

    def start(self) -> None:
        """Begin a check, if none runs."""
        with self._lock:
            is_running = self._found is not None and self._found.ended is None
            if is_running or self._cancellation.cancelled:
                return
            self._found = Found()
            self._thread = threading.Thread(target=self._run, name="transferkit-check", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        wrong: Sequence[Entry] = ()
        error = ""
        try:
            wrong = self._cache.verify(progress=self._moved, cancel=self._cancellation)
        except Exception as caught:  # noqa: BLE001 - who asks is told
            error = str(caught) or type(caught).__name__
            logger.warning("the check of %s was not finished: %s", self._cache.root, error)
        seen = self._found or Found()
        self._found = Found(seen.completed, seen.total, self._clock(), wrong, error)

    def _moved(self, completed: int, total: int) -> None:
        self._found = Found(completed, total)

    def close(self) -> None:
        """Cancel the check that runs, and wait for its end."""
        with self._lock:
            self._cancellation.cancel("the server ends")
            thread = self._thread
        if thread is not None:
            thread.join()
