"""The one retry loop: when to try again, how long to wait, when to give up.

One loop per unit of work, never nested. It asks whether an error is ``retryable``, what it wants to be waited for, and
whether its caller excuses it; stalls and slowness have free restarts.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar, cast

from transferkit.errors import RetriesExhaustedError, SlowError, StalledError, TransferKitError
from transferkit.forks import importing
from transferkit.options import RetryOptions

if TYPE_CHECKING:
    import tenacity

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

    def prepare(self) -> bool:
        """Import what it takes to try again, and tell whether that went well: without descriptors it does not."""
        try:
            _tenacity()
        except (ImportError, OSError):  # a library that cannot be opened is an ImportError
            return False
        return True

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

        The first attempt is the caller's own: ``tenacity`` costs 60 us a call where a small blob takes 200, and 15 ms
        to be imported, which a call pays once something has failed.
        ``position`` tells the furthest byte that the unit ever reached; ``sleep`` may raise; ``on_retry`` hears of each
        failure that will be tried again, and after how many seconds. One that is ``excused`` does not count.

        Raises:
            RetriesExhaustedError: given up; its cause is the last error.
            TransferKitError: the attempt's own error, where it is not retryable.
        """
        failures = [first]
        del first  # its traceback refers to what refers to this frame
        if not failures[0].retryable:
            raise failures.pop()

        # It may have failed for want of a descriptor, which others give back.
        for wait in range(1, self.options.attempts):
            if self.prepare():
                break
            sleep(min(wait * wait * STEP, self.options.max_wait))
        if not self.prepare():
            raise failures.pop()
        tenacity = _tenacity()

        def again() -> T:
            if failures:
                raise failures.pop()
            return attempt()

        tally = _Tally(self, position, excused)
        loop = tenacity.Retrying(
            sleep=sleep,
            stop=tally.is_spent,
            wait=tally.wait,
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, TransferKitError) and error.retryable),
            after=tally.record,
            before_sleep=lambda state: on_retry(_error(state), state.upcoming_sleep),
            retry_error_callback=_give_up,
        )
        return cast("T", loop(again))


class _Tally:
    """What one unit of work has been through so far: fruitless attempts, free restarts, when the last byte came."""

    def __init__(self, retry: Retry, position: Callable[[], int], excused: Callable[[TransferKitError], bool]) -> None:
        self._retry = retry
        self._position = position
        self._excused = excused
        self._best = position()
        self._last_byte = retry.clock()
        self._free = dict.fromkeys((StalledError, SlowError), retry.options.free_restarts)
        self._fruitless = 0
        self._excuses = 0

    def record(self, state: tenacity.RetryCallState) -> None:
        """Judge a failed attempt; runs before the wait and the stop of that attempt are asked for."""
        position, error = self._position(), _error(state)
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

    def is_spent(self, state: tenacity.RetryCallState) -> bool:
        options = self._retry.options
        return self._fruitless >= options.attempts and self._retry.clock() - self._last_byte >= options.patience

    def wait(self, state: tenacity.RetryCallState) -> float:
        """Return the seconds until the next attempt: no less than a registry asked for."""
        asked_for: float | None = getattr(_error(state), "retry_after", None)
        options = self._retry.options
        failures = max(self._fruitless, min(self._excuses, options.attempts))
        wait = min(failures * failures * STEP, options.max_wait)
        # The jitter comes after the cap, so that a thousand clients at the cap do not come back together.
        return max(asked_for or 0.0, wait * (0.5 + self._retry.rng()))


def _tenacity() -> Any:
    with importing:
        return import_module("tenacity")


def _error(state: tenacity.RetryCallState) -> TransferKitError:
    return cast(TransferKitError, state.outcome and state.outcome.exception())


def _give_up(state: tenacity.RetryCallState) -> None:
    error = _error(state)
    raise RetriesExhaustedError.after(state.attempt_number, error) from error
