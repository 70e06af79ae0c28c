"""Bytes that are hardly requests, on a socket: none hides in another one, and nobody is told a 500."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import h11
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import transferkit as tk
from tests.unit.server.hostile import Ask, Told, judge
from tests.unit.server.hostile_values import asks
from transferkit.server import serving
from transferkit.server.app import Application

LAST = b"GET /last HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
Seen = tuple[str, bytes]
"""Method and body of a request, as an application has read it."""


@pytest.fixture(scope="module")
def recording() -> Iterator[tuple[str, list[Seen]]]:
    """A server that notes what its application has read to the end, and answers with a length that is told."""
    seen: list[Seen] = []

    def note(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        try:
            seen.append((environ["REQUEST_METHOD"], environ["wsgi.input"].read()))
        except ConnectionAbortedError:
            start_response("400 Bad Request", [("Content-Length", "2")])
            return [b"no"]
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    with serving(note) as url:
        yield url.removeprefix("http://"), seen


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Two servers: a registry with the API and the page, and a mirror."""
    folder = tmp_path_factory.mktemp("served")
    with ExitStack() as stack:
        registry = stack.enter_context(tk.Registry(cache=folder / "cache", offline=True))
        registry.cache.put(b"hello")
        registry.cache.link("smol", b'{"schemaVersion": 2, "layers": []}')
        made = [
            Application(registry=registry, store=folder / "store"),
            Application(registry=registry, mirror=registry.cache),
        ]
        yield [stack.enter_context(serving(stack.enter_context(each))).removeprefix("http://") for each in made]


def send(authority: str, data: bytes) -> bytes:
    """Send bytes and no more, and return all that comes until the server closes."""
    host, _, port = authority.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: sock.recv(65536), b""))
        except TimeoutError:
            raise
        except OSError:  # it had closed while we were sending: that is an answer, too
            return b""


def answers(data: bytes, methods: list[str]) -> list[Told]:
    """Take apart what a server has said: whole answers, and nothing between or behind them."""
    told: list[Told] = []
    while data:
        # Who refuses a head does not look what was asked for; he hangs up behind his text.
        is_head = methods[len(told) : len(told) + 1] == ["HEAD"] and b"text/plain" not in data.partition(b"\r\n\r\n")[0]
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method="HEAD" if is_head else "GET", target="/", headers=[("Host", "x")]))
        client.send(h11.EndOfMessage())
        client.receive_data(data)
        client.receive_data(b"")
        body = b""
        while not isinstance(event := client.next_event(), h11.EndOfMessage):  # RemoteProtocolError: it is cut off
            if isinstance(event, h11.Response):
                status, fields = event.status_code, event.headers
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
        told.append(Told(status, {name.decode(): value.decode("latin-1") for name, value in fields}, body))
        data, _ = client.trailing_data
    return told


def read_by_h11(data: bytes) -> list[Seen]:
    """Return the requests that another implementation finds, as far as it takes them."""
    found: list[Seen] = []
    while data:
        server = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
        # One empty line before a request is nobody's: RFC 9112, section 2.2. h11 refuses it.
        server.receive_data(data.removeprefix(b"\r\n"))
        server.receive_data(b"")
        body = b""
        try:
            request = server.next_event()
            while isinstance(event := server.next_event(), h11.Data):
                body += bytes(event.data)
        except h11.RemoteProtocolError:
            break
        if not isinstance(request, h11.Request) or not isinstance(event, h11.EndOfMessage):
            break
        found.append((request.method.decode(), body))
        data, _ = server.trailing_data
    return found


lines = st.sampled_from(
    [
        b"POST /first HTTP/1.1", b"GET /first HTTP/1.1", b"POST /first HTTP/1.0", b"POST  /first HTTP/1.1",
        b"POST /first", b"",
        b"post /first HTTP/1.1", b"POST http://127.0.0.1/first HTTP/1.1", b"POST //[ HTTP/1.1", b"POST * HTTP/1.1",
        b"OPTIONS * HTTP/1.1", b"CONNECT a:1 HTTP/1.1", b"POST /%zz HTTP/1.1", b"POST /a#b HTTP/1.1",
        b"POST /first HTTP/2.0",
        b"POST /first HTTP/1.1 ", b"POST /\xff HTTP/1.1", b"POST ? HTTP/1.1", b"POST //[::1]:x/ HTTP/1.1",
        b"\x16\x03\x01\x02\x00",
        b"PRI * HTTP/2.0", b"POST \\first HTTP/1.1", b"POST /first HTTP/1.1\x00", b"GET /a?b?c#d HTTP/1.1",
        b"POST /;a=b HTTP/1.1",
    ]
)  # fmt: skip
framings = st.sampled_from(
    [
        b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: 44", b"Content-Length: 99999999999999999999",
        b"Content-Length: -1", b"Content-Length: +5", b"Content-Length: 5, 5",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length : 5", b"Content-Length:5", b"Content-Length: \t5 ", b"Content_Length: 5",
        b"Content-Length: 0x5",
        b"Content-Length: 5\r\n 6", b"Content-Length: \xd9\xa3", b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: CHUNKED",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5", b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding: identity", b"Transfer-Encoding : chunked", b"Transfer-Encoding: \x0bchunked", b"X: y\x00",
        b"Transfer-Encoding:\r\n chunked", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", b"\x00: x",
        b": x",
        b"Expect: 100-continue\r\nContent-Length: 5", b"Expect: x\r\nContent-Length: 5", b"Connection: close",
        b"no colon",
        b"Connection: keep-alive", b"Upgrade: h2c\r\nConnection: Upgrade", b"Host: other",
        b"X: " + b"x" * 70_000, b"X: y\n",
    ]
)  # fmt: skip
chunks = st.sampled_from(
    [
        b"5\r\nhello\r\n", b"0\r\n\r\n", b"5;x=y\r\nhello\r\n", b"5\nhello\n", b"-5\r\nhello\r\n",
        b"0x5\r\nhello\r\n", b"5 \r\nhello\r\n",
        b"5\r\nhello", b"00005\r\nhello\r\n", b"ffffffffffffffffff\r\n", b"5\r\nhello!!\r\n", b"0\r\nA: b\r\n\r\n",
        b"0\r\nA\r\n\r\n", b"\r\n",
        b"0;" + b"x" * 9000 + b"\r\n\r\n", b"2d\r\n" + HIDDEN + b"\r\n", b"0\r\n\r\n" + HIDDEN,
    ]
)  # fmt: skip
requests = st.builds(
    lambda line, fields, body: line + b"\r\n" + b"".join(each + b"\r\n" for each in fields) + b"\r\n" + body,
    st.just(b"POST /first HTTP/1.1") | lines,
    st.lists(framings, max_size=2).map(lambda found: [b"Host: 127.0.0.1", *found]),
    st.one_of(
        st.just(b""),
        st.just(b"hello"),
        st.lists(chunks, max_size=4).map(b"".join),
        st.just(HIDDEN),
        st.binary(max_size=20),
    ),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.lists(requests, min_size=1, max_size=2).map(b"".join), cut=st.none() | st.integers(0, 200))
@example(data=b"POST //[ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", cut=None)
@example(
    data=b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", cut=None
)  # LAST is no trailer
def test_what_is_taken_for_a_request_is_one_for_others_too(
    recording: tuple[str, list[Seen]], caplog: pytest.LogCaptureFixture, data: bytes, cut: int | None
) -> None:
    """A request that only this server sees could hide in another one, where something else stands in front of it."""
    authority, seen = recording
    sent = (data + LAST)[:cut]
    seen.clear()

    told = answers(send(authority, sent).replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""), [each[0] for each in seen])

    assert seen == read_by_h11(sent)[: len(seen)]
    assert all(each.status < 500 or each.status in (501, 505) for each in told)
    assert len(told) <= len(seen) + 1
    assert [] == [each for each in caplog.records if each.levelno >= logging.ERROR]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ask=asks, which=st.integers(0, 1), cut=st.none() | st.integers(0, 300))
def test_no_bytes_are_the_servers_fault(
    everything: list[str], caplog: pytest.LogCaptureFixture, ask: Ask, which: int, cut: int | None
) -> None:
    authority = everything[which]

    for told in answers(send(authority, ask.raw(authority)[:cut]), [ask.method]):
        assert told.status < 500 or told.status in (501, 505)
        assert b"Traceback" not in told.body
        if (
            told.headers.get("content-type") != "text/plain"
        ):  # that of a server: what came is not a request of anybody's
            judge(ask, told)
    assert [] == [each for each in caplog.records if each.levelno >= logging.ERROR]
