"""Attempts at a unit of work: what is tried again, what counts, and who hears of it."""

from __future__ import annotations

import logging

import pytest

import transferkit as tk
from transferkit.errors import (
    ConnectError,
    DigestMismatchError,
    RateLimitedError,
    ReadError,
    RetriesExhaustedError,
    ServerError,
    SlowError,
    StalledError,
    TransportTimeout,
)
from transferkit.retry import Retry
from transferkit.transfer.attempts import Attempts
from transferkit.transfer.concurrency import Concurrency
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.outcomes import Outcomes

LOGGER = logging.getLogger("transferkit.test")


class Events(tk.Trace):
    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def healed(self, descriptor, error, position):
        self.told.append((str(error), position))


class Flow(WorkerFlow):
    """A flow whose waits take no time but that of a clock of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []
        self.counter.next_unit()

    def wait(self, seconds: float, why: str = "") -> None:
        self.waits.append(seconds)
        self.check()

    def clock(self) -> float:
        return 100.0 + sum(self.waits)


class Stage:
    """A worker and its sibling on the same host, and three attempts."""

    def __init__(self, descriptor, trace: tk.Trace | None = None) -> None:
        self.descriptor = descriptor
        self.flow, self.sibling = Flow(), Flow()
        self.concurrency = Concurrency(clock=self.flow.clock)
        self.concurrency.begin([self.flow, self.sibling])
        self.outcomes = Outcomes(trace or tk.Trace(), LOGGER)
        retry = Retry(tk.RetryOptions(attempts=3, patience=0.0), clock=lambda: 0.0, rng=lambda: 0.5)
        self.attempts = Attempts(retry, self.concurrency, self.outcomes)
        self.made = 0

    def run(self, *errors: Exception, start: int = 0, before=lambda: None, attempts: Attempts | None = None) -> str:
        left = list(errors)

        def attempt(unit: str, flow: Flow) -> str:
            assert (unit, flow) == ("unit", self.flow)
            assert flow.attempt
            self.made += 1
            before()
            if left:
                raise left.pop(0)
            return "done"

        return (attempts or self.attempts).run(attempt, "unit", self.flow, self.descriptor, start=start)


@pytest.fixture
def stage(memory):
    return Stage(memory.make_blob(10)[1])


def test_an_attempt_that_works_is_the_only_one(stage):
    assert "done" == stage.run()
    assert (1, 0, 0) == (stage.made, stage.outcomes.retried, stage.flow.attempt)


def test_each_further_attempt_is_counted_and_a_healed_one_told_with_its_place(memory):
    events = Events()
    stage = Stage(memory.make_blob(10)[1], events)
    stage.flow.moved(2)
    stage.run(ReadError("one"), SlowError("two"), StalledError("three"), start=40)
    assert (3, 2) == (stage.outcomes.retried, stage.outcomes.healed)
    assert [("two", 42), ("three", 42)] == events.told


def test_a_wrong_digest_is_tried_once_more_and_no_more(stage):
    with pytest.raises(DigestMismatchError, match="two"):
        stage.run(DigestMismatchError("one"), DigestMismatchError("two"))
    assert (2, 1) == (stage.made, stage.outcomes.retried)


def test_what_is_not_worth_another_try_is_raised_itself(stage):
    with pytest.raises(tk.BlobNotFoundError, match="gone"):
        stage.run(tk.BlobNotFoundError("gone"))
    assert (1, 0, 0) == (stage.made, stage.outcomes.retried, stage.flow.attempt)


def test_a_cut_of_the_attempt_before_is_forgotten_and_a_final_one_is_not(stage):
    stage.flow.cut(StalledError("old"), final=False)
    assert "done" == stage.run()
    stage.flow.cut(tk.CancelledError("now"), final=True)
    with pytest.raises(tk.CancelledError, match="now"):
        stage.run()
    assert 1 == stage.made


def test_a_cut_body_waits_for_nothing_and_goes_on_on_a_new_connection(stage):
    fresh = []

    def cut() -> None:
        fresh.append(stage.flow.fresh)
        if len(fresh) == 1:
            stage.flow.watch.start()
            stage.flow.cut_body(stage.flow.watch.body, StalledError("silent"))
            stage.flow.check()

    assert "done" == stage.run(before=cut)
    assert ([False, True], [0.0]) == (fresh, stage.flow.waits)


def test_given_up_after_so_many(stage):
    with pytest.raises(RetriesExhaustedError):
        stage.run(*[ReadError("x")] * 9)
    assert (3, 2, 0) == (stage.made, stage.outcomes.retried, stage.flow.attempt)


def test_a_back_off_ends_with_the_run(stage):
    def cut() -> None:
        stage.flow.cut(tk.CancelledError("enough"), final=True)

    with pytest.raises(tk.CancelledError, match="enough"):
        stage.run(ReadError("x"), before=cut)
    assert 1 == stage.made


# -- the budget belongs to the host

LIMITS = [
    RateLimitedError("slow down", status=429),
    ServerError("busy", status=503, retryable=True),
    ConnectError("refused"),
    TransportTimeout("silent"),
    ReadError("cut before the head"),
]


@pytest.mark.parametrize("error", LIMITS, ids=lambda error: type(error).__name__)
def test_what_a_host_refuses_costs_no_attempt_while_a_sibling_moves(stage, error):
    assert "done" == stage.run(*[error] * 50, before=lambda: stage.sibling.moved(1))
    assert (51, 50) == (stage.made, stage.outcomes.retried)


def test_bytes_that_a_sibling_throws_away_excuse_nobody(stage):
    def before() -> None:
        stage.sibling.moved(5)
        if stage.made > 1:
            stage.sibling.counter.set_position(0)

    with pytest.raises(RetriesExhaustedError):
        stage.run(*[ConnectError("refused")] * 50, before=before)
    assert 3 == stage.made


@pytest.mark.parametrize("error", LIMITS, ids=lambda error: type(error).__name__)
def test_where_nobody_moves_a_refusal_is_an_attempt(stage, error):
    with pytest.raises(RetriesExhaustedError):
        stage.run(*[error] * 50)
    assert 3 == stage.made


@pytest.mark.parametrize(
    "error", [ServerError("broken", status=500, retryable=True), ReadError("cut"), TransportTimeout("silent")]
)
def test_what_is_no_limit_of_the_host_is_an_attempt_whatever_the_siblings_do(stage, error):
    def before() -> None:
        stage.sibling.moved(1)
        stage.flow.watch.start()  # the host has answered

    with pytest.raises(RetriesExhaustedError):
        stage.run(*[error] * 50, before=before)
    assert 3 == stage.made


def test_own_bytes_are_no_progress_of_a_sibling(stage):
    def before() -> None:
        stage.flow.moved(5)
        stage.flow.counter.set_position(0)

    with pytest.raises(RetriesExhaustedError):
        stage.run(*[ConnectError("refused")] * 50, before=before)


def test_a_host_that_asks_for_calm_gets_it(stage):
    stage.run(RateLimitedError("slow down", retry_after=7.0), ReadError("broken"))
    assert [7.0] == stage.flow.waits[:1]


# -- what can be done without


def test_limited_attempts_are_few_and_nobody_hears_of_them(stage):
    with pytest.raises(RetriesExhaustedError):
        stage.run(*[ReadError("cut")] * 9, attempts=stage.attempts.limited(2))
    assert (2, 0) == (stage.made, stage.outcomes.retried)


def test_limited_attempts_are_never_excused_and_slow_nobody_down(stage):
    with pytest.raises(RetriesExhaustedError):
        stage.run(
            *[TransportTimeout("silent")] * 9,
            before=lambda: stage.sibling.moved(1),
            attempts=stage.attempts.limited(2),
        )
    assert (2, 2) == (stage.made, stage.concurrency.level)
    with pytest.raises(RetriesExhaustedError):
        stage.run(*[ServerError("busy", status=503, retryable=True)] * 9, attempts=stage.attempts.limited(3))
    assert 1 == stage.concurrency.level
