"""A limit on bytes a second, shared by all workers and both directions, and one on how many bodies move at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Bandwidth:
    """Hands out time: each worker reserves the time that its bytes take, in the order in which they come. Thread-safe.

    Fair because the reservations are a queue: who has just moved much waits behind those who have not.
    """

    def __init__(
        self, rate: float, *, sleep: Callable[[float], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._sleep = sleep
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at = clock()

    def moved(self, count: int) -> None:
        """Wait as long as ``count`` bytes take at the allowed rate."""
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now) + count / self._rate
            wait = self._free_at - now
        if wait > 0:
            self._sleep(wait)
