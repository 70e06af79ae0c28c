"""The chunks of one blob: its states, what is wanted, what is under way, when it is whole."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.errors import ReadError
from transferkit.transfer import chunked
from transferkit.transfer.chunked import ChunkedBlob, ChunkUnit, State

STEP = 100
DIGEST = Digest("sha256:" + 64 * "a")


@pytest.fixture
def make(memory):
    """Make a blob that its first worker has left; with a ``state``, in which it is then."""

    def make(
        size: int = 10 * STEP, there=(), *, state: State = State.OPEN, left: bool = True, window: int = 64
    ) -> ChunkedBlob:
        _, descriptor = memory.make_blob(size)
        ingest = memory.Ingest(memory.Target(), descriptor)
        for start, end in there:
            ingest.record(start, end)
        blob = ChunkedBlob(descriptor, size=STEP, window=window)
        blob.ingest = ingest
        if left:
            blob.list_ended()
            blob.leave()
            blob.become(state)
        return blob

    return make


def name(unit: ChunkUnit) -> str:
    return f"{unit.start}-{unit.end - 1}"


def take_all(blob: ChunkedBlob) -> list[str]:
    taken = []
    while (unit := blob.take()) is not None:
        taken.append(name(unit))
    return taken


def leave_done(blob: ChunkedBlob, unit: ChunkUnit) -> bool:
    """Leave with a chunk that has come."""
    unit.at = unit.end
    blob.ingest.record(unit.start, unit.end - 1)
    return blob.leave(unit)


# -- states


@pytest.mark.parametrize(("state", "after"), list(itertools.product(State, State)))
def test_a_state_becomes_a_later_one_and_no_other(make, state, after):
    blob = make(left=False)
    blob.state = state
    is_next = after > state and state not in (State.STREAM, State.FAILED)
    assert is_next == blob.become(after)
    assert (after if is_next else state) is blob.state


def test_what_can_become_nothing_else_is_over(make):
    over = []
    for state in State:
        blob = make()
        blob.state = state
        over += [state] if blob.is_over else []
    assert [State.STREAM, State.FAILED] == over


def test_while_its_first_worker_opens_it_nothing_is_handed_out(make):
    blob = make(left=False)
    assert (State.OPENING, 1, None) == (blob.state, blob.workers, blob.take())


def test_before_ranges_are_known_only_the_first_chunk_is_handed_out(make):
    blob = make(left=False)
    blob.list_ended()
    assert (State.PROBING, None) == (blob.state, blob.take())  # its first worker is still there
    blob.leave()
    assert "0-99" == name(blob.take())
    assert blob.take() is None
    assert blob.become(State.OPEN)
    assert "100-199" == name(blob.take())


def test_a_list_is_a_promise_of_ranges(make):
    blob = make(left=False)
    blob.add_listed(Chunk(0, 99), DIGEST)
    assert (State.OPEN, ["0-99"]) == (blob.state, take_all(blob))


@pytest.mark.parametrize("state", [State.STREAM, State.FAILED])
def test_what_is_over_hands_out_nothing_and_is_finished_by_the_last_worker(make, state):
    blob = make()
    first, second = blob.take(), blob.take()
    blob.become(state)
    assert blob.take() is None
    assert not blob.leave(first)
    assert blob.leave(second)


def test_the_first_error_stands(make):
    blob, error = make(), ReadError("one")
    blob.fail(error)
    blob.fail(ReadError("two"))
    assert (State.FAILED, error) == (blob.state, blob.error)


def test_a_blob_that_is_to_be_one_stream_does_not_fail_any_more(make):
    blob = make()
    blob.become(State.STREAM)
    blob.fail(ReadError("late"))
    assert (State.STREAM, None) == (blob.state, blob.error)


# -- plain ranges


def test_chunks_partition_the_blob(make):
    assert ["0-99", "100-199", "200-249"] == take_all(make(250))


MIB = 1024 * 1024


def sizes_of(blob: ChunkedBlob, seconds: float, *, workers: int) -> list[int]:
    """Return the MiB of all chunks of a blob, each of which takes so long, with so many workers at it."""
    blob.ingest = SimpleNamespace(missing_in=lambda chunk: [chunk], offset=0)
    blob.list_ended()
    blob.leave()
    blob.become(State.OPEN)
    sizes, at_work = [], []
    while True:
        while len(at_work) < workers and (unit := blob.take()) is not None:
            at_work.append(unit)
            sizes.append((unit.end - unit.start) // MIB)
        if not at_work:
            return sizes
        unit = at_work.pop(0)
        unit.at = blob.ingest.offset = unit.end
        blob.came(unit, seconds)
        blob.leave(unit)


def large(size: int | None = None) -> ChunkedBlob:
    return ChunkedBlob(Descriptor(DIGEST, 1024 * MIB), size=size, window=64)


def test_chunks_that_come_quickly_are_followed_by_larger_ones_until_the_end_is_near():
    """Of 20 ms for each: in a quarter of a second come 96 MiB, then more, and no chunk is larger than 256."""
    sizes = sizes_of(large(), 0.02, workers=1)
    assert [8, 96, 256, 256, 200] == sizes[:5]  # 200: half of what is left then
    assert sorted(sizes[3:], reverse=True) == sizes[3:]
    assert [8] * 2 == sizes[-2:]
    assert 1024 == sum(sizes)


def test_with_many_workers_the_last_chunks_are_small_sooner():
    sizes = sizes_of(large(), 0.02, workers=8)
    assert [8] * 8 == sizes[:8]
    assert max(sizes) < 64
    assert {8} == set(sizes[-24:])
    assert 1024 == sum(sizes)


@pytest.mark.parametrize(("blob", "seconds"), [(large(), 0.25), (large(), 60.0), (large(8 * MIB), 0.02)])
def test_chunks_of_a_slow_link_or_of_a_size_that_the_user_wants_do_not_grow(blob, seconds):
    assert [8] * 128 == sizes_of(blob, seconds, workers=2)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(1, 2000),
    spans=st.lists(st.tuples(st.integers(0, 1999), st.integers(0, 300)), max_size=6),
    listed=st.lists(st.integers(1, 400), max_size=4),
)
def test_whatever_is_there_and_listed_each_missing_byte_is_in_one_chunk(make, size, spans, listed):
    """``listed`` are the sizes of the first chunks, as a list has them; what is behind them comes as plain ranges."""
    there = [(start, min(start + more, size - 1)) for start, more in spans if start < size]
    bounds = [0, *(end for end in itertools.accumulate(listed) if end <= size)]
    blob = make(size, there, left=False)
    for start, end in itertools.pairwise(bounds):
        blob.add_listed(Chunk(start, end - 1), DIGEST)
    blob.list_ended()
    blob.leave()
    blob.become(State.OPEN)
    units = []
    while (unit := blob.take()) is not None:
        units.append(unit)
    in_place = {byte for start, end in there for byte in range(start, end + 1)}
    assert [byte for byte in range(size) if byte not in in_place] == [
        byte for unit in units for byte in range(unit.start, unit.end)
    ]
    assert all(unit.end - unit.start <= STEP for unit in units if unit.start >= bounds[-1])


def test_only_what_is_missing_is_wanted(make):
    blob = make(400, there=[(0, 149), (220, 229)])
    assert ["150-199", "200-219", "230-299", "300-399"] == take_all(blob)


def test_the_window_holds_chunks_back_until_the_prefix_has_grown(make, monkeypatch):
    monkeypatch.setattr(chunked, "COMPARED", 2)
    blob = make(window=2)
    assert ["0-99", "100-199"] == take_all(blob)
    blob.ingest.offset = 99
    assert [] == take_all(blob)
    blob.ingest.offset = 100
    assert ["200-299"] == take_all(blob)


def test_few_workers_go_far_enough_to_tell_a_slow_chunk_but_not_to_the_end(make):
    """Eight chunks may be begun, one of them the slow one: more are left than the 5 that a judgement needs."""
    blob = make(window=2)
    assert "700-799" == take_all(blob)[-1]
    blob.ingest.offset = 150
    assert ["800-899"] == take_all(blob)  # the last one would leave more unhashed than there are workers
    blob.ingest.offset = 799
    assert [] == take_all(blob)
    blob.ingest.offset = 800
    assert ["900-999"] == take_all(blob)


def test_few_workers_go_as_far_as_many_where_the_chunks_of_the_list_are_longer(memory):
    """The window counts chunks, of whatever size they are."""
    _, descriptor = memory.make_blob(10 * STEP)
    blob = ChunkedBlob(descriptor, size=10, window=2)
    blob.ingest = memory.Ingest(memory.Target(), descriptor)
    for start in range(0, 4 * STEP, STEP):
        blob.add_listed(Chunk(start, start + STEP - 1), DIGEST)
    assert ["0-99", "100-199", "200-299", "300-399"] == take_all(blob)


# -- who finishes it


def test_the_last_worker_out_of_a_complete_blob_finishes_it(make):
    blob = make(200)
    first, second = blob.take(), blob.take()
    assert not leave_done(blob, first)
    assert leave_done(blob, second)


def test_nobody_is_the_last_while_chunks_are_wanted(make):
    blob = make(300)
    assert not leave_done(blob, blob.take())


def test_nobody_is_the_last_while_the_list_is_read(make):
    blob = make(300, left=False)
    blob.add_listed(Chunk(0, 299), DIGEST)
    assert not leave_done(blob, blob.take())
    blob.list_ended()
    assert blob.leave()


def test_a_blob_that_is_complete_from_the_start_is_finished_by_its_first_worker(make):
    blob = make(300, there=[(0, 299)], left=False)
    blob.list_ended()
    assert blob.leave()


def test_a_chunk_whose_worker_was_stopped_is_begun_anew_by_no_other_worker_of_the_call(make):
    blob = make(200)
    first, second = blob.take(), blob.take()
    assert not leave_done(blob, second)
    first.at = 50
    assert not blob.leave(first), "it is not complete"
    assert blob.take() is None, "what has come of it would be overwritten, and lost to the next run"


# -- lists


def test_a_list_takes_the_place_of_plain_ranges(make):
    blob = make(300, there=[(0, 99)], left=False)
    for start in (0, 100, 200):
        assert blob.add_listed(Chunk(start, start + 99), DIGEST)
    unit = blob.take()
    assert ("100-199", DIGEST, True) == (name(unit), unit.digest, unit.hasher is not None)
    assert ["200-299"] == take_all(blob)


def test_what_is_left_of_a_chunk_that_is_there_in_part_is_a_plain_range(make):
    blob = make(200, there=[(20, 49), (60, 69)], left=False)
    blob.add_listed(Chunk(0, 99), DIGEST)
    blob.add_listed(Chunk(100, 199), DIGEST)
    units = [blob.take() for _ in range(4)]
    expected = [("0-19", None), ("50-59", None), ("70-99", None), ("100-199", DIGEST)]
    assert expected == [(name(unit), unit.digest) for unit in units]


def test_a_list_that_is_read_again_brings_nothing_twice(make):
    blob = make(400, left=False)
    blob.add_listed(Chunk(0, 99), DIGEST)
    blob.add_listed(Chunk(100, 199), DIGEST)
    assert "0-99" == name(blob.take())
    for start in (0, 100, 200, 300):
        blob.add_listed(Chunk(start, start + 99), DIGEST)
    assert ["100-199", "200-299", "300-399"] == take_all(blob)


def test_a_list_that_comes_back_with_other_bounds_leaves_no_hole(make):
    """What lies across the end of the first one proves nothing any more: it comes as a plain range."""
    blob = make(500, left=False)
    blob.add_listed(Chunk(0, 99), DIGEST)
    blob.add_listed(Chunk(100, 199), DIGEST)
    blob.add_listed(Chunk(0, 299), DIGEST)
    blob.add_listed(Chunk(300, 499), DIGEST)
    units = [blob.take() for _ in range(4)]
    expected = [("0-99", DIGEST), ("100-199", DIGEST), ("200-299", None), ("300-499", DIGEST)]
    assert expected == [(name(unit), unit.digest) for unit in units]


def test_what_the_list_does_not_have_comes_as_plain_ranges_at_its_end(make):
    blob = make(450, left=False)
    blob.add_listed(Chunk(0, 149), DIGEST)
    assert ["0-149"] == take_all(blob)
    blob.list_ended()
    assert ["150-199", "200-299", "300-399", "400-449"] == take_all(blob)


def test_of_a_list_without_end_so_much_is_held(make, monkeypatch):
    monkeypatch.setattr(chunked, "MOST_LISTED", 2)
    blob = make(left=False)
    held = [blob.add_listed(Chunk(n * STEP, n * STEP + 99), DIGEST) for n in range(3)]
    assert [True, True, False] == held
    blob.list_ended()
    units = [blob.take() for _ in range(3)]
    assert [DIGEST, DIGEST, None] == [unit.digest for unit in units]


def test_a_blob_that_was_given_up_wants_no_more_of_its_list(make):
    blob = make(left=False)
    blob.add_listed(Chunk(0, 99), DIGEST)
    blob.fail(ReadError("gone"))
    assert not blob.add_listed(Chunk(100, 199), DIGEST)


def test_a_listed_chunk_that_is_too_long_for_one_connection_comes_in_parts(make, monkeypatch):
    monkeypatch.setattr(chunked, "MAX_CHUNK", 200)
    blob = make(500, left=False)
    blob.add_listed(Chunk(0, 499), DIGEST)
    units = [blob.take() for _ in range(3)]
    assert [("0-199", None), ("200-399", None), ("400-499", None)] == [(name(unit), unit.digest) for unit in units]


def test_the_chunks_of_a_list_that_is_not_trusted_are_plain_ranges(make):
    blob = make(300, left=False)
    for start in (0, 100, 200):
        blob.add_listed(Chunk(start, start + 99), DIGEST)
    first = blob.take()
    blob.trusts_chunksums = False
    second, third = blob.take(), blob.take()
    # What is under way is checked to its end; if it is wrong, it begins again as a plain range.
    assert [False, True, True] == [unit.hasher is None for unit in (first, second, third)]
    first.rewind()
    assert first.hasher is None


def test_a_chunk_is_right_where_it_has_the_digest_of_the_list(make, memory):
    data, descriptor = memory.make_blob(STEP)
    blob = make(STEP, left=False)
    blob.add_listed(Chunk(0, STEP - 1), descriptor.digest)
    unit = blob.take()
    unit.write(memoryview(data))
    assert unit.is_right()
    unit.rewind()
    unit.write(memoryview(data[1:] + b"x"))
    assert not unit.is_right()
