"""The direct way, over real sockets: what a server may say, what it must not, and what becomes of the connection.

The server is scripted, byte for byte. What matters over TLS too runs twice. The last part holds the direct way against
the ordinary one, and names what of other libraries both rest on.
"""

from __future__ import annotations

import ast
import http.client
import os
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import trustme
import urllib3

import transferkit.transport
from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Flow
from transferkit.errors import (
    CertificateError,
    ConnectError,
    ProtocolError,
    ReadError,
    RegistryError,
    StalledError,
    TransferKitError,
    TransportTimeout,
    WriteError,
)
from transferkit.options import TransportOptions
from transferkit.remote.blobs import fetch
from transferkit.testing import (
    Close,
    Pause,
    Reset,
    answer,
    bad_status_line,
    chunked,
    header_flood,
    informational,
    never,
    scripted_server,
    truncated,
    two_lengths,
    until_close,
)
from transferkit.testing.scripted import RawRequest, ScriptedServer
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.body import Answer, BytesBody, Sender
from transferkit.transport.client import Client
from transferkit.transport.direct import IDLE, DirectAnswer, ReplayedAnswer
from transferkit.transport.plain import PlainAnswer

pytestmark = pytest.mark.skipif(
    os.environ.get("TRANSFERKIT_TEST_TRANSPORT") == "plain", reason="these tests are about the direct way"
)

ANY = range(200, 1000)
HELLO = answer(200, b"hello")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LIMIT = 30.0  # seconds until a meeting that never happens fails the test
MIB = 1024 * 1024
BIG = 32 * MIB  # more than all the buffers between two sockets of one machine hold


class TLSServer(ScriptedServer):
    """A scripted server behind TLS. It ends connections without a goodbye, as many do."""

    def __init__(self, context: ssl.SSLContext, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._context = context

    @property
    def url(self) -> str:
        return super().url.replace("http:", "https:")

    def _serve(self, sock: socket.socket, number: int) -> None:
        twin = sock.dup()
        with self._lock:
            self._live.discard(sock)
            self._live.add(twin)  # the way out wakes us by it, also out of the handshake
        try:
            try:
                wrapped = self._context.wrap_socket(sock, server_side=True)
            except OSError:
                sock.close()
                with self._lock:
                    self._threads.discard(threading.current_thread())
                self._slots.release()
            else:
                super()._serve(wrapped, number)
        finally:
            with self._lock:
                self._live.discard(twin)
            twin.close()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "registry.example").configure_cert(context)
    return context


@pytest.fixture
def trust(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with authority.cert_pem.tempfile() as file:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", file)
        yield


Serve = Callable[..., ScriptedServer]


@pytest.fixture(params=["plain", "tls"])
def serve(request: pytest.FixtureRequest, server_context: ssl.SSLContext, trust: None) -> Serve:
    """Make a scripted server, plain or behind TLS."""
    if request.param == "plain":
        return scripted_server
    return lambda *args, **kwargs: TLSServer(server_context, *args, **kwargs)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def client_of(server: ScriptedServer | str, **options: Any) -> Client:
    options = {"connect_timeout": 5.0, "response_timeout": LIMIT, **options}
    return Client(server if isinstance(server, str) else server.url, options=TransportOptions(**options))


def everything(source: Answer, size: int = 64 * 1024) -> bytes:
    """Read to the end of a body, ``size`` bytes at most at a time."""
    data = bytearray()
    buffer = memoryview(bytearray(size))
    while count := source.readinto(buffer):
        data += buffer[:count]
    return bytes(data)


def ask(client: Client, method: str = "GET", path: str = "/x", **keywords: Any) -> tuple[int, bytes]:
    """Send a request and read the answer to its end: status and body."""
    with client.open(method, path, ok=ANY, **{"flow": WorkerFlow(), **keywords}) as found:
        return found.status, everything(found)


class Zeros:
    """A long body that takes no memory."""

    def __init__(self, length: int) -> None:
        self.offset = 0
        self.length: int | None = length
        self._left = length

    def readinto(self, buffer: memoryview, /) -> int:
        count = min(len(buffer), self._left)
        self._left -= count
        return count

    def close(self) -> None:
        pass

    def __enter__(self) -> Zeros:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class FileOfZeros(Zeros):
    """The same as a file, which the kernel may send where it can."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the body
        self._file.truncate(length)

    def fileno(self) -> int:
        return self._file.fileno()

    def seek(self, offset: int, *, flow: Flow) -> None:
        self._left = (self.length or 0) - offset

    def confirm(self) -> None:
        pass

    def close(self) -> None:
        self._file.close()

    def __exit__(self, *_: object) -> None:
        self.close()


Zeroed = Callable[[int, WorkerFlow], Sender]


def zeros(length: int, flow: WorkerFlow) -> Sender:
    return Sender(length, lambda: Zeros(length), flow)


def file_of_zeros(length: int, flow: WorkerFlow) -> Sender:
    return Sender(length, lambda: FileOfZeros(length), flow)


both_kinds = pytest.mark.parametrize("body", [zeros, file_of_zeros])


def connections(server: ScriptedServer) -> list[int]:
    """Return, for each request, the number of its connection."""
    return [request.connection for request in server.requests]


@contextmanager
def raw_server(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """Call ``talk`` with each connection, one after the other; it is closed after that."""
    listener = socket.create_server(("127.0.0.1", 0))
    errors: list[BaseException] = []

    def run() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock:
                try:
                    talk(sock)
                except OSError:
                    pass
                except BaseException as error:
                    errors.append(error)

    thread = threading.Thread(target=run, name="transferkit-test-server", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(LIMIT)
    assert errors == []


def take_head(sock: socket.socket) -> bytes:
    """Read the head of a request, and nothing behind it."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        block = sock.recv(1)
        if not block:
            raise OSError("the client has gone")
        data += block
    return data


# -- the request


def test_a_request_says_what_it_must_and_no_more(serve: Serve) -> None:
    with serve([HELLO, HELLO]) as server, client_of(server, user_agent="me/1") as client:
        ask(client, path="/a%2Fb?c=%20&d", headers={"Range": "bytes=5-"})
        flow = WorkerFlow()
        ask(client, "PUT", flow=flow, sender=Sender(3, lambda: BytesBody(b"abc"), flow))

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
        ask(client, "PUT", flow=flow, sender=Sender(0, lambda: BytesBody(b""), flow))
        assert "0" == server.requests[0].headers["content-length"]


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
@pytest.mark.parametrize("direct", [True, False])
def test_the_host_is_named_with_its_port_where_that_is_not_the_usual_one(
    server_context: ssl.SSLContext,
    trust: None,
    monkeypatch: pytest.MonkeyPatch,
    base: str,
    host: str,
    direct: bool,
) -> None:
    with TLSServer(server_context, [HELLO]) if base.startswith("https") else scripted_server([HELLO]) as server:
        address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", (server.host, server.port))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [address])
        with client_of(base, direct=direct) as client:
            assert (200, b"hello") == ask(client)
        assert host == server.requests[0].headers["host"]


@pytest.mark.parametrize("direct", [True, False])
def test_an_ipv6_host_is_named_in_brackets(direct: bool) -> None:
    try:
        server = scripted_server([HELLO], host="::1").__enter__()
    except OSError:
        pytest.skip("no IPv6 here")
    with client_of(server, direct=direct) as client:
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


# -- framing


@pytest.mark.parametrize("size", [1, 7, 64 * 1024])
@pytest.mark.parametrize(
    ("said", "content"),
    [
        (chunked(b"hello"), b"hello"),
        (chunked(b"he", b"l", b"lo"), b"hello"),
        (chunked(*[b"x" * 1000] * 50), b"x" * 50_000),
        (chunked(), b""),
        (CHUNKED + b"0005\r\nhello\r\n0\r\n\r\n", b"hello"),
        (CHUNKED + b"5;a=b;c\r\nhello\r\n00;d\r\n\r\n", b"hello"),
        (CHUNKED + b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2),
        (chunked(b"hello", trailer=b"0\r\nX-Digest: abc\r\nX-More: d\r\n\r\n"), b"hello"),
    ],
)
def test_a_chunked_body(serve: Serve, said: bytes, content: bytes, size: int) -> None:
    with serve([said]) as server, client_of(server) as client, client.open("GET", "/", ok=ANY, flow=WorkerFlow()) as it:
        assert isinstance(it, ReplayedAnswer)
        assert it.length is None
        assert content == everything(it, size)


def test_a_chunked_body_may_be_split_anywhere(serve: Serve) -> None:
    said = chunked(b"hello", b" ", b"world!", trailer=b"0\r\nX: y\r\n\r\n")
    with serve([[said[:at], Pause(0.001), said[at:]] for at in range(1, len(said))]) as server:
        with client_of(server) as client:
            for _ in range(1, len(said)):
                assert (200, b"hello world!") == ask(client)


@pytest.mark.parametrize(
    "said",
    [
        CHUNKED + b"x\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"-5\r\n" + b"x" * 20_000,
        CHUNKED + b"5" * 70_000,
        CHUNKED + b"ffffffffffffffffffffff\r\nhello",
        CHUNKED,
        CHUNKED + b"5",
        CHUNKED + b"5\r\n",
        CHUNKED + b"5\r\nhel",
        CHUNKED + b"5\r\nhello",
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"5\r\nhello\r\n5\r\nhello\r\n",
    ],
)
@pytest.mark.parametrize("size", [10, 64 * 1024])
def test_chunks_that_are_malformed_or_cut_off_are_an_error(serve: Serve, said: bytes, size: int) -> None:
    with serve([[said, Close()]]) as server, client_of(server) as client:
        with client.open("GET", "/", ok=ANY, flow=WorkerFlow()) as it, pytest.raises(ReadError, match=r"cut off|broke"):
            everything(it, size)


def test_a_connection_that_had_chunks_is_not_used_again(serve: Serve) -> None:
    with serve([chunked(b"hello"), HELLO]) as server, client_of(server) as client:
        assert [(200, b"hello")] * 2 == [ask(client), ask(client)]
        assert [0, 1] == connections(server)


@pytest.mark.parametrize(
    ("said", "content"),
    [
        (until_close(b"hello"), b"hello"),
        (until_close(b""), b""),
        (until_close(b"x" * 300_000), b"x" * 300_000),
        (until_close(b"hello", headers={"Connection": "close"}), b"hello"),
        ([b"HTTP/1.0 200 OK\r\n\r\nhello", Close()], b"hello"),
        ([b"HTTP/1.0 200 OK\r\n\r\nhe", Pause(0.01), b"llo", Close()], b"hello"),
    ],
)
def test_a_body_without_a_length_goes_to_the_end(serve: Serve, said: list[Any], content: bytes) -> None:
    with serve([said, HELLO]) as server, client_of(server) as client:
        assert (200, content) == ask(client)
        assert (200, b"hello") == ask(client)
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
        first = client.open("GET", "/", ok=ANY, flow=WorkerFlow())
        {"close": first.close, "finish": first.finish, "read": lambda: first.read(5)}[way]()
        first.close()
        ask(client)
        assert [0, 1 if way == "close" else 0] == connections(server)


def test_requests_at_the_same_time_have_connections_of_their_own(serve: Serve) -> None:
    with serve([HELLO] * 6) as server, client_of(server) as client:
        three = [client.open("GET", "/", ok=ANY, flow=WorkerFlow()) for _ in range(3)]
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
            with client.open("GET", "/", ok=ANY, flow=WorkerFlow()) as it:
                assert isinstance(it, DirectAnswer)
                assert 5 == it.length
                assert b"hello" == everything(it, size)


def test_a_long_head_is_read_up_to_the_limit(serve: Serve) -> None:
    long = [(f"X-{n}", "y" * 1000) for n in range(60)]
    with serve([answer(200, b"hello", long)]) as server, client_of(server) as client:
        with client.open("GET", "/", ok=ANY, flow=WorkerFlow()) as it:
            assert "y" * 1000 == it.headers["x-59"]
            assert b"hello" == everything(it)


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


@pytest.mark.parametrize("arrived", [b"", b"hel"])
@pytest.mark.parametrize("end", [Close(), Reset()])
def test_a_body_that_is_cut_off_is_an_error(serve: Serve, arrived: bytes, end: Any) -> None:
    with serve([[truncated(arrived, 5)[0], end], HELLO]) as server, client_of(server) as client:
        with client.open("GET", "/", ok=ANY, flow=WorkerFlow()) as it:
            with pytest.raises(ReadError, match=r"before the end|broke"):
                everything(it)
        assert (200, b"hello") == ask(client)
        assert [0, 1] == connections(server)


@pytest.mark.parametrize("encoding", ["gzip", "br", "x"])
def test_a_blob_that_is_encoded_is_refused(serve: Serve, encoding: str) -> None:
    blob = Descriptor("sha256:" + 64 * "a", 5)
    with serve([answer(200, b"hello", {"Content-Encoding": encoding})] * 2) as server, client_of(server) as client:
        with pytest.raises(ProtocolError, match=f"Content-Encoding '{encoding}'"):
            fetch(client, "library/model", blob, offset=0, flow=WorkerFlow())


# -- connections that died while they were idle


def dies(gate: threading.Event, end: Any) -> Iterator[Any]:
    """Answer, and end the connection when the test says so."""
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
@pytest.mark.parametrize(("method", "length"), [("POST", None), ("PUT", 0), ("PUT", 3), ("PATCH", 100_000)])
def test_what_changes_things_is_not_sent_twice(serve: Serve, method: str, length: int | None, end: Any) -> None:
    gate = threading.Event()
    with serve([dies(gate, end), answer(200, b"never")]) as server, client_of(server) as client:
        assert (200, b"hello") == ask(client)
        gate.set()
        flow = WorkerFlow()
        # While a body is sent, it may be the sending that fails first.
        with pytest.raises((ReadError, WriteError) if length else ReadError) as caught:
            ask(client, method, flow=flow, sender=None if length is None else zeros(length, flow))
        assert caught.value.retryable
        assert [0] == connections(server)


def test_a_fresh_connection_that_ends_too_is_the_end_of_it(serve: Serve) -> None:
    gate = threading.Event()
    with serve([dies(gate, Close()), [Close()], HELLO]) as server, client_of(server) as client:
        ask(client)
        gate.set()
        with pytest.raises(ReadError, match="without an answer"):
            ask(client)
        assert [0, 1] == connections(server)
        assert (200, b"hello") == ask(client)


def test_two_dead_connections_cost_one_try_each(serve: Serve) -> None:
    gate = threading.Event()
    script = [dies(gate, Close()), dies(gate, Close()), answer(200, b"a", {"Connection": "close"}), answer(200, b"b")]
    with serve(script) as server, client_of(server) as client:
        both = [client.open("GET", "/", ok=ANY, flow=WorkerFlow()) for _ in range(2)]
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


def test_a_connection_that_is_idle_for_long_is_not_used_again(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("transferkit.transport.direct.time", SimpleNamespace(monotonic=lambda: now))
    with serve([HELLO] * 5) as server, client_of(server) as client:
        both = [client.open("GET", "/", ok=ANY, flow=WorkerFlow()) for _ in range(2)]
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


# -- bodies, and answers that come before they are sent


@both_kinds
@pytest.mark.parametrize("status", [401, 413, 500, 507])
def test_an_answer_may_come_before_the_body_is_sent(serve: Serve, status: int, body: Zeroed) -> None:
    with serve([answer(status, b"no"), HELLO], read_body=False) as server, client_of(server) as client:
        flow = WorkerFlow()
        assert (status, b"no") == ask(client, "PUT", flow=flow, sender=body(BIG, flow))
        assert flow.body == 0
        if serve is scripted_server:  # over TLS it is seen at the end only
            assert flow.progress < BIG
        assert (200, b"hello") == ask(client)
        assert [0, 1] == connections(server)


@both_kinds
def test_a_connection_whose_request_was_broken_off_is_not_used_again(body: Zeroed) -> None:
    """The server waits for the rest of the body there: the next request would be taken for it."""
    heads: list[bytes] = []

    def talk(sock: socket.socket) -> None:
        heads.append(take_head(sock))
        sock.sendall(answer(401, b"no") if len(heads) == 1 else HELLO)
        while sock.recv(MIB):
            pass

    with raw_server(talk) as url, client_of(url) as client:
        flow = WorkerFlow()
        assert (401, b"no") == ask(client, "PUT", flow=flow, sender=body(BIG, flow))
        assert (200, b"hello") == ask(client)
    assert [b"PUT", b"GET"] == [head.split()[0] for head in heads]


@both_kinds
@pytest.mark.parametrize("status", [401, 413])
def test_an_answer_before_a_hard_end_is_heard_or_the_connection_broke(serve: Serve, status: int, body: Zeroed) -> None:
    """The end overtakes the answer, or it does not: that is for TCP to say."""
    with serve([[answer(status, b"no"), Reset()], HELLO], read_body=False) as server, client_of(server) as client:
        flow = WorkerFlow()
        try:
            assert (status, b"no") == ask(client, "PUT", flow=flow, sender=body(BIG, flow))
        except (ReadError, WriteError):
            pass
        assert (200, b"hello") == ask(client)
        assert [0, 1] == connections(server)


@both_kinds
def test_a_redirect_before_the_body_is_sent_gets_the_body_where_it_leads(serve: Serve, body: Zeroed) -> None:
    with serve([answer(201)]) as storage:
        redirect = answer(307, headers={"Location": f"{storage.url}/there"})
        with serve([redirect], read_body=False) as server, client_of(server) as client:
            flow = WorkerFlow()
            assert 201 == client.open("PUT", "/here", ok={201}, flow=flow, sender=body(BIG, flow)).status
            assert ("/there", BIG) == (storage.requests[0].target, len(storage.requests[0].body))
            assert BIG == flow.progress


@both_kinds
def test_an_interim_answer_does_not_end_the_body(body: Zeroed) -> None:
    """Some servers send a 100 to who did not ask for one, and a 102 while they work."""
    bodies: list[int] = []

    def talk(sock: socket.socket) -> None:
        take_head(sock)
        sock.sendall(informational(100) + informational(102))
        left = BIG
        while left:
            left -= len(sock.recv(min(left, MIB))) or left
        bodies.append(BIG - left)
        sock.sendall(answer(201))

    with raw_server(talk) as url, client_of(url) as client:
        flow = WorkerFlow()
        assert (201, b"") == ask(client, "PUT", flow=flow, sender=body(BIG, flow))
    assert [BIG] == bodies
    assert BIG == flow.progress


def test_what_the_source_of_a_body_raises_is_raised_as_it_was(serve: Serve) -> None:
    class Broken(Zeros):
        def readinto(self, buffer: memoryview, /) -> int:
            raise OSError(5, "the disk is broken")

    with serve([HELLO, HELLO]) as server, client_of(server) as client:
        flow = WorkerFlow()
        with pytest.raises(OSError, match="the disk is broken"):
            ask(client, "PUT", flow=flow, sender=Sender(5, lambda: Broken(5), flow))
        assert (200, b"hello") == ask(client)
        assert [0] == [request.number for request in server.requests if request.method == "GET"]


def test_a_source_that_ends_early_is_an_error(serve: Serve) -> None:
    with serve([HELLO]) as server, client_of(server) as client:
        flow = WorkerFlow()
        with pytest.raises(ReadError, match="2 bytes early"):
            ask(client, "PUT", flow=flow, sender=Sender(5, lambda: Zeros(3), flow))


# -- time limits, and what wakes


@pytest.mark.parametrize(
    "said",
    [
        [never()],
        [b"HTTP/1.1 200 OK\r\n", never()],
        [informational(100), never()],
        [truncated(b"", 5)[0], never()],
        [truncated(b"hel", 5)[0], never()],
        [CHUNKED + b"5\r\nhel", never()],
        [b"HTTP/1.1 200 OK\r\n\r\nhel", never()],
    ],
)
def test_silence_has_a_limit(serve: Serve, said: list[Any]) -> None:
    with serve([said]) as server, client_of(server, response_timeout=0.1) as client:
        began = time.monotonic()
        with pytest.raises(TransportTimeout, match="did not answer in time"):
            ask(client)
        assert 0.09 <= time.monotonic() - began < 5


@both_kinds
def test_a_peer_that_takes_nothing_has_a_limit(serve: Serve, body: Zeroed) -> None:
    with serve([[never()]], read_body=False) as server, client_of(server, response_timeout=0.1) as client:
        flow = WorkerFlow()
        with pytest.raises(TransportTimeout, match="did not answer in time"):
            ask(client, "PUT", flow=flow, sender=body(BIG, flow))


def test_each_request_has_its_own_limit(serve: Serve) -> None:
    with serve([HELLO, [never()], [Pause(0.3), HELLO]]) as server, client_of(server) as client:
        ask(client)
        began = time.monotonic()
        with pytest.raises(TransportTimeout):
            ask(client, timeout=0.1)
        assert time.monotonic() - began < LIMIT / 2
        assert (200, b"hello") == ask(client)


@pytest.mark.parametrize(
    "said",
    [[never()], [b"HTTP/1.1 200 OK\r\n", never()], [truncated(b"hel", 5)[0], never()], [CHUNKED + b"5\r\nh", never()]],
)
def test_a_cut_wakes_whoever_is_blocked_and_is_what_he_hears(serve: Serve, said: list[Any]) -> None:
    with serve([said, HELLO]) as server, client_of(server) as client:
        flow = WorkerFlow()
        timer = threading.Timer(0.05, lambda: flow.cut(StalledError("cut"), final=False))
        timer.start()
        with pytest.raises(StalledError, match="cut"):
            ask(client, flow=flow)
        timer.join()
        flow.begin_attempt()
        assert (200, b"hello") == ask(client, flow=flow)
        assert [0, 1] == connections(server)


def test_a_flow_that_was_cut_sends_nothing(serve: Serve) -> None:
    with serve([HELLO]) as server, client_of(server) as client:
        flow = WorkerFlow()
        flow.cut(StalledError("cut"), final=True)
        with pytest.raises(StalledError, match="cut"):
            ask(client, flow=flow)
        assert [] == server.requests


def test_a_cut_after_the_end_does_not_touch_the_next_user_of_the_connection(serve: Serve) -> None:
    with serve([HELLO, [HELLO[:-2], Pause(0.05), HELLO[-2:]]]) as server, client_of(server) as client:
        first = WorkerFlow()
        ask(client, flow=first)
        with client.open("GET", "/", ok=ANY, flow=WorkerFlow()) as second:
            first.cut(StalledError("cut"), final=True)
            assert b"hello" == everything(second)
        assert [0, 0] == connections(server)


# -- connecting


def test_nobody_there_is_an_error_of_connecting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with client_of(f"http://127.0.0.1:{port}") as client, pytest.raises(ConnectError, match="cannot connect"):
        ask(client)


def test_a_certificate_of_nobody_we_know_is_refused(server_context: ssl.SSLContext) -> None:
    with TLSServer(server_context, [HELLO]) as server, client_of(server) as client:
        with pytest.raises(CertificateError, match="does not verify"):
            ask(client)
        assert [] == server.requests


@pytest.mark.parametrize("ended", [True, False])
def test_a_client_that_is_closed_leaves_no_socket(serve: Serve, ended: bool) -> None:
    def sockets() -> int:
        names = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
        return sum(os.readlink(name).startswith("socket:") for name in names if os.path.islink(name))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc here")
    with serve([HELLO] * 6) as server:
        before = sockets()
        with client_of(server) as client:
            several = [client.open("GET", "/", ok=ANY, flow=WorkerFlow()) for _ in range(6)]
            for each in several:
                everything(each) if ended else each.close()
        deadline = time.monotonic() + LIMIT
        while sockets() > before and time.monotonic() < deadline:
            time.sleep(0.01)  # the server's ends go when it has seen ours go
        assert before == sockets()


# -- what takes the ordinary way


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


def kind_of_answer(client: Client) -> tuple[type[Answer], int, bytes]:
    with client.open("GET", "/x", ok=ANY, flow=WorkerFlow()) as found:
        return type(found), found.status, everything(found)


def test_a_proxy_is_asked_in_the_ordinary_way(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted_server([HELLO, HELLO]) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with client_of("http://registry.example:5000") as client:
            assert (PlainAnswer, 200, b"hello") == kind_of_answer(client)
            assert (PlainAnswer, 200, b"hello") == kind_of_answer(client)
        assert ["http://registry.example:5000/x"] * 2 == [request.target for request in proxy.requests]
        assert "registry.example:5000" == proxy.requests[0].headers["host"]
        assert [0, 0] == connections(proxy)


def test_tls_goes_through_a_proxy_in_the_ordinary_way(
    server_context: ssl.SSLContext, trust: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TLSServer(server_context, [HELLO, answer(201)]) as server, connect_proxy() as (url, heads):
        monkeypatch.setenv("HTTPS_PROXY", url)
        with client_of(server) as client:
            assert (PlainAnswer, 200, b"hello") == kind_of_answer(client)
            flow = WorkerFlow()
            assert (201, b"") == ask(client, "PUT", flow=flow, sender=zeros(MIB, flow))
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
        assert (DirectAnswer, 200, b"hello") == kind_of_answer(client)


def test_a_session_of_the_users_goes_the_ordinary_way(serve: Serve) -> None:
    with serve([HELLO]) as server, requests.Session() as session, Client(server.url, session=session) as client:
        assert (PlainAnswer, 200, b"hello") == kind_of_answer(client)


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
        with client.open("GET", "/x", ok={200}, flow=WorkerFlow()) as found:
            assert isinstance(found, PlainAnswer)
            assert b"hello" == everything(found)
        assert ["/x", target] == [request.target for request in server.requests]


# -- the same results

Outcome = tuple[int, bytes] | type[TransferKitError]


def outcome(serve: Serve, method: str, said: Any, *, direct: bool) -> Outcome:
    with serve([said() if callable(said) else said]) as server:
        with client_of(server, direct=direct, response_timeout=0.3) as client:
            try:
                return ask(client, method)
            except TransferKitError as error:
                return type(error)


SAME: dict[str, tuple[Any, Outcome]] = {
    "length": (HELLO, (200, b"hello")),
    "empty": (answer(200), (200, b"")),
    "long": (answer(200, b"x" * 1_000_000), (200, b"x" * 1_000_000)),
    "status without a reason": (HELLO.replace(b" OK", b""), (200, b"hello")),
    "error": (answer(404, b"{}"), (404, b"{}")),
    "unknown status": (answer(599, b"?"), (599, b"?")),
    "close": (answer(200, b"hello", {"Connection": "close"}), (200, b"hello")),
    "chunked": (chunked(b"he", b"llo", trailer=b"0\r\nX: y\r\n\r\n"), (200, b"hello")),
    "until close": (until_close(b"hello"), (200, b"hello")),
    "HTTP/1.0": ([HELLO.replace(b"1.1", b"1.0"), Close()], (200, b"hello")),
    "HTTP/1.0 until close": ([b"HTTP/1.0 200 OK\r\n\r\nhello", Close()], (200, b"hello")),
    "100": (informational(100) + HELLO, (200, b"hello")),
    "204": (answer(204), (204, b"")),
    "304": (answer(304, headers={"Content-Length": "5"}), (304, b"")),
    "length twice": (two_lengths(b"hello", 5), (200, b"hello")),
    "junk after": (HELLO + b"junk", (200, b"hello")),
    "obs-text": (answer(200, b"hello", {"X": "caf\xe9\x85"}), (200, b"hello")),
    "99 fields": (answer(200, b"hello", [("X", "y")] * 98), (200, b"hello")),
    "two lengths": (two_lengths(b"hello", 4), ProtocolError),
    "no number": (answer(200, b"hello", {"Content-Length": "five"}), ProtocolError),
    "negative": (answer(200, b"hello", {"Content-Length": "-5"}), ProtocolError),
    "bad status line": ([bad_status_line(), Close()], ProtocolError),
    "another protocol": ([b"SSH-2.0-OpenSSH_9.6\r\n", Close()], ProtocolError),
    "HTTP/2": (bad_status_line(b"HTTP/2 200 OK"), ProtocolError),
    "too many fields": (answer(200, b"hello", [("X", "y")] * 100), ProtocolError),
    "flood": (lambda: header_flood(2000), ProtocolError),
    "one long line": ([b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", Close()], ProtocolError),
    "cut short": (truncated(b"hel", 5), ReadError),
    "cut short to nothing": (truncated(b"", 5), ReadError),
    "reset": ([truncated(b"hel", 5)[0], Reset()], ReadError),
    "cut chunk": ([CHUNKED + b"5\r\nhel", Close()], ReadError),
    "cut between chunks": ([chunked(b"hello", trailer=b""), Close()], ReadError),
    "bad chunk": ([CHUNKED + b"x\r\nhello\r\n0\r\n\r\n", Close()], ReadError),
    "nothing": ([Close()], ReadError),
    "reset at once": ([Reset()], ReadError),
    "cut after a 100": ([informational(100), Close()], ReadError),
    "bad size of a chunk": ([CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n", Close()], ReadError),
    "another protocol that waits": ([b"SSH-2.0-OpenSSH_9.6\r\n", never()], ProtocolError),
    "silence": ([never()], TransportTimeout),
    "silence in the head": ([b"HTTP/1.1 200 OK\r\n", never()], TransportTimeout),
    "silence in the body": ([truncated(b"hel", 5)[0], never()], TransportTimeout),
    "silence in a chunk": ([CHUNKED + b"5\r\nhel", never()], TransportTimeout),
}


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("name", SAME)
def test_both_ways_have_the_same_results(serve: Serve, name: str, direct: bool) -> None:
    said, expected = SAME[name]
    assert expected == outcome(serve, "GET", said, direct=direct)


# What our reader does otherwise on purpose, as (answer, the direct way's outcome, the ordinary one's). http.client
# takes heads that other readers would read in another way; what it makes of them is checked by size and digest alone.
DIFFERENT: dict[str, tuple[Any, Outcome, Outcome]] = {
    # http.client knows 100 alone, and takes any other for the answer
    "102": (informational(102) + HELLO, (200, b"hello"), RegistryError),
    "103": (informational(103) + HELLO, (200, b"hello"), RegistryError),
    "101": (answer(101) + HELLO, ProtocolError, RegistryError),
    "100 without end": (informational(100) * 17 + HELLO, ProtocolError, (200, b"hello")),
    # two lengths, or a length that another reader reads in another way
    "list of one length": (answer(200, b"hello", {"Content-Length": "5, 5"}), ProtocolError, (200, b"hello")),
    "length and chunked": (chunked(b"hello", headers={"Content-Length": "5"}), ProtocolError, (200, b"hello")),
    # codings that are not known, or not lawful there
    "identity": ([answer(200, b"hello", {"Transfer-Encoding": "identity"}), Close()], ProtocolError, (200, b"hello")),
    "gzip, chunked": (
        [answer(200, b"5\r\nhello\r\n0\r\n\r\n", {"Transfer-Encoding": "gzip, chunked"}), Close()],
        ProtocolError,
        (200, b"5\r\nhello\r\n0\r\n\r\n"),
    ),
    "chunked twice": (chunked(b"hello", headers={"transfer-encoding": "chunked"}), ProtocolError, (200, b"hello")),
    "chunked in HTTP/1.0": ([chunked(b"hello").replace(b"1.1", b"1.0"), Close()], ProtocolError, (200, b"hello")),
    # heads that are not well formed
    "line feeds alone": (b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", ProtocolError, (200, b"hello")),
    "folded": (answer(200, b"hello", {"X": "a\r\n b"}), ProtocolError, (200, b"hello")),
    "control character": (answer(200, b"hello", {"X": "a\0"}), ProtocolError, (200, b"hello")),
    "two blanks": (HELLO.replace(b"1 200", b"1  200"), ProtocolError, (200, b"hello")),
    "HTTP/1.2": (HELLO.replace(b"1.1", b"1.2"), ProtocolError, (200, b"hello")),
    "HTTP/0.9": ([HELLO.replace(b"1.1", b"0.9"), Close()], ProtocolError, (200, b"hello")),
    "over 64 KiB in all": (answer(200, b"hello", [("X", "y" * 1000)] * 90), ProtocolError, (200, b"hello")),
    # heads that end before their end
    "cut in the status line": ([b"HTT", Close()], ReadError, ProtocolError),
    "cut after a field": ([b"HTTP/1.1 200 OK\r\nX: y\r\n", Close()], ReadError, (200, b"")),
    "cut in a field": ([b"HTTP/1.1 200 OK\r\nContent-Le", Close()], ReadError, (200, b"")),
    # nothing that is HTTP, and then silence
    "page without a head": ([b"<html>", never()], ProtocolError, TransportTimeout),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_where_the_two_ways_differ_on_purpose(name: str) -> None:
    said, directly, ordinarily = DIFFERENT[name]
    assert (directly, ordinarily) == (
        outcome(scripted_server, "GET", said, direct=True),
        outcome(scripted_server, "GET", said, direct=False),
    )


# -- what all this rests on

# Not in the documentation of urllib3 2 and http.client, or with an underscore: where one of them goes, it is here that
# it is seen first. Attributes of instances are found on one that is made without a connection.
PRIVATE: dict[str, list[Any]] = {
    "_new_conn": [urllib3.connection.HTTPConnection, urllib3.HTTPConnectionPool, urllib3.HTTPSConnectionPool],
    "_put_conn": [urllib3.HTTPConnectionPool, urllib3.HTTPSConnectionPool],
    "_dns_host": [urllib3.connection.HTTPConnection("h"), urllib3.connection.HTTPSConnection("h")],
    "_connection": [urllib3.HTTPResponse(b"")],
    "_sock_shutdown": [urllib3.HTTPResponse(b"")],
}
UNDOCUMENTED: dict[str, list[Any]] = {
    "ConnectionCls": [urllib3.HTTPConnectionPool, urllib3.HTTPSConnectionPool],
    "pool_classes_by_scheme": [urllib3.PoolManager(), urllib3.ProxyManager("http://h")],
    "get_connection_with_tls_context": [requests.adapters.HTTPAdapter],
    "init_poolmanager": [requests.adapters.HTTPAdapter],
    "proxy_manager_for": [requests.adapters.HTTPAdapter],
    "cert_verify": [requests.adapters.HTTPAdapter],
    "merge_environment_settings": [requests.Session],
    "select_proxy": [requests.utils],
    "allowed_gai_family": [urllib3.util.connection],
    "socket_options": [urllib3.connection.HTTPConnection("h")],
    "source_address": [urllib3.connection.HTTPConnection("h")],
    "timeout": [urllib3.connection.HTTPConnection("h")],
    "sock": [urllib3.connection.HTTPConnection("h"), urllib3.connection.HTTPSConnection("h")],
    "begin": [http.client.HTTPResponse],
    "read1": [http.client.HTTPResponse, urllib3.HTTPResponse],
}


def private_names(folder: Path) -> set[str]:
    """Return the names with one underscore that a package's sources use of anything but ``self``."""
    used: set[str] = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "self"):
                used.add(node.attr)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
                used |= {n.value for n in node.args[1:2] if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return {name for name in used if name.startswith("_") and not name.startswith("__")}


def test_every_private_name_that_the_transport_uses_is_known_here() -> None:
    assert set(PRIVATE) == private_names(Path(transferkit.transport.__file__).parent)


@pytest.mark.parametrize("name", [*PRIVATE, *UNDOCUMENTED])
def test_what_the_transport_touches_of_other_libraries_is_still_there(name: str) -> None:
    assert [] == [owner for owner in {**PRIVATE, **UNDOCUMENTED}[name] if not hasattr(owner, name)]


def test_a_proxy_class_is_what_a_pool_of_ours_replaces() -> None:
    assert {"http": urllib3.HTTPConnectionPool, "https": urllib3.HTTPSConnectionPool} == (
        urllib3.PoolManager().pool_classes_by_scheme
    )
