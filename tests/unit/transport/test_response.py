"""What comes in: short bodies with their bounds, and what becomes of the connection, in each lane."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.unit.transport.rig import CHUNKED, HELLO, ask, client_of, connections, send
from transferkit.errors import DeniedError, ProtocolError, ReadError, StalledError, TransportTimeout
from transferkit.testing import Pause, answer, chunked, scripted_server, truncated, until_close
from transferkit.testing.scripted import Step
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.client import Client
from transferkit.transport.response import Response

LONG = 64 * 1024 + 1  # bytes that are not worth to be read for their connection

Lane = dict[str, Any]


@pytest.fixture(params=["fast lane", "ordinary lane", "foreign adapter"])
def lane(request: pytest.FixtureRequest) -> Iterator[Lane]:
    """How ``client_of`` is asked for a client of each lane."""
    if request.param != "foreign adapter":
        yield {"fast": request.param == "fast lane"}
        return
    with requests.Session() as session:
        yield {"session": session}


def get(client: Client, *, timeout: float = 30.0) -> Response:
    return send(client, "GET", "/x?X-Signature=a%2Fb", ok={200}, flow=WorkerFlow(), timeout=timeout)


def test_a_response_says_what_came_and_from_where(lane: Lane) -> None:
    said = answer(200, b"hello", [("ETag", '"a"'), ("X-Many", "1"), ("x-many", "2")])
    with scripted_server([said]) as server, client_of(server, **lane) as client, get(client, timeout=7.0) as found:
        assert (200, 5, 7.0) == (found.status, found.length, found.timeout)
        assert ('"a"', "1, 2") == (found.headers["etag"], found.headers["x-many"])
        assert (server.url, f"{server.url}/x?X-Signature=a%2Fb") == (found.origin, found.url)


@pytest.mark.parametrize("said", [HELLO, chunked(b"he", b"llo"), until_close(b"hello")])
def test_a_short_body_is_read_whole(lane: Lane, said: Step) -> None:
    with scripted_server([said]) as server, client_of(server, **lane) as client, get(client) as found:
        assert b"hello" == found.read(5)


@pytest.mark.parametrize("said", [HELLO, chunked(b"he", b"llo"), until_close(b"hello")])
def test_a_body_beyond_its_bound_is_refused(lane: Lane, said: Step) -> None:
    with scripted_server([said]) as server, client_of(server, **lane) as client, get(client) as found:
        with pytest.raises(ProtocolError, match="more than the 4 bytes that this answer may have"):
            found.read(4)


def test_the_beginning_of_a_body_is_no_more_than_was_asked_for(lane: Lane) -> None:
    with scripted_server([answer(200, b"x" * 200_000)]) as server, client_of(server, **lane) as client:
        with get(client) as found:
            assert [b"x" * 5, b"x" * 100_000, b"x" * 99_995, b""] == [
                found.peek(size) for size in (5, 100_000, 100_000, 5)
            ]


@pytest.mark.parametrize(
    ("head", "drip"),
    [
        (truncated(b"", 100)[0], b"x"),
        (CHUNKED, b"1\r\nx\r\n"),
        (CHUNKED + b"5;", b"x"),  # the line before a chunk
        (CHUNKED + b"0\r\n", b"X: y\r\n"),  # the trailer
        (CHUNKED + b"0\r\n", b"x"),
    ],
)
def test_a_short_body_has_one_deadline_however_it_is_framed(lane: Lane, head: bytes, drip: bytes) -> None:
    with scripted_server([[head, *[drip, Pause(0.05)] * 100]]) as server, client_of(server, **lane) as client:
        began = time.monotonic()
        with get(client, timeout=0.2) as found, pytest.raises(TransportTimeout, match="did not send its answer within"):
            found.read(1000)
        assert time.monotonic() - began < 2


def test_a_body_that_is_cut_off_is_an_error_of_reading(lane: Lane) -> None:
    with scripted_server([truncated(b"hel", 5)]) as server, client_of(server, **lane) as client, get(client) as found:
        with pytest.raises(ReadError):
            found.read(5)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (answer(200), True),
        (HELLO, True),
        (answer(200, b"x" * (LONG - 1)), True),
        (answer(200, b"x" * LONG), False),
        (chunked(), True),
        (chunked(b"hello"), True),
        (chunked(b"x" * LONG), False),
        (chunked(b"hello", trailer=b"0\r\nX: y"), False),
    ],
)
def test_a_short_rest_is_read_for_its_connection(lane: Lane, said: Step, kept: bool) -> None:
    if "session" in lane and b"chunked" in bytes(said):
        kept = False  # what a foreign adapter does with it is not known
    with scripted_server([said, HELLO]) as server, client_of(server, **lane) as client:
        get(client).finish()
        assert (200, b"hello") == ask(client)
        assert [0, 0 if kept else 1] == connections(server)


@pytest.mark.parametrize(
    "rest",
    [truncated(b"hel", 5), [truncated(b"hel", 5)[0], Pause()], [CHUNKED + b"5\r\nhel", Pause()], [CHUNKED, Pause()]],
)
def test_a_rest_that_does_not_come_is_no_failure(lane: Lane, rest: list[Step]) -> None:
    with scripted_server([rest, HELLO]) as server, client_of(server, **lane) as client:
        get(client, timeout=0.2).finish()
        assert (200, b"hello") == ask(client)
        assert [0, 1] == connections(server)


@pytest.mark.parametrize("rest", [truncated(b"hel", 5)[0], truncated(b"", 5)[0]])
def test_a_rest_is_waited_for_no_longer_than_a_silence_may_last(lane: Lane, rest: bytes) -> None:
    """Whatever the time limit of its head: a commit has 15 minutes."""
    script = [[rest, Pause()], [rest.replace(b"200", b"403"), Pause()]]
    with scripted_server(script) as server, client_of(server, stall_timeout=0.1, **lane) as client:
        began = time.monotonic()
        get(client).finish()
        with pytest.raises(DeniedError, match="responded with status 403"):
            get(client)
        assert time.monotonic() - began < 5


def test_a_flow_that_is_cut_is_told_so_by_the_rest_too(lane: Lane) -> None:
    flow = WorkerFlow()
    with scripted_server([[truncated(b"hel", 5)[0], Pause()]]) as server, client_of(server, **lane) as client:
        found = send(client, "GET", "/x", ok={200}, flow=flow)
        cutter = threading.Timer(0.1, lambda: flow.cut(StalledError("silent"), final=False))
        cutter.start()
        with pytest.raises(StalledError, match="silent"):
            found.finish()
        cutter.join()


def test_a_response_may_be_closed_twice_and_at_any_time(lane: Lane) -> None:
    with scripted_server([HELLO] * 3) as server, client_of(server, **lane) as client:
        unread = get(client)
        unread.close()
        unread.close()
        with get(client) as found:
            assert b"hello" == found.read(5)
            found.close()
        assert (200, b"hello") == ask(client)
        assert [0, 1, 1] == connections(server)
