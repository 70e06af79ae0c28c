"""The loop itself, which ``tenacity`` runs: for a unit of work that has failed once."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

import tenacity
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from transferkit.errors import RetriesExhaustedError, SlowError, StalledError, TransferKitError
from transferkit.retry import STEP, Retry, asked_for, quadratic

T = TypeVar("T")


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


class _Tally:
    """What one unit of work has been through so far: fruitless attempts, free restarts, when the last byte came."""

    def __init__(
        self, retry: Retry, position: Callable[[], int], excused: Callable[[TransferKitError], bool] | None
    ) -> None:
        self._excused = excused
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
        if self._excused is not None and isinstance(error, TransferKitError) and self._excused(error):
            self._last_byte = self._clock()
        elif self._free.get(kind, 0) > 0:
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


def go_on(
    retry: Retry,
    failure: TransferKitError,
    attempt: Callable[[], T],
    *,
    position: Callable[[], int],
    sleep: Callable[[float], None],
    on_retry: Callable[[TransferKitError, float], None] | None,
    excused: Callable[[TransferKitError], bool] | None,
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

    tally = _Tally(retry, position, excused)
    back_off = wait_quadratic(retry.options.max_wait, rng=retry.rng, count=lambda state: tally.fruitless)

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return max(asked_for(error), back_off(state))

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
