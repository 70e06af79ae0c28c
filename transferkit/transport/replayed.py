"""Answers of the direct way without a plain length: chunked, until the end, HTTP/1.0. ``http.client`` reads them."""

from __future__ import annotations

import http.client
import io
import socket
from typing import Any

from transferkit.content.interfaces import Flow
from transferkit.errors import ReadError
from transferkit.protocol.head import Head
from transferkit.transport.dial import Connection
from transferkit.transport.failures import foreign_errors
from transferkit.transport.response import Response


class ReplayedResponse(Response):
    """An answer without a plain length, read by ``http.client`` from what is here already, and then the socket."""

    __slots__ = ("_connection", "_flow", "_response")

    def __init__(self, connection: Connection, method: str, head: Head, rest: bytes, place: str, flow: Flow) -> None:
        self.status = head.status
        self.headers = head.fields
        self.length = None
        self.origin = place
        self._connection: Connection | None = connection
        self._flow = flow
        replay: Any = _Replay(_head_bytes(head) + rest, connection.sock)  # makefile is all that is asked of a socket
        self._response = http.client.HTTPResponse(replay, method=method)
        with foreign_errors(flow, place, None, None):
            self._response.begin()

    def readinto(self, buffer: memoryview, /) -> int:
        with foreign_errors(self._flow, self.origin, None, None):
            try:
                data = self._response.read1(len(buffer))
            except (http.client.HTTPException, ValueError) as error:
                self._flow.check()
                text = f"{self.origin} sent a body that is cut off or malformed: {type(error).__name__}"
                raise ReadError(text) from error
        self._flow.check()
        if len(data) > len(buffer):  # http.client takes "-5" for the size of a chunk
            raise ReadError(f"{self.origin} sent a body that is cut off or malformed")
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


def _head_bytes(head: Head) -> bytes:
    lines = [f"HTTP/1.{head.minor} {head.status} "]
    lines += [f"{name}: {head.fields[name]}" for name in ("transfer-encoding", "connection") if name in head.fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
