"""What goes out: the request as a value, and bodies that can be produced again."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from tests.unit.transport.rig import FileOfZeros, Zeros
from transferkit.errors import NotFoundError, ReadError
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.request import EXTENT, PIECE, BytesBody, Extent, Request, RequestBody

MIB = 1024 * 1024


class Trickle(Zeros):
    """A source that gives little at a time."""

    def readinto(self, buffer: memoryview, /) -> int:
        return super().readinto(buffer[:1000])


class Shrunk(FileOfZeros):
    """A file that has become shorter, as its ``confirm`` finds out."""

    def confirm(self) -> None:
        raise ReadError("shorter")


def sizes(body: RequestBody) -> list[int]:
    return [len(piece) for piece in body]


def sent_by_kernel(body: RequestBody, sent: int = EXTENT) -> list[tuple[int, int]]:
    """Take the extents of a body as a kernel that sends ``sent`` bytes at a time; return where and how many."""
    found = []
    with closing(body.pieces(by_kernel=True)) as extents:
        for extent in extents:
            assert isinstance(extent, Extent)
            extent.sent = min(sent, extent.count)
            found.append((extent.offset, extent.count))
    return found


# -- the value


def test_a_request_says_little_by_default() -> None:
    request = Request(method="GET", url="/x", ok={200})
    assert ({}, None, 0.0, "", "", NotFoundError, False) == (
        dict(request.headers),
        request.body,
        request.timeout,
        request.scope,
        request.subject,
        request.missing,
        request.anonymous,
    )
    assert not request.trusted


def test_a_request_cannot_be_changed() -> None:
    request: Any = Request(method="GET", url="/x", ok={200})
    with pytest.raises(AttributeError):
        request.url = "/y"
    with pytest.raises(TypeError):
        request.headers["X"] = "y"
    assert ("/y", "/x") == (request._replace(url="/y").url, request.url)


# -- bodies


@pytest.mark.parametrize("source", [Zeros, Trickle])
@pytest.mark.parametrize(
    ("length", "pieces"), [(0, []), (1, [1]), (PIECE, [PIECE]), (PIECE + 1, [PIECE, 1]), (3 * PIECE, [PIECE] * 3)]
)
def test_a_body_comes_in_pieces_that_are_counted(source: type[Zeros], length: int, pieces: list[int]) -> None:
    flow = WorkerFlow()
    body = RequestBody(length, lambda: source(length), flow)
    assert pieces == sizes(body)
    assert length == flow.counter.progress
    assert 0 == flow.watch.body  # over


def test_a_piece_is_counted_once_it_was_taken() -> None:
    flow = WorkerFlow()
    with closing(RequestBody(2 * PIECE, lambda: Zeros(2 * PIECE), flow).pieces()) as pieces:
        next(pieces)
        assert [0, 1] == [flow.counter.progress, flow.watch.body]
        next(pieces)
        assert PIECE == flow.counter.progress
    assert 0 == flow.watch.body


def test_a_body_that_is_rewound_begins_again() -> None:
    flow = WorkerFlow()
    body = RequestBody(5, lambda: BytesBody(b"hello"), flow)
    assert [b"hello"] == [bytes(piece) for piece in body]
    body.rewind()
    assert 0 == flow.counter.progress
    assert [b"hello"] == [bytes(piece) for piece in body]
    assert [5, 10] == [flow.counter.progress, flow.counter.traffic]


def test_a_body_that_begins_within_the_content_is_rewound_to_there() -> None:
    flow = WorkerFlow()
    flow.counter.set_position(100)
    body = RequestBody(5, lambda: Zeros(5), flow, start=100)
    assert [5] == sizes(body)
    body.rewind()
    assert 100 == flow.counter.position


def test_a_source_that_ends_early_is_kept_as_the_error() -> None:
    body = RequestBody(5, lambda: Zeros(3), WorkerFlow())
    with pytest.raises(ReadError, match="the source ended 2 bytes early") as caught:
        sizes(body)
    assert caught.value is body.error


def test_a_body_that_is_left_is_no_error() -> None:
    body = RequestBody(5, lambda: Zeros(5), WorkerFlow())
    with closing(body.pieces()) as pieces:
        next(pieces)
    assert body.error is None


# -- files, which the kernel may send


def test_a_file_comes_in_extents() -> None:
    flow = WorkerFlow()
    length = 2 * EXTENT + 5
    body = RequestBody(length, lambda: FileOfZeros(length), flow)
    assert [(0, EXTENT), (EXTENT, EXTENT), (2 * EXTENT, 5)] == sent_by_kernel(body)
    assert length == flow.counter.progress


def test_what_the_kernel_had_no_room_for_comes_again() -> None:
    body = RequestBody(EXTENT, lambda: FileOfZeros(EXTENT), WorkerFlow())
    assert [(0, EXTENT), (EXTENT // 2, EXTENT // 2)] == sent_by_kernel(body, EXTENT // 2)


def test_a_file_that_the_kernel_cannot_send_is_read_from_where_it_is() -> None:
    flow = WorkerFlow()
    body = RequestBody(PIECE + 5, lambda: FileOfZeros(PIECE + 5), flow)
    found: list[Any] = []
    for piece in body.pieces(by_kernel=True):
        found.append(piece if isinstance(piece, Extent) else len(piece))
        if isinstance(piece, Extent):
            piece.sent = -1
    assert [PIECE, 5] == found[1:]
    assert PIECE + 5 == flow.counter.progress


def test_a_source_that_is_no_file_comes_in_pieces_all_the_same() -> None:
    assert [5] == [len(piece) for piece in RequestBody(5, lambda: Zeros(5), WorkerFlow()).pieces(by_kernel=True)]


def test_a_file_is_confirmed_before_its_last_byte_is_sent() -> None:
    body = RequestBody(5, lambda: Shrunk(5), WorkerFlow())
    with pytest.raises(ReadError, match="shorter"):
        sent_by_kernel(body)


# -- a body in memory


def test_a_body_in_memory_is_read_to_its_end() -> None:
    buffer = memoryview(bytearray(3))
    with BytesBody(b"hello") as body:
        assert (0, 5) == (body.offset, body.length)
        assert [(3, b"hel"), (2, b"lol"), (0, b"lol")] == [(body.readinto(buffer), bytes(buffer)) for _ in range(3)]
