"""The one retry loop: when to try again, how long to wait, when to give up.

One loop per unit of work, never nested. It asks ``error.retryable`` and nothing else about an error. ``tenacity`` runs
the loop (``retry.loop``), from the first failure on; clock, sleep and random numbers are constructor arguments, so that
tests take no time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from transferkit.errors import TransferKitError
from transferkit.options import RetryOptions

T = TypeVar("T")

STEP = 0.01  # seconds: the wait before attempt n+1 is n*n*STEP, the seed's own back-off


def quadratic(failures: int, maximum: float, rng: Callable[[], float], step: float = STEP) -> float:
    """Return the wait after so many failures, in seconds."""
    return min(failures * failures * step, maximum) * (0.5 + rng())


class Retry:
    """The policy, and the loop over one unit of work. Thread-safe: it holds no state of a unit."""

    def __init__(
        self,
        options: RetryOptions | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self.options = options or RetryOptions()
        self.clock = clock
        self.rng = rng

    def call(
        self,
        attempt: Callable[[], T],
        *,
        position: Callable[[], int],
        sleep: Callable[[float], None],
        on_retry: Callable[[TransferKitError, float], None] | None = None,
        excused: Callable[[TransferKitError], bool] | None = None,
    ) -> T:
        """Run ``attempt`` until it succeeds, fails for good, or is given up.

        ``position`` tells the furthest byte that the unit ever reached; ``sleep`` waits between attempts and may raise;
        ``on_retry`` hears of each failure that will be tried again, and after how many seconds. A failure that is
        ``excused`` counts neither as an attempt nor against the patience.

        Raises:
            RetriesExhaustedError: given up; its cause is the last error.
            TransferKitError: the attempt's own error, where it is not retryable.
        """
        try:
            return attempt()
        except TransferKitError as error:
            first = error
        try:
            return self.go_on(first, attempt, position=position, sleep=sleep, on_retry=on_retry, excused=excused)
        finally:
            del first  # its traceback refers to this frame

    def go_on(
        self,
        first: TransferKitError,
        attempt: Callable[[], T],
        *,
        position: Callable[[], int],
        sleep: Callable[[float], None],
        on_retry: Callable[[TransferKitError, float], None] | None = None,
        excused: Callable[[TransferKitError], bool] | None = None,
    ) -> T:
        """Go on as ``call`` does where the first attempt has failed with ``first``.

        Nearly every unit ends with its first attempt, which its caller makes itself: tenacity costs 60 us a call, a
        small blob takes 200.
        """
        if not first.retryable:
            raise first
        # Here: most processes meet no failure, and it is a tenth of what a start takes.
        from transferkit.retry.loop import go_on

        try:
            return go_on(self, first, attempt, position=position, sleep=sleep, on_retry=on_retry, excused=excused)
        finally:
            del first

    def limited(self, attempts: int) -> Retry:
        """Return the same policy for something that is optional: it is given up after so many attempts."""
        return Retry(replace(self.options, attempts=attempts, patience=0.0), clock=self.clock, rng=self.rng)


def asked_for(error: BaseException | None) -> float:
    """Return the seconds that a registry asked for."""
    return float(getattr(error, "retry_after", None) or 0.0)
