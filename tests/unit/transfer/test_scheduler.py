"""Which unit comes next: whole blobs and chunks, so that neither waits for the other."""

from __future__ import annotations

import threading
import time
from collections import deque

import pytest

from transferkit.transfer.chunked import ChunkedBlob, ChunkUnit, State
from transferkit.transfer.scheduler import Scheduler

STEP = 100


def make_large(memory, seed: int = 0) -> ChunkedBlob:
    return ChunkedBlob(memory.make_blob(10 * STEP, seed=seed)[1], size=STEP, window=64)


@pytest.fixture
def blobs(memory):
    """Three small ones and a large one of ten chunks."""
    return [memory.make_blob(50, seed=n)[1] for n in range(3)], make_large(memory)


@pytest.fixture
def scheduler(blobs):
    smalls, large = blobs
    return Scheduler(smalls, [large])


def begin(scheduler, memory, large: ChunkedBlob, *, is_open=True) -> ChunkedBlob:
    large.ingest = memory.Ingest(memory.Target(), large.descriptor)
    scheduler.opened(large)
    if is_open:
        large.list_ended()
        large.leave()
        large.become(State.OPEN)
        scheduler.notify()
    return large


def test_small_blobs_come_in_their_order(blobs):
    smalls, _ = blobs
    scheduler = Scheduler(smalls)
    assert scheduler
    assert [*smalls, None] == [scheduler.take(0) for _ in range(4)]
    assert not scheduler


def test_a_large_blob_is_begun_first(scheduler, blobs):
    _, large = blobs
    assert large is scheduler.take(1)


def test_another_large_blob_is_begun_where_each_has_a_worker(memory):
    first, second = (make_large(memory, seed=n) for n in range(2))
    scheduler = Scheduler([], [first, second])
    assert first is scheduler.take(0)
    blob = begin(scheduler, memory, first)
    chunk = scheduler.take(0)
    assert blob is chunk.blob
    assert second is scheduler.take(1)


def test_another_large_blob_is_begun_while_one_is_finished(memory):
    first, second = (make_large(memory, seed=n) for n in range(2))
    scheduler = Scheduler([], [first, second])
    assert first is scheduler.take(0)
    first.ingest = memory.Ingest(memory.Target(), first.descriptor)
    first.ingest.record(0, 10 * STEP - 1)
    scheduler.opened(first)
    first.list_ended()
    assert first.leave()
    assert second is scheduler.take(1)


@pytest.mark.parametrize("workers", [1, 5, 64])
def test_of_many_large_blobs_few_are_begun_at_once(memory, workers):
    """All of them at once would be too many open files; one a worker, and never more than 32."""
    scheduler = Scheduler([], [make_large(memory, seed=n) for n in range(100)])
    blobs = []
    for worker in range(workers):
        unit = scheduler.take(worker)
        if isinstance(unit, ChunkedBlob):
            blobs.append(begin(scheduler, memory, unit))
            unit = scheduler.take(worker)
        assert isinstance(unit, ChunkUnit)
    assert min(workers, 32) == len(blobs)


def test_every_second_worker_prefers_chunks(scheduler, blobs, memory):
    smalls, large = blobs
    assert large is scheduler.take(0)
    begin(scheduler, memory, large)
    assert isinstance(scheduler.take(0), ChunkUnit)
    assert smalls[0] is scheduler.take(1)
    assert isinstance(scheduler.take(2), ChunkUnit)
    assert smalls[1] is scheduler.take(3)


def test_who_has_nothing_of_his_kind_takes_the_other(scheduler, blobs, memory):
    smalls, large = blobs
    scheduler.take(0)
    begin(scheduler, memory, large)
    assert smalls == [scheduler.take(1) for _ in range(3)]
    assert isinstance(scheduler.take(1), ChunkUnit)


def test_chunks_wait_until_the_source_honours_ranges(scheduler, blobs, memory):
    smalls, large = blobs
    scheduler.take(0)
    begin(scheduler, memory, large, is_open=False)
    assert smalls == [scheduler.take(0) for _ in range(3)]


def test_a_worker_waits_for_chunks_and_is_woken(scheduler, blobs, memory):
    _, large = blobs
    for _ in range(4):
        scheduler.take(0)
    taken = []
    thread = threading.Thread(target=lambda: taken.append(scheduler.take(0)))
    thread.start()
    begin(scheduler, memory, large)
    thread.join(10)
    assert isinstance(taken[0], ChunkUnit)


def test_where_a_hasher_moves_on_one_worker_is_woken(scheduler, blobs, memory):
    _, large = blobs
    for _ in range(4):
        scheduler.take(0)
    begin(scheduler, memory, large, is_open=False)
    taken: list[object] = []
    threads = [threading.Thread(target=lambda: taken.append(scheduler.take(0))) for _ in range(2)]
    for thread in threads:
        thread.start()
    while len(scheduler._news._waiters) < 2:
        time.sleep(0.001)
    large.list_ended()
    large.leave()
    large.become(State.OPEN)
    scheduler.hashed()
    threads[0].join(0.5)
    threads[1].join(0.1)
    assert 1 == len(taken)
    scheduler.stop()
    for thread in threads:
        thread.join(10)


def test_a_chunk_that_comes_while_a_worker_goes_to_wait_is_not_missed(scheduler, blobs, memory, monkeypatch):
    """Another worker has a chunk for it between its look at the blobs and its wait: the wait ends."""
    _, large = blobs
    for _ in range(4):
        scheduler.take(0)
    begin(scheduler, memory, large, is_open=False)
    choose, taken, looked = scheduler._choose, [], threading.Event()

    def choose_late(worker):
        unit = choose(worker)
        looked.set()
        other.join(0.1)  # it cannot end before the wait has begun
        return unit

    def open_it():
        looked.wait(10)
        large.list_ended()
        large.leave()
        large.become(State.OPEN)
        scheduler.notify()

    other = threading.Thread(target=open_it)
    other.start()
    monkeypatch.setattr(scheduler, "_choose", choose_late)
    thread = threading.Thread(target=lambda: taken.append(scheduler.take(0)), daemon=True)
    thread.start()
    thread.join(10)
    assert isinstance(taken[0], ChunkUnit)


def test_while_a_large_blob_changes_hands_nobody_takes_it_for_the_end(blobs, memory, monkeypatch):
    """A second worker asks at the moment when the first has taken the blob and has not begun it."""
    _, large = blobs
    taken = []
    second = threading.Thread(target=lambda: taken.append(scheduler.take(1)))

    class Observed(deque):
        def popleft(self):
            item = super().popleft()
            second.start()
            second.join(0.1)  # it must not end, and that takes it no time where it does
            return item

    monkeypatch.setattr("transferkit.transfer.scheduler.deque", Observed)
    scheduler = Scheduler([], [large])
    assert large is scheduler.take(0)
    assert second.is_alive()
    begin(scheduler, memory, large)
    second.join(10)
    assert isinstance(taken[0], ChunkUnit)


def test_when_a_blob_has_ended_nobody_waits_any_more(scheduler, blobs, memory):
    _, large = blobs
    for _ in range(4):
        scheduler.take(0)
    blob = begin(scheduler, memory, large, is_open=False)
    taken = []
    thread = threading.Thread(target=lambda: taken.append(scheduler.take(0)))
    thread.start()
    assert scheduler
    scheduler.closed(blob)
    thread.join(10)
    assert [None] == taken
    assert not scheduler


def test_a_blob_that_is_there_already_ends_the_wait(scheduler):
    for _ in range(4):
        scheduler.take(0)
    assert scheduler
    scheduler.opened(None)
    assert scheduler.take(0) is None


def test_a_blob_whose_content_was_wrong_is_begun_again(scheduler, blobs, memory):
    _, large = blobs
    scheduler.take(0)
    blob = begin(scheduler, memory, large)
    again = make_large(memory)
    scheduler.closed(blob, then=again)
    assert again is scheduler.take(0)


def test_a_blob_without_ranges_is_handed_out_whole(scheduler, blobs, memory):
    smalls, large = blobs
    scheduler.take(0)
    blob = begin(scheduler, memory, large)
    scheduler.closed(blob, then=large.descriptor)
    assert [large.descriptor, *smalls, None] == [scheduler.take(0) for _ in range(5)]


def test_after_a_stop_there_is_nothing_and_nobody_waits(scheduler, blobs, memory):
    for _ in range(4):
        scheduler.take(0)
    begin(scheduler, memory, blobs[1], is_open=False)
    taken = []
    thread = threading.Thread(target=lambda: taken.append(scheduler.take(0)))
    thread.start()
    scheduler.stop()
    thread.join(10)
    assert ([None], None) == (taken, scheduler.take(1))


def test_at_the_end_what_is_in_place_of_unfinished_blobs_is_kept(scheduler, blobs, memory):
    scheduler.take(0)
    blob = begin(scheduler, memory, blobs[1])
    scheduler.stop()
    scheduler.close()
    assert ["keep"] == blob.ingest.ended


def test_a_job_comes_before_what_has_not_begun_and_once(scheduler, blobs):
    first, second = object(), object()
    scheduler.offer(first)
    scheduler.offer(second)
    scheduler.withdraw(second)
    scheduler.withdraw(second)
    assert scheduler.take(1) is first
    assert scheduler.take(1) is not second


def test_a_job_alone_is_something_to_do():
    scheduler = Scheduler([])
    assert not scheduler
    scheduler.offer("a job")
    assert scheduler
    assert "a job" == scheduler.take(0)
    assert not scheduler
    assert scheduler.take(0) is None


def test_a_job_wakes_who_waits_for_chunks(memory):
    large = make_large(memory)
    scheduler = Scheduler([], [large])
    scheduler.take(0)
    taken = []
    thread = threading.Thread(target=lambda: taken.append(scheduler.take(1)))
    thread.start()
    time.sleep(0.02)
    scheduler.offer("a job")
    thread.join(5)
    assert ["a job"] == taken


def test_it_is_dry_where_who_would_come_now_finds_nothing(memory):
    smalls = [memory.make_blob(50, seed=n)[1] for n in range(2)]
    scheduler = Scheduler(smalls)
    assert not scheduler.is_dry
    scheduler.take(0)
    assert not scheduler.is_dry
    scheduler.take(1)
    assert scheduler.is_dry  # nobody has to come for it: there may be no further worker


def test_a_worker_that_waits_for_chunks_makes_it_dry_until_there_are_others(memory):
    large = make_large(memory)
    scheduler = Scheduler([], [large])
    assert large is scheduler.take(0)
    assert not scheduler.is_dry
    waits = threading.Thread(target=scheduler.take, args=(1,))
    waits.start()
    deadline = time.monotonic() + 10
    while not scheduler.is_dry and time.monotonic() < deadline:
        time.sleep(0.001)
    assert scheduler.is_dry
    large.ingest = memory.Ingest(memory.Target(), large.descriptor)
    scheduler.opened(large)
    large.list_ended()
    large.become(State.STREAM)
    scheduler.closed(large, then=large.descriptor)
    waits.join(10)
    assert not waits.is_alive()
