"""What our way of running cheroot promises, each on a real socket."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.descriptors import open_descriptors
from transferkit.server import serving

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


HALF_A_BODY = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx"


def echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the body, or early where the path says so."""
    path = environ["PATH_INFO"]
    body = b"early" if path == "/early" else environ["wsgi.input"].read()
    status = "413 Content Too Large" if path == "/413" else "200 OK"
    start_response(status, [("Content-Length", str(len(body)))])
    return [body]


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    host, port = url.removeprefix("http://").rsplit(":", 1)
    with socket.create_connection((host.strip("[]"), int(port)), timeout=10) as sock:
        yield sock


def everything(sock: socket.socket) -> bytes:
    """Read until the other side closes; a reset is a failure."""
    return b"".join(iter(lambda: sock.recv(65536), b""))


def exchange(url: str, request: bytes) -> bytes:
    with connected(url) as sock:
        sock.sendall(request)
        return everything(sock)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(echo) as url:
        yield url


def test_a_connection_is_used_again(url: str) -> None:
    connection = HTTPConnection(url.removeprefix("http://"))
    try:
        for data in (b"one", b"two"):
            connection.request("POST", "/", body=data)
            assert data == connection.getresponse().read()
            sock = connection.sock
        assert sock is connection.sock
    finally:
        connection.close()


def test_pipelined_requests_are_answered_in_order(url: str) -> None:
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n%b\r\n%d"

    answers = exchange(url, b"".join(request % (b"Connection: close\r\n" if n == 3 else b"", n) for n in range(4)))

    assert [part[:1] for part in answers.split(b"\r\n\r\n")[1:]] == [b"0", b"1", b"2", b"3"]


def test_a_chunked_request_is_read_to_its_end(url: str) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    one = head + b"\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"

    answers = exchange(url, one + head + b"Connection: close\r\n\r\n1\r\n!\r\n0\r\n\r\n")

    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert [part[: 5 if n == 0 else 1] for n, part in enumerate(answers.split(b"\r\n\r\n")[1:])] == [b"hello", b"!"]


def test_the_rest_of_a_chunked_body_is_no_request(url: str) -> None:
    inner = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    big = b"x" * 300_000
    request = b"POST /early HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

    answers = exchange(url, request + b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(big), big, len(inner), inner))

    assert answers.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close" in answers


@pytest.mark.parametrize("length", ["-1", "-5", "+5", "1_0", "5 5", "0x5", "", "٥", "9" * 20])
def test_a_content_length_that_is_none_closes_the_connection(url: str, length: str) -> None:
    answers = exchange(url, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %b\r\n\r\nhello" % length.encode())
    assert answers.startswith(b"HTTP/1.1 400 ")
    assert answers.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/9.9\r\n\r\n", b"505"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", b"431"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", b"501"),
    ],
)
def test_a_request_that_is_none_is_refused(url: str, request_: bytes, status: bytes) -> None:
    assert exchange(url, request_).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", id="two lengths"),
        pytest.param(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="a length and a coding"),
        pytest.param(b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", id="a blank before the colon"),
        pytest.param(b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", id="a folded coding"),
        pytest.param(b"X: a\r\n b\r\n\r\n", id="a folded field"),
        pytest.param(b"X: a\rTransfer-Encoding: chunked\r\n\r\n", id="a bare carriage return"),
        pytest.param(b"X: a\nTransfer-Encoding: chunked\r\n\r\n", id="a bare line feed"),
        pytest.param(b"X: a\x00\r\n\r\n", id="NUL"),
        pytest.param(b"Host: y\r\n\r\n", id="two hosts"),
        pytest.param(b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", id="chunked twice"),
    ],
)
def test_a_head_that_may_be_read_in_two_ways_is_refused_and_nothing_follows_it(url: str, request_: bytes) -> None:
    smuggled = b"GET /early HTTP/1.1\r\nHost: x\r\n\r\n"
    answers = exchange(url, b"POST / HTTP/1.1\r\nHost: x\r\n" + request_ + smuggled)
    assert answers.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nConnection: close\r\n" in answers
    assert answers.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="no host"),
        pytest.param(b"GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n", id="the form for proxies"),
        pytest.param(b"GET //x/ HTTP/1.1\r\nHost: x\r\n\r\n", id="an authority in the path"),
        pytest.param(b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", id="an escape that is none"),
        pytest.param(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="HTTP/1.0 with a coding"),
        pytest.param(b"get / HTTP/1.1\r\nHost: x\r\n\r\n", id="a method in lower case"),
        pytest.param(b"GET / HTTP/1.1\nHost: x\n\n", id="line feeds alone"),
    ],
)
def test_a_request_in_no_order_is_a_bad_one(url: str, request_: bytes) -> None:
    assert exchange(url, request_).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 2**20 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A:b\r\n" * 10_000 + b"\r\n", b"431"),
        (b"GET /" + b"x" * 2**20 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"414"),
    ],
)
def test_a_head_without_bounds_is_refused_and_the_client_hears_of_it(url: str, head: bytes, status: bytes) -> None:
    assert exchange(url, head).startswith(b"HTTP/1.1 " + status)


def test_a_refusal_reaches_a_client_that_sends_it_all_first(url: str) -> None:
    with connected(url) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
        for _ in range(300):
            sock.sendall(b"x" * 100_000)
        assert everything(sock).startswith(b"HTTP/1.1 431 ")


def test_a_field_that_only_wsgi_would_take_for_a_length_is_none() -> None:
    def tell(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = repr([environ.get(name) for name in ("CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING", "HTTP_X_Y")]).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    fields = (
        b"X-Y: v\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\nX-Y: z\r\nX_Y: w\r\nConnection: close\r\n\r\n"
    )
    with serving(tell) as url:
        assert exchange(url, b"POST / HTTP/1.1\r\nHost: x\r\n" + fields).endswith(b"\r\n\r\n[None, None, 'v, z']")


@pytest.mark.parametrize(
    "body", [b"fffffffffffffffff\r\nhello", b"5\r\nhello!\r\n0\r\n\r\n", b"5 \r\nhello\r\n0\r\n\r\n", b"5;\x00\r\n"]
)
def test_chunks_that_are_none_get_no_second_request(url: str, body: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    answers = exchange(url, head + body + b"GET /early HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answers.count(b"HTTP/1.1 ") <= 1
    assert b"200 OK" not in answers


def test_heads_that_drip_occupy_no_thread() -> None:
    request = b"GET /early HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with serving(echo, threads=1) as url, ExitStack() as stack:
        drips = [stack.enter_context(connected(url)) for _ in range(20)]
        for part in (request[:4], request[4:30]):
            for sock in drips:
                sock.sendall(part)
            assert exchange(url, request).endswith(b"early")
        for sock in drips:
            sock.sendall(request[30:])
            assert everything(sock).endswith(b"early")


def test_a_head_has_a_deadline_which_no_byte_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transferkit.server.serve._TIMEOUT", 0.1)
    with serving(echo) as url, connected(url) as sock:
        deadline = time.monotonic() + 5
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):  # the one who sends hears of it a byte later
            while time.monotonic() < deadline:
                sock.sendall(b"G")
                time.sleep(0.005)


def test_bodies_that_drip_are_cut_and_the_others_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transferkit.server.pace.GRACE", 0.1)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx"
    with serving(echo, threads=2) as url, connected(url) as first, connected(url) as second:
        first.sendall(head)
        second.sendall(head)
        assert exchange(url, b"GET /early HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").endswith(b"early")
        for sock in (first, second):
            assert everything(sock).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_keeps_its_pace_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transferkit.server.pace.GRACE", 0.05)
    with serving(echo) as url, connected(url) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(10):
            sock.sendall(b"x" * 100)
            time.sleep(0.02)
        assert everything(sock).endswith(b"x" * 1000)


def test_a_small_rest_of_a_body_keeps_the_connection(url: str) -> None:
    with connected(url) as sock:
        sock.sendall(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert everything(sock).count(b"HTTP/1.1 200 OK") == 2


def test_an_early_answer_does_not_wait_for_a_large_body(url: str) -> None:
    with connected(url) as sock:
        sock.sendall(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n" + b"x" * 100_000)
        answer = everything(sock)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"\r\n\r\nearly")
    assert b"Connection: close" in answer


def test_an_early_answer_reaches_a_client_that_sends_it_all_first(url: str) -> None:
    # Without the lingering close the kernel resets the connection: a broken pipe here instead of an answer.
    with connected(url) as sock:
        sock.sendall(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n")
        for _ in range(300):
            sock.sendall(b"x" * 100_000)
        assert everything(sock).endswith(b"early")


def test_a_body_is_invited_when_it_is_read(url: str) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\nExpect: 100-continue\r\n\r\n"
    with connected(url) as sock:
        sock.sendall(head % b"/")
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hello")
        assert everything(sock).endswith(b"\r\n\r\nhello")


@pytest.mark.parametrize("expectation", [b"100-continue", b"100-Continue"])
def test_a_body_is_not_invited_when_it_is_not_read(url: str, expectation: bytes) -> None:
    answer = exchange(url, b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: %b\r\n\r\n" % expectation)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"Connection: close" in answer


def test_a_413_closes_the_connection(url: str) -> None:
    assert b"Connection: close" in exchange(url, b"POST /413 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n!")


def test_an_answer_without_length_is_chunked() -> None:
    def stream(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return iter([b"one", b"", b"two"])

    with serving(stream) as url:
        answer = exchange(url, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    assert answer.endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")


def test_an_answer_is_flushed_block_by_block() -> None:
    go_on = threading.Event()

    def stream(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "6")])
        yield b"one"
        assert go_on.wait(10)
        yield b"two"

    with serving(stream) as url, connected(url) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert sock.recv(65536).endswith(b"\r\n\r\none")
        go_on.set()
        assert everything(sock) == b"two"


def test_more_connections_than_threads_stay_open() -> None:
    with serving(echo, threads=2) as url:
        connections = [HTTPConnection(url.removeprefix("http://"), timeout=10) for _ in range(300)]
        for round_ in (b"one", b"two"):
            for connection in connections:
                connection.request("POST", "/", body=round_)
            for connection in connections:
                answer = connection.getresponse()
                assert (round_, None) == (answer.read(), answer.headers["Connection"])
        for connection in connections:
            connection.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_the_url_leads_to_the_server(host: str) -> None:
    try:
        with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError:
        pytest.skip(f"{host} cannot be bound here")
    with serving(echo, host=host) as url:
        assert exchange(url, b"GET /early HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").endswith(b"early")


def test_only_the_threads_that_were_asked_for_run() -> None:
    before = threading.active_count()
    with serving(echo, threads=3) as url:
        exchange(url, b"GET /early HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert threading.active_count() == before + 3 + 1  # and the one that waits for connections


def test_threads_come_when_requests_wait_for_them_and_only_up_to_the_limit() -> None:
    go, hanging = threading.Event(), threading.Semaphore(0)

    def slow(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/slow":
            hanging.release()
            assert go.wait(10)
        return echo({**environ, "PATH_INFO": "/early"}, start_response)

    def running() -> int:
        return len({thread for thread in threading.enumerate() if thread.name.startswith("CP Server")} - before)

    before = set(threading.enumerate())
    with serving(slow, threads=31) as url, ExitStack() as stack:
        assert 16 == running()
        for _ in range(30):
            stack.enter_context(connected(url)).sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(30):
            assert hanging.acquire(timeout=10)
        assert exchange(url, b"GET /fast HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").endswith(b"early")
        for _ in range(5):
            stack.enter_context(connected(url)).sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        assert hanging.acquire(timeout=10)
        time.sleep(0.1)
        assert 31 == running()
        go.set()


def test_a_port_that_is_taken_is_an_error(url: str) -> None:
    with pytest.raises(OSError, match=r"in use"):
        with serving(echo, port=int(url.rpartition(":")[2])):
            pass


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(b"", id="nothing yet"),
        pytest.param(b"GET / HT", id="in a head"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx", id="in a body"),
        pytest.param(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n", id="in an answer"),
        pytest.param(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", id="in a lingering close"),
        pytest.param(b"GET /early HTTP/1.1\r\nHost: x\r\n\r\n", id="between two requests"),
    ],
)
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_it_ends_quickly_and_leaves_nothing_behind(request_: bytes) -> None:
    def endless(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/endless":
            return echo(environ, start_response)
        start_response("200 OK", [])
        return iter(lambda: b"x" * 100_000, b"")

    threads, descriptors = threading.active_count(), len(open_descriptors())
    statistics = len(getattr(logging, "statistics", {}))
    with serving(endless, threads=4) as url:
        with connected(url) as first, connected(url) as second:
            for sock in (first, second):
                sock.sendall(request_)
            time.sleep(0.05)
            started = time.monotonic()
            # The connections are still open when the server goes.
            sockets = [first.dup(), second.dup()]
    duration = time.monotonic() - started
    for sock in sockets:
        sock.close()

    assert duration < 0.5
    assert threads == threading.active_count()
    assert descriptors == len(open_descriptors())
    assert statistics == len(getattr(logging, "statistics", {}))


def test_a_client_that_goes_away_leaves_no_trace(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def endless(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.input"].read()
        start_response("200 OK", [])
        return iter(lambda: b"x" * 100_000, b"")

    with caplog.at_level(logging.INFO), serving(endless) as url:
        for request in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", HALF_A_BODY, b"GET", b""):
            with connected(url) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close is a reset
                sock.sendall(request)
                time.sleep(0.02)
        time.sleep(0.05)

    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_an_application_that_raises_is_logged_and_answered_with_500(caplog: pytest.LogCaptureFixture) -> None:
    def broken(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        raise RuntimeError("a bug")

    with serving(broken) as url:
        answer = exchange(url, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"a bug" not in answer
    assert [(record.name, record.levelno) for record in caplog.records] == [("transferkit.server.serve", logging.ERROR)]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA, tmp_path: Path) -> tuple[str, str]:
    certificate = authority.issue_cert("127.0.0.1")
    paths = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(paths[0])
    certificate.private_key_pem.write_to_path(paths[1])
    return paths


@contextmanager
def secured(url: str, authority: trustme.CA) -> Iterator[ssl.SSLSocket]:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    host, port = url.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as plain:
        with context.wrap_socket(plain, server_hostname=host, suppress_ragged_eofs=True) as sock:
            yield sock


def test_tls_serves_the_same(authority: trustme.CA, tls: tuple[str, str]) -> None:
    with serving(echo, tls=tls) as url:
        assert url.startswith("https://")
        with secured(url, authority) as sock:
            data = b"x" * 1_000_000
            sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + data)
            # A second request on the same connection, which the reader has waited for without blocking.
            sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nend")
            answers = everything(sock)
    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert answers.endswith(b"\r\n\r\nend")


def test_idle_tls_connections_occupy_no_thread(authority: trustme.CA, tls: tuple[str, str]) -> None:
    with serving(echo, tls=tls, threads=1) as url, secured(url, authority) as first, secured(url, authority) as second:
        for sock in (first, second, first, second):
            sock.sendall(b"GET /early HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(65536).endswith(b"\r\n\r\nearly")


def test_silent_connections_occupy_no_thread() -> None:
    with serving(echo, threads=1) as url, connected(url), connected(url):
        assert exchange(url, b"GET /early HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").endswith(b"early")


def test_a_client_that_is_silent_in_the_handshake_stops_nobody(authority: trustme.CA, tls: tuple[str, str]) -> None:
    with serving(echo, tls=tls, threads=1) as url:
        host, port = url.removeprefix("https://").split(":")
        with socket.create_connection((host, int(port))):
            with secured(url, authority) as sock:
                sock.sendall(b"GET /early HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert everything(sock).endswith(b"early")
            started = time.monotonic()
    assert time.monotonic() - started < 0.5


def test_plain_http_to_a_tls_port_is_hung_up_on(
    tls: tuple[str, str], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), serving(echo, tls=tls) as url:
        answer = exchange(url.replace("https", "http"), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

    assert b"HTTP/1.1" not in answer
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_what_is_being_answered_comes_to_its_end_within_the_grace() -> None:
    asked, released = threading.Event(), threading.Event()

    def slow(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        asked.set()
        assert released.wait(10)
        start_response("200 OK", [("Content-Length", "4")])
        return [b"done"]

    answers: list[bytes] = []
    request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with serving(slow, grace=5) as url:
        client = threading.Thread(target=lambda: answers.append(exchange(url, request)))
        client.start()
        assert asked.wait(5)
        release = threading.Timer(0.05, released.set)
        release.start()
    client.join()
    release.join()
    assert [True] == [answer.endswith(b"\r\n\r\ndone") for answer in answers]
