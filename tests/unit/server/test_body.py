"""The framing of request bodies: where they end, and that nothing passes for the end that is none."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferkit.server.body import Body


def body(data: bytes, length: int | None) -> tuple[Body, io.BufferedReader]:
    source = io.BufferedReader(io.BytesIO(data))  # type: ignore[arg-type]  # BytesIO is as raw as a socket
    return Body(source, length), source


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def test_a_body_of_known_length_leaves_the_next_request_alone() -> None:
    incoming, source = body(b"helloGET / HTTP/1.1", 5)

    assert incoming.read() == b"hello"
    assert (incoming.received, incoming.finished) == (5, True)
    assert incoming.read() == b""
    assert source.read() == b"GET / HTTP/1.1"


def test_a_body_of_no_length_is_finished_before_it_is_read() -> None:
    incoming, _ = body(b"GET", 0)
    assert (incoming.finished, incoming.read()) == (True, b"")


def test_a_chunked_body_leaves_the_next_request_alone() -> None:
    incoming, source = body(chunked(b"hel", b"lo") + b"GET", None)

    assert incoming.read() == b"hello"
    assert (incoming.received, incoming.finished) == (5, True)
    assert source.read() == b"GET"


def test_extensions_and_trailers_are_skipped() -> None:
    incoming, source = body(b'5 ; name="value"\r\nhello\r\n00;x\r\nDigest: x\r\nOther: y\r\n\r\nGET', None)

    assert incoming.read() == b"hello"
    assert source.read() == b"GET"


@given(st.lists(st.binary(min_size=1)), st.integers(1, 40))
def test_a_chunked_body_does_not_care_how_it_is_read(chunks: list[bytes], size: int) -> None:
    incoming, source = body(chunked(*chunks) + b"GET", None)

    blocks = list(iter(lambda: incoming.read1(size), b""))

    assert b"".join(chunks) == b"".join(blocks)
    assert source.read() == b"GET"


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (b"", 5),
        (b"hell", 5),
        (b"", None),
        (b"5", None),
        (b"5\r\n", None),
        (b"5\r\nhell", None),
        (b"5\r\nhello", None),
        (b"5\r\nhello\r\n", None),
        (b"5\r\nhello\r\n0\r\n", None),
        (b"5\r\nhello\r\n0\r\nDigest: x", None),
        (b"5\r\nhello!\r\n0\r\n\r\n", None),
        (b"5\nhello\n0\n\n", None),
        (b"-5\r\nhello", None),
        (b"0x5\r\nhello", None),
        (b"1_0\r\nhello", None),
        (b"\r\nhello", None),
        ("٥\r\nhello".encode(), None),
        (b"5" * 17 + b"\r\nhello", None),
        (b"5;" + b"x" * 10_000 + b"\r\nhello", None),
        (b"0\r\n" + b"x: y\r\n" * 65 + b"\r\n", None),
        (b"0\r\n" + b"x" * 10_000 + b"\r\n\r\n", None),
    ],
)
def test_a_body_without_a_proper_end_is_never_taken_for_whole(data: bytes, length: int | None) -> None:
    incoming, _ = body(data, length)

    with pytest.raises(ConnectionAbortedError):
        incoming.read()

    assert not incoming.finished
    assert not incoming.discard(1_000_000)


def test_a_chunk_of_absurd_size_costs_nothing() -> None:
    incoming, _ = body(b"ffffffffffffffff\r\nhello", None)
    assert incoming.read1(2**20) == b"hello"


@pytest.mark.parametrize(("data", "length"), [(b"hello", 5), (chunked(b"hello"), None)])
def test_what_is_left_is_discarded_up_to_a_limit(data: bytes, length: int | None) -> None:
    for limit, finished in ((4, False), (6, True)):
        incoming, source = body(data + b"GET", length)
        assert finished == incoming.discard(limit)
        assert (source.read() == b"GET") == finished


def test_a_body_is_invited_once_and_only_when_it_is_read() -> None:
    invited: list[None] = []
    incoming = Body(
        io.BufferedReader(io.BytesIO(b"hello")),  # type: ignore[arg-type]  # BytesIO is as raw as a socket
        5,
        invite=lambda: invited.append(None),
    )

    assert not incoming.discard(100)
    assert invited == []
    incoming.read(1)
    incoming.read()
    assert invited == [None]
