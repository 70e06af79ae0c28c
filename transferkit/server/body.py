"""The body of a request on a connection: where it ends, read no faster than the application asks.

Knows HTTP/1.1 framing (RFC 9112, sections 6 and 7) and a buffered reader; nothing of sockets, servers or WSGI.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_LINE_LIMIT = 8 * 1024  # bytes of a chunk's size with its extensions, or of a trailer field
_TRAILER_LIMIT = 64  # fields

# What is no field may be a request that is to be swallowed.
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n\Z")
# Sixteen digits are 2^64-1. int(text, 16) alone takes "-5", "0x10" and "1_0".
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n\Z")


class Body(io.BufferedReader):
    """The body as ``wsgi.input``. One reader. Closing it leaves the connection open.

    Reading raises ``ConnectionAbortedError`` where the body ends early or its framing is wrong: no application can take
    a part for the whole.
    """

    def __init__(
        self, source: io.BufferedReader, length: int | None, *, invite: Callable[[], None] | None = None
    ) -> None:
        """``length`` in bytes, ``None`` for chunked; ``invite`` is called before the first read from ``source``."""
        self._framed = _Framed(source, length, invite)
        super().__init__(self._framed)

    @property
    def received(self) -> int:
        """Bytes of content that were taken from the connection so far."""
        return self._framed.received

    @property
    def finished(self) -> bool:
        """The connection stands at the next request."""
        return self._framed.finished

    def discard(self, limit: int) -> bool:
        """Read up to ``limit`` bytes of what is left, and tell whether that was all."""
        return self._framed.discard(limit)


class _Framed(io.RawIOBase):
    def __init__(self, source: io.BufferedReader, length: int | None, invite: Callable[[], None] | None) -> None:
        super().__init__()
        self._source = source
        self._chunked = length is None
        self._left = length or 0  # of the body, or of the chunk
        self._first = True
        self._invite = invite
        self.received = 0
        self.finished = length == 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        if self.finished:
            return 0
        if self._invite is not None:
            invite, self._invite = self._invite, None
            invite()
        if self._chunked and self._left == 0:
            self._left = self._next_chunk()
            if self._left == 0:
                self.finished = True
                return 0
        count = self._source.readinto1(memoryview(buffer)[: self._left])
        if count == 0:
            raise ConnectionAbortedError("the body ended early")
        self._left -= count
        self.received += count
        self.finished = self._left == 0 and not self._chunked
        return count

    def discard(self, limit: int) -> bool:
        # Who waits for "100 Continue" and gets an answer may send the body or not: there is no telling what comes next.
        if self._invite is not None or self._left > limit:
            return self.finished
        scratch = bytearray(min(limit, 64 * 1024))
        stop = self.received + limit
        try:
            while not self.finished and self.received < stop:
                self.readinto(scratch)
        except OSError:  # it will never be finished
            pass
        return self.finished

    def _next_chunk(self) -> int:
        if not self._first and self._source.readline(2) != b"\r\n":
            raise ConnectionAbortedError("a chunk is longer than its size, or the body ended early")
        self._first = False
        match = _CHUNK_SIZE.match(self._source.readline(_LINE_LIMIT))
        if match is None:
            raise ConnectionAbortedError("a chunk has no size, or the body ended early")
        size = int(match[1], 16)
        if size == 0:
            self._skip_trailer()
        return size

    def _skip_trailer(self) -> None:
        for _ in range(_TRAILER_LIMIT):
            line = self._source.readline(_LINE_LIMIT)
            if line == b"\r\n":
                return
            if _TRAILER.match(line) is None:
                break
        raise ConnectionAbortedError("the trailer has no end")
