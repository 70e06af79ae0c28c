"""The one retry loop: when to try again, how long to wait, when to give up.

One loop per unit of work, never nested. It asks whether an error is ``retryable``, what it wants to be waited for, and
whether its caller excuses it; stalls and slowness have free restarts.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from transferkit.errors import RetriesExhaustedError, SlowError, StalledError, TransferKitError
from transferkit.options import RetryOptions

T = TypeVar("T")
STEP = 0.01  # seconds: the wait after n failures is n*n*STEP, the seed's own back-off


class Retry:
    """The policy, and the loop over one unit of work. Thread-safe: it holds no state of a unit."""

    def __init__(
        self,
        options: RetryOptions,
        clock: Callable[[], float] = time.monotonic,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self.options = options
        self.clock = clock
        self.rng = rng

    def limited(self, attempts: int) -> Retry:
        """Return the same policy for something that can be done without: it is given up after so many attempts."""
        return Retry(replace(self.options, attempts=attempts, patience=0.0), self.clock, self.rng)

    def call(
        self,
        attempt: Callable[[], T],
        *,
        first: TransferKitError,
        position: Callable[[], int],
        sleep: Callable[[float], None],
        on_retry: Callable[[TransferKitError, float], None],
        excused: Callable[[TransferKitError], bool],
    ) -> T:
        """Go on with a unit of work that has failed ``first``, until it succeeds, fails for good, or is given up.

        The first attempt is the caller's own: most units need no other, and then nothing of this is made.
        ``position`` tells the furthest byte that the unit ever reached; ``sleep`` may raise; ``on_retry`` hears of each
        failure that will be tried again, and after how many seconds. One that is ``excused`` does not count.

        Raises:
            RetriesExhaustedError: given up; its cause is the last error.
            TransferKitError: the attempt's own error, where it is not retryable.
        """
        try:
            if not first.retryable:
                raise first
            tally = _Tally(self, position, excused)
            while True:
                tally.record(first)
                if tally.is_spent():
                    raise RetriesExhaustedError.after(tally.failures, first) from first
                wait = tally.wait(first)
                on_retry(first, wait)
                sleep(wait)
                try:
                    return attempt()
                except TransferKitError as error:
                    if not error.retryable:
                        raise
                    first = error
        finally:
            del first  # its traceback refers to this frame


class _Tally:
    """What one unit of work has been through so far: failures, fruitless ones, free restarts, the last byte."""

    def __init__(self, retry: Retry, position: Callable[[], int], excused: Callable[[TransferKitError], bool]) -> None:
        self._retry = retry
        self._position = position
        self._excused = excused
        self._best = position()
        self._last_byte = retry.clock()
        self._free = dict.fromkeys((StalledError, SlowError), retry.options.free_restarts)
        self._fruitless = 0
        self._excuses = 0
        self.failures = 0

    def record(self, error: TransferKitError) -> None:
        """Judge a failed attempt; comes before the questions whether there is another one, and when."""
        position = self._position()
        self.failures += 1
        # New bytes only: a peer that cuts every answer at the same place must not be asked for ever.
        if position > self._best:
            self._best = position
            self._last_byte = self._retry.clock()
            self._fruitless = self._excuses = 0
        kind = next((kind for kind in self._free if isinstance(error, kind)), None)
        if self._excused(error):
            self._excuses += 1
            self._last_byte = self._retry.clock()
        elif kind is not None and self._free[kind] > 0:
            self._free[kind] -= 1
        else:
            self._fruitless += 1

    def is_spent(self) -> bool:
        """Tell whether the unit is given up."""
        options = self._retry.options
        return self._fruitless >= options.attempts and self._retry.clock() - self._last_byte >= options.patience

    def wait(self, error: TransferKitError) -> float:
        """Return the seconds until the next attempt: no less than a registry asked for."""
        asked_for: float | None = getattr(error, "retry_after", None)
        options = self._retry.options
        failures = max(self._fruitless, min(self._excuses, options.attempts))
        wait = min(failures * failures * STEP, options.max_wait)
        # The jitter comes after the cap, so that a thousand clients at the cap do not come back together.
        return max(asked_for or 0.0, wait * (0.5 + self._retry.rng()))
