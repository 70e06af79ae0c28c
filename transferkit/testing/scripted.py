"""A server that says exactly what a script says, byte for byte, well framed or not.

Knows sockets, and as much of HTTP as it takes to read a request. It checks nothing of what it sends: that is what it
is for. Whole answers are built in :mod:`transferkit.testing.wire`.
"""

from __future__ import annotations

import io
import math
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from transferkit.server.body import Body
from transferkit.testing.sockets import LINGER, TAKE, reset_on_close, undelivered
from transferkit.testing.wire import Close, Pause, Piece, Reset, answer
from transferkit.thread_group import ThreadGroup

_CONNECTIONS = 256  # at once; more wait until one ends
_HEAD_LIMIT = 256 * 1024  # bytes of a request line with its headers
_BODY_LIMIT = 64 * 1024 * 1024  # bytes of a request's body that are kept; the rest is read and thrown away
_BLOCK = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRequest:
    """One request as it was read."""

    method: str
    target: str
    """As it was sent: the path with its query, not decoded."""
    headers: dict[str, str]
    """Names in lower case; values of one name are joined by ``", "``."""
    body: bytes
    """At most 64 MiB of it, without its framing; empty where the server does not read bodies."""
    connection: int
    """Number of the connection; the first is 0."""
    number: int
    """Number of the request on its connection; the first is 0."""


Step: TypeAlias = Piece | Iterable[Piece]
Script: TypeAlias = Sequence[Step | Callable[[RawRequest], Step]] | Callable[[RawRequest], Step]


class ScriptedServer:
    """A server that runs a script from ``with`` to its end. Thread-safe."""

    def __init__(self, script: Script, *, read_body: bool = True, host: str = "127.0.0.1", port: int = 0) -> None:
        """See :func:`scripted_server`."""
        self.host = host
        self.port = port
        self._script = script if callable(script) else tuple(script)
        self.read_body = read_body
        self._lock = threading.Lock()
        self._requests: list[RawRequest] = []
        self._live: set[socket.socket] = set()
        self._threads = ThreadGroup("transferkit-scripted")
        self._slots = threading.Semaphore(_CONNECTIONS)
        self._stopped = threading.Event()
        self._errors: list[Exception] = []
        self._running = False

    @property
    def url(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def requests(self) -> list[RawRequest]:
        """Every request so far, in the order in which they were read. A request is here before it is answered."""
        with self._lock:
            return list(self._requests)

    def __enter__(self) -> ScriptedServer:
        if self._running:  # the fixture has started it
            return self
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._listener = socket.create_server((self.host, self.port), family=family, backlog=1024)
        self.port = self._listener.getsockname()[1]
        self._wake, self._woken = socket.socketpair()
        self._acceptor = threading.Thread(target=self._accept_all, name="transferkit-scripted", daemon=True)
        self._acceptor.start()
        self._running = True
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if not self._running:
            return
        self._running = False
        self._stopped.set()
        self._wake.send(b"\0")
        self._slots.release()
        self._acceptor.join()
        with self._lock:
            live = list(self._live)
        for sock in live:
            try:
                sock.shutdown(socket.SHUT_RDWR)  # wakes who reads from it or writes to it
            except OSError:
                pass
        self._threads.join()
        for sock in (self._listener, self._wake, self._woken):
            sock.close()
        if self._errors and error is None:
            raise self._errors[0]

    def __repr__(self) -> str:
        return f"<ScriptedServer {self.url}: {len(self.requests)} requests>"

    def _accept_all(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            number = 0
            while True:
                self._slots.acquire()
                selector.select()
                if self._stopped.is_set():
                    return
                try:
                    sock, _ = self._listener.accept()
                except OSError:  # it changed its mind
                    self._slots.release()
                    continue
                self._start(sock, number)
                number += 1

    def _start(self, sock: socket.socket, number: int) -> None:
        with self._lock:
            self._live.add(sock)
        self._threads.start(self._serve, sock, number)

    def _serve(self, sock: socket.socket, number: int) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            _Conversation(self, sock, number).run()
        except OSError:  # the client is gone, or the server is at its end
            pass
        except Exception as error:  # noqa: BLE001 - the script's own; raised on the way out, in the thread of the test
            self._errors.append(error)
        finally:
            with self._lock:
                self._live.discard(sock)
            sock.close()
            self._slots.release()

    def step_for(self, request: RawRequest) -> Step:
        """Write the request down, and return what the script says to it."""
        with self._lock:
            index = len(self._requests)
            self._requests.append(request)
        if callable(self._script):
            return self._script(request)
        if index >= len(self._script):
            text = f"the script has {len(self._script)} steps, and this is request {index + 1}\n"
            return answer(500, text.encode())
        step = self._script[index]
        return step(request) if callable(step) else step

    def pause(self, seconds: float) -> bool:
        """Wait, and tell whether the server is at its end."""
        return self._stopped.wait(None if math.isinf(seconds) else seconds)


class _Conversation:
    """One connection: requests are read and answered in turn until one side ends it."""

    def __init__(self, server: ScriptedServer, sock: socket.socket, connection: int) -> None:
        self._server = server
        self._sock = sock
        self._connection = connection
        self._in_step = True
        """The stream stands at a request."""

    def run(self) -> None:
        with self._sock.makefile("rb") as stream:
            number = 0
            while self._in_step and (request := self._read(stream, number)) is not None:
                step = self._server.step_for(request)
                if not self._say((step,) if isinstance(step, bytes | Pause | Close | Reset) else step):
                    return
                number += 1
        self._close()

    def _read(self, stream: io.BufferedReader, number: int) -> RawRequest | None:
        line, *fields = _head_lines(stream)
        parts = line.split()
        if len(parts) != 3:  # the end of the connection, or no request
            return None
        headers: dict[str, str] = {}
        for field in fields:
            name, _, text = field.partition(":")
            name, text = name.strip().lower(), text.strip()
            headers[name] = f"{headers[name]}, {text}" if name in headers else text
        return RawRequest(
            method=parts[0],
            target=parts[1],
            headers=headers,
            body=self._read_body(stream, headers),
            connection=self._connection,
            number=number,
        )

    def _read_body(self, stream: io.BufferedReader, headers: dict[str, str]) -> bytes:
        text = headers.get("content-length", "0")
        is_chunked = "transfer-encoding" in headers
        length = None if is_chunked else int(text) if text.isdecimal() else 0
        if length == 0:
            return b""
        if not self._server.read_body:
            self._in_step = False
            return b""
        expects = headers.get("expect", "").lower() == "100-continue"
        body = Body(stream, length, invite=self._invite if expects else None)
        kept = body.read(_BODY_LIMIT)
        while body.read(_BLOCK):
            pass
        return kept

    def _invite(self) -> None:
        self._sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _say(self, pieces: Iterable[Piece]) -> bool:
        """Say it all, and tell whether the connection goes on."""
        for piece in pieces:
            if isinstance(piece, Pause):
                if self._server.pause(piece.seconds):
                    return False
            elif isinstance(piece, Close):
                self._close()
                return False
            elif isinstance(piece, Reset):
                self._reset()
                return False
            else:
                self._sock.sendall(piece)
        return True

    def _close(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + LINGER
        while (left := deadline - time.monotonic()) > 0:
            self._sock.settimeout(left)
            if not self._sock.recv(_BLOCK):
                return

    def _reset(self) -> None:
        deadline = time.monotonic() + TAKE
        while undelivered(self._sock) and time.monotonic() < deadline and not self._server.pause(0.001):
            pass
        reset_on_close(self._sock)


def _head_lines(stream: io.BufferedReader) -> list[str]:
    """Return the lines of a head; one empty line where there is none, or one that is too long."""
    lines: list[str] = []
    left = _HEAD_LIMIT
    while left > 0:
        line = stream.readline(left)
        left -= len(line)
        if line in (b"\r\n", b"\n"):
            return lines or [""]
        if not line.endswith(b"\n"):
            break
        lines.append(line.decode("latin-1").rstrip("\r\n"))
    return [""]


def scripted_server(
    script: Script, *, read_body: bool = True, host: str = "127.0.0.1", port: int = 0
) -> ScriptedServer:
    """Return a server that says what ``script`` says, for a ``with``.

    A script is a sequence, whose n-th step answers the n-th request, on whatever connection it comes; a request too
    many gets a 500 that says so. Or it is a function from a :class:`RawRequest` to a step, called in a thread of the
    connection. A step is bytes, a ``Pause``, ``Close`` or ``Reset``, an iterable of these, or in a sequence also such a
    function. After a step the connection stays open for the next request, whatever was said.

    Bodies of requests are read before the step, by their length or their chunks, and ``100 Continue`` is sent to who
    waits for it. Without ``read_body`` they are left where they are, and the connection ends after the step. An
    exception of the script comes out of the ``with``. The way out cuts what is open, and leaves neither thread nor
    descriptor, unless the script itself sleeps.

    Raises:
        OSError: from ``with``: the address is not to be had.

    >>> import http.client
    >>> from transferkit.testing import answer, informational
    >>> with scripted_server([informational(100) + answer(200, b"hello")]) as server:
    ...     connection = http.client.HTTPConnection(server.host, server.port)
    ...     connection.request("GET", "/v2/", headers={"Accept": "text/plain"})
    ...     with connection.getresponse() as response:
    ...         print(response.status, response.read())
    ...     connection.close()
    ...     print(server.requests[0].target, server.requests[0].headers["accept"])
    200 b'hello'
    /v2/ text/plain
    """
    return ScriptedServer(script, read_body=read_body, host=host, port=port)
