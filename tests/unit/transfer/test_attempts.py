"""Attempts at a unit of work, and who hears of what became of it."""

from __future__ import annotations

import logging
import threading

import pytest

import transferkit as tk
from transferkit.content.interfaces import Outcome
from transferkit.errors import (
    CertificateError,
    ConnectError,
    DigestMismatchError,
    OutOfSpaceError,
    ReadError,
    RetriesExhaustedError,
    SlowError,
    StalledError,
)
from transferkit.retry import Retry
from transferkit.transfer.attempts import Attempts, Outcomes, is_fatal
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.throttle import Throttle

LOGGER = logging.getLogger("transferkit.test")


class Events(tk.Trace):
    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def started(self, descriptor):
        self.told.append(("started",))

    def cached(self, descriptor):
        self.told.append(("cached",))

    def healed(self, descriptor, error, position):
        self.told.append(("healed", str(error), position))

    def failed(self, descriptor, error):
        self.told.append(("failed", str(error)))

    def done(self, descriptor):
        self.told.append(("done",))


class Bad(tk.Trace):
    def _raise(self, *arguments):
        raise ValueError("a defect in the trace")

    started = cached = healed = failed = done = _raise


@pytest.fixture
def blob(memory):
    return memory.make_blob(10)[1]


def attempts_of(outcomes: Outcomes, flow: WorkerFlow) -> Attempts:
    throttle = Throttle([flow], sleep=lambda seconds: None, clock=lambda: 0.0)
    retry = Retry(tk.RetryOptions(attempts=3, patience=0.0), clock=lambda: 0.0, rng=lambda: 0.5)
    return Attempts(retry, throttle, outcomes, sleep=lambda seconds: None, logger=LOGGER)


def failing(*errors):
    left = list(errors)

    def attempt():
        if left:
            raise left.pop(0)
        return "done"

    return attempt


def test_an_attempt_that_works_is_the_only_one(blob):
    outcomes, flow = Outcomes(tk.Trace(), LOGGER), WorkerFlow()
    assert "done" == attempts_of(outcomes, flow).run(blob, failing(), flow)
    assert (0, False) == (outcomes.retried, flow.busy)


def test_each_further_attempt_is_counted_and_a_healed_one_told(blob):
    events, flow = Events(), WorkerFlow()
    outcomes = Outcomes(events, LOGGER)
    errors = [ReadError("one"), SlowError("two"), StalledError("three")]
    attempts_of(outcomes, flow).run(blob, failing(*errors), flow, position=lambda: 42)
    assert (3, 2) == (outcomes.retried, outcomes.healed)
    assert [("healed", "two", 42), ("healed", "three", 42)] == events.told


def test_a_wrong_digest_is_tried_once_more_and_no_more(blob):
    outcomes, flow = Outcomes(tk.Trace(), LOGGER), WorkerFlow()
    errors = [DigestMismatchError("one"), DigestMismatchError("two")]
    with pytest.raises(DigestMismatchError, match="two"):
        attempts_of(outcomes, flow).run(blob, failing(*errors), flow)
    assert 1 == outcomes.retried


def test_a_cut_of_the_attempt_before_is_forgotten_and_a_final_one_is_not(blob):
    outcomes, flow = Outcomes(tk.Trace(), LOGGER), WorkerFlow()
    flow.cut(StalledError("old"), final=False)
    assert "done" == attempts_of(outcomes, flow).run(blob, failing(), flow)
    flow.cut(tk.CancelledError("now"), final=True)
    with pytest.raises(tk.CancelledError, match="now"):
        attempts_of(outcomes, flow).run(blob, failing(), flow)


def test_given_up_after_so_many(blob):
    outcomes, flow = Outcomes(tk.Trace(), LOGGER), WorkerFlow()
    with pytest.raises(RetriesExhaustedError):
        attempts_of(outcomes, flow).run(blob, failing(*[ReadError("x")] * 9), flow)
    assert (2, False) == (outcomes.retried, flow.busy)


def test_outcomes_are_told_and_counted(blob):
    events = Events()
    outcomes = Outcomes(events, LOGGER, skipped=1)
    outcomes.started(blob)
    outcomes.ended(blob, Outcome.MOVED)
    outcomes.ended(blob, Outcome.PRESENT)
    outcomes.ended(blob, Outcome.MOUNTED)
    error = ReadError("gone")
    outcomes.failed(blob, error)
    assert [("started",), ("done",), ("cached",), ("cached",), ("failed", "gone")] == events.told
    assert (2, 1, {blob.digest: error}) == (outcomes.skipped, outcomes.mounted, outcomes.failures)


def test_a_trace_that_raises_harms_nothing(blob, caplog):
    outcomes = Outcomes(Bad(), LOGGER)
    outcomes.started(blob)
    outcomes.ended(blob, Outcome.MOVED)
    outcomes.again(blob, SlowError("slow"), 0)
    outcomes.failed(blob, ReadError("gone"))
    assert 4 == sum("trace raised" in record.message for record in caplog.records)


def test_counters_are_exact_from_many_threads(blob):
    outcomes = Outcomes(tk.Trace(), LOGGER)

    def work() -> None:
        for _ in range(500):
            outcomes.again(blob, SlowError("slow"), 0)
            outcomes.take_back(3)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (4000, 4000, 12_000) == (outcomes.retried, outcomes.healed, outcomes.taken_back)


def exhausted(cause: Exception) -> RetriesExhaustedError:
    error = RetriesExhaustedError("gave up", attempts=3)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OutOfSpaceError("full"), True),
        (CertificateError("no"), True),
        (exhausted(ConnectError("nobody there")), True),
        (exhausted(ReadError("cut")), False),
        (ReadError("cut"), False),
        (DigestMismatchError("wrong"), False),
    ],
)
def test_what_would_be_the_same_for_every_blob_is_fatal(error, expected):
    assert expected == is_fatal(error)
