"""One operation: a copy, calls, what it reports, and what they share."""

from __future__ import annotations

import sys
import threading
import time

import pytest

import transferkit as tk
from transferkit.content.interfaces import Outcome
from transferkit.retry import Retry
from transferkit.transfer.operation import Operation
from transferkit.transfer.threads import WORKERS

OPTIONS = tk.TransferOptions(chunk_threshold=1000, chunk_size=500)
RETRY = Retry(tk.RetryOptions(attempts=2, patience=0.0, max_wait=0.0))


@pytest.fixture(params=["serial", "threads"])
def make(request, memory):
    def make(**keywords) -> Operation:
        executor = (lambda size: memory.SerialExecutor()) if request.param == "serial" else WORKERS
        return Operation(**{"concurrency": 4, "retry": RETRY, "options": OPTIONS, "executor": executor, **keywords})

    return make


@pytest.fixture(autouse=True)
def _no_thread_more_than_before():
    before = threading.active_count()
    yield
    assert threading.active_count() <= before


def test_small_and_large_blobs_arrive(memory, make):
    made = [memory.make_blob(size, seed=size) for size in (1, 900, 1001, 5000, 12_345)]
    expected = {blob.digest: data for data, blob in made}
    source, target, calls = memory.Source(expected), memory.Target(), []
    with make(progress=lambda *figures: calls.append(figures)) as operation:
        report = operation.copy([blob for _, blob in made], source, target)
    assert expected == target.stored
    total = 1 + 900 + 1001 + 5000 + 12_345
    assert (5, total, (0, total), (total, total)) == (report.blobs, report.bytes, calls[0], calls[-1])
    assert (2, 3 + 10 + 25) == (source.whole, len(source.asked))


def test_what_is_known_to_be_there_counts_and_is_not_moved(memory, make):
    data, blob = memory.make_blob(5000)
    _, there = memory.make_blob(77, seed=1)
    calls = []
    source, target = memory.Source({blob.digest: data}), memory.Target()
    with make(progress=lambda *figures: calls.append(figures)) as operation:
        report = operation.copy([blob], source, target, present=[there])
    assert (2, 1, 5000) == (report.blobs, report.skipped, report.bytes)
    assert ((77, 5077), (5077, 5077)) == (calls[0], calls[-1])


def test_a_copy_of_nothing_is_told_at_each_end(memory, make):
    calls = []
    with make(progress=lambda *figures: calls.append(figures)) as operation:
        report = operation.copy([], memory.Source({}), memory.Target())
    assert (0, [(0, 0), (0, 0)]) == (report.blobs, calls)


def test_the_bandwidth_limit_holds_for_chunks_and_whole_blobs_together(memory):
    made = [memory.make_blob(size, seed=size) for size in (900, 5000)]
    source, target = memory.Source({blob.digest: data for data, blob in made}), memory.Target()
    options = tk.TransferOptions(chunk_threshold=1000, chunk_size=500, max_bandwidth=20_000)
    with Operation(concurrency=4, options=options) as operation:
        report = operation.copy([blob for _, blob in made], source, target)
    assert report.seconds >= 5900 / 20_000 * 0.9
    assert report.seconds < 5900 / 20_000 + 10


# -- calls


def test_one_thing_is_done_with_retries_and_its_result_returned(make):
    left = [tk.ReadError("once")]

    def work(flow):
        if left:
            raise left.pop()
        return 42

    with make() as operation:
        assert 42 == operation.call(work)


def test_what_is_given_up_is_raised_and_a_result_of_none_is_one(make):
    def lost(flow):
        raise tk.ManifestNotFoundError("gone")

    def cut(flow):
        raise tk.ReadError("cut")

    with make() as operation:
        with pytest.raises(tk.ManifestNotFoundError):
            operation.call(lost)
        with pytest.raises(tk.RetriesExhaustedError):
            operation.call(cut)
        assert operation.call(lambda flow: None) is None


def test_calls_and_copies_run_on_the_same_threads(memory):
    data, blob = memory.make_blob(5000)
    names, drivers = set(), set()

    def work(flow):
        names.add(threading.current_thread().name)
        drivers.update(thread for thread in threading.enumerate() if thread.name == "transferkit-driver")

    class Named(memory.Source):
        def fetch_range(self, descriptor, chunk, *, flow):
            work(flow)
            return super().fetch_range(descriptor, chunk, flow=flow)

    with Operation(concurrency=1, retry=RETRY, options=OPTIONS) as operation:
        operation.call(work)
        operation.copy([blob], Named({blob.digest: data}), memory.Target())
        operation.call(work)
    assert (1, 1) == (len(names), len(drivers))


def test_what_a_host_asked_for_in_a_copy_holds_for_the_call_after_it(memory):
    """503 with ``Retry-After`` to the last of two blobs: the manifest waits as well."""
    _data, blob = memory.make_blob(100)

    class Busy(memory.Source):
        def fetch(self, descriptor, *, offset=0, flow):
            raise tk.ServerError("busy", status=503, retry_after=0.3, retryable=True)

    with Operation(concurrency=1, retry=RETRY, options=OPTIONS) as operation:
        began = time.monotonic()
        with pytest.raises(tk.IncompleteError):
            operation.copy([blob], Busy({}), memory.Target())
        operation.call(lambda flow: None)
    assert time.monotonic() - began >= 0.3


def test_a_cancelled_operation_does_nothing_more(memory, make):
    cancel, done = tk.Cancellation(), []
    with make(cancellation=cancel) as operation:
        operation.call(lambda flow: done.append(1))
        cancel.cancel("enough")
        with pytest.raises(tk.CancelledError, match="enough"):
            operation.call(lambda flow: done.append(2))
        with pytest.raises(tk.CancelledError, match="enough"):
            operation.copy([memory.make_blob(10)[1]], memory.Source({}), memory.Target())
    assert [1] == done


# -- how deep it is


def frames() -> list[str]:
    """Return the functions between the worker's loop and the caller of this, the outermost first."""
    frame, names = sys._getframe(2), []
    while frame is not None and frame.f_code.co_name != "_worker":
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names[::-1]


def test_a_worker_is_four_calls_away_from_its_source_and_its_target(memory):
    made = [memory.make_blob(size, seed=size) for size in (900, 1500)]
    seen: dict[str, list[str]] = {}

    class Framed(memory.Source):
        def fetch(self, descriptor, *, offset=0, flow):
            seen["fetch"] = frames()
            return super().fetch(descriptor, offset=offset, flow=flow)

        def fetch_range(self, descriptor, chunk, *, flow):
            seen["fetch_range"] = frames()
            return super().fetch_range(descriptor, chunk, flow=flow)

    class Pushed:
        def push(self, descriptor, source, *, flow):
            seen["push"] = frames()
            return Outcome.MOVED

    blobs = [blob for _, blob in made]
    source = Framed({blob.digest: data for data, blob in made})
    with Operation(options=OPTIONS) as operation:
        operation.copy(blobs, source, memory.Target())
        operation.copy(blobs, source, Pushed())
    assert seen == {
        "fetch": ["work", "_copy_whole", "run", "stream"],
        "fetch_range": ["work", "copy_chunk", "run", "_fetch_chunk"],
        "push": ["work", "_copy_whole", "run", "_push"],
    }


def test_what_is_announced_and_what_is_there_is_told_to_the_trace(memory, make):
    data, blob = memory.make_blob(100)
    _, there = memory.make_blob(77, seed=1)
    told = []

    class Events(tk.Trace):
        def announced(self, descriptors):
            told.append(("announced", *descriptors))

        def cached(self, descriptor):
            told.append(("cached", descriptor))

        def done(self, descriptor):
            told.append(("done", descriptor))

    with make(trace=Events()) as operation:
        operation.announce([blob, there])
        operation.copy([blob], memory.Source({blob.digest: data}), memory.Target(), present=[there])
    assert [("announced", blob, there), ("cached", there), ("done", blob)] == told


# -- units that are no blobs


def test_each_of_some_things_is_done_and_counted(make):
    calls, done = [], []

    def work(item, flow):
        flow.counter.set_position(0)
        flow.moved(item)
        done.append(item)

    with make(progress=lambda *figures: calls.append(figures)) as operation:
        operation.each([10, 20, 30], work, total=65, present=5)
    assert ([10, 20, 30], (5, 65), (65, 65)) == (sorted(done), calls[0], calls[-1])


def test_what_comes_after_it_is_the_same_progress(memory, make):
    """Of two runs, the first of which says what the second will have; that may turn out to be more."""
    data, blob = memory.make_blob(500)
    calls = []
    source, target = memory.Source({blob.digest: data}), memory.Target()
    with make(progress=lambda *figures: calls.append(figures)) as operation:
        operation.each([100], lambda item, flow: flow.moved(item), total=100, then=400)
        assert ((0, 500), (100, 500)) == (calls[0], calls[-1])
        operation.each([100], lambda item, flow: flow.moved(item), total=None)
        assert (100, 500) == calls[-1]
        calls.clear()
        report = operation.copy([blob], source, target)
    assert ((100, 600), (600, 600), 500) == (calls[0], calls[-1], report.bytes)


def test_the_first_error_ends_all(make):
    def work(item, flow):
        raise tk.SourceError(f"no {item}")

    with make(concurrency=1) as operation, pytest.raises(tk.SourceError, match="no 1"):
        operation.each([1, 2, 3], work)
