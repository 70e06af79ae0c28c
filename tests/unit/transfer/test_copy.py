"""The whole copy, from memory to memory, with threads and on a serial executor."""

from __future__ import annotations

import pytest

import transferkit as tk
from transferkit.retry import Retry
from transferkit.transfer.copy import Copy, run_one


def copy(memory, descriptors, source, target, *, serial: bool, **keywords) -> Copy:
    return Copy(
        descriptors,
        source,
        target,
        concurrency=4,
        retry=Retry(tk.RetryOptions(attempts=2, patience=0.0, max_wait=0.0)),
        options=keywords.pop("options", tk.TransferOptions(chunk_threshold=1000, chunk_size=500)),
        executor=(lambda size: memory.SerialExecutor()) if serial else None,
        **keywords,
    )


serial = pytest.mark.parametrize("serial", [True, False], ids=["serial", "threads"])


@serial
def test_small_and_large_blobs_arrive(memory, serial):
    made = [memory.make_blob(size, seed=size) for size in (1, 900, 1001, 5000, 12_345)]
    expected = {blob.digest: data for data, blob in made}
    source, target, calls = memory.Source(expected), memory.Target(), []
    report = copy(
        memory,
        [blob for _, blob in made],
        source,
        target,
        serial=serial,
        progress=lambda *figures: calls.append(figures),
    ).run()
    assert expected == target.stored
    total = 1 + 900 + 1001 + 5000 + 12_345
    assert (5, total, (0, total), (total, total)) == (report.blobs, report.bytes, calls[0], calls[-1])
    assert (2, 3 + 10 + 25) == (source.whole, len(source.asked))


@serial
def test_what_is_known_to_be_there_counts_and_is_not_moved(memory, serial):
    data, blob = memory.make_blob(5000)
    _, there = memory.make_blob(77, seed=1)
    calls = []
    source, target = memory.Source({blob.digest: data}), memory.Target()
    report = copy(
        memory,
        [blob],
        source,
        target,
        serial=serial,
        present=[there],
        progress=lambda *figures: calls.append(figures),
    ).run()
    assert (2, 1, 5000) == (report.blobs, report.skipped, report.bytes)
    assert ((77, 5077), (5077, 5077)) == (calls[0], calls[-1])


@serial
def test_a_failing_blob_does_not_hide_the_others(memory, serial):
    data, blob = memory.make_blob(5000)
    _, lost = memory.make_blob(100, seed=1)

    class Losing(memory.Source):
        def fetch(self, descriptor, *, offset=0, flow):
            raise tk.BlobNotFoundError("gone")

    target = memory.Target()
    with pytest.raises(tk.IncompleteError, match="1 of 2 blobs failed") as caught:
        copy(memory, [lost, blob], Losing({blob.digest: data}), target, serial=serial).run()
    assert [lost.digest] == list(caught.value.failures)
    assert {blob.digest: data} == target.stored


@serial
def test_a_target_without_the_power_gets_whole_blobs(memory, serial):
    data, blob = memory.make_blob(5000)

    class Plain:
        def __init__(self) -> None:
            self.inner = memory.Target()

        def push(self, descriptor, source, *, flow):
            return self.inner.push(descriptor, source, flow=flow)

    source, target = memory.Source({blob.digest: data}), Plain()
    copy(memory, [blob], source, target, serial=serial).run()
    assert (1, []) == (source.whole, source.asked)
    assert {blob.digest: data} == target.inner.stored


def test_a_copy_of_nothing_is_told_once_at_each_end(memory):
    calls = []
    report = copy(
        memory, [], memory.Source({}), memory.Target(), serial=False, progress=lambda *figures: calls.append(figures)
    ).run()
    assert 0 == report.blobs
    assert {(0, 0)} == set(calls)


def test_the_bandwidth_limit_holds_for_chunks_and_whole_blobs_together(memory):
    made = [memory.make_blob(size, seed=size) for size in (900, 5000)]
    source, target = memory.Source({blob.digest: data for data, blob in made}), memory.Target()
    options = tk.TransferOptions(chunk_threshold=1000, chunk_size=500, max_bandwidth=20_000)
    report = copy(memory, [blob for _, blob in made], source, target, serial=False, options=options).run()
    assert report.seconds >= 5900 / 20_000 * 0.9
    assert report.seconds < 5900 / 20_000 + 10


def test_one_thing_is_done_with_retries_and_its_result_returned():
    left = [tk.ReadError("once")]

    def work(flow):
        if left:
            raise left.pop()
        return 42

    assert 42 == run_one(work, retry=Retry(tk.RetryOptions(max_wait=0.0)), cancellation=tk.Cancellation())
