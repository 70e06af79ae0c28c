"""What goes out: a request as one value, the body that it may have, and the lane that takes it to its origin."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from transferkit.content.flow import Closing, Flow
from transferkit.content.interfaces import Body, Local, Seekable
from transferkit.errors import NotFoundError, ProtocolError, ReadError
from transferkit.protocol.origin import Origin, redact

if TYPE_CHECKING:
    from transferkit.transport.adapter import PooledAdapter
    from transferkit.transport.connections import WakeablePool


# Bytes between two counts of what was sent. A slow link must be seen to move: 256 KiB in the 10 s of a stall would ask
# for 26 KB/s of every connection.
PIECE = 64 * 1024
EXTENT = 1024 * 1024  # bytes that the kernel is asked to send at most; it takes what there is room for


class Fields(dict[str, str]):
    """Header fields that many requests have, with the ``lines`` that they are on the wire. Never changed."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__(fields)
        self.lines = lines_of(fields)


def lines_of(fields: Mapping[str, str]) -> str:
    """Return header fields as they go out; one that could be read as more than one is a ProtocolError."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
    if lines.count("\n") != len(fields) or lines.count("\r") != len(fields):
        raise ProtocolError("a header field holds a line break, and is not sent")
    return lines


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
    is_content: bool = False
    """Whether it asks for the bytes of a blob: Ollama's registry is shown no signature with those."""
    anonymous: bool = False
    """Send nothing of the user's, even to the registry's own origin: to a URL that is signed."""
    origin: Origin | None = None
    """Where it goes; the client says so, and what follows."""
    target: str = ""
    """Path and query, byte for byte."""
    trusted: bool = False
    """Whether ``origin`` is the registry's own: what a session says about credentials holds there alone."""
    public_only: bool = False
    """Whether ``origin`` is a name that may lead to no private address: a public registry leads there."""

    def __repr__(self) -> str:
        return f"<Request {self.method} {redact(self.url)}>"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Lane:
    """How requests to one origin travel, and what a session says about it; asked once."""

    origin: str
    """The origin, as an error names it."""
    proxy: str | None = None
    """The proxy on the way, without user name and password."""
    proxy_from: str = ""
    """Who says that it is to be taken: the session, or a variable of the environment."""
    connect_timeout: float = 10.0
    """Seconds that a new connection may take."""
    patience: float = 10.0
    """Seconds that a body may take which the job can do without."""
    carries: bool = False
    """Whether the session's own ``auth`` and cookies go along."""
    public_only: bool = False
    """Whether no private address is connected to."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """``verify``, ``cert`` and ``proxies``, from the session and the environment."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Fields that the session adds."""
    is_plain: bool = True
    """Whether a request needs nothing that only ``requests`` knows."""
    adapter: PooledAdapter | None = None
    """The session's adapter, where it is one of ours; what follows says how requests travel below that."""
    pool: WakeablePool | None = None
    tunnel: bool = False
    """Whether a proxy is asked to CONNECT."""
    before_target: str = ""
    """What stands before each target: of a proxy that is not asked to connect, it is the origin."""
    fields: str = ""
    """The header fields of every request: the host, and what a proxy wants to see."""


@dataclass(slots=True)
class Extent:
    """A piece of a file, for the kernel to send: who asked for it says in ``sent`` how much of it went out, and by -1
    that the kernel cannot send from this file."""

    fd: int
    offset: int
    count: int
    sent: int = 0


class RequestBody(Closing):
    """The body of a request: ``length`` bytes that can be produced again when a redirect asks for it. One thread's.

    ``start`` is where in the content they begin; ``open_body`` opens it there. ``counted`` is where the flow's counter
    stands before the first of them, by default there too. Each iteration begins at the first byte again: a user's
    adapter may retry by itself. A context manager.
    """

    def __init__(
        self,
        length: int,
        open_body: Callable[[], AbstractContextManager[Body]],
        flow: Flow,
        *,
        start: int = 0,
        counted: int | None = None,
    ) -> None:
        self.length = length
        self.start = start
        self.counted = start if counted is None else counted
        self.error: Exception | None = None
        self._open = open_body
        self._flow = flow
        self._sent: Generator[Any, None, None] | None = None

    def rewind(self) -> None:
        """Take back what was sent: the body starts again from its first byte."""
        self._flow.counter.set_position(self.counted)

    def close(self) -> None:
        """Let go of the content."""
        if self._sent is not None:
            # Else the generator's finally would run at garbage collection, and end the watch of the next body.
            self._sent.close()

    def __iter__(self) -> Generator[memoryview, None, None]:
        return self.pieces()

    def pieces(self, *, by_kernel: bool = False) -> Generator[Any, None, None]:
        """Yield the body in pieces of the worker's buffer; ``by_kernel``: as ``Extent``s where it is a file that need
        not be hashed."""
        if self._sent is not None:
            self.close()
            self.rewind()
        self._sent = self._pieces(by_kernel)
        return self._sent

    def _pieces(self, by_kernel: bool) -> Generator[Any, None, None]:
        try:
            with self._open() as body:
                self._flow.watch.start()
                left = self.length
                if by_kernel and isinstance(body, Local):
                    left = yield from self._extents(body)
                    if left:
                        body.seek(self.start + self.length - left, flow=self._flow)
                yield from self._blocks(body, left)
        except Exception as error:
            # urllib3 takes every OSError for the connection's; what the source raised is raised again as it was.
            self.error = error
            raise
        finally:
            self._flow.watch.stop()

    def _blocks(self, body: Body, left: int) -> Generator[memoryview, None, None]:
        flow, buffer = self._flow, self._flow.buffer
        is_here = issubclass(type(body), Seekable)  # isinstance takes 15 us for a protocol
        while left:
            filled, room = 0, min(len(buffer), left)
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
            body.confirm()  # before the last byte is sent; and a file that has become shorter brings nothing more
            extent = Extent(body.fileno(), at, min(EXTENT, end - at))
            yield extent
            if extent.sent < 0:
                break
            at += extent.sent
            self._flow.moved(extent.sent)
        body.confirm()
        return end - at


class FormBody(RequestBody):
    """A short body that is no content: it counts for nothing, and nobody watches it."""

    def __init__(self, data: bytes, flow: Flow) -> None:
        super().__init__(len(data), lambda: BytesBody(data), flow)
        self._data = memoryview(data)

    def rewind(self) -> None:
        """Nothing was counted."""

    def _pieces(self, by_kernel: bool) -> Generator[Any, None, None]:
        yield self._data


class BytesBody(Closing):
    """A short body that is in memory."""

    def __init__(self, data: bytes) -> None:
        self.offset = 0
        self.length: int | None = len(data)
        self.readinto = io.BytesIO(data).readinto

    def close(self) -> None:
        """Nothing is held."""
