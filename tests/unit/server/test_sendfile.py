"""How our server sends files, each on a real socket: by the kernel where it can, the same bytes where it cannot."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
import trustme

from transferkit.content.digest import Digest
from transferkit.server import OCIRegistry, serving
from transferkit.server.file_part import FilePart
from transferkit.server.mirror import Mirror
from transferkit.server.serve import Server
from transferkit.storage.cache import DiskCache

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

CONTENT = bytes(range(251)) * 4_000  # a shift by a block shows


class Kernel:
    """``os.sendfile``, which counts, and sends no more than ``most`` bytes a call."""

    def __init__(self, most: int = 1 << 30) -> None:
        self.sent = 0
        self._most = most
        self._send = os.sendfile

    def __call__(self, out: int, source: int, offset: int, count: int) -> int:
        done = self._send(out, source, offset, min(count, self._most))
        self.sent += done
        return done


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel(most=100_000)
    monkeypatch.setattr(os, "sendfile", kernel)
    return kernel


def file_application(path: Path, start: int, stop: int, *, closed: list[int] | None = None) -> WSGIApplication:
    class Watched(FilePart):
        def close(self) -> None:
            super().close()
            if closed is not None:
                closed.append(self.stop)

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        part = Watched.open(str(path))
        part.select(start, start + 10 if environ["PATH_INFO"] == "/small" else stop)
        headers = [] if environ["PATH_INFO"] == "/chunked" else [("Content-Length", str(part.left))]
        start_response("200 OK", headers)
        return part

    return application


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(CONTENT)
    return tmp_path / "file"


@contextmanager
def asked(url: str, path: str = "/", *, receive: int = 0) -> Iterator[socket.socket]:
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as sock:
        if receive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        sock.settimeout(10)
        sock.connect((host, int(port)))
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        yield sock


def test_the_kernel_sends_a_part_and_the_connection_stays(path: Path, kernel: Kernel) -> None:
    closed: list[int] = []
    with serving(file_application(path, 7, 900_007, closed=closed)) as url, requests.Session() as session:
        for _ in range(2):
            assert CONTENT[7:900_007] == session.get(url).content
        head = session.head(url)

    assert ("900000", b"") == (head.headers["Content-Length"], head.content)
    assert (1_800_000, 3) == (kernel.sent, len(closed))


@pytest.mark.parametrize("kind", ["registry", "mirror"])
def test_blobs_and_their_ranges_are_sent_by_the_kernel(tmp_path: Path, kernel: Kernel, kind: str) -> None:
    digest = Digest.of(CONTENT)
    application: WSGIApplication
    if kind == "registry":
        application = OCIRegistry(tmp_path / "store", durable=False)
    else:
        cache = DiskCache(tmp_path / "cache")
        cache.put(CONTENT)
        application = Mirror(cache)
    with serving(application) as url:
        blob = f"{url}/v2/a/b/blobs/{digest}"
        if kind == "registry":
            requests.post(f"{url}/v2/a/b/blobs/uploads/?digest={digest}", data=CONTENT).raise_for_status()
        whole, part = requests.get(blob), requests.get(blob, headers={"Range": "bytes=3-800002"})

    assert (CONTENT, CONTENT[3:800_003]) == (whole.content, part.content)
    assert (206, "bytes 3-800002/1004000") == (part.status_code, part.headers["Content-Range"])
    assert len(CONTENT) + 800_000 == kernel.sent


def wrapped(application: WSGIApplication) -> WSGIApplication:
    return lambda environ, start_response: (block for block in application(environ, start_response))


def test_the_same_bytes_come_where_the_kernel_sees_no_file(
    path: Path, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    application = file_application(path, 1, 700_001)
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with serving(application) as url:
        assert CONTENT[1:700_001] == requests.get(f"{url}/chunked").content
    with serving(wrapped(application)) as url:
        assert CONTENT[1:700_001] == requests.get(url).content
    with serving(application, tls=(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))) as url:
        with requests.Session() as session:
            session.trust_env = False
            assert CONTENT[1:700_001] == session.get(url, verify=str(tmp_path / "ca.pem")).content
    assert 0 == kernel.sent


@pytest.mark.parametrize("after", [0, 1])
def test_a_file_system_without_sendfile_gets_its_blocks_read(
    path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    kernel, calls = Kernel(most=10_000), [0]

    def refusing(*arguments: Any) -> int:
        calls[0] += 1
        if calls[0] > after:
            raise OSError(errno.EINVAL, "no such thing")
        return kernel(*arguments)

    monkeypatch.setattr(os, "sendfile", refusing)
    with serving(file_application(path, 0, len(CONTENT))) as url:
        assert CONTENT == requests.get(url).content
    assert (after * 10_000, after + 1) == (kernel.sent, calls[0])


def everything(sock: socket.socket) -> bytes:
    with_end = b"".join(iter(lambda: sock.recv(65536), b""))
    return with_end.partition(b"\r\n\r\n")[2]


def test_a_file_that_shrinks_cuts_the_connection(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(most=100_000)

    def shrinking(*arguments: Any) -> int:
        sent = kernel(*arguments)
        os.truncate(path, 150_000)
        return sent

    monkeypatch.setattr(os, "sendfile", shrinking)
    with serving(file_application(path, 0, len(CONTENT))) as url, asked(url) as sock:
        assert CONTENT[:150_000] == everything(sock)


def test_who_does_not_read_is_cut_off(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transferkit.server.serve._TIMEOUT", 0.2)
    closed: list[int] = []
    with path.open("ab") as file:
        file.truncate(64 * 1024 * 1024)  # more than sockets have room for
    with serving(file_application(path, 0, 64 * 1024 * 1024, closed=closed), threads=1) as url:
        with asked(url, receive=4096) as sock:
            sock.recv(1)
            # The one thread sends to this one until it is given up.
            assert CONTENT[:10] == requests.get(f"{url}/small").content
            assert 64 * 1024 * 1024 in closed


def test_a_stop_ends_a_file_that_nobody_reads(path: Path) -> None:
    with path.open("ab") as file:
        file.truncate(64 * 1024 * 1024)
    closed: list[int] = []
    before = threading.active_count()
    with serving(file_application(path, 0, 64 * 1024 * 1024, closed=closed)) as url:
        with asked(url, receive=4096) as sock:
            sock.recv(1)
            other = sock.dup()
    other.close()
    assert ([64 * 1024 * 1024], before) == (closed, threading.active_count())


@pytest.mark.parametrize(
    ("status", "headers", "blocks", "expected"),
    [
        pytest.param("200 OK", {"Content-Length": "9"}, [b"short"], b"200", id="a body that is too short"),
        pytest.param("200 OK", {"Content-Length": "2"}, [b"long"], b"500", id="a body that is too long"),
        pytest.param("200 OK", {"X": "a\r\nY: b"}, [b"x"], b"500", id="a header within a header"),
    ],
)
def test_an_answer_in_no_order_closes_the_connection(
    status: str, headers: dict[str, str], blocks: list[bytes], expected: bytes
) -> None:
    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, list(headers.items()))
        return blocks

    with serving(application) as url, asked(url) as sock:
        answer = b"".join(iter(lambda: sock.recv(65536), b""))

    assert expected == answer[9:12]
    assert b"\r\nY: b" not in answer


def test_the_date_is_written_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [784_111_777.9]
    monkeypatch.setattr("transferkit.server.serve.time.time", lambda: now[0])
    date: Callable[[], str] = Server(("127.0.0.1", 0), file_application(Path("x"), 0, 0), 1).date

    assert "Sun, 06 Nov 1994 08:49:37 GMT" == date()
    assert date() is date()
    now[0] += 0.1
    assert "Sun, 06 Nov 1994 08:49:38 GMT" == date()
