"""How fast bodies have been of late: what a slow one is compared with."""

from __future__ import annotations

from collections import deque

SAMPLES = 30  # the last ones; a link changes
ENOUGH = 5  # below this there is nothing to compare with
SMALLEST = 100_000  # bytes: a smaller blob's speed is the latency, not the link
SLOW = 0.1  # of the median
FLOOR = 256 * 1024  # bytes/s: on a link that is slow for all, a new connection only costs


class Speeds:
    """A rolling median of finished bodies. Thread-safe: workers only append."""

    def __init__(self) -> None:
        self._rates: deque[float] = deque(maxlen=SAMPLES)

    def record(self, size: int, seconds: float) -> None:
        """Take in a body of ``size`` bytes that took ``seconds``."""
        if size >= SMALLEST and seconds > 0:
            self._rates.append(size / seconds)

    def median(self) -> float | None:
        """Return bytes a second, ``None`` while there are too few samples."""
        rates = list(self._rates)
        if len(rates) < ENOUGH:
            return None
        import statistics  # here: it imports fractions and more, and few processes come so far

        return statistics.median(rates)

    def is_slow(self, rate: float) -> bool:
        """Tell whether a body that moves ``rate`` bytes a second is far behind the others."""
        median = self.median()
        return median is not None and median >= FLOOR and rate < SLOW * median
