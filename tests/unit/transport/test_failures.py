"""The table of foreign errors, row by row in its order, with the errors that the libraries raise themselves."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import requests
import urllib3

from tests.unit.transport.rig import CHUNKED, HERE, LIMIT, TLSServer, raised_by, raw_server
from transferkit.errors import (
    CertificateError,
    ConnectError,
    ProtocolError,
    ReadError,
    TransferKitError,
    TransportTimeout,
    WriteError,
)
from transferkit.testing import Close, Reset, answer, bad_status_line, header_flood, never, scripted_server
from transferkit.transport.failures import convert
from transferkit.transport.request import Lane

TLS = Lane(origin="https://registry.example", settings={"verify": True})
PROXIED = Lane(origin="http://registry.example", proxy="http://proxy.example:3128")

Raised = Callable[[], BaseException]


def get(url: str, **keywords: Any) -> BaseException:
    """What a bare session of requests raises; a body is read to its end."""
    with requests.Session() as session:
        session.trust_env = False
        return raised_by(lambda: session.get(url, **keywords))


def urlopen(url: str, **keywords: Any) -> BaseException:
    """What urllib3 alone raises."""
    with urllib3.PoolManager(retries=False) as pool:
        return raised_by(lambda: pool.request("GET", url, **keywords))


def of_script(said: Any, ask: Callable[..., BaseException] = get, **keywords: Any) -> BaseException:
    with scripted_server([said]) as server:
        return ask(server.url, **keywords)


def outcome(
    error: BaseException, where: Lane = HERE, *, sending: bool = False, connecting: bool = False
) -> tuple[type[TransferKitError], str, bool]:
    found = convert(error, where, sending=sending, connecting=connecting)
    return type(found), str(found), found.retryable


# -- row 1: certificates

ASKED = "is it running, and is the port right?"
UNCONNECTED = (
    "no connection to http://registry.example in time (TransportOptions.connect_timeout); "
    "is a firewall or a VPN in between?"
)
LATE = "http://registry.example did not answer in time (TransportOptions.response_timeout); it may be overloaded"


@pytest.mark.parametrize("ask", [get, urlopen])
def test_a_certificate_that_does_not_verify(ask: Callable[..., BaseException], server_context: ssl.SSLContext) -> None:
    with TLSServer(server_context, []) as server:
        error = ask(server.url)
    kind, text, retryable = outcome(error, TLS, connecting=True)
    assert (CertificateError, False) == (kind, retryable)
    assert text.startswith("the certificate of https://registry.example does not verify against the default CA bundle:")
    assert "set REQUESTS_CA_BUNDLE or pass a session with .verify" in text
    assert (
        "the CA bundle /my/ca.pem: " in outcome(error, Lane(origin="https://x", settings={"verify": "/my/ca.pem"}))[1]
    )


# -- row 2: names


@pytest.mark.parametrize("ask", [get, urlopen])
@pytest.mark.parametrize(("code", "retryable"), [(socket.EAI_NONAME, False), (socket.EAI_AGAIN, True)])
def test_a_name_that_does_not_resolve(
    ask: Callable[..., BaseException], monkeypatch: pytest.MonkeyPatch, code: int, retryable: bool
) -> None:
    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(code, "words of the resolver")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    error = ask("http://registry.example")
    advice = "is this machine online?" if retryable else "check how it is written"
    more = "" if retryable else ", and whether this machine is online, or needs a proxy"
    expected = f"the host name of http://registry.example does not resolve: words of the resolver; {advice}{more}"
    assert (ConnectError, expected, retryable) == outcome(error)
    expected = f"the proxy name of http://proxy.example:3128 does not resolve: words of the resolver; {advice}"
    assert (ConnectError, expected, retryable) == outcome(error, PROXIED)


# -- rows 3 to 6: no connection


@pytest.mark.parametrize("ask", [get, urlopen])
def test_nobody_there(ask: Callable[..., BaseException], nobody: str) -> None:
    expected = f"cannot connect to http://registry.example: Connection refused; {ASKED}"
    assert (ConnectError, expected, True) == outcome(ask(nobody))


@pytest.mark.parametrize("ask", [get, urlopen])
def test_a_connection_that_takes_too_long(ask: Callable[..., BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object, **__: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr("urllib3.util.connection.socket.socket.connect", connect, raising=False)
    monkeypatch.setattr("urllib3.connection.connection.create_connection", connect)
    assert (TransportTimeout, UNCONNECTED, True) == outcome(ask("http://127.0.0.1:9", timeout=1.0))


def test_time_that_is_over_says_what_there_was_none_of() -> None:
    assert UNCONNECTED == outcome(TimeoutError("x"), connecting=True)[1]
    assert LATE == outcome(TimeoutError("x"))[1]


def test_a_proxy_that_is_down(nobody: str) -> None:
    error = get("http://registry.example", proxies={"http": nobody})
    expected = (
        f"the proxy http://proxy.example:3128 on the way to http://registry.example failed: Connection refused; {ASKED}"
    )
    assert (ConnectError, expected, True) == outcome(error, PROXIED)


def test_a_proxy_is_told_with_who_says_that_there_is_one(nobody: str) -> None:
    error = get("http://registry.example", proxies={"http": nobody})
    assert outcome(error, replace(PROXIED, proxy_from="from HTTPS_PROXY"))[1].endswith(
        "failed: Connection refused; the proxy is from HTTPS_PROXY; is it running, and is the port right?"
    )


def test_a_proxy_that_refuses_to_connect() -> None:
    with scripted_server([answer(403)]) as proxy:
        error = get("https://registry.example", proxies={"https": proxy.url})
    kind, text, _ = outcome(error, PROXIED)
    assert ConnectError is kind
    assert "failed: Tunnel connection failed: 403 Forbidden" in text


# -- row 7: silence


@pytest.mark.parametrize(
    ("said", "ask"),
    [
        ([never()], get),
        ([never()], urlopen),
        ([answer(200, b"hello")[:-2], never()], urlopen),
        ([CHUNKED + b"5\r\nhe", never()], urlopen),
    ],
)
def test_silence(said: Any, ask: Callable[..., BaseException]) -> None:
    assert (TransportTimeout, LATE, True) == outcome(of_script(said, ask, timeout=0.05))


def test_the_kernels_own_limit() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, b"\0" * 8 + (1000).to_bytes(8, "little"))
        error = raised_by(lambda: one.recv(1))
    assert isinstance(error, BlockingIOError)
    assert TransportTimeout is outcome(error)[0]


# -- row 8: TLS


def test_who_does_not_speak_tls_is_an_error_of_connecting() -> None:
    with raw_server(lambda sock: (sock.recv(1024), sock.sendall(b"HTTP/1.0 400 Bad\r\n\r\n"))[1]) as url:
        error = get(url.replace("http:", "https:"))
    kind, text, retryable = outcome(error, TLS, connecting=True)
    assert (ConnectError, False) == (kind, retryable)
    advice = "use its http:// address, or HostOptions(scheme='http')"
    assert f"https://registry.example speaks http, not https: {advice}" == text


def test_what_else_fails_in_a_handshake_is_tried_again() -> None:
    with raw_server(lambda sock: (sock.recv(1024), sock.sendall(b"\x15\x03\x03\x00\x02\x02\x28"))[1]) as url:
        error = get(url.replace("http:", "https:"))
    kind, text, retryable = outcome(error, TLS, connecting=True)
    assert (ConnectError, True) == (kind, retryable)
    assert text.startswith("TLS with https://registry.example failed: ")


def test_a_record_that_is_damaged_is_a_broken_connection(server_context: ssl.SSLContext) -> None:
    def talk(sock: socket.socket) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = server_context.wrap_bio(incoming, outgoing, server_side=True)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
                incoming.write(sock.recv(65536))
        sock.sendall(outgoing.read() + b"\x17\x03\x03\x00\x20" + b"x" * 32)
        sock.recv(65536)

    with raw_server(talk) as url:
        error = damaged(url)
    kind, text, _ = outcome(error, TLS)
    assert ReadError is kind
    assert text.startswith("the connection to https://registry.example broke: ")


def damaged(url: str) -> BaseException:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=LIMIT) as sock, context.wrap_socket(sock) as tls:
        return raised_by(lambda: tls.recv(1))


# -- rows 9 and 10: what cannot be sent


def test_a_scheme_that_nobody_has_an_adapter_for() -> None:
    kind, text, retryable = outcome(get("ftp://registry.example/x"))
    assert (ProtocolError, False) == (kind, retryable)
    assert text.startswith("a request to http://registry.example cannot be made: No connection adapters were found")


@pytest.mark.parametrize(
    ("act", "name"),
    [
        (lambda: get("http://"), "InvalidURL"),
        (lambda: get("registry.example"), "MissingSchema"),
        (lambda: get("http://registry.example", headers={"X": "secret\n"}), "InvalidHeader"),
        (
            lambda: raised_by(lambda: urllib3.ProxyManager("http://user:secret#more@proxy.example")),
            "LocationParseError",
        ),
        (lambda: raised_by(lambda: urllib3.ProxyManager("ftp://user:secret@proxy.example")), "ProxySchemeUnknown"),
    ],
)
def test_a_request_that_cannot_be_made(act: Raised, name: str) -> None:
    expected = f"a request to http://registry.example cannot be made: {name}"
    assert (ProtocolError, expected, False) == outcome(act())


# -- rows 11 and 12: what is not HTTP


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ([bad_status_line(b"SSH-2.0-OpenSSH_9.6"), Close()], "BadStatusLine"),
        ([b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", Close()], "LineTooLong"),
        ([bad_status_line(b"HTTP/2 200 OK"), Close()], "UnknownProtocol"),
        (lambda _: header_flood(2000), "HTTPException"),
    ],
)
@pytest.mark.parametrize("ask", [get, urlopen])
def test_an_answer_that_is_not_http(ask: Callable[..., BaseException], said: Any, name: str) -> None:
    expected = f"http://registry.example sent an answer that is not HTTP: {name}"
    assert (ProtocolError, expected, False) == outcome(of_script(said, ask))


@pytest.mark.parametrize("ask", [get, urlopen])
def test_a_body_that_cannot_be_decoded(ask: Callable[..., BaseException]) -> None:
    kind, text, _ = outcome(of_script(answer(200, b"hello", {"Content-Encoding": "gzip"}), ask))
    assert (ProtocolError, "http://registry.example sent an answer that is not HTTP: DecodeError") == (kind, text)


# -- the last row: a connection that broke


@pytest.mark.parametrize("ask", [get, urlopen])
@pytest.mark.parametrize(
    "said",
    [
        [Close()],
        [Reset()],
        [answer(200, b"hello")[:-2], Close()],
        [answer(200, b"hello")[:-2], Reset()],
        [CHUNKED + b"5\r\nhe", Close()],
        [CHUNKED + b"x\r\n", Close()],
    ],
)
def test_a_connection_that_breaks(ask: Callable[..., BaseException], said: Any) -> None:
    kind, text, retryable = outcome(of_script(said, ask))
    assert (ReadError, True) == (kind, retryable)
    assert text.startswith("the connection to http://registry.example broke: ")


def test_a_pipe_that_breaks_while_a_body_is_sent_is_an_error_of_writing() -> None:
    one, other = socket.socketpair()
    with one:
        other.close()
        error = raised_by(lambda: one.sendall(b"x"))
    expected = "the connection to http://registry.example broke: [Errno 32] Broken pipe"
    assert (WriteError, expected, True) == outcome(error, sending=True)
    assert (ReadError, expected, True) == outcome(error)


def test_what_breaks_before_there_is_a_connection_is_an_error_of_connecting() -> None:
    error = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    expected = "cannot connect to http://registry.example: Connection reset by peer"
    assert (ConnectError, expected, True) == outcome(error, connecting=True)


def test_whatever_else_is_raised_is_a_broken_connection() -> None:
    assert (ReadError, "the connection to http://registry.example broke: what", True) == outcome(ValueError("what"))
    assert "the connection to http://registry.example broke: OSError" == outcome(OSError())[1]
    assert 200 + 49 == len(outcome(OSError("x" * 1000))[1])  # of foreign words, no more
