"""Proxies in the fast lane: forwarding, CONNECT, behind TLS, SOCKS; what each says when it fails; what wakes a wait."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import requests

from tests.unit.transport.rig import (
    ANY,
    HELLO,
    LIMIT,
    MIB,
    TLSServer,
    ask,
    client_of,
    connections,
    everything,
    raw_server,
    send,
    take_head,
    until,
    zeros,
)
from transferkit.errors import (
    CancelledError,
    CertificateError,
    ConnectError,
    ProtocolError,
    TransferKitError,
    TransportTimeout,
)
from transferkit.testing import Close, answer, never, scripted_server
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.response import StreamResponse

Talk = Callable[[socket.socket], tuple[str, int]]


def relay(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until one side ends."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while block := source.recv(64 * 1024):
                target.sendall(block)
        for sock in (source, target):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    back = threading.Thread(target=pump, args=(other, one), name="transferkit-test-pump", daemon=True)
    back.start()
    pump(one, other)
    back.join()


@contextmanager
def connect_proxy(context: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[bytes]]]:
    """A forward proxy that knows CONNECT alone, also behind TLS; yields its URL and the heads that it was sent."""
    heads: list[bytes] = []

    def talk(plain: socket.socket) -> None:
        with context.wrap_socket(plain, server_side=True) if context else plain as sock:
            heads.append(take_head(sock))
            host, _, port = heads[-1].split()[1].decode().rpartition(":")
            with socket.create_connection((host, int(port))) as upstream:
                sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                relay(sock, upstream)

    with raw_server(talk) as url:
        yield (url.replace("http:", "https:") if context else url), heads


def receive(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        block = sock.recv(count - len(data))
        if not block:
            raise OSError("the client has gone")
        data += block
    return data


@contextmanager
def socks_proxy(reply: int = 0) -> Iterator[tuple[str, list[bytes]]]:
    """A SOCKS5 proxy without authentication (RFC 1928); yields its URL and the addresses that it was asked for."""
    asked: list[bytes] = []

    def talk(sock: socket.socket) -> None:
        receive(sock, receive(sock, 2)[1])
        sock.sendall(b"\x05\x00")
        kind = receive(sock, 4)[3]
        address = receive(sock, 4 if kind == 1 else receive(sock, 1)[0])
        asked.append(address)
        port = int.from_bytes(receive(sock, 2), "big")
        host = socket.inet_ntoa(address) if kind == 1 else address.decode()
        sock.sendall(bytes([5, reply, 0, 1]) + bytes(6))
        if not reply:
            with socket.create_connection((host, port)) as upstream:
                relay(sock, upstream)

    with raw_server(talk) as url:
        yield url.replace("http:", "socks5h:"), asked


def test_a_proxy_is_sent_whole_urls_on_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted_server([HELLO, HELLO]) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("//", "//user:password@"))
        with client_of("http://registry.example:5000") as client:
            for _ in range(2):
                with send(client, "GET", "/x?y=%20", ok=ANY, flow=WorkerFlow()) as found:
                    assert isinstance(found, StreamResponse)
                    assert b"hello" == everything(found)
        assert ["http://registry.example:5000/x?y=%20"] * 2 == [request.target for request in proxy.requests]
        assert "registry.example:5000" == proxy.requests[0].headers["host"]
        assert "Basic dXNlcjpwYXNzd29yZA==" == proxy.requests[0].headers["proxy-authorization"]
        assert [0, 0] == connections(proxy)


@pytest.mark.parametrize("behind_tls", [False, True])
def test_tls_goes_through_a_proxy_by_connect(
    server_context: ssl.SSLContext, trust: None, monkeypatch: pytest.MonkeyPatch, behind_tls: bool
) -> None:
    """Also through one that is behind TLS itself: TLS within TLS."""
    with (
        TLSServer(server_context, [HELLO, answer(201), HELLO]) as server,
        connect_proxy(server_context if behind_tls else None) as (url, heads),
    ):
        monkeypatch.setenv("HTTPS_PROXY", url)
        with client_of(server) as client:
            assert (200, b"hello") == ask(client)
            flow = WorkerFlow()
            assert (201, b"") == ask(client, "PUT", flow=flow, body=zeros(MIB, flow))
            assert (200, b"hello") == ask(client)
        assert MIB == len(server.requests[1].body)
        assert [[b"CONNECT", b"127.0.0.1:%d" % server.port]] == [head.split()[:2] for head in heads]
        assert [0, 0, 0] == connections(server)


def test_a_proxy_behind_tls_is_sent_whole_urls(
    server_context: ssl.SSLContext, trust: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TLSServer(server_context, [HELLO, HELLO]) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with client_of("http://registry.example") as client:
            assert [(200, b"hello")] * 2 == [ask(client), ask(client)]
        assert ["http://registry.example/x"] * 2 == [request.target for request in proxy.requests]
        assert [0, 0] == connections(proxy)


def test_the_certificate_of_a_proxy_is_verified(
    server_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect_proxy(server_context) as (url, heads):
        monkeypatch.setenv("HTTPS_PROXY", url)
        with client_of("https://127.0.0.1:9") as client, pytest.raises(CertificateError):
            ask(client)
        assert [] == heads


@pytest.mark.parametrize("over_tls", [False, True])
def test_a_socks_proxy_is_asked_for_the_registry(
    server_context: ssl.SSLContext, trust: None, monkeypatch: pytest.MonkeyPatch, over_tls: bool
) -> None:
    server = TLSServer(server_context, [HELLO, HELLO]) if over_tls else scripted_server([HELLO, HELLO])
    with server as running, socks_proxy() as (url, asked):
        monkeypatch.setenv("ALL_PROXY", url)
        with client_of(running) as client:
            assert [(200, b"hello")] * 2 == [ask(client), ask(client)]
        assert [b"127.0.0.1"] == [socket.inet_ntoa(a).encode() if len(a) == 4 else a for a in asked]
        assert [0, 0] == connections(running)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("way", ["direct", "socks"])
def test_no_lane_logs_what_is_signed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fast: bool, way: str
) -> None:
    """urllib3 logs the path of each request with its query, and is not asked for one."""
    caplog.set_level("DEBUG")
    with scripted_server([HELLO]) as server, socks_proxy() as (url, _):
        if way == "socks":
            monkeypatch.setenv("ALL_PROXY", url)
        with client_of(server, fast=fast) as client:
            assert (200, b"hello") == ask(client, path="/x?X-Amz-Signature=s3cret")
    assert [] == [record.getMessage() for record in caplog.records if "s3cret" in record.getMessage()]


def test_the_next_address_of_a_socks_proxy_is_asked_and_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        refusing = listener.getsockname()
    last = [answer(200, b"hello", headers={"Connection": "close"}), Close()]
    with scripted_server(lambda _: last) as server, socks_proxy() as (url, asked):
        working = "127.0.0.1", int(url.rpartition(":")[2])
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in (refusing, working)]
        monkeypatch.setenv("ALL_PROXY", url.replace("127.0.0.1", "proxy.example"))
        tried: list[Any] = []
        real = socket.socket.connect

        def connect(sock: socket.socket, address: Any) -> None:
            tried.append(address)
            real(sock, address)

        resolve = socket.getaddrinfo
        monkeypatch.setattr(
            socket, "getaddrinfo", lambda host, *rest: found if host == "proxy.example" else resolve(host, *rest)
        )
        monkeypatch.setattr("socks._BaseSocket.connect", connect)
        with client_of(server) as client:
            assert [(200, b"hello")] * 2 == [ask(client), ask(client)]
    assert 2 == len(asked)
    assert [refusing, working, working] == [address for address in tried if address in (refusing, working)]


def test_a_proxy_that_is_down_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("HTTP_PROXY", f"http://user:secret@127.0.0.1:{port}")
    with client_of("http://registry.example") as client, pytest.raises(ConnectError) as caught:
        ask(client)
    assert f"the proxy http://127.0.0.1:{port} on the way to http://registry.example" in str(caught.value)
    assert "secret" not in repr(caught.value)


@pytest.mark.parametrize("where", ["http://user:pa5s/x@h:1", "http://user:pa5s#x@h:1", "http://h:port", "ftp://h:1"])
@pytest.mark.parametrize("target", ["http://registry.example", "https://registry.example"])
def test_a_proxy_that_cannot_be_is_a_final_error_without_its_password(
    session: requests.Session, where: str, target: str
) -> None:
    session.proxies = {"http": where, "https": where}
    with client_of(target, session=session) as client, pytest.raises(ProtocolError) as caught:
        ask(client)
    assert not caught.value.retryable
    assert "pa5s" not in "".join(traceback.format_exception(caught.value))


def test_a_proxy_that_refuses_to_connect_is_an_error_of_connecting(
    trust: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scripted_server([answer(407, b"no")]) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with client_of("https://registry.example") as client, pytest.raises(ConnectError, match="407"):
            ask(client)


@pytest.mark.parametrize("behind_tls", [False, True])
def test_a_proxy_that_answers_connect_bit_by_bit_has_a_limit(
    server_context: ssl.SSLContext, trust: None, monkeypatch: pytest.MonkeyPatch, behind_tls: bool
) -> None:
    def talk(plain: socket.socket) -> None:
        with server_context.wrap_socket(plain, server_side=True) if behind_tls else plain as sock:
            take_head(sock)
            sock.sendall(b"HTTP/1.1 200 OK\r\n")
            for _ in range(60):
                sock.sendall(b"X: y\r\n")
                time.sleep(0.1)

    with raw_server(talk) as url:
        monkeypatch.setenv("HTTPS_PROXY", url.replace("http:", "https:") if behind_tls else url)
        with client_of("https://registry.example", connect_timeout=0.5) as client:
            began = time.monotonic()
            with pytest.raises(TransportTimeout, match=r"no connection to .* in time"):
                ask(client)
            assert time.monotonic() - began < 4


def test_a_socks_proxy_that_refuses_is_an_error_of_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    with socks_proxy(reply=5) as (url, _):
        monkeypatch.setenv("ALL_PROXY", url)
        with client_of("http://127.0.0.1:9") as client, pytest.raises(ConnectError, match=r"refused"):
            ask(client)


def test_a_socks_proxy_without_pysocks_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise requests.exceptions.InvalidSchema("Missing dependencies for SOCKS support.")  # as requests has it then

    monkeypatch.setattr("requests.adapters.SOCKSProxyManager", missing)
    monkeypatch.setitem(sys.modules, "transferkit.transport.socks", None)
    monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:9")
    with client_of("http://registry.example") as client:
        with pytest.raises(ProtocolError, match="Missing dependencies for SOCKS support"):
            ask(client)


def test_no_proxy_for_a_host_that_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "registry.example,127.0.0.1")
    with scripted_server([HELLO]) as server, client_of(server) as client:
        assert (200, b"hello") == ask(client)


STATES = {
    "the proxy says nothing to CONNECT": ("HTTPS_PROXY", "http:", "https://registry.example", b"\r\n\r\n"),
    "the proxy says nothing to a request": ("HTTP_PROXY", "http:", "http://registry.example", b"\r\n\r\n"),
    "the proxy does not shake hands": ("HTTPS_PROXY", "https:", "https://registry.example", b"\x16"),
    "the SOCKS proxy says nothing": ("ALL_PROXY", "socks5h:", "http://registry.example", b"\x05"),
}


@pytest.mark.parametrize("state", STATES)
def test_a_cancel_wakes_who_waits_for_a_proxy(state: str, trust: None, monkeypatch: pytest.MonkeyPatch) -> None:
    variable, scheme, target, until = STATES[state]
    waits = threading.Event()

    def talk(sock: socket.socket) -> None:
        taken = sock.recv(1)
        while not taken.endswith(until):
            taken += sock.recv(1)
        waits.set()
        while sock.recv(1024):
            pass

    with raw_server(talk) as url:
        monkeypatch.setenv(variable, url.replace("http:", scheme))
        assert_a_cancel_ends_it(target, waits)


def test_a_cancel_wakes_who_waits_behind_a_socks_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted_server([[never()]]) as server, socks_proxy() as (url, asked):
        monkeypatch.setenv("ALL_PROXY", url)
        waits = threading.Event()
        watcher = threading.Thread(
            target=lambda: (until(lambda: len(server.requests) == 1), waits.set()), name="transferkit-test-watch"
        )
        watcher.start()
        assert_a_cancel_ends_it(server.url, waits)
        watcher.join()
        assert 1 == len(asked)


def assert_a_cancel_ends_it(target: str, waits: threading.Event) -> None:
    flow = WorkerFlow()
    ended: list[tuple[TransferKitError, float]] = []

    def attempt() -> None:
        with client_of(target, connect_timeout=LIMIT) as client:
            try:
                ask(client, flow=flow)
            except TransferKitError as error:
                ended.append((error, time.monotonic()))

    thread = threading.Thread(target=attempt, name="transferkit-test-attempt")
    thread.start()
    assert waits.wait(LIMIT)
    reason, began = CancelledError("now"), time.monotonic()
    flow.cut(reason, final=True)
    thread.join(LIMIT)
    (error, at) = ended[0]
    assert error is reason
    assert at - began < 1.0
