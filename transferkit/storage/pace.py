"""How much of the partial files of a folder may be unsynced, so that an orderly stop can sync all of it in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

SYNC_EVERY = 256 * 1024 * 1024  # bytes at most between two syncs of a file: what a power cut may cost
LEAST = 16 * 1024 * 1024  # bytes at least: on a slow disk, more syncs would slow it down further
STOP = 0.4  # seconds that a stop may spend on syncing: a call that is cancelled returns in under a second
APART = 5.0  # seconds after which another stop is another call's, or another attempt's
UNKNOWN = 128 * 1024 * 1024  # bytes a second of a disk that was not measured yet: an old one


class Pace:
    """What the partial files of one folder know of their disk. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._speed: float | None = None
        self._stop = float("-inf")
        self._lock = threading.Lock()

    def due(self, *, syncing: bool = False) -> int:
        """Return how many bytes may be unsynced of a file that is being filled, ``syncing`` those before already.

        On a disk that is slower than the network one worker waits for it, and the others only with much to sync.
        """
        if syncing:
            return SYNC_EVERY
        if self._speed is None:
            return SYNC_EVERY // 4  # the first sync tells how fast the disk is
        return int(min(SYNC_EVERY, max(LEAST, self._speed * STOP * 0.9)))

    def took(self, count: int, seconds: float) -> None:
        """Take in that it took so long to sync so many bytes."""
        if count >= min(LEAST, SYNC_EVERY // 4):
            self._speed = count / max(seconds, 1e-3)

    def allows(self, count: int) -> bool:
        """Tell whether a stop may sync so many bytes: one takes ``STOP`` seconds for all files together."""
        with self._lock:
            now = self.clock()
            if now - self._stop > APART:
                self._stop = now
            return count / (self._speed or UNKNOWN) <= self._stop + STOP - now
