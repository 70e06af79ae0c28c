"""What comes in on one request: a response whose head has arrived, and the body behind it.

In the fast lane the body comes straight from the socket: one class for each way in which it is framed (RFC 9112,
section 6). One that was read to its end gives the connection back, where it may be used again.
"""

from __future__ import annotations

import math
import re
import ssl
import sys
import time
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from transferkit.content.flow import Closing, Flow
from transferkit.errors import ProtocolError, ReadError, TransportError, TransportTimeout
from transferkit.protocol.head import Head
from transferkit.transport.connections import WakeableConnection
from transferkit.transport.failures import convert
from transferkit.transport.request import Lane, Request

NO_BODY = frozenset({204, 304})  # statuses of responses without one, as all to HEAD: RFC 9112, section 6.3
_BLOCK = 64 * 1024
_WORTH_DRAINING = 64 * 1024  # bytes; a new connection costs less than reading more than this
_REST = 1.0  # seconds to wait for the end of an answer in chunks that is not needed
_ENDLESS = sys.maxsize  # bytes to come where the body ends with its connection
_MAX_LINE = 4 * 1024  # bytes of the line before a chunk, extensions included
_MAX_TRAILER = 64 * 1024  # bytes of the fields after the last chunk; they are thrown away
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})[\t ]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")


class Response(Closing):
    """A response whose head has arrived, and the body behind it. A context manager; not thread-safe.

    ``headers`` has lower-case names; ``length`` is the announced length of the body, ``None`` where there is none. What
    it means for a blob is not its business. ``origin`` is where it came from, as an error names it; ``url`` what was
    asked for in the end, after the redirects, byte for byte: it may hold a signature.
    """

    is_cut = False
    """Whether the end of the body was that of its connection, and TLS knows nothing of it: anybody may have cut it."""

    __slots__ = ("_deadline", "_flow", "_lane", "headers", "length", "origin", "status", "timeout", "trusted", "url")

    def __init__(
        self, status: int, headers: Mapping[str, str], length: int | None, request: Request, lane: Lane, flow: Flow
    ) -> None:
        self.status = status
        self.headers = headers
        self.length = length
        self.timeout = request.timeout
        """Seconds that a short body may take: as long as the head."""
        self.origin = lane.origin
        self.url = request.url
        self.trusted = request.trusted
        """Whether the registry itself answered, at a URL that nobody else had chosen."""
        self._deadline = math.inf
        """When a short body must be here, its framing included; infinite where the body is read piece by piece."""
        self._lane = lane
        self._flow = flow

    @abstractmethod
    def readinto(self, buffer: memoryview, /) -> int:
        """Read what has arrived into ``buffer``, at most its size; 0 at the end of the body.

        Raises:
            ReadError: the connection broke, or ended before the announced length.
        """

    def peek(self, limit: int, *, partly: bool = False) -> bytes:
        """Return at most the next ``limit`` bytes of the body; ``partly``: what comes first of them is enough.
        TransportTimeout: they come too slowly; it may be late by one read that blocks."""
        self._deadline = time.monotonic() + self.timeout
        self._bound(self.timeout)
        data = bytearray()
        block = memoryview(bytearray(min(limit, _BLOCK)))
        while len(data) < limit:
            count = self.readinto(block[: limit - len(data)])
            if not count:
                break
            data += block[:count]
            self._check_deadline()
            if partly:
                break
        self._deadline = math.inf
        return bytes(data)

    def _bound(self, seconds: float) -> None:
        """Bound how long one read may block, where that can be said."""

    def _check_deadline(self) -> None:
        if time.monotonic() > self._deadline:
            raise self._overdue()

    def _overdue(self) -> TransportTimeout:
        return TransportTimeout(f"{self.origin} did not send its answer within {self.timeout:g} s")

    def read(self, limit: int) -> bytes:
        """Return the whole body; ProtocolError: it is longer than ``limit`` bytes."""
        data = self.peek(limit + 1)
        if len(data) > limit:
            raise ProtocolError(f"{self.origin} sent more than the {limit} bytes that this answer may have")
        return data

    def finish(self) -> None:
        """Read a short rest, so that the connection can be used again, and close. What is wrong with it is no matter:
        the head says all that counts."""
        if self.length is not None and self.length <= _WORTH_DRAINING:
            self.rest(_WORTH_DRAINING)
        self.close()

    def rest(self, limit: int) -> bytes:
        """Return at most ``limit`` bytes of a body that the job can do without, and close: nothing of it, where it is
        broken, or takes longer than a silence may."""
        with self:
            self.timeout = min(self.timeout, self._lane.patience)
            try:
                return self.peek(limit)
            except (TransportError, ProtocolError):
                self._flow.check()
                return b""


class StreamResponse(Response):
    """A response on a connection that it holds until its body has ended: after its announced length, or with the
    connection."""

    __slots__ = ("_connection", "_keeps", "_left", "_rest", "_sock", "is_cut")

    def __init__(
        self,
        connection: WakeableConnection,
        head: Head,
        length: int | None,
        rest: bytes,
        request: Request,
        lane: Lane,
        flow: Flow,
        keeps: bool,
    ) -> None:
        super().__init__(head.status, head.fields, length, request, lane, flow)
        self.is_cut = False
        self._connection: WakeableConnection | None = connection
        self._sock = connection.sock
        # Bytes behind the body belong to nobody: the content stands, the connection goes.
        self._keeps = keeps and (length is None or len(rest) <= length)
        self._rest = memoryview(rest)
        self._left = _ENDLESS if length is None else length
        if length == 0:
            self._release()
        elif length is None and isinstance(self._sock, ssl.SSLSocket) and not head.chunked:
            # To be told of an end without close_notify, see ``is_cut``; the type stubs do not know it.
            self._sock.suppress_ragged_eofs = False  # type: ignore[attr-defined]

    def readinto(self, buffer: memoryview, /) -> int:
        left = self._left
        if not left:
            return 0
        count = self._receive(buffer, min(len(buffer), left))
        if not count:
            if self.length is not None:
                raise ReadError(f"{self.origin} closed the connection {left} bytes before the end")
            self._keeps, left = False, 0
        self._left = left = left - count
        if not left:
            self._release()
        return count

    def finish(self) -> None:
        if self._connection is not None:  # else it has ended
            super().finish()

    def _bound(self, seconds: float) -> None:
        if self._connection is not None:
            self._connection.bound(seconds)

    def _receive(self, buffer: memoryview, size: int) -> int:
        """Return how many bytes have come, from what was read with the head and then from the socket; 0 at the end."""
        rest = self._rest
        if rest:
            count = min(size, len(rest))
            buffer[:count] = rest[:count]
            self._rest = rest[count:]
            return count
        try:
            count = self._sock.recv_into(buffer, size)
        except OSError as error:
            self._flow.check()
            if isinstance(error, ssl.SSLEOFError) and self.length is None:
                self.is_cut = True
                return 0
            raise convert(error, self._lane) from error
        # Before anything is counted or written: a woken read looks like a clean end, or worse.
        self._flow.check()
        return count

    def _release(self) -> None:
        """Part with the connection: the body has ended."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._flow.detach(connection.abort)
            pool = self._lane.pool
            if self._keeps and not self._rest and pool is not None:
                if self.status == 200 and self.length is not None:
                    pool.pipelines.has_answered = True
                pool.give_back(connection)
            else:
                connection.close()

    def close(self) -> None:
        self._keeps = False
        self._release()


class ChunkedResponse(StreamResponse):
    """A body in chunks."""

    __slots__ = ("_is_between",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._left = 0
        """Bytes of the chunk that are to come."""
        self._is_between = False
        """Whether the line break behind a chunk is to come."""

    def readinto(self, buffer: memoryview, /) -> int:
        if self._connection is None:
            return 0
        if not self._left:
            self._left = self._next_chunk()
            if not self._left:
                self._release()
                return 0
        count = self._receive(buffer, min(len(buffer), self._left))
        if not count:
            raise ReadError(f"{self.origin} closed the connection within a chunk of its body")
        self._left -= count
        self._is_between = not self._left
        return count

    def finish(self) -> None:
        # It has no length, and a short one has its end right behind the head: servers that frame every answer so would
        # have us make a connection for each.
        try:
            if self._connection is not None:
                self.timeout = min(self.timeout, _REST)
                self._connection.bound(self.timeout)
                self.peek(_WORTH_DRAINING)
        except (TransportError, ProtocolError):
            self._flow.check()
        finally:
            self.close()

    def _next_chunk(self) -> int:
        """Return the size of the next chunk; 0 for the last one, whose trailer is read, too."""
        if self._is_between and self._line(2) != b"\r\n":
            raise self._malformed("a chunk has another length")
        match = _CHUNK_LINE.fullmatch(self._line(_MAX_LINE))
        if match is None:
            raise self._malformed("no size of a chunk")
        size, trailer = int(match[1], 16), _MAX_TRAILER
        while not size and (line := self._line(_MAX_LINE)) != b"\r\n":
            trailer -= len(line)
            if trailer < 0 or not line.endswith(b"\r\n"):
                raise self._malformed("no end of its trailer")
        return size

    def _malformed(self, what: str) -> ReadError:
        return ReadError(f"{self.origin} sent a body that is cut off or malformed: {what}")

    def _line(self, limit: int) -> bytes:
        """Return the bytes up to and with the next line break, or the first ``limit`` ones."""
        line = b""
        block = memoryview(bytearray(512))
        while not line.endswith(b"\n") and len(line) < limit:
            if not self._rest:
                count = self._receive(block, len(block))
                self._check_deadline()
                if not count:
                    raise self._malformed("it ends within a line")
                self._rest = memoryview(bytes(block[:count]))
            rest = bytes(self._rest[: limit - len(line)])
            end = rest.find(b"\n") + 1 or len(rest)
            line += rest[:end]
            self._rest = self._rest[end:]
        return line
