"""What is to be done next: whole blobs and chunks, so that neither waits for the other."""

from __future__ import annotations

import threading
from collections import deque

import pytest

from transferkit.transfer.agenda import Agenda
from transferkit.transfer.ranged import ChunkUnit, RangedBlob

STEP = 100


@pytest.fixture
def blobs(memory):
    """Three small ones and a large one of ten chunks."""
    return [memory.make_blob(50, seed=n)[1] for n in range(3)], memory.make_blob(10 * STEP)[1]


@pytest.fixture
def agenda(blobs):
    smalls, large = blobs
    return Agenda([*smalls, large], is_large=lambda descriptor: descriptor.size > STEP)


def begin(agenda, memory, large, *, is_open=True) -> RangedBlob:
    blob = RangedBlob(large, memory.Ingest(memory.Target(), large), size=STEP)
    if is_open:
        blob.open_up()
    agenda.begun(blob)
    return blob


def test_small_blobs_come_in_their_order(blobs):
    smalls, _ = blobs
    agenda = Agenda(smalls, is_large=lambda descriptor: False)
    assert agenda
    assert [*smalls, None] == [agenda.take(0) for _ in range(4)]
    assert not agenda


def test_a_large_blob_is_begun_first(agenda, blobs):
    _, large = blobs
    assert large is agenda.take(1)


def test_another_large_blob_is_begun_where_each_has_a_worker(memory):
    first, second = (memory.make_blob(10 * STEP, seed=n)[1] for n in range(2))
    agenda = Agenda([first, second], is_large=lambda descriptor: True)
    assert first is agenda.take(0)
    blob = begin(agenda, memory, first)
    chunk = agenda.take(0)
    assert blob is chunk.blob
    assert second is agenda.take(1)


@pytest.mark.parametrize("workers", [1, 5, 64])
def test_of_many_large_blobs_few_are_begun_at_once(memory, workers):
    """All of them at once would be too many open files; one a worker, and never more than 32."""
    descriptors = [memory.make_blob(10 * STEP, seed=n)[1] for n in range(100)]
    agenda = Agenda(descriptors, is_large=lambda descriptor: True)
    blobs = []
    for worker in range(workers):
        unit = agenda.take(worker)
        if unit in descriptors:
            blobs.append(begin(agenda, memory, unit))
            unit = agenda.take(worker)
        assert isinstance(unit, ChunkUnit)
    assert min(workers, 32) == len(blobs)


def test_every_second_worker_prefers_chunks(agenda, blobs, memory):
    smalls, large = blobs
    assert large is agenda.take(0)
    begin(agenda, memory, large)
    assert isinstance(agenda.take(0), ChunkUnit)
    assert smalls[0] is agenda.take(1)
    assert isinstance(agenda.take(2), ChunkUnit)
    assert smalls[1] is agenda.take(3)


def test_who_has_nothing_of_his_kind_takes_the_other(agenda, blobs, memory):
    smalls, large = blobs
    agenda.take(0)
    begin(agenda, memory, large)
    assert smalls == [agenda.take(1) for _ in range(3)]
    assert isinstance(agenda.take(1), ChunkUnit)


def test_chunks_wait_until_the_source_honours_ranges(agenda, blobs, memory):
    smalls, large = blobs
    agenda.take(0)
    begin(agenda, memory, large, is_open=False)
    assert smalls == [agenda.take(0) for _ in range(3)]


def test_a_worker_waits_for_chunks_and_is_woken(agenda, blobs, memory):
    _, large = blobs
    for _ in range(4):
        agenda.take(0)
    taken = []
    thread = threading.Thread(target=lambda: taken.append(agenda.take(0)))
    thread.start()
    begin(agenda, memory, large)
    thread.join(10)
    assert isinstance(taken[0], ChunkUnit)


def test_while_a_large_blob_changes_hands_nobody_takes_it_for_the_end(blobs, memory, monkeypatch):
    """A second worker asks at the moment when the first has taken the blob and has not begun it."""
    _, large = blobs
    taken = []
    second = threading.Thread(target=lambda: taken.append(agenda.take(1)))

    class Observed(deque):
        def popleft(self):
            item = super().popleft()
            second.start()
            second.join(0.1)  # it must not end, and that takes it no time where it does
            return item

    monkeypatch.setattr("transferkit.transfer.agenda.deque", Observed)
    agenda = Agenda([large], is_large=lambda descriptor: True)
    assert large is agenda.take(0)
    assert second.is_alive()
    begin(agenda, memory, large)
    second.join(10)
    assert isinstance(taken[0], ChunkUnit)


def test_when_a_blob_has_ended_nobody_waits_any_more(agenda, blobs, memory):
    _, large = blobs
    for _ in range(4):
        agenda.take(0)
    blob = begin(agenda, memory, large, is_open=False)
    taken = []
    thread = threading.Thread(target=lambda: taken.append(agenda.take(0)))
    thread.start()
    assert [blob] == agenda.unfinished()
    agenda.ended(blob)
    thread.join(10)
    assert [None] == taken
    assert not agenda
    assert [] == agenda.unfinished()


def test_a_blob_that_is_there_already_ends_the_wait(agenda):
    for _ in range(4):
        agenda.take(0)
    assert agenda
    agenda.begun(None)
    assert agenda.take(0) is None


def test_after_a_stop_there_is_nothing(agenda, blobs, memory):
    _, large = blobs
    agenda.take(0)
    blob = begin(agenda, memory, large)
    agenda.stop()
    assert agenda.take(0) is None
    assert [blob] == agenda.unfinished()
