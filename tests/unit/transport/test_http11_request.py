"""The fast lane: what a request says, byte for byte."""

from __future__ import annotations

import socket
import ssl

import pytest

from tests.unit.transport.rig import HELLO, Serve, TLSServer, ask, client_of, zeros
from transferkit.errors import ProtocolError
from transferkit.testing import scripted_server
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.request import BytesBody, RequestBody


def test_a_request_says_what_it_must_and_no_more(serve: Serve) -> None:
    with serve([HELLO, HELLO]) as server, client_of(server, user_agent="me/1") as client:
        ask(client, path="/a%2Fb?c=%20&d", headers={"Range": "bytes=5-"})
        flow = WorkerFlow()
        ask(client, "PUT", flow=flow, body=RequestBody(3, lambda: BytesBody(b"abc"), flow))

        get, put = server.requests
    base = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "me/1", "host": server.url.partition("//")[2]}
    assert (get.method, get.target, get.headers, get.body) == (
        "GET",
        "/a%2Fb?c=%20&d",
        {**base, "range": "bytes=5-"},
        b"",
    )
    assert (put.method, put.target, put.headers, put.body) == ("PUT", "/x", {**base, "content-length": "3"}, b"abc")


def test_an_empty_body_is_announced_as_one(serve: Serve) -> None:
    with serve([HELLO]) as server, client_of(server) as client:
        flow = WorkerFlow()
        ask(client, "PUT", flow=flow, body=RequestBody(0, lambda: BytesBody(b""), flow))
        assert "0" == server.requests[0].headers["content-length"]


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("length", [0, 3, 1_000_000])
def test_no_body_is_sent_in_chunks(serve: Serve, length: int, fast: bool) -> None:
    """Each one has a length, and many registries take no other."""
    with serve([HELLO]) as server, client_of(server, fast=fast) as client:
        flow = WorkerFlow()
        assert (200, b"hello") == ask(client, "PUT", flow=flow, body=zeros(length, flow))
        (request,) = server.requests
    assert (str(length), None) == (request.headers.get("content-length"), request.headers.get("transfer-encoding"))
    assert bytes(length) == request.body


@pytest.mark.parametrize(
    ("base", "host"),
    [
        ("http://registry.example", "registry.example"),
        ("http://registry.example:80", "registry.example"),
        ("http://Registry.Example.:5000", "registry.example:5000"),
        ("http://registry.example:443", "registry.example:443"),
        ("https://registry.example", "registry.example"),
        ("https://registry.example:443", "registry.example"),
        ("https://registry.example:80", "registry.example:80"),
    ],
)
@pytest.mark.parametrize("fast", [True, False])
def test_the_host_is_named_with_its_port_where_that_is_not_the_usual_one(
    server_context: ssl.SSLContext,
    trust: None,
    monkeypatch: pytest.MonkeyPatch,
    base: str,
    host: str,
    fast: bool,
) -> None:
    with TLSServer(server_context, [HELLO]) if base.startswith("https") else scripted_server([HELLO]) as server:
        address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", (server.host, server.port))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [address])
        with client_of(base, fast=fast) as client:
            assert (200, b"hello") == ask(client)
        assert host == server.requests[0].headers["host"]


@pytest.mark.parametrize("fast", [True, False])
def test_an_ipv6_host_is_named_in_brackets(fast: bool) -> None:
    try:
        server = scripted_server([HELLO], host="::1").__enter__()
    except OSError:
        pytest.skip("no IPv6 here")
    with client_of(server, fast=fast) as client:
        assert (200, b"hello") == ask(client)
    server.__exit__(None, None, None)
    assert f"[::1]:{server.port}" == server.requests[0].headers["host"]


@pytest.mark.parametrize(
    "headers", [{"X": "a\r\nY: b"}, {"X": "a\n"}, {"X": "a\rb"}, {"X\r\nY": "b"}, {"X": "a\r\n\r\nGET /y HTTP/1.1"}]
)
def test_a_line_break_in_a_header_is_refused_before_a_connection_is_made(headers: dict[str, str]) -> None:
    with scripted_server([]) as server, client_of(server) as client:
        with pytest.raises(ProtocolError, match="line break"):
            ask(client, headers=headers)
        assert [] == server.requests


def test_a_header_that_has_no_bytes_is_refused() -> None:
    with scripted_server([]) as server, client_of(server, user_agent="me/\u20ac") as client:
        with pytest.raises(ProtocolError, match="Latin-1"):
            ask(client)
        assert [] == server.requests
