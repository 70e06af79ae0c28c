"""Whole and large blobs, from a source to a target in memory, with threads and serially."""

from __future__ import annotations

import hashlib
import logging
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import transferkit as tk
from transferkit.content.digest import Digest
from transferkit.content.interfaces import Outcome
from transferkit.retry import Retry
from transferkit.transfer import chunked
from transferkit.transfer.attempts import Attempts
from transferkit.transfer.concurrency import Concurrency
from transferkit.transfer.copy import Copy
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.operation import Operation
from transferkit.transfer.outcomes import Outcomes
from transferkit.transfer.threads import WORKERS

STEP = 4096
SIZE = 20 * STEP + 77
OPTIONS = {"chunk_threshold": STEP, "chunk_size": STEP, "progress_interval": 0.0}


def copy(memory, descriptors, source, target, *, threads: int = 0, present=(), **keywords):
    """Copy with so many threads, or serially in the driver."""
    with Operation(
        concurrency=threads or 1,
        retry=Retry(tk.RetryOptions(attempts=3, patience=0.0, max_wait=0.0)),
        options=tk.TransferOptions(**OPTIONS),
        executor=WORKERS if threads else (lambda size: memory.SerialExecutor()),
        **keywords,
    ) as operation:
        return operation.copy(descriptors, source, target, present=present)


threads = pytest.mark.parametrize("threads", [0, 1, 8])


@threads
def test_every_chunk_is_asked_for_once(memory, threads):
    data, blob = memory.make_blob(SIZE)
    source, target, calls = memory.Source({blob.digest: data}), memory.Target(), []
    report = copy(memory, [blob], source, target, threads=threads, progress=lambda *figures: calls.append(figures))
    expected = [(n * STEP, min((n + 1) * STEP, SIZE) - 1) for n in range(21)]
    assert expected == sorted(source.asked)
    assert data == target.stored[blob.digest]
    assert (SIZE, 0, (SIZE, SIZE)) == (report.bytes, report.retried, calls[-1])
    assert ["commit"] == target.ingests[0].ended


@threads
def test_of_many_large_blobs_no_more_are_open_than_there_are_workers(memory, threads):
    blobs = dict(memory.make_blob(5 * STEP, seed=n)[::-1] for n in range(50))
    source, target = memory.Source({blob.digest: data for blob, data in blobs.items()}), memory.Target()
    most = []
    source.on_range = lambda: most.append(sum(not ingest.ended for ingest in target.ingests))
    copy(memory, list(blobs), source, target, threads=threads)
    assert {blob.digest: data for blob, data in blobs.items()} == target.stored
    assert max(most) <= max(1, threads)


@threads
def test_a_broken_chunk_is_continued_where_it_is(memory, threads):
    data, blob = memory.make_blob(SIZE)
    source, target = memory.Source({blob.digest: data}), memory.Target()
    source.breaks = {0: 10, 5 * STEP: 1234, 20 * STEP: 0}
    report = copy(memory, [blob], source, target, threads=threads)
    assert (SIZE, 3) == (report.bytes, report.retried)
    assert {(10, STEP - 1), (5 * STEP + 1234, 6 * STEP - 1)} <= set(source.asked)
    assert data == target.stored[blob.digest]


@threads
def test_a_source_without_ranges_is_read_as_one_stream(memory, threads):
    data, blob = memory.make_blob(SIZE)
    source, target = memory.Source({blob.digest: data}, ranges=False), memory.Target()
    report = copy(memory, [blob], source, target, threads=threads)
    assert (SIZE, 1, 1) == (report.bytes, len(source.asked), source.whole)
    assert data == target.stored[blob.digest]


@threads
@pytest.mark.parametrize("cuts", [0, 1, 2, 3])
def test_a_list_that_is_cut_short_costs_no_chunk_twice(memory, threads, cuts):
    data, blob = memory.make_blob(SIZE)
    source, target = memory.ListingSource({blob.digest: data}, step=STEP, cuts=cuts), memory.Target()
    report = copy(memory, [blob], source, target, threads=threads)
    assert (min(cuts + 1, 3), 21, SIZE) == (source.lists, len(source.asked), report.bytes)
    assert data == target.stored[blob.digest]


@threads
def test_what_is_left_of_a_list_longer_than_what_is_held_comes_as_plain_ranges(memory, threads, monkeypatch):
    monkeypatch.setattr(chunked, "MOST_LISTED", 4)
    data, blob = memory.make_blob(SIZE)
    other, second = memory.make_blob(SIZE + 1, seed=1)
    source = memory.ListingSource({blob.digest: data, second.digest: other}, step=STEP)
    target = memory.Target()
    copy(memory, [blob, second], source, target, threads=threads)
    assert {blob.digest: data, second.digest: other} == target.stored


@threads
def test_a_list_that_lies_ends_the_blob(memory, threads):
    data, blob = memory.make_blob(SIZE)
    source, target = memory.ListingSource({blob.digest: data}, step=STEP, cuts=1), memory.Target()
    source.error = tk.ProtocolError("a gap")
    with pytest.raises(tk.IncompleteError) as caught:
        copy(memory, [blob], source, target, threads=threads)
    assert "a gap" == str(caught.value.failures[blob.digest])
    assert {} == target.stored
    assert ["keep"] == target.ingests[0].ended


@threads
def test_a_list_after_a_run_without_one_brings_only_what_is_missing(memory, threads):
    """What an earlier run has left ends within a chunk of the list."""
    data, blob = memory.make_blob(SIZE)
    source, calls = memory.ListingSource({blob.digest: data}, step=STEP), []

    class Begun(memory.Target):
        def ingest(self, descriptor, *, flow):
            ingest = super().ingest(descriptor, flow=flow)
            ingest.write_at(0, data[: STEP + 1000], final=False)
            ingest.record(0, STEP + 999)
            return ingest

    target = Begun()
    report = copy(memory, [blob], source, target, threads=threads, progress=lambda *figures: calls.append(figures))
    assert [(STEP + 1000, 2 * STEP - 1), (2 * STEP, 3 * STEP - 1)] == sorted(source.asked)[:2]
    assert (SIZE - STEP - 1000, 0, data) == (report.bytes, report.retried, target.stored[blob.digest])
    assert ((SIZE, SIZE), SIZE) == (calls[-1], max(completed for completed, _ in calls))


@threads
def test_a_wrong_chunk_is_fetched_again_alone(memory, threads):
    data, blob = memory.make_blob(SIZE)
    source, target = memory.ListingSource({blob.digest: data}, step=STEP), memory.Target()
    source.corrupt = {3 * STEP: 1}
    report = copy(memory, [blob], source, target, threads=threads)
    assert (22, SIZE + STEP, 1) == (len(source.asked), report.bytes, report.retried)
    assert data == target.stored[blob.digest]


WRONG = Digest("sha256:" + 64 * "0")


@threads
def test_a_list_that_lies_about_a_chunk_is_left_and_the_whole_decides(memory, threads):
    data, blob = memory.make_blob(SIZE)
    source, target, calls = memory.ListingSource({blob.digest: data}, step=STEP), memory.Target(), []
    source.lies = {3 * STEP: WRONG}
    report = copy(memory, [blob], source, target, threads=threads, progress=lambda *figures: calls.append(figures))
    # Twice by the list, and once more; the others once.
    assert 3 * [(3 * STEP, 4 * STEP - 1)] == [asked for asked in source.asked if asked[0] == 3 * STEP]
    assert (23, SIZE + 2 * STEP, 2) == (len(source.asked), report.bytes, report.retried)
    assert (data, ["commit"]) == (target.stored[blob.digest], target.ingests[0].ended)
    assert ((SIZE, SIZE), SIZE) == (calls[-1], max(completed for completed, _ in calls))


@threads
@pytest.mark.parametrize("cuts", [0, 1, 3])
def test_a_list_of_nothing_but_lies_costs_each_worker_two_chunks_at_most(memory, threads, cuts):
    data, blob = memory.make_blob(SIZE)
    source, target = memory.ListingSource({blob.digest: data}, step=STEP, cuts=cuts), memory.Target()
    source.lies = {n * STEP: WRONG for n in range(21)}
    report = copy(memory, [blob], source, target, threads=threads)
    assert 23 <= len(source.asked) <= 21 + 2 * max(threads, 1)
    assert 2 <= report.retried <= 2 * max(threads, 1)
    assert (data, ["commit"]) == (target.stored[blob.digest], target.ingests[0].ended)


@threads
def test_a_chunk_that_breaks_off_after_its_list_was_left_goes_on_where_it_is(memory, threads):
    data, blob = memory.make_blob(SIZE)
    target = memory.Target()

    class Breaking(memory.ListingSource):
        def fetch_range(self, descriptor, chunk, *, flow):
            if [asked[0] for asked in self.asked].count(3 * STEP) == 2:
                self.breaks.setdefault(3 * STEP, 1000)
            return super().fetch_range(descriptor, chunk, flow=flow)

    source = Breaking({blob.digest: data}, step=STEP)
    source.lies = {3 * STEP: WRONG}
    report = copy(memory, [blob], source, target, threads=threads)
    assert (3 * STEP + 1000, 4 * STEP - 1) in source.asked
    assert (24, SIZE + 2 * STEP, 3) == (len(source.asked), report.bytes, report.retried)
    assert data == target.stored[blob.digest]


@threads
@pytest.mark.parametrize("times", [2, 3])
def test_a_chunk_that_was_wrong_all_the_time_is_found_out_by_the_whole(memory, threads, times):
    data, blob = memory.make_blob(SIZE)
    source, target = memory.ListingSource({blob.digest: data}, step=STEP), memory.Target()
    source.corrupt = {3 * STEP: times}
    report = copy(memory, [blob], source, target, threads=threads)
    # After two the third is right; after three the whole is wrong, and comes once more.
    assert {2: (23, 2), 3: (44, 3)}[times] == (len(source.asked), report.retried)
    assert data == target.stored[blob.digest]


@threads
def test_content_that_is_wrong_under_any_list_is_given_up(memory, threads):
    data, blob = memory.make_blob(SIZE)
    source, target, calls = memory.ListingSource({blob.digest: data}, step=STEP), memory.Target(), []
    source.corrupt = {3 * STEP: 99}
    with pytest.raises(tk.IncompleteError) as caught:
        copy(memory, [blob], source, target, threads=threads, progress=lambda *figures: calls.append(figures))
    assert isinstance(caught.value.failures[blob.digest], tk.DigestMismatchError)
    assert (44, {}) == (len(source.asked), target.stored)
    assert [["abort"], ["abort"]] == [ingest.ended for ingest in target.ingests]
    assert (0, SIZE) == calls[-1]


@threads
def test_a_wrong_whole_is_fetched_once_more_by_plain_ranges(memory, threads):
    data, blob = memory.make_blob(SIZE)
    source, target = memory.Source({blob.digest: data}), memory.Target()
    source.corrupt = {3 * STEP: 1}
    report = copy(memory, [blob], source, target, threads=threads)
    assert (42, 2 * SIZE, 1) == (len(source.asked), report.bytes, report.retried)
    assert [["abort"], ["commit"]] == [ingest.ended for ingest in target.ingests]


@threads
def test_a_whole_that_is_wrong_twice_is_given_up(memory, threads):
    data, blob = memory.make_blob(SIZE)
    small, other = memory.make_blob(100, seed=1)
    source, target = memory.Source({blob.digest: data, other.digest: small}), memory.Target()
    source.corrupt = {3 * STEP: 2}
    with pytest.raises(tk.IncompleteError) as caught:
        copy(memory, [blob, other], source, target, threads=threads)
    assert [blob.digest] == list(caught.value.failures)
    assert {other.digest: small} == target.stored
    assert [["abort"], ["abort"]] == [ingest.ended for ingest in target.ingests if ingest.descriptor == blob]


def test_a_blob_that_is_there_is_not_asked_for(memory):
    data, blob = memory.make_blob(SIZE)
    source, target = memory.Source({blob.digest: data}), memory.Target()
    target.stored[blob.digest] = data
    report = copy(memory, [blob], source, target)
    assert ([], 1, 0) == (source.asked, report.skipped, report.bytes)


def test_when_the_last_byte_arrives_at_most_a_chunk_for_each_connection_is_unhashed(memory):
    data, blob = memory.make_blob(SIZE)
    target = memory.Target()
    held = threading.Event()

    class Holding(memory.Source):
        """The sixth chunk from the end comes when no other one can be begun any more."""

        def fetch_range(self, descriptor, chunk, *, flow):
            if chunk.start == 15 * STEP:
                held.wait(0.3)
            return super().fetch_range(descriptor, chunk, flow=flow)

    source = Holding({blob.digest: data})
    copy(memory, [blob], source, target, threads=3)
    assert 0 < target.ingests[0].unhashed <= 3 * STEP
    assert data == target.stored[blob.digest]


def test_a_cut_that_comes_after_the_last_byte_is_nobodys(memory):
    """The watchdog may judge a body whose last bytes are being written; the chunk is whole all the same."""
    data, blob = memory.make_blob(SIZE)
    target = memory.Target()

    class LateCut(memory.Source):
        def fetch_range(self, descriptor, chunk, *, flow):
            body = super().fetch_range(descriptor, chunk, flow=flow)
            flows.add(flow)
            return body

    flows: set[WorkerFlow] = set()
    original = memory.Ingest.record

    def record(ingest, start, end):
        original(ingest, start, end)
        for flow in flows:
            flow.cut_body(flow.watch.body, tk.StalledError("too late"))

    memory.Ingest.record = record
    try:
        source = LateCut({blob.digest: data})
        report = copy(memory, [blob], source, target)
    finally:
        memory.Ingest.record = original
    assert data == target.stored[blob.digest]
    assert SIZE == report.bytes


def test_a_cancelled_copy_keeps_what_is_in_place(memory):
    data, blob = memory.make_blob(SIZE)
    target, cancel = memory.Target(), tk.Cancellation()

    class Cancelling(memory.Source):
        def fetch_range(self, descriptor, chunk, *, flow):
            if chunk.start == 10 * STEP:
                cancel.cancel("enough")
            flow.check()
            return super().fetch_range(descriptor, chunk, flow=flow)

    with pytest.raises(tk.CancelledError, match="enough"):
        copy(memory, [blob], Cancelling({blob.digest: data}), target, threads=2, cancellation=cancel)
    assert {} == target.stored
    assert ["keep"] == target.ingests[0].ended
    assert target.ingests[0].in_place >= 8 * STEP


@pytest.mark.parametrize("listing", [False, True])
@pytest.mark.parametrize("workers", [1, 2, 8])
def test_a_copy_that_is_cancelled_in_its_last_chunk_keeps_what_is_in_place(memory, workers, listing):
    """Every chunk has been handed out then: what is missing is no reason to throw the rest away."""
    data, blob = memory.make_blob(SIZE)
    target, cancel = memory.Target(), tk.Cancellation()

    class Cancelling(memory.ListingSource if listing else memory.Source):
        def fetch_range(self, descriptor, chunk, *, flow):
            if chunk.start == 20 * STEP:
                while target.ingests[0].in_place < 20 * STEP:
                    flow.check()
                cancel.cancel("enough")
            flow.check()
            return super().fetch_range(descriptor, chunk, flow=flow)

    source = Cancelling({blob.digest: data}, **({"step": STEP} if listing else {}))
    with pytest.raises(tk.CancelledError, match="enough"):
        copy(memory, [blob], source, target, threads=workers, cancellation=cancel)
    assert ["keep"] == target.ingests[0].ended
    assert 20 * STEP == target.ingests[0].in_place


@threads
def test_a_list_that_comes_back_with_other_bounds_leaves_no_hole(memory, threads):
    """Two servers behind one name: the first cuts its list short, the second has chunks of three times the size."""
    data, blob = memory.make_blob(SIZE)

    class TwoServers(memory.ListingSource):
        def chunksums(self, descriptor, *, flow):
            self.step = STEP if self.lists == 0 else 3 * STEP
            return super().chunksums(descriptor, flow=flow)

    source, target = TwoServers({blob.digest: data}, step=STEP, cuts=1), memory.Target()
    report = copy(memory, [blob], source, target, threads=threads)
    assert (data, ["commit"], SIZE) == (target.stored[blob.digest], target.ingests[0].ended, report.bytes)


@threads
def test_a_list_that_broke_off_and_is_gone_then_costs_nothing_twice(memory, threads):
    data, blob = memory.make_blob(SIZE)

    class Gone(memory.ListingSource):
        def chunksums(self, descriptor, *, flow):
            if self.lists:
                self.lists += 1
                return
            yield from super().chunksums(descriptor, flow=flow)

    source, target, calls = Gone({blob.digest: data}, step=STEP, cuts=1), memory.Target(), []
    report = copy(memory, [blob], source, target, threads=threads, progress=lambda *figures: calls.append(figures))
    assert (data, ["commit"], SIZE) == (target.stored[blob.digest], target.ingests[0].ended, report.bytes)
    assert sorted(completed for completed, _ in calls) == [completed for completed, _ in calls]


def test_a_listed_chunk_that_is_too_long_for_one_connection_comes_in_parts(memory, monkeypatch):
    monkeypatch.setattr(chunked, "MAX_CHUNK", 2 * STEP)
    data, blob = memory.make_blob(SIZE)
    source, target = memory.ListingSource({blob.digest: data}, step=SIZE), memory.Target()
    copy(memory, [blob], source, target, threads=2)
    assert [(n * STEP, min((n + 2) * STEP, SIZE) - 1) for n in range(0, 21, 2)] == sorted(source.asked)
    assert data == target.stored[blob.digest]


@threads
def test_an_error_that_concerns_all_ends_the_copy_and_another_one_does_not(memory, threads):
    """The source knows, or the target."""
    made = [memory.make_blob(size, seed=size) for size in (100, SIZE, 200)]

    class Plain(memory.Source):
        def fetch(self, descriptor, *, offset=0, flow):
            raise tk.UnauthorizedError("who are you?")

        def fetch_range(self, descriptor, chunk, *, flow):
            raise tk.UnauthorizedError("who are you?")

    class Judging(Plain):
        def concerns_all(self, error):
            return isinstance(error, tk.UnauthorizedError)

    blobs = [blob for _, blob in made]
    with pytest.raises(tk.UnauthorizedError):
        copy(memory, blobs, Judging({}), memory.Target(), threads=threads)
    with pytest.raises(tk.IncompleteError) as caught:
        copy(memory, blobs, Plain({}), memory.Target(), threads=threads)
    assert {blob.digest for blob in blobs} == set(caught.value.failures)


@threads
def test_a_target_that_the_content_was_taken_away_from_begins_again(memory, threads):
    """Somebody has removed the file: a commit says so, and the blob comes once more."""
    data, blob = memory.make_blob(SIZE)

    class Robbed(memory.Target):
        def ingest(self, descriptor, *, flow):
            ingest = super().ingest(descriptor, flow=flow)
            if len(self.ingests) == 1:
                ingest.commit = lambda flow: self._rob(ingest)
            return ingest

        def _rob(self, ingest):
            ingest.abort()
            raise tk.VerificationError("taken away", retryable=True)

    source, target, calls = memory.Source({blob.digest: data}), Robbed(), []
    report = copy(memory, [blob], source, target, threads=threads, progress=lambda *figures: calls.append(figures))
    assert (data, 2 * SIZE, (SIZE, SIZE)) == (target.stored[blob.digest], report.bytes, calls[-1])


def test_a_disk_that_refuses_ends_the_copy(memory):
    data, blob = memory.make_blob(SIZE)

    class Full(memory.Target):
        def ingest(self, descriptor, *, flow):
            raise tk.OutOfSpaceError("full")

    with pytest.raises(tk.OutOfSpaceError):
        copy(memory, [blob], memory.Source({blob.digest: data}), Full(), threads=4)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(STEP + 1, 6 * STEP),
    breaks=st.dictionaries(st.integers(0, 5).map(lambda n: n * STEP), st.integers(0, STEP), max_size=4),
    corrupt=st.dictionaries(st.integers(0, 5).map(lambda n: n * STEP), st.just(1), max_size=1),
    step=st.sampled_from([None, STEP, 1000]),
    cuts=st.integers(0, 3),
    lies=st.sets(st.integers(0, 5).map(lambda n: n * STEP)),
)
def test_whatever_breaks_progress_ends_at_the_sum(memory, size, breaks, corrupt, step, cuts, lies):
    data, blob = memory.make_blob(size)
    if step:
        source = memory.ListingSource({blob.digest: data}, step=step, cuts=cuts)
        source.lies = dict.fromkeys(lies, WRONG)
    else:
        source = memory.Source({blob.digest: data})
    source.breaks, source.corrupt = dict(breaks), dict(corrupt)
    target, calls = memory.Target(), []
    report = copy(memory, [blob], source, target, progress=lambda *figures: calls.append(figures))
    assert data == target.stored[blob.digest]
    assert (size, size) == calls[-1]
    assert max(completed for completed, _ in calls) <= size
    assert report.bytes >= size


def test_chunks_that_verify_under_a_list_are_not_enough(memory):
    data, blob = memory.make_blob(SIZE)
    source, target = memory.ListingSource({blob.digest: data}, step=STEP), memory.Target()
    lied = bytes([data[0] ^ 1]) + data[1:STEP]
    source.lies = {0: Digest("sha256:" + hashlib.sha256(lied).hexdigest())}
    source.corrupt = {0: 1}
    report = copy(memory, [blob], source, target)
    assert (1, 2 * SIZE) == (source.lists, report.bytes)
    assert data == target.stored[blob.digest]


# -- whole blobs


@threads
def test_a_broken_stream_is_continued_where_it_is(memory, threads):
    data, blob = memory.make_blob(3000)
    source, target, calls = memory.Source({blob.digest: data}), memory.Target(), []
    source.breaks_whole = [1500]
    report = copy(memory, [blob], source, target, threads=threads, progress=lambda *figures: calls.append(figures))
    assert (3000, 1, 2, (3000, 3000)) == (report.bytes, report.retried, source.whole, calls[-1])
    assert data == target.stored[blob.digest]


@threads
def test_a_stream_that_breaks_again_and_again_is_given_up_and_counts_nothing(memory, threads):
    data, blob = memory.make_blob(500)
    source, calls = memory.Source({blob.digest: data}), []
    source.breaks_whole = [100] * 9
    with pytest.raises(tk.IncompleteError) as caught:
        copy(memory, [blob], source, memory.Target(), threads=threads, progress=lambda *figures: calls.append(figures))
    assert isinstance(caught.value.failures[blob.digest], tk.RetriesExhaustedError)
    assert (0, 500) == calls[-1]


@threads
def test_a_failing_blob_does_not_hide_the_others(memory, threads):
    data, blob = memory.make_blob(SIZE)
    _, lost = memory.make_blob(100, seed=1)

    class Losing(memory.Source):
        def fetch(self, descriptor, *, offset=0, flow):
            raise tk.BlobNotFoundError("gone")

    target = memory.Target()
    with pytest.raises(tk.IncompleteError, match="1 of 2 blobs failed") as caught:
        copy(memory, [lost, blob], Losing({blob.digest: data}), target, threads=threads)
    assert [lost.digest] == list(caught.value.failures)
    assert {blob.digest: data} == target.stored


@threads
def test_a_target_that_reads_by_itself_gets_whole_blobs(memory, threads):
    data, blob = memory.make_blob(SIZE)
    pushed = []

    class Pushed:
        def push(self, descriptor, source, *, flow):
            with source.fetch(descriptor, flow=flow) as body:
                flow.watch.start()
                while count := body.readinto(flow.buffer):
                    flow.moved(count)
                flow.watch.stop()
            pushed.append(descriptor)
            return Outcome.MOVED

    source = memory.Source({blob.digest: data})
    report = copy(memory, [blob], source, Pushed(), threads=threads)
    assert (1, [], [blob], SIZE) == (source.whole, source.asked, pushed, report.bytes)


@pytest.mark.parametrize(
    ("threshold", "keeps", "size", "workers"),
    [(100, 100, 100, 11), (100, 100, None, 2), (1000, 100, 100, 2), (100, 951, 100, 2), (100, 950, 100, 11)],
    ids=["chunks", "one", "whole", "in order", "in any order"],
)
def test_there_are_no_more_workers_than_chunks_and_whole_blobs(memory, threshold, keeps, size, workers):
    blobs = [memory.make_blob(50)[1], memory.make_blob(950)[1]]
    options = tk.TransferOptions(chunk_threshold=threshold, chunk_size=size)
    outcomes = Outcomes(tk.Trace(), logging.getLogger(__name__))
    attempts = Attempts(Retry(tk.RetryOptions()), Concurrency(), outcomes)
    source, target = memory.Source({}), memory.Target(resume_threshold=keeps)
    for ceiling in (64, 1):
        job = Copy(blobs, source, target, ceiling=ceiling, attempts=attempts, outcomes=outcomes, options=options)
        assert min(ceiling, workers) == job.workers


@threads
def test_the_reader_of_a_list_is_no_attempt_once_its_first_line_is_there(memory, threads):
    data, blob = memory.make_blob(SIZE)
    attempts = []

    class Source(memory.ListingSource):
        def chunksums(self, descriptor, *, flow):
            for pair in super().chunksums(descriptor, flow=flow):
                attempts.append(flow.attempt > 0)
                yield pair

    copy(memory, [blob], Source({blob.digest: data}, step=STEP), memory.Target(), threads=threads)
    assert [True] + [False] * 20 == attempts
