"""The direct way: our own request heads and a strict reader of answers, on connections of our own.

What a small blob costs is Python, not the network: ``Session.get`` runs 1,200 calls for each, this way under a
hundred. The request head is one ``sendall``, the answer's head and the first of its body one ``recv_into``; the rest of
the body goes straight into the worker's buffer. TLS and its verification are Python's ``ssl``. What is unusual in an
answer (chunked, HTTP/1.0, no length) is read by ``http.client`` from the same bytes.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping

from transferkit.content.interfaces import Flow
from transferkit.errors import ProtocolError, ReadError, TransferKitError, TransportTimeout
from transferkit.protocol.head import END, MAX_HEAD, Head, read_head
from transferkit.transport.answers import answer_for
from transferkit.transport.dial import Connection, Endpoint
from transferkit.transport.failures import convert, foreign_errors
from transferkit.transport.request import RequestBody
from transferkit.transport.response import Response
from transferkit.transport.sending import send_body

IDLE = 90.0  # seconds after which an unused connection is not trusted any more
_MAX_INTERIM = 16  # 1xx answers before the real one
_SHORTEST = 1e-3  # seconds: a limit of no time at all would be none
_SAFE = frozenset({"GET", "HEAD"})
_BEGINNING = b"HTTP/1."


class Direct:
    """Exchanges requests for answers with the hosts of one client. Thread-safe.

    Idle connections are kept here, the last used first: its congestion window is the widest.
    """

    def __init__(self) -> None:
        self._idle: dict[Endpoint, deque[tuple[Connection, float]]] = {}
        self._local = threading.local()

    def exchange(
        self,
        endpoint: Endpoint,
        method: str,
        target: str,
        *,
        host: str,
        headers: Mapping[str, str],
        sender: RequestBody | None,
        timeout: tuple[float, float],
        verify: object,
        place: str,
        flow: Flow,
    ) -> Response:
        """Send one request and return the answer once its head is there.

        ``target`` is path and query, byte for byte; ``timeout`` is (to connect, to the head of the answer) in seconds.

        Raises:
            TransportError, ProtocolError: no answer came, or none that HTTP knows.
        """
        request = _request_head(method, target, host, headers, sender)
        idle = None if flow.fresh else self._take(endpoint)
        while True:
            connection = idle or self._connect(endpoint, timeout[0], verify, place, flow)
            try:
                return self._converse(endpoint, connection, method, request, sender, timeout[1], place, flow)
            except _StaleConnection as error:
                # Closed by the server while it was idle, and nothing of an answer came: that is no failure of the
                # blob. A fresh one, once; a body that was begun may have been acted upon, so only what is safe.
                connection.close()
                if idle is None or method not in _SAFE:
                    raise ReadError(f"{place} closed the connection without an answer") from error.__cause__
                idle = None
            except BaseException:
                connection.close()
                raise

    def _take(self, endpoint: Endpoint) -> Connection | None:
        idle = self._idle.get(endpoint)
        while idle:
            try:
                connection, since = idle.pop()
            except IndexError:
                break  # another thread was quicker
            if time.monotonic() - since < IDLE and connection.is_quiet():
                return connection
            connection.close()
        return None

    def give_back(self, endpoint: Endpoint, connection: Connection) -> None:
        """Keep a connection for the next request; the flow that it served must have let go of it."""
        self._idle.setdefault(endpoint, deque()).append((connection, time.monotonic()))

    def close(self) -> None:
        """Close what is idle."""
        for idle in self._idle.values():
            while idle:
                idle.pop()[0].close()

    def _connect(self, endpoint: Endpoint, timeout: float, verify: object, place: str, flow: Flow) -> Connection:
        with foreign_errors(flow, place, verify, None, connecting=True):
            return endpoint.connect(timeout, flow)

    def _converse(
        self,
        endpoint: Endpoint,
        connection: Connection,
        method: str,
        request: bytes,
        sender: RequestBody | None,
        timeout: float,
        place: str,
        flow: Flow,
    ) -> Response:
        try:
            flow.attach(connection.abort)
            connection.bound(timeout)
            sock = connection.sock
            early = False
            try:
                sock.sendall(request)
                if sender is not None:
                    early = send_body(connection, sender, timeout)
            except TransferKitError:
                raise
            except OSError as error:
                flow.check()
                if sender is not None and sender.error is not None:
                    raise sender.error from error
                if sender is None:
                    raise _StaleConnection from error
                # It may have answered, and closed, before it had the whole body: 401, 413 and 507 do.
                early = True
                try:
                    head, rest = self._read_head(connection, timeout, place, flow)
                except (TransferKitError, _StaleConnection):
                    flow.check()
                    raise convert(error, place, None, sending=True) from error
            else:
                head, rest = self._read_head(connection, timeout, place, flow)
            return answer_for(self, endpoint, connection, method, head, rest, place, flow, reusable=not early)
        except BaseException:
            flow.detach(connection.abort)
            raise

    def _read_head(self, connection: Connection, timeout: float, place: str, flow: Flow) -> tuple[Head, bytes]:
        """Read until the head of the final answer is complete; return it and what came after it."""
        deadline = time.monotonic() + timeout
        try:
            buffer = self._local.buffer
        except AttributeError:
            buffer = self._local.buffer = memoryview(bytearray(MAX_HEAD))
        try:
            count = connection.sock.recv_into(buffer)
        except OSError as error:
            flow.check()
            if isinstance(error, ConnectionError):
                raise _StaleConnection from error
            raise convert(error, place, None, sending=False) from error
        flow.check()
        if not count:
            raise _StaleConnection
        data = bytes(buffer[:count])
        for _ in range(_MAX_INTERIM):
            end = data.find(END)
            while end < 0:
                # Else the wait for a rest that never comes would be all that the caller hears of.
                if not data.startswith(_BEGINNING[: len(data)]) or data.count(b"\n") != data.count(b"\r\n"):
                    raise ProtocolError(f"{place} sent an answer that is not HTTP/1: {data[:60]!r}")
                if len(data) >= MAX_HEAD:
                    raise ProtocolError(f"{place} sent an answer whose head is longer than {MAX_HEAD} bytes")
                more = _receive(connection, buffer, deadline, place, flow)
                if not more:
                    raise ReadError(f"{place} closed the connection within the head of its answer")
                data += more
                end = data.find(END)
            head, data = read_head(data[: end + 4]), data[end + 4 :]
            if head.status >= 200:
                connection.bound(timeout)
                return head, data
            if head.status == 101:
                raise ProtocolError(f"{place} switches protocols (101), which nobody asked for")
        raise ProtocolError(f"{place} sent {_MAX_INTERIM} interim answers and no final one")


class _StaleConnection(Exception):
    """The connection ended before a byte of an answer came."""


def _request_head(method: str, target: str, host: str, headers: Mapping[str, str], sender: RequestBody | None) -> bytes:
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if fields.count("\n") != len(headers) or fields.count("\r") != len(headers):
        raise ProtocolError("a header field holds a line break, and is not sent")
    if sender is not None:
        fields += f"Content-Length: {sender.length}\r\n"
    try:
        return f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode("latin-1")
    except UnicodeEncodeError as error:
        raise ProtocolError("a header field holds what Latin-1 has no character for, and is not sent") from error


def _receive(connection: Connection, buffer: memoryview, deadline: float, place: str, flow: Flow) -> bytes:
    left = deadline - time.monotonic()
    if left < _SHORTEST:
        raise TransportTimeout(f"{place} did not send the whole head of its answer in time")
    connection.bound(left)
    try:
        count = connection.sock.recv_into(buffer)
    except OSError as error:
        flow.check()
        raise convert(error, place, None, sending=False) from error
    flow.check()
    return bytes(buffer[:count])
