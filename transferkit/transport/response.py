"""What comes in on one request: a response whose head has arrived, and the body behind it."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping

from transferkit.content.interfaces import Closing
from transferkit.errors import ProtocolError, TransportTimeout

NO_BODY = frozenset({204, 304})  # statuses of responses without one, as all to HEAD: RFC 9112, section 6.3
_BLOCK = 64 * 1024
_WORTH_DRAINING = 64 * 1024  # bytes; a new connection costs less than reading more than this


class Response(Closing, ABC):
    """A response whose head has arrived, and the body behind it. A context manager; not thread-safe.

    ``headers`` has lower-case names; ``length`` is the announced length of the body, ``None`` where there is none. What
    it means for a blob is not its business.
    """

    __slots__ = ("_deadline", "headers", "length", "origin", "status", "timeout", "url")

    status: int
    headers: Mapping[str, str]
    length: int | None
    timeout: float
    """Seconds that a short body may take: as long as the head."""
    origin: str
    """The origin it came from, as an error names it."""
    url: str
    """What was asked for in the end, after the redirects, byte for byte; it may hold a signature."""
    _deadline: float
    """When a short body must be here, its framing included; infinite where the body is read piece by piece."""

    @abstractmethod
    def readinto(self, buffer: memoryview, /) -> int:
        """Read what has arrived into ``buffer``, at most its size; 0 at the end of the body.

        Raises:
            ReadError: the connection broke, or ended before the announced length.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the connection: it is kept where the body was read to its end, else it is closed."""

    def peek(self, limit: int) -> bytes:
        """Return at most the first ``limit`` bytes of the body.

        Raises:
            TransportTimeout: they come too slowly.
        """
        self._deadline = time.monotonic() + self.timeout
        data = bytearray()
        block = memoryview(bytearray(min(limit, _BLOCK)))
        while len(data) < limit:
            count = self.readinto(block[: limit - len(data)])
            if not count:
                break
            data += block[:count]
            self._check_deadline()
        self._deadline = math.inf
        return bytes(data)

    def _check_deadline(self) -> None:
        if time.monotonic() > self._deadline:
            raise self._overdue()

    def _overdue(self) -> TransportTimeout:
        return TransportTimeout(f"{self.origin} did not send its answer within {self.timeout:g} s")

    def read(self, limit: int) -> bytes:
        """Return the whole body.

        Raises:
            ProtocolError: it is longer than ``limit`` bytes.
        """
        data = self.peek(limit + 1)
        if len(data) > limit:
            raise ProtocolError(f"{self.origin} sent more than the {limit} bytes that this answer may have")
        return data

    def finish(self) -> None:
        """Read a short rest, so that the connection can be used again, and close."""
        try:
            if self.length is not None and self.length <= _WORTH_DRAINING:
                self.peek(_WORTH_DRAINING)
        finally:
            self.close()
