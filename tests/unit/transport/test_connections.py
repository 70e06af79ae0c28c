"""The fast lane: which connections are used again, and what a dead one costs."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from tests.unit.transport.rig import (
    ANY,
    HELLO,
    LIMIT,
    Serve,
    TLSServer,
    ask,
    client_of,
    connections,
    everything,
    pool_of,
    send,
    wait_for_more,
    zeros,
)
from transferkit.errors import ProtocolError, ReadError, WriteError
from transferkit.testing import Close, Pause, Reset, answer, chunked, scripted_server
from transferkit.testing.scripted import RawRequest, Step
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.idle import IDLE


@pytest.mark.parametrize("trailer", [b"0\r\n\r\n", b"0;x=y\r\nX: y\r\nZ: z\r\n\r\n"])
def test_a_connection_is_used_again_after_the_last_chunk(serve: Serve, trailer: bytes) -> None:
    with serve([chunked(b"he", b"llo", trailer=trailer), HELLO]) as server, client_of(server) as client:
        assert [(200, b"hello")] * 2 == [ask(client), ask(client)]
        assert [0, 0] == connections(server)


def test_what_follows_the_last_chunk_is_never_the_next_answer(serve: Serve) -> None:
    with serve([chunked(b"hello") + answer(200, b"planted"), HELLO]) as server, client_of(server) as client:
        assert [(200, b"hello")] * 2 == [ask(client), ask(client)]
        assert [0, 1] == connections(server)


@pytest.mark.parametrize(
    "said",
    [
        answer(200, b"hello", {"Connection": "close"}),
        answer(200, b"hello", {"Connection": "Keep-Alive, Close"}),
        HELLO.replace(b"1.1", b"1.0"),
        answer(200, b"hello", {"Connection": "keep-alive"}).replace(b"1.1", b"1.0"),
    ],
)
def test_a_connection_that_will_close_is_not_used_again(serve: Serve, said: bytes) -> None:
    with serve([said, said]) as server, client_of(server) as client:  # the server keeps it, whatever it says
        assert [(200, b"hello")] * 2 == [ask(client), ask(client)]
        assert [0, 1] == connections(server)


def test_a_connection_is_used_again_and_again(serve: Serve) -> None:
    said = [answer(200, b"x" * size) for size in (0, 1, 100, 65_535, 65_536, 300_000)]
    with serve(said) as server, client_of(server) as client:
        for size in (0, 1, 100, 65_535, 65_536, 300_000):
            assert (200, b"x" * size) == ask(client)
        assert [0] * 6 == connections(server)


@pytest.mark.parametrize("way", ["close", "finish", "read"])
def test_what_becomes_of_a_connection_whose_answer_was_not_read(serve: Serve, way: str) -> None:
    with serve([HELLO, HELLO]) as server, client_of(server) as client:
        first = send(client, "GET", "/", ok=ANY, flow=WorkerFlow())
        {"close": first.close, "finish": first.finish, "read": lambda: first.read(5)}[way]()
        first.close()
        ask(client)
        assert [0, 1 if way == "close" else 0] == connections(server)


def test_requests_at_the_same_time_have_connections_of_their_own(serve: Serve) -> None:
    with serve([HELLO] * 6) as server, client_of(server) as client:
        three = [send(client, "GET", "/", ok=ANY, flow=WorkerFlow()) for _ in range(3)]
        assert [b"hello"] * 3 == [everything(each) for each in three]
        for _ in range(3):
            ask(client)
        # The one that was used last is taken first.
        assert [0, 1, 2, 2, 2, 2] == connections(server)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("HEAD", answer(200, headers={"Content-Length": "5"})),
        ("HEAD", answer(200)),
        ("HEAD", answer(404, headers={"Content-Length": "9999999"})),
        ("HEAD", answer(200, headers={"Transfer-Encoding": "chunked"})),
        ("HEAD", b"HTTP/1.1 200 OK\r\n\r\n"),
        ("GET", answer(204)),
        ("GET", answer(304)),
        ("GET", answer(304, headers={"Content-Length": "5"})),
        ("GET", answer(204, headers={"Transfer-Encoding": "chunked"})),
        ("DELETE", answer(204)),
    ],
)
def test_an_answer_without_a_body_leaves_the_connection_for_the_next(serve: Serve, method: str, said: bytes) -> None:
    with serve([said, HELLO]) as server, client_of(server) as client:
        assert b"" == ask(client, method)[1]
        assert (200, b"hello") == ask(client)
        assert [0, 0] == connections(server)


@pytest.mark.parametrize(
    ("method", "said", "content"),
    [
        ("GET", HELLO + b"junk", b"hello"),
        ("GET", HELLO + HELLO, b"hello"),
        ("GET", HELLO + b"\r\n", b"hello"),
        ("GET", answer(200) + b"junk", b""),
        ("GET", answer(204) + b"junk", b""),
        ("HEAD", HELLO, b""),
        ("GET", chunked(b"hello") + HELLO, b"hello"),
    ],
)
def test_bytes_after_the_body_cost_the_connection_and_not_the_content(
    serve: Serve, method: str, said: bytes, content: bytes
) -> None:
    with serve([said, answer(200, b"good")]) as server, client_of(server) as client:
        assert content == ask(client, method)[1]
        assert (200, b"good") == ask(client)
        assert [0, 1] == connections(server)


@pytest.mark.parametrize("junk", [b"junk", b"\r\n", answer(404), answer(401, headers={"WWW-Authenticate": "Basic"})])
@pytest.mark.parametrize("later", [False, True])
def test_what_follows_a_long_body_is_never_the_next_answer(serve: Serve, junk: bytes, later: bool) -> None:
    """Behind more than the first read takes in; over TLS also in the record of the last bytes."""
    body = b"x" * 300_000
    said = [answer(200, body), Pause(0.05), junk] if later else answer(200, body) + junk
    with serve([said, answer(200, b"good")]) as server, client_of(server) as client:
        assert (200, body) == ask(client)
        if later:
            wait_for_more(client)
        assert (200, b"good") == ask(client)
        assert [0, 1] == connections(server)


def test_an_answer_that_is_repeated_is_not_taken_for_the_next(serve: Serve) -> None:
    with serve([[answer(201), Pause(0.05), answer(200)], answer(404)]) as server, client_of(server) as client:
        assert (201, b"") == ask(client, "PUT")
        wait_for_more(client)
        assert (404, b"") == ask(client, "HEAD")
        assert [0, 1] == connections(server)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_body_that_follows_an_answer_to_head_costs_the_connection_and_a_request(method: str) -> None:
    def say(request: RawRequest) -> Step:
        if request.connection:
            return HELLO
        return answer(200, headers={"Content-Length": "5000"}) if not request.number else b"x" * 5000 + HELLO

    with scripted_server(say) as server, client_of(server) as client:
        assert (200, b"") == ask(client, "HEAD")
        assert (200, b"hello" if method == "GET" else b"") == ask(client, method)
        assert [0, 0, 1] == connections(server)


def test_what_changes_things_is_not_repeated_by_itself_after_such_a_body_and_may_be_tried_again() -> None:
    def say(request: RawRequest) -> Step:
        return answer(200) if request.method == "HEAD" else b"x" * 5000

    with scripted_server(say) as server, client_of(server) as client:
        assert (200, b"") == ask(client, "HEAD")
        with pytest.raises(ProtocolError, match="not HTTP/1") as caught:
            ask(client, "POST")
        assert caught.value.retryable
        with pytest.raises(ProtocolError, match="not HTTP/1") as caught:
            ask(client, "POST")
        assert not caught.value.retryable
        assert [0, 0, 1] == connections(server)


def test_a_server_that_never_speaks_http_is_asked_once_more_at_most() -> None:
    def say(request: RawRequest) -> Step:
        return HELLO if len(server.requests) == 1 else b"SSH-2.0-OpenSSH\r\n"

    with scripted_server(say) as server, client_of(server) as client:
        assert (200, b"hello") == ask(client)
        with pytest.raises(ProtocolError, match="not HTTP/1"):
            ask(client)
        assert [0, 0, 1] == connections(server)


def test_a_session_ticket_is_nothing_that_follows(server_context: ssl.SSLContext, trust: None) -> None:
    """TLS 1.3 sends them behind the handshake: the socket is readable, and there is no byte to be read."""
    with TLSServer(server_context, [HELLO]) as server, client_of(server) as client:
        ask(client)
        connection = pool_of(client).new(WorkerFlow(), 5.0, tunnel=False)
        assert connection.readable.poll(LIMIT * 1000)
        assert connection.is_connected
        connection.close()


def test_what_follows_is_not_taken_for_the_next_answer_by_hand_either(
    serve: Serve, trust: None, session: requests.Session
) -> None:
    """Over TLS it is deciphered already: no poll sees it."""
    said = [answer(200, b"hello")[:-5], Pause(0.05), b"hello" + answer(200, b"planted")]
    with serve([said, answer(200, b"good")]) as server, client_of(server, session=session) as client:
        assert (200, b"hello") == ask(client)
        assert b"good" == session.get(f"{server.url}/other").content
        assert [0, 1] == connections(server)


# -- connections that died while they were idle


def dies(gate: threading.Event, end: Any) -> Iterator[Any]:
    """Response, and end the connection when the test says so."""
    yield HELLO
    gate.wait(LIMIT)
    yield end


@pytest.mark.parametrize("end", [Close(), Reset()])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_connection_that_died_while_idle_costs_a_reader_nothing(serve: Serve, method: str, end: Any) -> None:
    gate = threading.Event()
    with serve([dies(gate, end), answer(200, b"again"), HELLO]) as server, client_of(server) as client:
        assert (200, b"hello") == ask(client)
        gate.set()
        assert (200, b"again" if method == "GET" else b"") == ask(client, method)
        assert [0, 1] == connections(server)
        ask(client)


@pytest.mark.parametrize("end", [Close(), Reset()])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_a_connection_that_is_seen_to_be_dead_is_not_used(serve: Serve, method: str, end: Any) -> None:
    gate = threading.Event()
    with serve([dies(gate, end), answer(200, b"again")]) as server, client_of(server) as client:
        assert (200, b"hello") == ask(client)
        gate.set()
        wait_for_more(client)
        flow = WorkerFlow()
        assert (200, b"again") == ask(client, method, flow=flow, body=zeros(3, flow) if method == "PUT" else None)
        assert [0, 1] == connections(server)


@pytest.mark.parametrize("end", [Close(), Reset()])
@pytest.mark.parametrize(("method", "length"), [("POST", None), ("PUT", 0), ("PUT", 3), ("PATCH", 100_000)])
def test_what_changes_things_is_not_sent_twice(serve: Serve, method: str, length: int | None, end: Any) -> None:
    with serve([HELLO, [end], answer(200, b"never")]) as server, client_of(server) as client:
        assert (200, b"hello") == ask(client)
        flow = WorkerFlow()
        # While a body is sent, it may be the sending that fails first.
        with pytest.raises((ReadError, WriteError) if length else ReadError) as caught:
            ask(client, method, flow=flow, body=None if length is None else zeros(length, flow))
        assert caught.value.retryable
        assert [0, 0] == connections(server)


def test_a_fresh_connection_that_ends_too_is_the_end_of_it(serve: Serve) -> None:
    with serve([HELLO, [Close()], [Close()], HELLO]) as server, client_of(server) as client:
        ask(client)
        with pytest.raises(ReadError, match="without an answer"):
            ask(client)
        assert [0, 0, 1] == connections(server)
        assert (200, b"hello") == ask(client)


def test_two_dead_connections_cost_one_try_each(serve: Serve) -> None:
    gate = threading.Event()
    script = [dies(gate, Close()), dies(gate, Close()), answer(200, b"a", {"Connection": "close"}), answer(200, b"b")]
    with serve(script) as server, client_of(server) as client:
        both = [send(client, "GET", "/", ok=ANY, flow=WorkerFlow()) for _ in range(2)]
        for each in both:
            everything(each)
        gate.set()
        # The second try is on a fresh connection, never on another one that may be as dead.
        assert (200, b"a") == ask(client)
        assert (200, b"b") == ask(client)
        assert [0, 1, 2, 3] == connections(server)


def test_a_head_that_was_begun_is_not_asked_for_again(serve: Serve) -> None:
    with serve([HELLO, [b"HTTP/1.1 200 OK\r\n", Close()], HELLO]) as server, client_of(server) as client:
        ask(client)
        with pytest.raises(ReadError, match="within the head"):
            ask(client)
        assert [0, 0] == connections(server)


@pytest.mark.parametrize("seconds", [0.5, 1.5])
def test_where_connections_end_soon_what_changes_things_takes_a_new_one(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """tinyproxy ends each one after its response, and does not say so; one that was idle for long is no such case."""
    now = 1000.0
    for module in ("connections", "idle"):
        monkeypatch.setattr(f"transferkit.transport.{module}.time", SimpleNamespace(monotonic=lambda: now))
    with serve([[HELLO, Close()], HELLO, HELLO, HELLO, HELLO]) as server, client_of(server) as client:
        ask(client)
        wait_for_more(client)
        now += seconds
        assert [(200, b"hello")] * 3 == [ask(client), ask(client, "POST"), ask(client)]
        assert ([0, 1, 2, 2] if seconds < 1 else [0, 1, 1, 1]) == connections(server)


def test_a_connection_that_was_closed_after_it_was_used_by_hand_has_not_ended_soon(session: requests.Session) -> None:
    with scripted_server([answer(200, headers={"Connection": "close"}), *[HELLO] * 3]) as server:
        session.get(server.url)
        with client_of(server, session=session) as client:
            assert [(200, b"hello")] * 3 == [ask(client), ask(client, "POST"), ask(client)]
        assert [0, 1, 1, 1] == connections(server)


def test_a_connection_that_is_idle_for_long_is_not_used_again(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    for module in ("connections", "idle"):
        monkeypatch.setattr(f"transferkit.transport.{module}.time", SimpleNamespace(monotonic=lambda: now))
    with serve([HELLO] * 5) as server, client_of(server) as client:
        both = [send(client, "GET", "/", ok=ANY, flow=WorkerFlow()) for _ in range(2)]
        for each in both:
            everything(each)
        now += IDLE - 1
        ask(client)
        now += IDLE - 1
        ask(client)
        now += IDLE
        ask(client)
        assert 90.0 == IDLE
        assert [0, 1, 1, 1, 2] == connections(server)
