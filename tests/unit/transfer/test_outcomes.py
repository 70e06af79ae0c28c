"""What became of the blobs: counted, told, and raised at the end."""

from __future__ import annotations

import logging
import threading

import pytest

import transferkit as tk
from transferkit.content.interfaces import Outcome
from transferkit.errors import ReadError, SlowError
from transferkit.transfer.outcomes import Outcomes

LOGGER = logging.getLogger("transferkit.test")


class Events(tk.Trace):
    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def started(self, descriptor):
        self.told.append(("started",))

    def cached(self, descriptor):
        self.told.append(("cached",))

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


def test_outcomes_are_told_and_counted(blob):
    events = Events()
    outcomes = Outcomes(events, LOGGER)
    outcomes.started(blob)
    outcomes.ended(blob, Outcome.MOVED)
    outcomes.ended(blob, Outcome.PRESENT)
    outcomes.ended(blob, Outcome.MOUNTED)
    error = ReadError("gone")
    outcomes.failed(blob, error)
    assert [("started",), ("done",), ("cached",), ("cached",), ("failed", "gone")] == events.told
    assert (1, 1, {blob.digest: error}) == (outcomes.skipped, outcomes.mounted, outcomes.failures)


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

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (4000, 4000) == (outcomes.retried, outcomes.healed)


def test_failures_are_raised_together_and_the_first_is_in_the_message(memory):
    outcomes = Outcomes(tk.Trace(), LOGGER)
    outcomes.check(3)
    first, second = memory.make_blob(10)[1], memory.make_blob(11)[1]
    outcomes.failed(first, ReadError("one"))
    outcomes.failed(second, ReadError("two"))
    with pytest.raises(tk.IncompleteError, match=r"^2 of 3 blobs failed.*: one \(and 1 more in .failures\)$") as caught:
        outcomes.check(3)
    assert {first.digest: "one", second.digest: "two"} == {
        digest: str(error) for digest, error in caught.value.failures.items()
    }


def test_the_digest_of_the_only_failure_stands_in_the_message_once(memory):
    blob = memory.make_blob(10)[1]
    for error in (ReadError("gone"), ReadError(f"{blob.digest.short}: gone"), ReadError(f"GET /{blob.digest} is gone")):
        outcomes = Outcomes(tk.Trace(), LOGGER)
        outcomes.failed(blob, error)
        with pytest.raises(tk.IncompleteError, match=r"^1 of 1 blobs failed: .*gone$") as caught:
            outcomes.check(1)
        assert 1 == str(caught.value).count(blob.digest[:19])
