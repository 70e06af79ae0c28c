"""The retry loop on a clock of its own: no test here waits."""

from __future__ import annotations

import errno
import itertools
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import tenacity
from hypothesis import given, settings
from hypothesis import strategies as st

from transferkit.errors import (
    CancelledError,
    DigestMismatchError,
    RateLimitedError,
    ReadError,
    RetriesExhaustedError,
    ServerError,
    SlowError,
    StalledError,
    TransferKitError,
)
from transferkit.options import RetryOptions
from transferkit.retry import Retry, T
from transferkit.transfer.operation import Operation


class Stage:
    """A clock that only ``sleep`` and slow attempts move, and a unit of work that does as it is told."""

    def __init__(self, options: RetryOptions | None = None, *, rng: Callable[[], float] = lambda: 0.5) -> None:
        self.now = 1000.0
        self.position = 0
        self.attempts = 0
        self.waits: list[float] = []
        self.heard: list[tuple[str, float]] = []
        self.retry = Retry(options or RetryOptions(), clock=lambda: self.now, rng=rng)

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def hear(self, error: TransferKitError, wait: float) -> None:
        self.heard.append((str(error), wait))

    def run(self, errors: Iterable[Exception | None], *, lasting: float = 0.0, bringing: int = 0) -> str:
        """Fail with each of ``errors``, ``None`` being a success; each attempt lasts and brings new bytes as told."""
        script: Iterator[Exception | None] = iter(errors)

        def attempt() -> str:
            self.attempts += 1
            self.now += lasting
            self.position += bringing
            error = next(script)
            if error is not None:
                raise error
            return "done"

        return self.call(attempt)

    def call(self, attempt: Callable[[], T], excused: Callable[[TransferKitError], bool] = lambda error: False) -> T:
        """Make the first attempt, as every caller does, and leave the others to the loop."""
        try:
            return attempt()
        except TransferKitError as error:
            first = error
        return self.retry.call(
            attempt,
            first=first,
            position=lambda: self.position,
            sleep=self.sleep,
            on_retry=self.hear,
            excused=excused,
        )


def for_ever() -> Iterator[Exception]:
    return (ReadError(f"cut off {n}") for n in itertools.count(1))


# -- how long


def test_waits_grow_with_the_square_of_the_failures() -> None:
    stage = Stage()
    assert stage.run([*itertools.islice(for_ever(), 7), None]) == "done"
    assert stage.waits == pytest.approx([0.01, 0.04, 0.09, 0.16, 0.25, 0.36, 0.49])


def test_a_wait_is_at_most_five_seconds() -> None:
    stage = Stage(RetryOptions(patience=60.0))
    stage.run([*itertools.islice(for_ever(), 25), None])
    assert stage.waits[20:] == pytest.approx([4.41, 4.84, 5.0, 5.0, 5.0])


def test_a_wait_is_at_most_max_wait() -> None:
    stage = Stage(RetryOptions(max_wait=0.05))
    stage.run([*itertools.islice(for_ever(), 4), None])
    assert stage.waits == pytest.approx([0.01, 0.04, 0.05, 0.05])


def test_the_jitter_halves_a_wait_at_least_and_comes_after_the_cap() -> None:
    numbers = itertools.cycle([0.0, 0.5, 0.9])
    stage = Stage(RetryOptions(max_wait=0.04), rng=lambda: next(numbers))
    stage.run([*itertools.islice(for_ever(), 6), None])
    assert stage.waits == pytest.approx([0.005, 0.04, 0.056, 0.02, 0.04, 0.056])


@given(
    failures=st.integers(min_value=1, max_value=60),
    jitter=st.floats(min_value=0.0, max_value=1.0, exclude_max=True),
)
@settings(deadline=None, max_examples=50)
def test_every_wait_is_within_its_bounds(failures: int, jitter: float) -> None:
    stage = Stage(RetryOptions(patience=1000.0), rng=lambda: jitter)
    stage.run([*itertools.islice(for_ever(), failures), None])
    for number, wait in enumerate(stage.waits, 1):
        base = min(number**2 / 100, 5.0)
        assert base / 2 * 0.999 <= wait <= base * 1.5


def test_retry_after_sets_the_wait() -> None:
    stage = Stage()
    stage.run([RateLimitedError("later", retry_after=7.0), ServerError("later", retry_after=0.0), ReadError(), None])
    assert stage.waits == pytest.approx([7.0, 0.04, 0.09])


def test_retry_after_never_shortens_a_wait() -> None:
    stage = Stage()
    stage.run([*itertools.islice(for_ever(), 9), RateLimitedError("later", retry_after=0.5), None])
    assert stage.waits[-1] == pytest.approx(1.0)


# -- when to stop


def test_six_quick_failures_are_not_enough_before_the_patience_is_at_its_end() -> None:
    stage = Stage()
    with pytest.raises(RetriesExhaustedError) as caught:
        stage.run(for_ever())
    # 0.01 + 0.04 + ... + 4.00 is 28.70 s, and 4.41 more is past 30 s.
    assert stage.attempts == 22
    assert sum(stage.waits) == pytest.approx(33.11)
    assert caught.value.attempts == 22


def test_patience_at_its_end_is_not_enough_before_six_failures() -> None:
    stage = Stage()
    with pytest.raises(RetriesExhaustedError):
        stage.run(for_ever(), lasting=100.0)
    assert stage.attempts == 6
    assert stage.waits == pytest.approx([0.01, 0.04, 0.09, 0.16, 0.25])


def test_one_attempt_and_no_patience_is_one_attempt() -> None:
    stage = Stage(RetryOptions(attempts=1, patience=0.0))
    with pytest.raises(RetriesExhaustedError):
        stage.run(for_ever())
    assert (stage.attempts, stage.waits) == (1, [])


def test_giving_up_tells_the_attempts_and_is_caused_by_the_last_error() -> None:
    stage = Stage(RetryOptions(attempts=3, patience=0.0))
    with pytest.raises(
        RetriesExhaustedError,
        match=r"^gave up after 3 attempts: cut off 3; run it again later: what is in place stays$",
    ) as caught:
        stage.run(for_ever())
    assert caught.value.attempts == 3
    assert caught.value.retryable is True
    assert isinstance(caught.value, ReadError)
    assert type(caught.value.__cause__) is ReadError
    assert str(caught.value.__cause__) == "cut off 3"


def test_a_new_byte_resets_the_count_and_the_waits() -> None:
    stage = Stage(RetryOptions(attempts=2, patience=0.0))
    assert stage.run([*itertools.islice(for_ever(), 200), None], bringing=1) == "done"
    assert stage.attempts == 201
    assert stage.waits == pytest.approx([0.01] * 200)


def test_a_new_byte_resets_the_patience() -> None:
    stage = Stage(RetryOptions(attempts=1, patience=30.0))
    assert stage.run([*itertools.islice(for_ever(), 20), None], lasting=29.0, bringing=1) == "done"
    with pytest.raises(RetriesExhaustedError):
        stage.run(for_ever(), lasting=29.0)
    # 21 that went well, one that starts the patience, and two of 29 s that use it up.
    assert stage.attempts == 21 + 3


def test_the_same_bytes_again_do_not_reset_the_count() -> None:
    stage = Stage(RetryOptions(attempts=3, patience=0.0))
    reached = iter([500, 500, 500, 500, 500, 500])
    attempts = 0

    def attempt() -> None:
        nonlocal attempts
        attempts += 1
        stage.position = next(reached)
        raise ReadError("cut off at the same place")

    with pytest.raises(RetriesExhaustedError):
        stage.call(attempt)
    assert attempts == 3


def test_fewer_bytes_than_before_do_not_reset_the_count() -> None:
    stage = Stage(RetryOptions(attempts=3, patience=0.0))
    reached = iter([500, 100, 499, 0])

    def attempt() -> None:
        stage.position = next(reached)
        raise ReadError("cut off")

    with pytest.raises(RetriesExhaustedError) as caught:
        stage.call(attempt)
    assert caught.value.attempts == 3


# -- stalls and slow cuts


def test_three_stalls_and_three_slow_cuts_are_free_and_wait_for_nothing() -> None:
    stage = Stage(RetryOptions(attempts=1, patience=0.0))
    free: list[Exception | None] = [
        StalledError(),
        SlowError(),
        StalledError(),
        SlowError(),
        StalledError(),
        SlowError(),
    ]
    assert stage.run([*free, None]) == "done"
    assert stage.waits == [0.0] * 6


@pytest.mark.parametrize("kind", [StalledError, SlowError])
def test_the_fourth_one_of_a_kind_is_an_attempt(kind: type[TransferKitError]) -> None:
    stage = Stage(RetryOptions(attempts=2, patience=0.0))
    with pytest.raises(RetriesExhaustedError) as caught:
        stage.run(kind("again") for _ in range(10))
    assert caught.value.attempts == 5
    assert stage.waits == pytest.approx([0.0, 0.0, 0.0, 0.01])


def test_no_restart_is_free_when_the_options_say_so() -> None:
    stage = Stage(RetryOptions(attempts=2, patience=0.0, free_restarts=0))
    with pytest.raises(RetriesExhaustedError):
        stage.run(StalledError() for _ in range(10))
    assert stage.attempts == 2


def test_each_unit_has_free_restarts_of_its_own() -> None:
    stage = Stage(RetryOptions(attempts=1, patience=0.0))
    for _ in range(3):
        assert stage.run([StalledError(), StalledError(), StalledError(), None]) == "done"


# -- what is not tried again


def test_an_error_that_is_not_retryable_is_raised_itself_after_one_attempt() -> None:
    stage = Stage()
    error = DigestMismatchError("another digest")
    with pytest.raises(DigestMismatchError) as caught:
        stage.run([error])
    assert caught.value is error
    assert (stage.attempts, stage.waits, stage.heard) == (1, [], [])


def test_a_final_error_after_others_is_raised_itself() -> None:
    stage = Stage()
    error = CancelledError("enough")
    with pytest.raises(CancelledError) as caught:
        stage.run([ReadError(), ReadError(), error])
    assert caught.value is error
    assert stage.attempts == 3


@pytest.mark.parametrize("before", [1, 2])
def test_a_foreign_error_is_not_tried_again(before: int) -> None:
    stage = Stage()
    error = ZeroDivisionError("a defect")
    with pytest.raises(ZeroDivisionError) as caught:
        stage.run([*itertools.islice(for_ever(), before), error])
    assert caught.value is error
    assert stage.attempts == before + 1


def test_what_sleep_raises_ends_the_loop() -> None:
    class Woken(Stage):
        def sleep(self, seconds: float) -> None:
            raise CancelledError("woken")

    with pytest.raises(CancelledError, match=r"^woken$"):
        Woken().run(for_ever())


# -- the rest


def test_each_failure_that_is_tried_again_is_heard_of_with_its_wait() -> None:
    stage = Stage(RetryOptions(attempts=3, patience=0.0))
    with pytest.raises(RetriesExhaustedError):
        stage.run(for_ever())
    assert stage.heard == [("cut off 1", 0.01), ("cut off 2", 0.04)]
    assert stage.waits == [0.01, 0.04]


def test_a_failure_that_is_final_at_once_costs_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object, **kwargs: object) -> Any:
        raise AssertionError("nothing of the loop is needed")

    monkeypatch.setattr(tenacity, "Retrying", never)
    stage = Stage()
    with pytest.raises(DigestMismatchError):
        stage.run([DigestMismatchError("wrong")])
    assert stage.run([None]) == "done"


def test_what_is_excused_counts_neither_as_an_attempt_nor_against_the_patience() -> None:
    stage = Stage(RetryOptions(attempts=2, patience=10.0))
    errors = for_ever()
    made = 0

    def attempt() -> None:
        nonlocal made
        made += 1
        stage.now += 8.0
        raise next(errors)

    with pytest.raises(RetriesExhaustedError):
        stage.call(attempt, excused=lambda error: made <= 50)
    # Fifty that do not count, and two of eight seconds that use the patience up.
    assert made == 52


def test_the_callers_own_attempt_is_the_first_one() -> None:
    stage = Stage(RetryOptions(attempts=2, patience=0.0))
    with pytest.raises(RetriesExhaustedError) as caught:
        stage.run(for_ever())
    assert (stage.attempts, caught.value.attempts) == (2, 2)


def test_a_limited_policy_is_the_same_with_fewer_attempts_and_no_patience() -> None:
    limited = Retry(RetryOptions(max_wait=2.0)).limited(3)
    assert limited.options == RetryOptions(max_wait=2.0, attempts=3, patience=0.0)


class Starved:
    """A system that has no descriptor to import ``tenacity`` with, for the first so many times."""

    def __init__(self, times: float, error: Exception) -> None:
        self.left = times
        self.error = error

    def find_spec(self, name: str, *_: object) -> None:
        if name == "tenacity" and self.left > 0:
            self.left -= 1
            raise self.error


NO_DESCRIPTOR = OSError(errno.EMFILE, "Too many open files")
NO_LIBRARY = ImportError("libz.so: cannot open shared object file: Too many open files")


@pytest.mark.parametrize("error", [NO_DESCRIPTOR, NO_LIBRARY])
def test_where_there_is_no_descriptor_to_import_the_loop_with_the_failure_itself_is_told(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    stage, first = Stage(RetryOptions(attempts=4, max_wait=0.05)), ReadError("cut")
    monkeypatch.delitem(sys.modules, "tenacity")
    monkeypatch.setattr(sys, "meta_path", [Starved(math.inf, error), *sys.meta_path])
    assert not stage.retry.prepare()
    with pytest.raises(ReadError) as caught:
        stage.run([first])
    assert caught.value is first
    assert stage.waits == [0.01, 0.04, 0.05]


def test_what_others_give_back_is_enough_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    monkeypatch.delitem(sys.modules, "tenacity")
    monkeypatch.setattr(sys, "meta_path", [Starved(2, NO_DESCRIPTOR), *sys.meta_path])
    assert stage.run([ReadError("cut"), None]) == "done"
    assert stage.waits == [0.01, 0.04, 0.01]  # twice for the descriptor, and once as after any failure


@pytest.mark.parametrize(
    ("limit", "workers", "prepares"), [(256, 2, True), (256, 1, False), (1024, 2, False), (-1, 2, False)]
)
def test_many_workers_have_it_before_they_begin_where_descriptors_are_few(
    monkeypatch: pytest.MonkeyPatch, limit: int, workers: int, prepares: bool
) -> None:
    events: list[str] = []
    monkeypatch.setattr(Retry, "prepare", lambda retry: bool(events.append("prepared")))
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_OPEN_MAX": limit}[name], raising=False)
    with Operation(concurrency=4) as operation:
        operation.each(["item"] * workers, lambda item, flow: events.append(item))
    assert events == ["prepared"] * prepares + ["item"] * workers


def test_a_system_without_a_limit_of_descriptors_has_plenty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.setattr(Retry, "prepare", lambda retry: pytest.fail("nothing has failed"))
    done: list[str] = []
    with Operation(concurrency=2) as operation:
        operation.each(["one", "two"], lambda item, flow: done.append(item))
    assert sorted(done) == ["one", "two"]
