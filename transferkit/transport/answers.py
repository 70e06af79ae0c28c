"""Answers of the direct way: the common kind straight from the socket, the others by ``http.client``."""

from __future__ import annotations

import http.client
import io
import socket
from typing import TYPE_CHECKING, Any

from urllib3 import HTTPConnectionPool

from transferkit.content.interfaces import Flow
from transferkit.errors import ReadError
from transferkit.protocol.head import Head
from transferkit.transport.body import NO_BODY, Answer
from transferkit.transport.failures import convert, foreign_errors

if TYPE_CHECKING:
    from transferkit.transport.direct import Direct


class DirectAnswer(Answer):
    """An answer with an announced length, or with no body: the common kind."""

    __slots__ = ("_connection", "_direct", "_flow", "_left", "_pool", "_rest", "_reusable", "_sock")

    def __init__(
        self,
        direct: Direct,
        pool: HTTPConnectionPool,
        connection: Any,
        head: Head,
        length: int,
        rest: bytes,
        place: str,
        flow: Flow,
        reusable: bool,
    ) -> None:
        self.status = head.status
        self.headers = head.fields
        self.length = length
        self.offset = 0
        self.place = place
        self._direct = direct
        self._pool = pool
        self._connection = connection
        self._sock = connection.sock
        self._flow = flow
        self._left = length
        # Bytes behind the body belong to nobody: the content stands, the connection goes.
        self._reusable = reusable and len(rest) <= length
        self._rest: memoryview | None = memoryview(rest)[:length] if rest else None
        if not length:
            self._release()

    def readinto(self, buffer: memoryview, /) -> int:
        left = self._left
        if not left:
            return 0
        size = min(len(buffer), left)
        rest = self._rest
        if rest is not None:
            count = min(size, len(rest))
            buffer[:count] = rest[:count]
            self._rest = rest[count:] if count < len(rest) else None
        else:
            try:
                count = self._sock.recv_into(buffer, size)
            except OSError as error:
                self._flow.check()
                raise convert(error, self.place, None, sending=False) from error
            # Before anything is counted or written: a woken read looks like a clean end, or worse.
            self._flow.check()
            if not count:
                raise ReadError(f"{self.place} closed the connection {left} bytes before the end")
        self._left = left = left - count
        if not left:
            self._release()
        return count

    def _release(self) -> None:
        """Part with the connection: everything that was announced has been read."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._flow.detach(connection.abort)
            if self._reusable:
                self._direct.give_back(self._pool, connection)
            else:
                connection.close()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._flow.detach(connection.abort)
            connection.close()


class ReplayedAnswer(Answer):
    """An answer without a plain length, read by ``http.client`` from what is here already, and then the socket."""

    __slots__ = ("_connection", "_flow", "_response")

    def __init__(self, connection: Any, method: str, head: Head, rest: bytes, place: str, flow: Flow) -> None:
        self.status = head.status
        self.headers = head.fields
        self.length = None
        self.offset = 0
        self.place = place
        self._connection = connection
        self._flow = flow
        replay: Any = _Replay(_head_bytes(head) + rest, connection.sock)  # makefile is all that is asked of a socket
        self._response = http.client.HTTPResponse(replay, method=method)
        with foreign_errors(flow, place, None, None):
            self._response.begin()

    def readinto(self, buffer: memoryview, /) -> int:
        with foreign_errors(self._flow, self.place, None, None):
            try:
                data = self._response.read1(len(buffer))
            except (http.client.HTTPException, ValueError) as error:
                self._flow.check()
                text = f"{self.place} sent a body that is cut off or malformed: {type(error).__name__}"
                raise ReadError(text) from error
        self._flow.check()
        if len(data) > len(buffer):  # http.client takes "-5" for the size of a chunk
            raise ReadError(f"{self.place} sent a body that is cut off or malformed")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._flow.detach(connection.abort)
            # The reader may hold bytes of the next answer, or have met the end: such connections are rare enough.
            self._response.close()
            connection.close()


class _Replay:
    """A "socket" that first repeats what was read from the real one."""

    def __init__(self, data: bytes, sock: socket.socket) -> None:
        self._raw = _ReplayRaw(data, sock)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self._raw)


class _ReplayRaw(io.RawIOBase):
    def __init__(self, data: bytes, sock: socket.socket) -> None:
        self._data = memoryview(data)
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._data
        if data:
            count = min(len(buffer), len(data))
            buffer[:count] = data[:count]
            self._data = data[count:]
            return count
        return self._sock.recv_into(buffer)


def answer_for(
    direct: Direct,
    pool: HTTPConnectionPool,
    connection: Any,
    method: str,
    head: Head,
    rest: bytes,
    place: str,
    flow: Flow,
    *,
    reusable: bool,
) -> Answer:
    chunked = head.chunked
    length = head.length
    if method == "HEAD" or head.status in NO_BODY:
        chunked, length = False, 0
    if chunked or length is None:
        return ReplayedAnswer(connection, method, head, rest, place, flow)
    reusable = reusable and head.keeps_alive
    return DirectAnswer(direct, pool, connection, head, length, rest, place, flow, reusable)


def _head_bytes(head: Head) -> bytes:
    lines = [f"HTTP/1.{head.minor} {head.status} "]
    lines += [f"{name}: {head.fields[name]}" for name in ("transfer-encoding", "connection") if name in head.fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
