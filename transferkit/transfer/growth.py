"""How many workers are really useful: it begins with two, and climbs as long as more of them move more.

64 threads hide the latency of a far registry. On a fast link they only fight for the interpreter and for the lock of
the file they all write to: 5,000 blobs of 16 KiB from loopback took 1.2 s with 2 of them and 1.9 s with 16; 2 GiB in
two files took 2.4 s with 2 and 3.7 s with 64. At 40 MB/s a connection, the same 2 GiB took 24 s with 2 and 3 s with 32.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence

FIRST = 2  # workers to begin with
LATENCY = 0.004  # seconds between two looks before the first byte: the farther the registry, the more begin at once
PERIOD = 0.02  # seconds between two looks after it
MANY = 32  # workers that begin before the first byte, where that does not take FAR seconds
FAR = 0.05
WINDOW = 0.06  # seconds over which a rate is measured
PATIENCE = 1.0  # seconds for new workers to move their first bytes, before they are judged without
REST = 2.0  # seconds between a trial that brought nothing and the next
GAIN = 1.15  # twice the workers have to move so many times the bytes
LEVEL = 0.95  # where the processor idles: there more of them cost nothing
IDLE = 0.7  # of one core
FULL = 0.7  # of all cores: more workers would only wait for one


class Growth:
    """Says how many workers a run should have. Not thread-safe: the caller alone asks.

    Twice as many are tried, and kept if they move more bytes, or as many while the processor idles; if not, that is
    tried again after a rest. While no byte arrives at all, and the processor idles, there are twice as many at each
    look. ``cores`` is how many there are.
    """

    def __init__(
        self,
        ceiling: int,
        *,
        clock: Callable[[], float] = time.perf_counter,
        cpu: Callable[[], float] = time.process_time,
        cores: int | None = None,
    ) -> None:
        self.workers = min(ceiling, FIRST)
        self._ceiling = ceiling
        self._clock = clock
        self._cpu = cpu
        self._cores = cores or _cores()
        self._total = 0
        self._heard = clock()
        self._looked, self._used = self._heard, cpu()
        self._resting_until = 0.0
        self._usual: int | None = None
        """How many there were before the trial that is on, if one is."""
        self._rate = 0.0
        """What they moved."""
        self._window: tuple[float, int, float] | None = None
        """When the window began that a rate is measured over, and what was moved, and computed, until then."""
        self._begin([0] * ceiling)

    @property
    def done(self) -> bool:
        """Whether there is nothing to find out."""
        return self._ceiling <= FIRST

    @property
    def pause(self) -> float:
        """Seconds until the next look."""
        return PERIOD if self._total else LATENCY

    def stop(self) -> None:
        """Find out nothing more: there are as many as there can be."""
        self._ceiling = 0

    def look(self, moved: Sequence[int]) -> int:
        """Return how many workers there should be now; ``moved`` is what each of them has moved so far, in bytes."""
        now, total, used = self._clock(), sum(moved), self._cpu()
        idles = used - self._used < IDLE * (now - self._looked)
        self._looked, self._used = now, used
        if total == self._total:
            if idles and (self.workers < MANY or now - self._heard >= FAR):
                self._usual = None
                self._set(2 * self.workers, moved)
            return self.workers
        self._total, self._heard = total, now
        if now < self._resting_until:
            return self.workers
        if self._window is None:
            if self._all_at_work(moved, now):
                self._window = now, total, used
            return self.workers
        began, before, computed = self._window
        elapsed = now - began
        if elapsed >= WINDOW:
            self._judge((total - before) / elapsed, (used - computed) / elapsed, moved)
        return self.workers

    def _judge(self, rate: float, share: float, moved: Sequence[int]) -> None:
        """Decide on the rate of so many workers as there are now, which keep ``share`` cores busy."""
        usual, self._usual = self._usual, None
        if usual is not None and rate < self._rate * (LEVEL if share < IDLE else GAIN):
            self._resting_until = self._clock() + REST
            self._set(usual, moved)
        elif share >= FULL * self._cores:
            self._resting_until = self._clock() + REST
            self._begin(moved)
        elif self.workers < self._ceiling:
            self._usual, self._rate = self.workers, rate
            self._set(2 * self.workers, moved)
        else:
            self._resting_until = math.inf

    def _set(self, workers: int, moved: Sequence[int]) -> None:
        self.workers = min(self._ceiling, workers)
        self._begin(moved)

    def _begin(self, moved: Sequence[int]) -> None:
        """Begin to find out what there now is to be moved."""
        self._began = self._clock()
        self._base = list(moved)
        self._window = None

    def _all_at_work(self, moved: Sequence[int], now: float) -> bool:
        """Whether most of those that should be at work have moved something since they were told."""
        if now - self._began >= PATIENCE:
            return True
        return 4 * sum(map(int.__ne__, moved[: self.workers], self._base)) >= 3 * self.workers


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
