"""The fast lane: interim responses, heads in pieces, and heads that are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from tests.unit.transport.rig import ANY, HELLO, Serve, ask, client_of, connections, everything, send
from transferkit.errors import ProtocolError, ReadError
from transferkit.testing import (
    Close,
    Pause,
    Reset,
    answer,
    bad_status_line,
    chunked,
    header_flood,
    informational,
    two_lengths,
)
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.response import StreamResponse

# -- answers before the answer


@pytest.mark.parametrize(
    "before",
    [
        informational(100),
        informational(102),
        informational(103, {"Link": "</a>; rel=preload"}),
        informational(100) + informational(102) + informational(103) + informational(199),
        informational(102) * 15,
    ],
)
def test_interim_answers_are_passed_over(serve: Serve, before: bytes) -> None:
    with serve([before + HELLO, HELLO]) as server, client_of(server) as client:
        assert [(200, b"hello")] * 2 == [ask(client), ask(client)]
        assert [0, 0] == connections(server)


def test_an_interim_answer_may_come_long_before(serve: Serve) -> None:
    pieces = [informational(100), Pause(0.01), informational(103)[:20], Pause(0.01), informational(103)[20:], HELLO]
    with serve([pieces]) as server, client_of(server) as client:
        assert (200, b"hello") == ask(client)


def test_interim_answers_without_end_are_refused(serve: Serve) -> None:
    with serve([informational(102) * 16 + HELLO]) as server, client_of(server) as client:
        with pytest.raises(ProtocolError, match="16 interim answers"):
            ask(client)


def test_a_switch_of_protocols_is_refused(serve: Serve) -> None:
    with serve([answer(101, headers={"Upgrade": "h2c"}) + HELLO]) as server, client_of(server) as client:
        with pytest.raises(ProtocolError, match="101"):
            ask(client)


def test_an_end_after_an_interim_answer_is_a_broken_connection(serve: Serve) -> None:
    with serve([[informational(100), Close()]]) as server, client_of(server) as client:
        with pytest.raises(ReadError, match="within the head"):
            ask(client)


# -- answers without a body

FRAMINGS = [
    "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "Content-Length: 5\r\nContent-Length: 6",
    "Content-Length: x",
    "Transfer-Encoding: gzip",
    "Transfer-Encoding: identity",
]


@pytest.mark.parametrize("framing", [*FRAMINGS, "Content-Length: 5", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_what_says_how_a_body_is_framed_harms_no_answer_without_one(
    serve: Serve, framing: str, method: str, status: int
) -> None:
    """Where it could be read in two ways, the next answer comes on another connection."""
    said = f"HTTP/1.1 {status} Whatever\r\n{framing}\r\n\r\n".encode()
    with serve([said, HELLO]) as server, client_of(server) as client:
        assert (status, b"") == ask(client, method)
        assert (200, b"hello") == ask(client)
        assert [0, int(framing in FRAMINGS)] == connections(server)


# -- heads, whole and in pieces


def test_a_head_may_come_byte_by_byte(serve: Serve) -> None:
    said = answer(200, b"hello", {"X": "y"})
    pieces: list[Any] = []
    for byte in said:
        pieces += [bytes([byte]), Pause(0.0005)]
    with serve([pieces, HELLO]) as server, client_of(server) as client:
        assert (200, b"hello") == ask(client)
        assert (200, b"hello") == ask(client)
        assert [0, 0] == connections(server)


@pytest.mark.parametrize("size", [1, 3, 5, 64 * 1024])
def test_a_body_may_come_with_the_head_in_part_or_whole(serve: Serve, size: int) -> None:
    for cut in range(6):
        at = len(HELLO) - cut
        with serve([[HELLO[:at], Pause(0.002), HELLO[at:]]]) as server, client_of(server) as client:
            with send(client, "GET", "/", ok=ANY, flow=WorkerFlow()) as it:
                assert isinstance(it, StreamResponse)
                assert 5 == it.length
                assert b"hello" == everything(it, size)


def test_a_long_head_is_read_up_to_the_limit(serve: Serve) -> None:
    long = [(f"X-{n}", "y" * 1000) for n in range(60)]
    with serve([answer(200, b"hello", long)]) as server, client_of(server) as client:
        with send(client, "GET", "/", ok=ANY, flow=WorkerFlow()) as it:
            assert "y" * 1000 == it.headers["x-59"]
            assert b"hello" == everything(it)


# -- heads that are refused


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(lambda: [answer(200, b"hello", {"X": "y" * 70_000})], id="one long field"),
        pytest.param(lambda: [b"HTTP/1.1 200 " + b"y" * 70_000], id="one long line"),
        pytest.param(lambda: [b"HTTP/1.1 200 OK\r\nX: " + b"y" * 65_520 + b"\r\n\r\n"], id="a little"),
        pytest.param(lambda: header_flood(2000), id="flood"),
        pytest.param(lambda: header_flood(100_000), id="long flood"),
        pytest.param(lambda: header_flood(150, size=20), id="many short ones"),
    ],
)
def test_a_head_beyond_the_limits_is_refused(serve: Serve, said: Callable[[], Iterable[bytes]]) -> None:
    with serve([said()]) as server, client_of(server) as client:
        with pytest.raises(ProtocolError, match=r"longer than 65536 bytes|header fields"):
            ask(client)


@pytest.mark.parametrize(
    "said",
    [
        two_lengths(b"hello", 4),
        answer(200, b"hello", {"Content-Length": "5, 5"}),
        answer(200, b"hello", {"Content-Length": "five"}),
        answer(200, b"hello", {"Content-Length": "-5"}),
        chunked(b"hello", headers={"Content-Length": "5"}),
        answer(200, b"hello", {"Transfer-Encoding": "gzip, chunked"}),
        answer(200, b"hello", {"Transfer-Encoding": "identity"}),
        chunked(b"hello").replace(b"1.1", b"1.0"),
        bad_status_line(),
        bad_status_line(b"SSH-2.0-OpenSSH_9.6"),
        bad_status_line(b"HTTP/2 200 OK"),
        bad_status_line(b"HTTP/1.1 2000 OK"),
        bad_status_line(b""),
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"220 mail.example ESMTP\r\n",
        b"\x15\x03\x01\x00\x02\x02\x0a",
        b"<html>",
        b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\n\r\nhello",
        answer(200, b"hello", {"X": "a\r\n folded"}),
        answer(200, b"hello", {"X ": "a"}),
        answer(200, b"hello", {"X": "a\0"}),
        answer(200, b"hello", {"X": "a\rb"}),
    ],
)
def test_an_answer_that_is_not_well_framed_is_refused_at_once(serve: Serve, said: bytes) -> None:
    """Also where the server then waits in silence, as who speaks another protocol does."""
    with serve([said, HELLO]) as server, client_of(server) as client:
        with pytest.raises(ProtocolError):
            ask(client)
        assert (200, b"hello") == ask(client)
        assert [0, 1] == connections(server)


@pytest.mark.parametrize(
    "said",
    [
        [Close()],
        [Reset()],
        [b"HTT", Close()],
        [b"HTTP/1.1 200 OK\r\nContent-Le", Close()],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r", Close()],
        [b"HTTP/1.1 200 OK\r\n", Reset()],
    ],
)
def test_a_connection_that_ends_before_or_within_the_head_is_an_error(serve: Serve, said: list[Any]) -> None:
    with serve([said]) as server, client_of(server) as client:
        with pytest.raises(ReadError) as caught:
            ask(client)
        assert caught.value.retryable
        assert 1 == len(server.requests)  # a new connection is no stale one: there is no second try
