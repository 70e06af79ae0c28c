"""What the tests of the transport have in common: a client, bodies of zeros, and servers over real sockets.

The servers are scripted, byte for byte. What matters over TLS too runs twice: ``serve``, in ``conftest.py``.
"""

from __future__ import annotations

import os
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import requests

from transferkit.content.flow import Flow
from transferkit.options import TransportOptions
from transferkit.testing import answer
from transferkit.testing.scripted import ScriptedServer
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.adapter import PooledAdapter
from transferkit.transport.client import Client
from transferkit.transport.connections import WakeablePool
from transferkit.transport.hosts import Hosts
from transferkit.transport.request import Lane, Request, RequestBody
from transferkit.transport.response import Response

ANY = range(200, 1000)
HELLO = answer(200, b"hello")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LIMIT = 30.0  # seconds until a meeting that never happens fails the test
MIB = 1024 * 1024
HERE = Lane(origin="http://registry.example")
BIG = 64 * MIB  # more than the buffers between two sockets of one machine may grow to


class TLSServer(ScriptedServer):
    """A scripted server behind TLS. It ends connections without a goodbye, as many do."""

    def __init__(self, context: ssl.SSLContext, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._context = context
        self.subjects: list[str | None] = []
        """For each connection, whom the client's certificate names; ``None`` without one."""

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
                self._slots.release()
            else:
                certificate: Any = wrapped.getpeercert()
                self.subjects.append(certificate["subjectAltName"][0][1] if certificate else None)
                super()._serve(wrapped, number)
        finally:
            with self._lock:
                self._live.discard(twin)
            twin.close()


Serve = Callable[..., ScriptedServer]


class Seeing(requests.Session):
    """A session that sees each of its requests, as one that is traced does."""

    def __init__(self) -> None:
        super().__init__()
        self.mount("https://", PooledAdapter())
        self.mount("http://", PooledAdapter())
        self.headers.clear()
        self.seen: list[tuple[str | None, str | None]] = []

    def send(self, request: requests.PreparedRequest, **keywords: Any) -> requests.Response:
        self.seen.append((request.method, request.url))
        return super().send(request, **keywords)


@contextmanager
def client_of(
    server: ScriptedServer | str,
    *,
    session: requests.Session | None = None,
    fast: bool = True,
    stall_timeout: float = 10.0,
    **options: Any,
) -> Iterator[Client]:
    """Return a client, on the fast lane or (``fast=False``) through a session that sees its requests."""
    given = TransportOptions(**{"connect_timeout": 5.0, "response_timeout": LIMIT, **options})
    with ExitStack() as stack:
        if not fast:
            session = stack.enter_context(Seeing())
        hosts = stack.enter_context(Hosts(session, options=given, stall_timeout=stall_timeout))
        yield Client(server if isinstance(server, str) else server.url, hosts)


def pool_of(client: Client) -> WakeablePool:
    """Return the one pool that a client has used."""
    (lane,) = client._exchange._lanes.values()
    assert lane.pool is not None
    return lane.pool


def send(client: Client, method: str, url: str, *, flow: Flow, **keywords: Any) -> Response:
    return client.send(Request(method=method, url=url, **keywords), flow)


def everything(source: Response, size: int = 64 * 1024) -> bytes:
    """Read to the end of a body, ``size`` bytes at most at a time."""
    data = bytearray()
    buffer = memoryview(bytearray(size))
    while count := source.readinto(buffer):
        data += buffer[:count]
    return bytes(data)


def ask(client: Client, method: str = "GET", path: str = "/x", **keywords: Any) -> tuple[int, bytes]:
    """Send a request and read the answer to its end: status and body."""
    with send(client, method, path, ok=ANY, **{"flow": WorkerFlow(), **keywords}) as found:
        return found.status, everything(found)


def fetched(server: ScriptedServer, method: str = "GET", url: str = "/x", **keywords: Any) -> tuple[str, bytes]:
    """Return the URL that answered in the end, and the body."""
    with client_of(server, **keywords) as client:
        with send(client, method, url, ok={200}, flow=WorkerFlow()) as found:
            return found.url, everything(found)


def raised_by(act: Callable[[], object]) -> BaseException:
    try:
        act()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


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


Zeroed = Callable[[int, WorkerFlow], RequestBody]


def zeros(length: int, flow: WorkerFlow) -> RequestBody:
    return RequestBody(length, lambda: Zeros(length), flow)


def file_of_zeros(length: int, flow: WorkerFlow) -> RequestBody:
    return RequestBody(length, lambda: FileOfZeros(length), flow)


both_kinds = pytest.mark.parametrize("body", [zeros, file_of_zeros])


def connections(server: ScriptedServer) -> list[int]:
    """Return, for each request, the number of its connection."""
    return [request.connection for request in server.requests]


def sockets() -> int:
    """Return how many sockets this process has."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc here")
    names = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return sum(os.readlink(name).startswith("socket:") for name in names if os.path.islink(name))


def until(condition: Callable[[], bool]) -> bool:
    """Wait for a condition, and tell whether it came true."""
    deadline = time.monotonic() + LIMIT
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def wait_for_more(client: Client) -> None:
    """Wait until something has come on the one connection that a client keeps idle: bytes, or its end."""
    pool: Any = pool_of(client)
    (connection,) = pool.pool
    assert connection.readable.poll(LIMIT * 1000)


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
