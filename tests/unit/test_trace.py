"""The events of a transfer: a trace of the caller's, and the one that hears nothing."""

from __future__ import annotations

import io
import json
import logging
import threading

import pytest

from transferkit.content.descriptor import Descriptor
from transferkit.errors import ServerError, SlowError
from transferkit.trace import EVENTS, NULL_TRACE, Status, Trace, Traces, hears
from transferkit.trace.adapters import JSONTrace, LoggingTrace
from transferkit.trace.recording import Recording

BLOB = Descriptor("sha256:" + 64 * "a", 10)


def test_the_default_hears_everything_and_does_nothing() -> None:
    error = SlowError("slow")
    told = [NULL_TRACE.started(BLOB), NULL_TRACE.cached(BLOB), NULL_TRACE.healed(BLOB, error, 5)]
    told += [NULL_TRACE.failed(BLOB, error), NULL_TRACE.done(BLOB), NULL_TRACE.announced([BLOB])]
    told += [NULL_TRACE.status(Status()), NULL_TRACE.retried(BLOB, error, 5, 0.1), NULL_TRACE.moved({})]
    told += [NULL_TRACE.waiting("lock", 0.0), NULL_TRACE.waited("lock", 1.0)]
    assert [None] * 11 == told
    assert len(EVENTS) == len(told)


def test_a_trace_overrides_what_it_wants_to_hear_of() -> None:
    class Healings(Trace):
        def __init__(self) -> None:
            self.positions: list[int] = []

        def healed(self, descriptor, error, position):
            self.positions.append(position)

    trace = Healings()
    trace.started(BLOB)
    trace.healed(BLOB, SlowError("slow"), 42)
    trace.done(BLOB)
    assert [42] == trace.positions


class Heard(Trace):
    """What it has heard of, by name."""

    def __init__(self, error: Exception | None = None) -> None:
        self.told: list[tuple[object, ...]] = []
        self.error = error

    def done(self, descriptor):
        self.told.append(("done", descriptor))
        if self.error is not None:
            raise self.error

    def waited(self, reason, seconds):
        self.told.append(("waited", reason, seconds))


def test_several_traces_all_hear_everything_also_where_one_raises() -> None:
    first, second = Heard(ValueError("mine")), Heard()
    both = Traces(first, Traces(second, Trace()))
    both.waited("lock", 2.0)
    with pytest.raises(ValueError, match="mine"):
        both.done(BLOB)
    both.started(BLOB)
    assert first.told == second.told == [("waited", "lock", 2.0), ("done", BLOB)]


def test_what_nobody_hears_of_is_known() -> None:
    own = Trace()
    own.started = print  # type: ignore[method-assign]
    assert [hears(each, "started") for each in (Trace(), Heard(), own, Traces(Heard(), own))] == [0, 0, 1, 1]
    assert [hears(each, "done") for each in (Trace(), Heard(), own, Traces(Heard(), own), Traces())] == [0, 1, 0, 1, 0]


def tell_everything(trace: Trace) -> None:
    error = ServerError("503 from https://example.com", status=503)
    trace.announced([BLOB, BLOB])
    trace.started(BLOB)
    trace.status(Status(completed=1, total=10, moved=1, workers=1))
    trace.retried(BLOB, error, 4, 0.25)
    trace.healed(BLOB, SlowError("slow"), 5)
    trace.waiting("rate limit", 30.0)
    trace.waited("rate limit", 29.5)
    trace.cached(BLOB)
    trace.failed(BLOB, error)
    trace.done(BLOB)
    trace.status(Status(completed=10, total=10, moved=10))


def test_json_lines_have_a_version_a_time_and_an_event_each() -> None:
    stream = io.StringIO()
    tell_everything(JSONTrace(stream, clock=lambda: 1700000000.1234, monotonic=lambda: 5.0))
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert {(line.pop("version"), line.pop("time")) for line in lines} == {(1, 1700000000.123)}
    blob = {"digest": BLOB.digest, "size": 10}
    why = {"error": "ServerError", "message": "503 from https://example.com"}
    counts = dict.fromkeys(("cached", "verifying", "waiting", "retried", "healed"), 0)
    status = {"event": "status", "total": 10, "doing": "", "reason": "", **counts}
    assert lines == [
        {"event": "announced", "blobs": 2, "bytes": 20},
        {"event": "started", **blob},
        {**status, "completed": 1, "moved": 1, "workers": 1},
        {"event": "retried", **blob, **why, "position": 4, "wait": 0.25},
        {"event": "healed", **blob, "error": "SlowError", "message": "slow", "position": 5},
        {"event": "waiting", "reason": "rate limit", "pause": 30.0},
        {"event": "waited", "reason": "rate limit", "seconds": 29.5},
        {"event": "cached", **blob},
        {"event": "failed", **blob, **why},
        {"event": "done", **blob},
        {**status, "completed": 10, "moved": 10, "workers": 0},
    ]


def test_how_far_it_is_comes_once_a_second_as_json() -> None:
    now, stream = [0.0], io.StringIO()
    trace = JSONTrace(stream, monotonic=lambda: now[0])
    for tenth in range(25):
        now[0] = tenth / 10
        trace.status(Status(completed=tenth, total=100))
    assert [json.loads(line)["completed"] for line in stream.getvalue().splitlines()] == [0, 10, 20]


@pytest.mark.parametrize("error", [BrokenPipeError(32, "gone"), ValueError("closed")])
def test_json_lines_end_where_nobody_reads_them(error) -> None:
    class Gone(io.StringIO):
        calls = 0

        def write(self, text: str) -> int:
            self.calls += 1
            raise error

    stream = Gone()
    tell_everything(JSONTrace(stream))
    assert stream.calls == 1


def test_lines_of_many_threads_are_whole() -> None:
    stream = io.StringIO()
    trace = JSONTrace(stream)
    threads = [threading.Thread(target=lambda: [trace.done(BLOB) for _ in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 800 == sum(json.loads(line)["event"] == "done" for line in stream.getvalue().splitlines())


def test_a_log_has_a_line_for_what_becomes_of_each_blob(caplog) -> None:
    caplog.set_level(logging.DEBUG)
    tell_everything(LoggingTrace(level=logging.DEBUG))
    short = "sha256:aaaaaaaaaaaa"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("DEBUG", "2 blobs, 20 B"),
        ("WARNING", f"{short}: again in 0.25 s, from byte 4 on: 503 from https://example.com"),
        ("DEBUG", "waiting: rate limit"),
        ("DEBUG", "no longer waiting: rate limit, after 29.5 s"),
        ("DEBUG", f"{short}: there already"),
        ("WARNING", f"{short}: failed: 503 from https://example.com"),
        ("DEBUG", f"{short}: done, 10 B"),
    ]
    assert {record.name for record in caplog.records} == {"transferkit.trace"}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_recording_keeps_rates_workers_waits_and_events() -> None:
    clock = Clock()
    recording = Recording(clock=clock)
    recording.status(Status(total=100))
    seen = [(1, 20, "hashing", ""), (2, 40, "", ""), (3, 40, "", "lock"), (4, 40, "", "lock"), (5, 90, "", "")]
    for second, moved, doing, reason in seen:
        clock.now = 100.0 + second
        recording.status(
            Status(completed=moved, total=100, moved=moved, workers=3, waiting=1, doing=doing, reason=reason)
        )
    recording.retried(BLOB, ServerError("busy"), 0, 0.1)
    recording.retried(BLOB, SlowError("slow"), 5, 0.1)
    recording.healed(BLOB, SlowError("slow"), 5)
    record = recording.record
    # What was hashed on this machine is no traffic.
    assert [rate for _, _, rate in record.rates()] == [0, 20, 0, 0, 50]
    assert record.waits() == [(1.0, 2.0, "hashing"), (3.0, 5.0, "waiting: lock")]
    assert {sample.workers for sample in record.samples[1:]} == {2}
    assert [(event.seconds, event.kind) for event in record.events] == [(5.0, "retried"), (5.0, "healed")]
    assert repr(recording) == "<Recording moved 70 B, time 5.00 s, waited 2.00 s>"
    assert "<tr><th>waited</th><td>2.00 s</td></tr>" in recording._repr_html_()


def test_a_recording_of_two_calls_goes_on() -> None:
    clock = Clock()
    recording = Recording(clock=clock)
    for second, moved in ((0, 0), (1, 50), (2, 0), (3, 30)):
        clock.now = 100.0 + second
        recording.status(Status(moved=moved))
    assert [sample.moved for sample in recording.record.samples] == [0, 50, 50, 80]


def test_a_recording_of_days_takes_no_more_memory_than_one_of_minutes() -> None:
    clock = Clock()
    recording = Recording(clock=clock)
    for tick in range(20_000):
        clock.now = 100.0 + tick / 10
        recording.status(Status(moved=tick * 1000, workers=tick % 7 if tick < 10_000 else 3))
        recording.retried(BLOB, ServerError("busy"), 0, 0.1)
    record = recording.record
    assert 200 < len(record.samples) <= 600
    assert 600 == len(record.events)
    assert record.seconds == pytest.approx(1999.9)
    assert record.samples[0].seconds == 0.0
    steps = [two.seconds - one.seconds for one, two in zip(record.samples, record.samples[1:], strict=False)]
    assert max(steps) < 60
    assert sum(rate * (end - begin) for begin, end, rate in record.rates()) == pytest.approx(19_999_000)
