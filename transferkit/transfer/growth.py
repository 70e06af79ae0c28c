"""How many workers are really useful: more of them while the processor idles, no more once it does not.

64 threads hide the latency of a far registry. On a fast link they only fight for the interpreter: 5,000 blobs of 16 KiB
from loopback took 0.8 s with 16 of them and 1.4 s with 64.
"""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST = 16  # workers to begin with
PERIOD = 0.01  # seconds between two looks while there may be more
SATURATED = 0.7  # of one core: beyond it, Python is the limit and not the wait for the network


class Growth:
    """Says how many workers a run should have: 16 first, then twice as many. Not thread-safe: the caller alone asks."""

    def __init__(
        self,
        ceiling: int,
        *,
        clock: Callable[[], float] = time.perf_counter,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self.workers = min(ceiling, FIRST)
        self._ceiling = ceiling
        self._clock = clock
        self._cpu = cpu
        self._looked = clock()
        self._used = cpu()

    @property
    def done(self) -> bool:
        """Whether there will be no more of them."""
        return self.workers >= self._ceiling

    def look(self) -> int:
        """Return how many workers there should be now."""
        now, used = self._clock(), self._cpu()
        elapsed, spent = now - self._looked, used - self._used
        self._looked, self._used = now, used
        if elapsed > 0 and spent / elapsed < SATURATED:
            self.workers = min(self._ceiling, 2 * self.workers)
        return self.workers
