"""The pump: bodies into ingests; progress is exact, whatever breaks."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import transferkit as tk
from transferkit.content.interfaces import Outcome
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.pump import Span, pump, stream

SIZE = 5000


class Script:
    """A body that hands out these pieces, each at once; an exception among them is raised."""

    def __init__(self, *pieces: bytes | Exception, offset: int = 0, length: int | None = None) -> None:
        self.pieces = list(pieces)
        self.offset, self.length = offset, length
        self.closed = 0

    def readinto(self, buffer: memoryview, /) -> int:
        if not self.pieces:
            return 0
        piece = self.pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        count = min(len(buffer), len(piece))
        buffer[:count] = piece[:count]
        if piece[count:]:
            self.pieces.insert(0, piece[count:])
        return count

    def close(self) -> None:
        self.closed += 1

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Scripted:
    """A source of these bodies, one after the other."""

    def __init__(self, *bodies: Script) -> None:
        self.bodies = list(bodies)
        self.asked: list[int] = []

    def fetch(self, descriptor, *, offset=0, flow):
        self.asked.append(offset)
        return self.bodies.pop(0)


@pytest.fixture
def flow() -> WorkerFlow:
    flow = WorkerFlow(buffer=1000)
    flow.counter.next_unit()
    return flow


@pytest.fixture
def made(memory):
    """A blob of 5,000 bytes: its content, its descriptor, an open ingest and the target of that."""
    data, descriptor = memory.make_blob(SIZE)
    target = memory.Target()
    return data, descriptor, target.ingest(descriptor, flow=None), target


def figures(flow: WorkerFlow) -> tuple[int, int]:
    return flow.counter.position, flow.counter.traffic


# -- one body


def test_a_body_fills_its_span(made, flow):
    data, _, ingest, _ = made
    span = Span(ingest, 0, SIZE)
    assert not pump(Script(data[:700], data[700:], length=SIZE), span, flow)
    assert (data, SIZE, (SIZE, SIZE), 0) == (bytes(ingest.data), span.at, figures(flow), flow.watch.body)


def test_what_comes_slowly_waits_a_second_at_most_in_the_buffer(made, flow, monkeypatch):
    data, _, ingest, _ = made
    now, written = [0.0], []
    monkeypatch.setattr(f"{pump.__module__}.monotonic", lambda: now[0])

    class Slow(Script):
        def readinto(self, buffer, /):
            written.append(ingest.in_place)
            now[0] += 0.4
            return super().readinto(buffer)

    pump(Slow(*(data[at : at + 10] for at in range(0, 100, 10)), length=SIZE), Span(ingest, 0, 100), flow)
    assert [0, 0, 0, 30, 30, 30, 60, 60, 60, 90] == written


def test_a_span_in_the_middle_is_filled_from_where_it_is(made, flow):
    data, _, ingest, _ = made
    span = Span(ingest, 1000, 3000)
    span.at = 1500
    flow.counter.set_position(500)
    assert not pump(Script(data[1500:3000], length=1500), span, flow)
    assert (data[1500:3000], 3000) == (bytes(ingest.data[1500:3000]), span.at)
    assert [[1500, 2999]] == ingest.ranges.to_list()
    assert (2000, 1500) == figures(flow)


def test_what_has_arrived_when_it_breaks_off_stays_and_is_what_is_counted(made, flow):
    data, _, ingest, _ = made
    span = Span(ingest, 0, SIZE)
    with pytest.raises(tk.ReadError, match="cut"):
        pump(Script(data[:1300], tk.ReadError("cut"), length=SIZE), span, flow)
    assert (data[:1300], 1300) == (bytes(ingest.data[:1300]), span.at)
    assert ((1300, 1300), 0) == (figures(flow), flow.watch.body)


def test_what_has_arrived_when_it_is_cut_in_a_wait_for_its_share_stays_too(made, flow, monkeypatch):
    data, _, ingest, _ = made
    span = Span(ingest, 0, SIZE)
    moved = flow.moved

    def cut(count: int) -> None:
        moved(count)
        raise tk.CancelledError("now")

    monkeypatch.setattr(flow, "moved", cut)
    with pytest.raises(tk.CancelledError, match="now"):
        pump(Script(data[:700], data[700:], length=SIZE), span, flow)
    assert (data[:700], 700, (700, 700)) == (bytes(ingest.data[:700]), span.at, figures(flow))


def test_where_the_disk_refuses_what_is_not_written_is_taken_back(made, flow):
    data, _, ingest, _ = made
    span = Span(ingest, 0, SIZE)
    wrote = ingest.write_at

    def refuse(offset, part, *, final=True):
        if offset >= 2000:
            raise tk.OutOfSpaceError("full")
        wrote(offset, part, final=final)

    ingest.write_at = refuse
    with pytest.raises(tk.OutOfSpaceError):
        pump(Script(data, length=SIZE), span, flow)
    assert (2000, (2000, 3000)) == (span.at, figures(flow))


@pytest.mark.parametrize("length", [SIZE, None])
def test_an_early_end_is_seen_from_where_it_is(made, flow, length):
    data, _, ingest, _ = made
    span = Span(ingest, 0, SIZE)
    assert not pump(Script(data[:1300], length=length), span, flow)
    assert (1300, (1300, 1300)) == (span.at, figures(flow))


def test_what_is_too_much_is_seen_and_is_never_progress(made, flow):
    data, _, ingest, _ = made
    span = Span(ingest, 0, SIZE)
    assert pump(Script(data + b"more", length=None), span, flow)
    assert (SIZE, (SIZE, SIZE), data) == (span.at, figures(flow), bytes(ingest.data))


def test_a_body_whose_length_is_known_is_not_asked_for_its_end(made, flow):
    data, _, ingest, _ = made
    body = Script(data, tk.ReadError("asked once too often"), length=SIZE)
    assert not pump(body, Span(ingest, 0, SIZE), flow)


def test_with_a_hasher_nothing_is_in_place_before_it_was_found_right(made, flow):
    data, descriptor, ingest, _ = made
    span = Span(ingest, 0, SIZE)
    span.hasher = descriptor.digest.hasher()
    pump(Script(data, length=SIZE), span, flow)
    assert (0, 0) == (ingest.in_place, ingest.offset)
    assert descriptor.digest.matches(span.hasher)


def test_the_watch_pauses_while_the_disk_is_written_to(made, flow):
    data, _, ingest, _ = made
    seen = []
    wrote = ingest.write_at

    def look(offset, part, *, final=True):
        seen.append((flow.watch.body, flow.watch.paused))
        wrote(offset, part, final=final)

    ingest.write_at = look
    pump(Script(data, length=SIZE), Span(ingest, 0, SIZE), flow)
    assert [(1, True)] * 5 == seen
    assert not flow.watch.paused


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 200), max_size=8).map(sorted),
    buffer=st.integers(1, 300),
    breaks=st.none() | st.integers(0, 200),
)
def test_however_a_body_is_cut_into_pieces_what_arrived_is_in_place(cuts, buffer, breaks):
    from transferkit.content.chunk import Ranges

    class Ingest:
        def __init__(self) -> None:
            self.data, self.ranges = bytearray(200), Ranges()

        def write_at(self, offset, part, *, final=True):
            self.data[offset : offset + len(part)] = part

        def record(self, start, end):
            self.ranges.add(start, end)

    data = bytes(range(200))
    whole = data if breaks is None else data[:breaks]
    bounds = [0, *[cut for cut in cuts if cut <= len(whole)], len(whole)]
    pieces: list[bytes | Exception] = [whole[a:b] for a, b in itertools.pairwise(bounds) if a < b]
    if breaks is not None:
        pieces.append(tk.ReadError("cut"))
    flow, ingest = WorkerFlow(buffer=buffer), Ingest()
    flow.counter.next_unit()
    span = Span(ingest, 0, 200)
    try:
        pump(Script(*pieces, length=200), span, flow)
    except tk.ReadError:
        assert breaks is not None
    assert (len(whole), len(whole)) == (span.at, flow.counter.position)
    assert whole == bytes(ingest.data[: len(whole)])
    assert len(whole) == ingest.ranges.total


# -- a whole blob


def test_a_blob_is_brought_and_committed(made, flow):
    data, descriptor, _, target = made
    body = Script(data, length=SIZE)
    assert Outcome.MOVED is stream(Scripted(body), target, descriptor, flow)
    assert (data, ["commit"], 1) == (target.stored[descriptor.digest], target.ingests[-1].ended, body.closed)
    assert (SIZE, SIZE) == figures(flow)


def test_a_blob_that_is_there_is_not_asked_for_and_counts(made, flow):
    data, descriptor, _, target = made
    target.stored[descriptor.digest] = data
    assert Outcome.PRESENT is stream(Scripted(), target, descriptor, flow)
    assert (SIZE, 0) == figures(flow)


def test_an_attempt_goes_on_where_the_one_before_ended(made, flow):
    data, descriptor, _, target = made
    source = Scripted(
        Script(data[:1300], tk.ReadError("cut"), length=SIZE), Script(data[1300:], offset=1300, length=SIZE - 1300)
    )
    with pytest.raises(tk.ReadError):
        stream(source, target, descriptor, flow)
    assert (["keep"], (1300, 1300)) == (target.ingests[-1].ended, figures(flow))
    assert Outcome.MOVED is stream(source, target, descriptor, flow)
    assert ([0, 1300], data, (SIZE, SIZE)) == (source.asked, target.stored[descriptor.digest], figures(flow))


def test_of_a_small_blob_nothing_survives_an_attempt_nor_is_counted(made, flow):
    data, descriptor, _, target = made
    target.resume_threshold = SIZE + 1
    source = Scripted(Script(data[:1300], tk.ReadError("cut"), length=SIZE), Script(data, length=SIZE))
    with pytest.raises(tk.ReadError):
        stream(source, target, descriptor, flow)
    assert (0, 1300) == figures(flow)
    stream(source, target, descriptor, flow)
    assert (SIZE, SIZE + 1300) == figures(flow)


def test_a_source_that_cannot_resume_restarts_cleanly(made, flow):
    data, descriptor, _, target = made
    source = Scripted(Script(data[:1300], tk.ReadError("cut"), length=SIZE), Script(data, length=SIZE))
    with pytest.raises(tk.ReadError):
        stream(source, target, descriptor, flow)
    stream(source, target, descriptor, flow)
    assert ([0, 1300], ["restart", "commit"]) == (source.asked, target.ingests[-1].ended)
    assert (data, (SIZE, SIZE + 1300)) == (target.stored[descriptor.digest], figures(flow))


def test_a_blob_of_which_nothing_is_missing_is_only_committed(made, flow):
    data, descriptor, ingest, target = made
    ingest.write_at(0, data)
    ingest.record(0, SIZE - 1)
    ingest.keep()
    assert Outcome.MOVED is stream(Scripted(), target, descriptor, flow)
    assert (SIZE, 0) == figures(flow)


def test_an_empty_blob_is_asked_for(memory, flow):
    _, descriptor = memory.make_blob(0)
    source, target = Scripted(Script(length=0)), memory.Target()
    assert Outcome.MOVED is stream(source, target, descriptor, flow)
    assert ([0], b"") == (source.asked, target.stored[descriptor.digest])


def test_a_wrong_digest_leaves_nothing_and_counts_nothing(made, flow):
    data, descriptor, _, target = made
    wrong = bytes([data[0] ^ 1]) + data[1:]
    with pytest.raises(tk.DigestMismatchError):
        stream(Scripted(Script(wrong, length=SIZE)), target, descriptor, flow)
    assert ({}, {}, ["abort"]) == (target.stored, target.kept, target.ingests[-1].ended)
    assert (0, SIZE) == figures(flow)


@pytest.mark.parametrize(("length", "retryable"), [(SIZE, False), (None, True)])
def test_an_early_end_may_be_a_cut_where_nobody_said_how_long_it_is(made, flow, length, retryable):
    data, descriptor, _, target = made
    with pytest.raises(tk.SizeMismatchError, match="incomplete: received 1300/5000 bytes") as caught:
        stream(Scripted(Script(data[:1300], length=length)), target, descriptor, flow)
    assert (retryable, (1300, 1300)) == (caught.value.retryable, figures(flow))


def test_what_is_too_much_is_refused_and_is_never_progress(made, flow):
    data, descriptor, _, target = made
    with pytest.raises(tk.SizeMismatchError, match="more than was announced: received 5000/5000 bytes"):
        stream(Scripted(Script(data + b"x", length=None)), target, descriptor, flow)
    assert ({}, (SIZE, SIZE)) == (target.stored, figures(flow))


def test_a_target_that_refuses_before_the_first_byte_asks_nobody(made, flow):
    _, descriptor, _, target = made
    source = Scripted()

    def full(descriptor, *, flow):
        raise tk.OutOfSpaceError("full")

    target.ingest = full
    with pytest.raises(tk.OutOfSpaceError):
        stream(source, target, descriptor, flow)
    assert [] == source.asked
