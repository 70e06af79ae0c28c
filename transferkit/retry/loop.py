"""The loop itself, which ``tenacity`` runs: for a unit of work that has failed once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import tenacity

from transferkit.errors import RetriesExhaustedError, SlowError, StalledError, TransferKitError
from transferkit.retry import Retry

T = TypeVar("T")

STEP = 0.01  # seconds: the wait before attempt n+1 is n*n*STEP, the seed's own back-off


def quadratic(failures: int, maximum: float, rng: Callable[[], float]) -> float:
    """Return the wait after so many failures, in seconds.

    The jitter, a factor in [0.5, 1.5), comes after the cap, so that a thousand clients at the cap do not come back
    together.
    """
    return min(failures * failures * STEP, maximum) * (0.5 + rng())


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

    def record(self, state: tenacity.RetryCallState) -> None:
        """Judge a failed attempt; runs before the wait and the stop of that attempt are asked for."""
        position, error = self._position(), _error(state)
        # New bytes only: a peer that cuts every answer at the same place must not be asked for ever.
        if position > self._best:
            self._best = position
            self._last_byte = self._retry.clock()
            self._fruitless = 0
        kind = StalledError if isinstance(error, StalledError) else SlowError if isinstance(error, SlowError) else None
        if self._excused(error):
            self._last_byte = self._retry.clock()
        elif kind is not None and self._free[kind] > 0:
            self._free[kind] -= 1
        else:
            self._fruitless += 1

    def is_spent(self, state: tenacity.RetryCallState) -> bool:
        """Whether both the attempts and the patience are at their end."""
        options = self._retry.options
        return self._fruitless >= options.attempts and self._retry.clock() - self._last_byte >= options.patience

    def wait(self, state: tenacity.RetryCallState) -> float:
        """Return the seconds until the next attempt: no less than a registry asked for."""
        asked_for = getattr(_error(state), "retry_after", None) or 0.0
        return max(float(asked_for), quadratic(self._fruitless, self._retry.options.max_wait, self._retry.rng))


def go_on(
    retry: Retry,
    failure: TransferKitError,
    attempt: Callable[[], T],
    *,
    position: Callable[[], int],
    sleep: Callable[[float], None],
    on_retry: Callable[[TransferKitError, float], None],
    excused: Callable[[TransferKitError], bool],
) -> T:
    """Go on after the first failure of ``attempt``; what it takes, returns and raises is that of ``Retry.call``."""
    first: TransferKitError | None = failure
    del failure  # its traceback refers to what refers to it

    def again() -> T:
        nonlocal first
        if first is not None:
            error, first = first, None
            raise error
        return attempt()

    def give_up(state: tenacity.RetryCallState) -> T:
        error, attempts = _error(state), state.attempt_number
        raise RetriesExhaustedError(f"gave up after {attempts} attempts: {error}", attempts=attempts) from error

    tally = _Tally(retry, position, excused)
    loop = tenacity.Retrying(
        sleep=sleep,
        stop=tally.is_spent,
        wait=tally.wait,
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, TransferKitError) and error.retryable),
        after=tally.record,
        before_sleep=lambda state: on_retry(_error(state), state.upcoming_sleep),
        retry_error_callback=give_up,
        reraise=True,
    )
    return loop(again)


def _error(state: tenacity.RetryCallState) -> TransferKitError:
    """Return how the attempt failed that is tried again: no other one is heard of."""
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, TransferKitError) else TransferKitError(str(error))
