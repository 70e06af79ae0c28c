"""The chunks of one blob: what is wanted, what is under way, when it is whole."""

from __future__ import annotations

import pytest

from transferkit.content.chunk import Chunk
from transferkit.content.digest import Digest
from transferkit.errors import ReadError
from transferkit.transfer import ranged
from transferkit.transfer.ranged import RangedBlob, total_chunks

STEP = 100
DIGEST = Digest("sha256:" + 64 * "a")


@pytest.fixture
def make(memory):
    def make(size: int = 10 * STEP, there=()) -> RangedBlob:
        _, descriptor = memory.make_blob(size)
        ingest = memory.Ingest(memory.Target(), descriptor)
        for start, end in there:
            ingest.record(start, end)
        return RangedBlob(descriptor, ingest, size=STEP)

    return make


def take_all(blob: RangedBlob) -> list[str]:
    taken = []
    while (unit := blob.take()) is not None:
        taken.append(str(unit.chunk))
    return taken


def test_chunks_partition_the_blob(make):
    blob = make(250)
    blob.open_up()
    assert ["0-99", "100-199", "200-249"] == take_all(blob)


def test_only_what_is_missing_is_wanted(make):
    blob = make(400, there=[(0, 149), (220, 229)])
    blob.open_up()
    assert ["150-199", "200-219", "230-299", "300-399"] == take_all(blob)


def test_before_ranges_are_known_only_the_first_is_handed_out(make):
    blob = make()
    assert blob.take() is None
    assert "0-99" == str(blob.take(first=True).chunk)
    assert blob.take() is None
    blob.open_up()
    assert "100-199" == str(blob.take().chunk)


def test_the_window_holds_chunks_back_until_the_prefix_has_grown(make, monkeypatch):
    monkeypatch.setattr(ranged, "WINDOW", 2)
    monkeypatch.setattr(ranged, "COMPARED", 2)
    blob = make()
    blob.open_up()
    assert ["0-99", "100-199"] == take_all(blob)
    blob.ingest.hashed = 99
    assert [] == take_all(blob)
    blob.ingest.hashed = 100
    assert ["200-299"] == take_all(blob)


def test_few_workers_go_far_enough_to_tell_a_slow_chunk_but_not_to_the_end(make, monkeypatch):
    """Eight chunks may be begun, one of them the slow one: more are left than the 5 that a judgement needs."""
    monkeypatch.setattr(ranged, "WINDOW", 2)
    blob = make()
    blob.open_up()
    assert "700-799" == take_all(blob)[-1]
    blob.ingest.hashed = 150
    assert ["800-899"] == take_all(blob)  # the last one would leave more unhashed than there are workers
    blob.ingest.hashed = 799
    assert [] == take_all(blob)
    blob.ingest.hashed = 800
    assert ["900-999"] == take_all(blob)


def test_the_last_one_out_of_a_complete_blob_is_told(make):
    blob = make(200)
    blob.open_up()
    first, second = blob.take(), blob.take()
    assert not blob.leave(first)
    assert blob.leave(second)


def test_nobody_is_the_last_while_chunks_are_wanted_or_listed(make):
    blob = make(300)
    blob.open_up()
    assert not blob.leave(blob.take())
    blob.follow_list()
    blob.enter()
    assert not blob.leave()
    blob.list_ended()
    blob.enter()
    assert blob.leave()


def test_a_failed_blob_has_no_chunks_and_ends_with_the_last_worker(make):
    blob = make()
    blob.open_up()
    first, second = blob.take(), blob.take()
    error = ReadError("one")
    blob.fail(error)
    blob.fail(ReadError("two"))
    assert blob.take() is None
    assert not blob.leave(first)
    assert blob.leave(second)
    assert error is blob.error


def test_a_list_takes_the_place_of_plain_ranges(make):
    blob = make(300, there=[(0, 99)])
    blob.follow_list()
    blob.open_up()
    for start in (0, 100, 200):
        assert blob.listed(Chunk(start, start + 99), DIGEST)
    unit = blob.take()
    assert ("100-199", DIGEST) == (str(unit.chunk), unit.digest)
    assert ["200-299"] == take_all(blob)


def test_what_is_left_of_a_chunk_that_is_there_in_part_is_a_plain_range(make):
    blob = make(200, there=[(20, 49), (60, 69)])
    blob.follow_list()
    blob.open_up()
    blob.listed(Chunk(0, 99), DIGEST)
    blob.listed(Chunk(100, 199), DIGEST)
    units = [blob.take() for _ in range(4)]
    expected = [("0-19", None), ("50-59", None), ("70-99", None), ("100-199", DIGEST)]
    assert expected == [(str(unit.chunk), unit.digest) for unit in units]
    # Read again, the list brings nothing of what is on its way.
    blob.ingest.record(70, 79)
    blob.follow_list()
    blob.listed(Chunk(0, 99), DIGEST)
    blob.listed(Chunk(100, 199), DIGEST)
    assert blob.take() is None


def test_the_chunks_of_a_list_that_is_not_believed_are_plain_ranges(make):
    blob = make(300)
    blob.follow_list()
    blob.open_up()
    blob.listed(Chunk(0, 99), DIGEST)
    blob.listed(Chunk(100, 199), DIGEST)
    first = blob.take()
    blob.disbelieve_list()
    blob.listed(Chunk(200, 299), DIGEST)
    second, third = blob.take(), blob.take()
    # What is under way is checked to its end; if it is wrong, it begins again as a plain range.
    assert [False, True, True] == [unit.hasher is None for unit in (first, second, third)]
    first.begin_again()
    assert first.hasher is None


def test_a_list_that_is_read_again_does_not_bring_what_is_under_way(make):
    blob = make(200)
    blob.follow_list()
    blob.open_up()
    blob.listed(Chunk(0, 99), DIGEST)
    unit = blob.take()
    blob.follow_list()
    blob.listed(Chunk(0, 99), DIGEST)
    blob.listed(Chunk(100, 199), DIGEST)
    assert ["100-199"] == take_all(blob)
    blob.leave(unit)


def test_a_list_waits_where_enough_is_held(make, monkeypatch):
    monkeypatch.setattr(ranged, "_LISTED", 2)
    blob = make()
    blob.follow_list()
    blob.open_up()
    held = [blob.listed(Chunk(n * STEP, n * STEP + 99), DIGEST) for n in range(3)]
    assert [True, True, False] == held
    blob.take()
    assert blob.listed(Chunk(200, 299), DIGEST)


def test_a_list_of_a_blob_that_was_given_up_waits_for_nobody(make, monkeypatch):
    monkeypatch.setattr(ranged, "_LISTED", 2)
    blob = make()
    blob.follow_list()
    blob.fail(ReadError("gone"))
    assert [True] * 10 == [blob.listed(Chunk(n * STEP, n * STEP + 99), DIGEST) for n in range(10)]


def test_a_list_is_left_when_none_of_its_chunks_is_on_its_way(make):
    blob = make(300)
    blob.follow_list()
    blob.open_up()
    blob.enter()
    blob.listed(Chunk(0, 99), DIGEST)
    assert not blob.leave_list()
    unit = blob.take()
    assert not blob.leave_list()
    blob.ingest.record(0, 99)
    blob.leave(unit)
    assert blob.leave_list()
    assert ["100-199", "200-299"] == take_all(blob)


def test_a_restart_wants_everything(make):
    blob = make(200, there=[(0, 199)])
    blob.open_up()
    assert blob.take() is None
    blob.restart()
    assert (1, ["0-99", "100-199"]) == (blob.attempts, take_all(blob))


def test_units_are_counted_in_chunks(memory):
    small, large = memory.make_blob(50)[1], memory.make_blob(950)[1]
    assert 11 == total_chunks([small, large], 100, size=100)
    assert 2 == total_chunks([small, large], 100)
    assert 2 == total_chunks([small, large], 1000, size=100)
