"""What goes out and what comes in on one request: a body to send, an answer to read."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from transferkit.content.interfaces import Body, Flow, Local, Seekable
from transferkit.errors import ProtocolError, ReadError, TransportTimeout

T = TypeVar("T")

# Bytes between two counts of what was sent. A slow link must be seen to move: 256 KiB in the 10 s of a stall would ask
# for 26 KB/s of every connection.
PIECE = 64 * 1024
NO_BODY = frozenset({204, 304})  # statuses of answers that have none, as every answer to HEAD: RFC 9112, section 6.3
EXTENT = 1024 * 1024  # bytes that the kernel is asked to send at most; it takes what there is room for


@dataclass(slots=True)
class Extent:
    """A piece of a file, for the kernel to send: who asked for it says in ``sent`` how much of it went out.

    -1 says that the kernel cannot send from this file.
    """

    fd: int
    offset: int
    count: int
    sent: int = 0


class Sender:
    """The body of a request: ``length`` bytes that can be produced again when a redirect asks for it. One thread's.

    ``start`` is where in the content they begin; ``open_body`` opens it there.
    """

    def __init__(
        self, length: int, open_body: Callable[[], AbstractContextManager[Body]], flow: Flow, *, start: int = 0
    ) -> None:
        self.length = length
        self.start = start
        self.error: BaseException | None = None
        self._open = open_body
        self._flow = flow

    def rewind(self) -> None:
        """Take back what was sent: the body starts again from its first byte."""
        self._flow.settle(self.start)

    def __iter__(self) -> Iterator[memoryview]:
        return self.pieces()

    def pieces(self) -> Generator[memoryview, None, None]:
        """Yield the body in pieces of the worker's buffer."""
        return self._guarded(self._pieces())

    def extents(self) -> Generator[memoryview | Extent, None, None]:
        """Yield the body as pieces of a file where it is one that need not be hashed, else as ``pieces`` does."""
        return self._guarded(self._pieces(by_kernel=True))

    def _guarded(self, pieces: Iterator[T]) -> Generator[T, None, None]:
        # urllib3 takes every OSError for the connection's; what the source raised is kept to be raised again as it was.
        try:
            yield from pieces
        except GeneratorExit:
            raise
        except BaseException as error:
            self.error = error
            raise
        finally:
            self._flow.end_body()

    def _pieces(self, *, by_kernel: bool = False) -> Iterator[Any]:
        flow = self._flow
        buffer = flow.buffer
        with self._open() as body:
            flow.begin_body()
            left = self.length
            is_here = isinstance(body, Seekable)
            if by_kernel and isinstance(body, Local):
                left = yield from self._extents(body)
                if left:
                    body.seek(self.start + self.length - left, flow=flow)
            while left:
                filled = 0
                room = min(len(buffer), left)
                flow.paused = is_here  # who waits for a disk waits for no connection
                while filled < room:
                    count = body.readinto(buffer[filled:room])
                    if not count:
                        raise ReadError(f"the source ended {left - filled} bytes early")
                    filled += count
                flow.paused = False
                for start in range(0, filled, PIECE):
                    piece = buffer[start : min(start + PIECE, filled)]
                    yield piece
                    flow.moved(len(piece))
                left -= filled

    def _extents(self, body: Local) -> Generator[Extent, None, int]:
        """Return how many bytes are left for somebody else to send."""
        at, end = self.start, self.start + self.length
        while at < end:
            count = min(EXTENT, end - at)
            if at + count == end:
                body.confirm()  # before the last byte is sent
            extent = Extent(body.fileno(), at, count)
            yield extent
            if extent.sent < 0:
                break
            if not extent.sent:
                body.confirm()  # a file that has become shorter ends early
            at += extent.sent
            self._flow.moved(extent.sent)
        body.confirm()
        return end - at


class BytesBody:
    """A short body that is in memory."""

    def __init__(self, data: bytes) -> None:
        self.offset = 0
        self.length: int | None = len(data)
        self._left = memoryview(data)

    def readinto(self, buffer: memoryview, /) -> int:
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def close(self) -> None:
        self._left = self._left[:0]

    def __enter__(self) -> BytesBody:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


class Answer(ABC):
    """An answer whose head has arrived, and the body behind it. A context manager; not thread-safe.

    ``headers`` has lower-case names. ``length`` is the announced length of the body, ``None`` where there is none;
    ``offset`` is where in the content the body begins, for whoever knows.
    """

    __slots__ = ("headers", "length", "offset", "patience", "place", "status", "url")

    status: int
    headers: Mapping[str, str]
    length: int | None
    offset: int
    patience: float
    """Seconds that a short body may take: as long as the head."""
    place: str
    """The origin it came from, as an error names it."""
    url: str
    """What was asked for in the end, after the redirects, byte for byte; it may hold a signature."""

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
        deadline = time.monotonic() + self.patience
        data = bytearray()
        block = memoryview(bytearray(min(limit, _BLOCK)))
        while len(data) < limit:
            count = self.readinto(block[: limit - len(data)])
            if not count:
                break
            data += block[:count]
            if time.monotonic() > deadline:
                raise TransportTimeout(f"{self.place} did not send its answer within {self.patience:g} s")
        return bytes(data)

    def read(self, limit: int) -> bytes:
        """Return the whole body.

        Raises:
            ProtocolError: it is longer than ``limit`` bytes.
        """
        data = self.peek(limit + 1)
        if len(data) > limit:
            raise ProtocolError(f"{self.place} sent more than the {limit} bytes that this answer may have")
        return data

    def finish(self) -> None:
        """Read a short rest, so that the connection can be used again, and close."""
        try:
            if self.length is not None and self.length <= _WORTH_DRAINING:
                self.peek(_WORTH_DRAINING)
        finally:
            self.close()

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


_BLOCK = 64 * 1024
_WORTH_DRAINING = 64 * 1024  # bytes; a new connection costs less than reading more than this
