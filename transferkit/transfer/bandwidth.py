"""A limit on bytes a second, shared by all workers and both directions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Bandwidth:
    """Hands out time: each worker reserves the time that its bytes take, in the order in which they come. Thread-safe.

    Fair because the reservations are a queue: who has just moved much waits behind those who have not.
    """

    def __init__(self, rate: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at = clock()

    def reserve(self, count: int) -> float:
        """Return how many seconds to wait now that ``count`` bytes were moved."""
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now) + count / self._rate
            return self._free_at - now
