"""The one retry loop: when to try again, how long to wait, when to give up.

One loop per unit of work, never nested. It asks ``error.retryable`` and nothing else about an error. ``tenacity`` runs
the loop; clock, sleep and random numbers are constructor arguments, so that tests take no time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

import tenacity
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from transferkit.errors import RetriesExhaustedError, SlowError, StalledError, TransferKitError
from transferkit.options import RetryOptions

T = TypeVar("T")

STEP = 0.01  # seconds: the wait before attempt n+1 is n*n*STEP, the seed's own back-off


class wait_quadratic(wait_base):  # noqa: N801 - named as tenacity names its own
    """Wait ``n*n*step`` seconds after the ``n``-th failure, at most ``maximum``, times a factor in [0.5, 1.5).

    The jitter comes after the cap, so that a thousand clients at the cap do not come back together.
    """

    def __init__(
        self,
        maximum: float,
        *,
        step: float = STEP,
        rng: Callable[[], float] = random.random,
        count: Callable[[tenacity.RetryCallState], int] = lambda state: state.attempt_number,
    ) -> None:
        self._maximum = maximum
        self._step = step
        self._rng = rng
        self._count = count

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        return quadratic(self._count(retry_state), self._maximum, self._rng, self._step)


def quadratic(failures: int, maximum: float, rng: Callable[[], float], step: float = STEP) -> float:
    """Return the wait after so many failures, in seconds."""
    return min(failures * failures * step, maximum) * (0.5 + rng())


class _Tally:
    """What one unit of work has been through so far: fruitless attempts, free restarts, when the last byte came."""

    def __init__(self, retry: Retry, position: Callable[[], int]) -> None:
        self._options = retry.options
        self._clock = retry.clock
        self._position = position
        self._best = position()
        self._last_byte = retry.clock()
        self._free: dict[type[BaseException], int] = dict.fromkeys(
            (StalledError, SlowError), retry.options.free_restarts
        )
        self.fruitless = 0

    def record(self, state: tenacity.RetryCallState) -> None:
        """Judge a failed attempt; runs before the wait and the stop of that attempt are asked for."""
        position = self._position()
        # New bytes only: a peer that cuts every answer at the same place must not be asked for ever.
        if position > self._best:
            self._best = position
            self._last_byte = self._clock()
            self.fruitless = 0
        error = state.outcome.exception() if state.outcome else None
        kind = type(error) if error is not None else BaseException
        if self._free.get(kind, 0) > 0:
            self._free[kind] -= 1
        else:
            self.fruitless += 1

    def out_of_attempts(self) -> bool:
        return self.fruitless >= self._options.attempts

    def out_of_patience(self) -> bool:
        return self._clock() - self._last_byte >= self._options.patience


class _stop_when(stop_base):  # noqa: N801 - as above
    """Stop when ``condition`` holds."""

    def __init__(self, condition: Callable[[], bool]) -> None:
        self._condition = condition

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
        return self._condition()


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

    def wait(self, error: TransferKitError, failures: int) -> float:
        """Return the seconds to wait after so many failures, the last of them ``error``."""
        return max(_asked(error), quadratic(failures, self.options.max_wait, self.rng))

    def call(
        self,
        attempt: Callable[[], T],
        *,
        position: Callable[[], int],
        sleep: Callable[[float], None],
        on_retry: Callable[[TransferKitError, float], None] | None = None,
    ) -> T:
        """Run ``attempt`` until it succeeds, fails for good, or is given up.

        ``position`` tells the furthest byte that the unit ever reached; ``sleep`` waits between attempts and may raise;
        ``on_retry`` hears of each failure that will be tried again, and after how many seconds.

        Raises:
            RetriesExhaustedError: given up; its cause is the last error.
            TransferKitError: the attempt's own error, where it is not retryable.
        """
        try:
            return attempt()  # nearly every unit ends here: tenacity costs 60 us a call, a small blob takes 300
        except TransferKitError as error:
            if not error.retryable:
                raise
            first: TransferKitError | None = error

        def again() -> T:
            nonlocal first
            if first is not None:
                error, first = first, None
                raise error
            return attempt()

        tally = _Tally(self, position)
        back_off = wait_quadratic(self.options.max_wait, rng=self.rng, count=lambda state: tally.fruitless)

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            return max(_asked(error), back_off(state))

        def give_up(state: tenacity.RetryCallState) -> T:
            error = state.outcome.exception() if state.outcome else None
            raise RetriesExhaustedError(
                f"gave up after {state.attempt_number} attempts: {error}", attempts=state.attempt_number
            ) from error

        def before_sleep(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            if on_retry is not None and isinstance(error, TransferKitError):
                on_retry(error, state.upcoming_sleep)

        loop = tenacity.Retrying(
            sleep=sleep,
            stop=tenacity.stop_all(_stop_when(tally.out_of_attempts), _stop_when(tally.out_of_patience)),
            wait=wait,
            retry=tenacity.retry_if_exception(lambda e: isinstance(e, TransferKitError) and e.retryable),
            after=tally.record,
            before_sleep=before_sleep,
            retry_error_callback=give_up,
            reraise=True,
        )
        return loop(again)


def _asked(error: BaseException | None) -> float:
    """Return the seconds that a registry asked for."""
    return float(getattr(error, "retry_after", None) or 0.0)
