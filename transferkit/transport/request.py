"""What goes out on one request: the request itself, as one value, and the body that it may have."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, TypeVar

from transferkit.content.interfaces import Body, Flow, Local, Seekable
from transferkit.errors import NotFoundError, ReadError
from transferkit.protocol.origin import Origin

T = TypeVar("T")

# Bytes between two counts of what was sent. A slow link must be seen to move: 256 KiB in the 10 s of a stall would ask
# for 26 KB/s of every connection.
PIECE = 64 * 1024
EXTENT = 1024 * 1024  # bytes that the kernel is asked to send at most; it takes what there is room for


class Request(NamedTuple):
    """One request, from the client to the wire. Immutable: a redirect or a challenge makes another one of it.

    A tuple because two are made for each blob, and a frozen dataclass takes 3 us to be made. By keyword alone.
    """

    method: str
    url: str
    """A path of the registry's API, or an absolute URL that ``Client.locate`` returned; byte for byte."""
    ok: Collection[int]
    """The statuses that are no refusal."""
    headers: Mapping[str, str] = MappingProxyType({})
    body: RequestBody | None = None
    timeout: float = 0.0
    """Seconds from the end of the request to the head of the response; 0 is ``response_timeout``."""
    scope: str = ""
    """The permission that it needs: requests of one scope share a token."""
    subject: str = ""
    """What is asked for, as an error names it: a short digest, a tag."""
    missing: type[NotFoundError] = NotFoundError
    """What a 404 means."""
    anonymous: bool = False
    """Send nothing of the user's, even to the registry's own origin: to a URL that is signed."""
    origin: Origin | None = None
    """Where it goes; the client says so, and what follows."""
    target: str = ""
    """Path and query, byte for byte."""
    trusted: bool = False
    """Whether ``origin`` is the registry's own: what a session says about credentials holds there alone."""
    connect_timeout: float = 10.0
    """Seconds that a new connection may take, if one is needed."""


@dataclass(slots=True)
class Extent:
    """A piece of a file, for the kernel to send: who asked for it says in ``sent`` how much of it went out.

    -1 says that the kernel cannot send from this file.
    """

    fd: int
    offset: int
    count: int
    sent: int = 0


class RequestBody:
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
        self._flow.counter.set_position(self.start)

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
            self._flow.watch.end()

    def _pieces(self, *, by_kernel: bool = False) -> Iterator[Any]:
        flow = self._flow
        buffer = flow.buffer
        with self._open() as body:
            flow.watch.begin()
            left = self.length
            is_here = isinstance(body, Seekable)
            if by_kernel and isinstance(body, Local):
                left = yield from self._extents(body)
                if left:
                    body.seek(self.start + self.length - left, flow=flow)
            while left:
                filled = 0
                room = min(len(buffer), left)
                flow.watch.paused = is_here  # who waits for a disk waits for no connection
                while filled < room:
                    count = body.readinto(buffer[filled:room])
                    if not count:
                        raise ReadError(f"the source ended {left - filled} bytes early")
                    filled += count
                flow.watch.paused = False
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
