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

    def limited(self, attempts: int) -> Retry:
        """Return the same policy for something that can be done without: it is given up after so many attempts."""
        return Retry(replace(self.options, attempts=attempts, patience=0.0), clock=self.clock, rng=self.rng)

    def call(
        self,
        attempt: Callable[[], T],
        *,
        position: Callable[[], int],
        sleep: Callable[[float], None],
        on_retry: Callable[[TransferKitError, float], None] = lambda error, wait: None,
        excused: Callable[[TransferKitError], bool] = lambda error: False,
        first: TransferKitError | None = None,
    ) -> T:
        """Run ``attempt`` until it succeeds, fails for good, or is given up.

        ``position`` tells the furthest byte that the unit ever reached; ``sleep`` waits between attempts and may raise;
        ``on_retry`` hears of each failure that will be tried again, and after how many seconds. A failure that is
        ``excused`` counts neither as an attempt nor against the patience. ``first`` is how the caller's own attempt has
        failed: nearly every unit ends with that one, and ``tenacity`` costs 60 us a call where a small blob takes 200.

        Raises:
            RetriesExhaustedError: given up; its cause is the last error.
            TransferKitError: the attempt's own error, where it is not retryable.
        """
        try:
            if first is None:
                try:
                    return attempt()
                except TransferKitError as error:
                    first = error
            if not first.retryable:
                raise first
            # Here: most processes meet no failure, and it is a tenth of what a start takes.
            from transferkit.retry.loop import go_on

            return go_on(self, first, attempt, position=position, sleep=sleep, on_retry=on_retry, excused=excused)
        finally:
            del first  # its traceback refers to this frame
