"""What takes the ordinary way: proxies, sessions of the user's, URLs that are not ASCII."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from tests.unit.transport.rig import (
    ANY,
    DIRECT_ALONE,
    HELLO,
    MIB,
    Serve,
    TLSServer,
    ask,
    client_of,
    connections,
    everything,
    raw_server,
    send,
    take_head,
    zeros,
)
from transferkit.errors import ConnectError
from transferkit.testing import answer, scripted_server
from transferkit.testing.scripted import RawRequest
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.answers import DirectResponse
from transferkit.transport.client import Client
from transferkit.transport.plain import PlainResponse
from transferkit.transport.response import Response

pytestmark = DIRECT_ALONE


@contextmanager
def connect_proxy() -> Iterator[tuple[str, list[bytes]]]:
    """A forward proxy that knows CONNECT alone; yields its URL and the heads that it was sent."""
    heads: list[bytes] = []

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while block := source.recv(64 * 1024):
                target.sendall(block)
        except OSError:
            pass
        for sock in (source, target):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def talk(sock: socket.socket) -> None:
        heads.append(take_head(sock))
        host, _, port = heads[-1].split()[1].decode().rpartition(":")
        with socket.create_connection((host, int(port))) as upstream:
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=pump, args=(upstream, sock), name="transferkit-test-pump", daemon=True)
            back.start()
            pump(sock, upstream)
            back.join()

    with raw_server(talk) as url:
        yield url, heads


def kind_of_answer(client: Client) -> tuple[type[Response], int, bytes]:
    with send(client, "GET", "/x", ok=ANY, flow=WorkerFlow()) as found:
        return type(found), found.status, everything(found)


def test_a_proxy_is_asked_in_the_ordinary_way(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted_server([HELLO, HELLO]) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with client_of("http://registry.example:5000") as client:
            assert (PlainResponse, 200, b"hello") == kind_of_answer(client)
            assert (PlainResponse, 200, b"hello") == kind_of_answer(client)
        assert ["http://registry.example:5000/x"] * 2 == [request.target for request in proxy.requests]
        assert "registry.example:5000" == proxy.requests[0].headers["host"]
        assert [0, 0] == connections(proxy)


def test_tls_goes_through_a_proxy_in_the_ordinary_way(
    server_context: ssl.SSLContext, trust: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TLSServer(server_context, [HELLO, answer(201)]) as server, connect_proxy() as (url, heads):
        monkeypatch.setenv("HTTPS_PROXY", url)
        with client_of(server) as client:
            assert (PlainResponse, 200, b"hello") == kind_of_answer(client)
            flow = WorkerFlow()
            assert (201, b"") == ask(client, "PUT", flow=flow, body=zeros(MIB, flow))
        assert MIB == len(server.requests[1].body)
        assert [[b"CONNECT", b"127.0.0.1:%d" % server.port]] == [head.split()[:2] for head in heads]


def test_a_proxy_that_is_down_is_an_error_of_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{listener.getsockname()[1]}")
    with client_of("http://registry.example") as client, pytest.raises(ConnectError):
        ask(client)


def test_no_proxy_for_a_host_that_has_none(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "registry.example,127.0.0.1")
    with serve([HELLO]) as server, client_of(server) as client:
        assert (DirectResponse, 200, b"hello") == kind_of_answer(client)


def test_a_session_of_the_users_goes_the_ordinary_way(serve: Serve) -> None:
    with serve([HELLO]) as server, requests.Session() as session, Client(server.url, session=session) as client:
        assert (PlainResponse, 200, b"hello") == kind_of_answer(client)


def test_an_adapter_of_the_users_sends_every_request(serve: Serve) -> None:
    sent: list[str | None] = []

    class Adapter(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, *args: Any, **keywords: Any) -> requests.Response:
            sent.append(request.method)
            return super().send(request, *args, **keywords)

    with serve([HELLO, answer(201)]) as server, requests.Session() as session:
        session.mount(server.url, Adapter())
        with Client(server.url, session=session) as client:
            assert (PlainResponse, 200, b"hello") == kind_of_answer(client)
            flow = WorkerFlow()
            assert (201, b"") == ask(client, "PUT", flow=flow, body=zeros(MIB, flow))
        assert MIB == len(server.requests[1].body)
    assert ["GET", "PUT"] == sent


def test_an_adapter_of_the_users_that_tries_again_sends_the_whole_body_again() -> None:
    retries = Retry(total=2, status_forcelist=[503], allowed_methods=None, backoff_factor=0)
    with scripted_server([answer(503), answer(201)]) as server, requests.Session() as session:
        session.mount(server.url, HTTPAdapter(max_retries=retries))
        with Client(server.url, session=session) as client:
            flow = WorkerFlow()
            assert (201, b"") == ask(client, "PUT", flow=flow, body=zeros(MIB, flow))
            assert MIB == flow.counter.progress
        assert [MIB, MIB] == [len(request.body) for request in server.requests]


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize(
    ("location", "target"),
    [("/b\xf6b", "/b%C3%B6b"), ("/a?b=\xe9&c", "/a?b=%C3%A9&c"), ("http://127.0.0.1:{port}/\xfc", "/%C3%BC")],
)
def test_a_redirect_that_is_not_ascii_takes_the_ordinary_way(location: str, target: str, direct: bool) -> None:
    def step(request: RawRequest) -> bytes:
        if request.target == "/x":
            return answer(307, headers={"Location": location.format(port=server.port)})
        return HELLO

    with scripted_server(step) as server, client_of(server, direct=direct) as client:
        with send(client, "GET", "/x", ok={200}, flow=WorkerFlow()) as found:
            assert isinstance(found, PlainResponse)
            assert b"hello" == everything(found)
        assert ["/x", target] == [request.target for request in server.requests]
