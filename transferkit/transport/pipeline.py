"""Several requests written together on one connection, and their answers one after the other (RFC 9112, section 9.3.2).

Only for what may be asked for again: small contents, by ``GET``, on a connection that has answered before. Whatever is
not the plain answer that was expected ends it without an error: the caller asks for the rest in the ordinary way, which
knows redirects, challenges, refusals and retries. What an answer is worth, the digest tells.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

from transferkit.content.flow import Flow
from transferkit.errors import ProtocolError, ReadError, StalledError, VerificationError
from transferkit.protocol.head import END, MAX_HEAD, Head, read_head
from transferkit.transport.connections import WakeableConnection, WakeablePool
from transferkit.transport.failures import convert
from transferkit.transport.http11 import head_of, on_the_wire
from transferkit.transport.request import Lane, Request
from transferkit.transport.response import ChunkedResponse, Response, StreamResponse


class Wanted(NamedTuple):
    """One of the contents that are asked for together."""

    path: str
    size: int
    subject: str
    """What it is called where the server refuses it."""


Refused = Callable[[Response, Wanted], bool]
"""Raises the error of a refusal; else whether there are other credentials now, with which to ask again."""

_HEARD = frozenset({401, 429})  # and what is a failure of the server's
_LATE = (TimeoutError, BlockingIOError)  # that is how the kernel's own time limit shows
_HEAD = 1024  # bytes that are looked through first for the end of a head; most have under 500


def pipeline(
    request: Request,
    prefix: str,
    wanted: Sequence[Wanted],
    more: Callable[[], Sequence[Wanted]],
    refused: Refused,
    lane: Lane,
    flow: Flow,
) -> Generator[memoryview, None, None] | None:
    """Ask for the paths of ``wanted``, behind ``prefix``, as ``request`` does for its own, and yield their contents:
    each of its size, in the worker's buffer, good until the next one.

    When half of what was asked for first is still to come, ``more`` says what to ask for next, so that the server
    always has something to do; once it says nothing, it is not asked again.

    ``None``: nothing was asked, as there is no connection that has answered before, or the server wants one request at
    a time. The contents may end early, which is no error; but a server that has had enough, or fails, or wants other
    credentials, is heard: ``refused`` raises the error of its answer to one of them. An answer that breaks off, and
    silence, are errors, too. A VerificationError that is thrown in says that the content was not the right one.
    """
    pool = lane.pool
    if pool is None or not pool.pipelines.may_begin or flow.fresh:
        return None
    connection = pool.idle()
    if connection is None:
        return None
    heads = _heads(request, prefix, lane)
    return _converse(connection, pool, heads, wanted, more, refused, request, lane, flow)


def _heads(request: Request, prefix: str, lane: Lane) -> Callable[[Sequence[Wanted]], bytes]:
    """Return what makes the heads of requests, which differ in their paths alone."""
    template = head_of(request._replace(target=prefix), lane)
    before, after = template.split(b" HTTP/1.1\r\n", 1)
    after = b" HTTP/1.1\r\n" + after
    return lambda wanted: b"".join([before + on_the_wire(one.path).encode("ascii") + after for one in wanted])


def _converse(
    connection: WakeableConnection,
    pool: WakeablePool,
    heads: Callable[[Sequence[Wanted]], bytes],
    first: Sequence[Wanted],
    more: Callable[[], Sequence[Wanted]],
    refused: Refused,
    request: Request,
    lane: Lane,
    flow: Flow,
) -> Generator[memoryview, None, None]:
    answers, knowledge = _Answers(connection, flow), pool.pipelines
    owed, half, further = deque(first), len(first) // 2, True
    answered, keeps, is_right = 0, True, True
    is_judged = is_renewed = is_silent = False  # a cut says nothing of the server
    try:
        flow.attach(connection.abort)
        if lane.public_only:
            connection.check_public()
        connection.bound(request.timeout)
        connection.sock.sendall(heads(first))
        while owed:
            if further and len(owed) <= half:
                wanted = more()
                owed.extend(wanted)
                further = bool(wanted) and _is_sent(connection, heads(wanted))
            size = owed[0].size
            head = answers.head()
            if not _is_plain(head, size):
                is_right, is_judged = False, True
                if head.status in _HEARD or head.status >= 500:
                    kind = ChunkedResponse if head.chunked else StreamResponse
                    rest = answers.rest()
                    answer = kind(connection, head, head.length, rest, request, lane, flow, False)
                    is_renewed = refused(answer, owed[0])
                break
            content = answers.content(size)
            owed.popleft()
            answered, keeps, is_right, is_judged = answered + 1, head.keeps_alive, False, False
            yield content
            is_right = True
            if not keeps:
                break
        is_judged = True
    except VerificationError:
        is_right, is_judged = False, True
        raise
    except StalledError:
        is_silent = True
        raise
    except (OSError, ReadError) as error:
        try:
            flow.check()
        except StalledError:
            is_silent = True
            raise
        is_right, is_judged, is_silent = False, True, not answers.has_begun or isinstance(error, _LATE)
        if isinstance(error, ReadError) and answers.are_within:
            raise ReadError(f"{lane.origin} closed the connection within an answer") from None
        if isinstance(error, OSError) and (answers.are_within or isinstance(error, _LATE)):
            raise convert(error, lane) from error
    except ProtocolError:
        is_right, is_judged = False, True
    finally:
        flow.detach(connection.abort)
        if is_right and keeps and not owed and answers.are_read:
            pool.give_back(connection)
        else:
            connection.close()
        if is_silent:
            # It may have closed the connection while that was idle, or the network is to blame: once, that is.
            knowledge.broke()
        elif is_judged:
            # A token that has ended says nothing of the server, unless each of them is good for few requests.
            is_announced = is_renewed or (is_right and not keeps)
            knowledge.ended(answered, len(owed) + (not is_right), announced=is_announced)


def _is_sent(connection: WakeableConnection, heads: bytes) -> bool:
    """Write further requests; ``False``: the server takes none any more, and what it has answered may still be read."""
    try:
        connection.sock.sendall(heads)
    except OSError:
        return False
    return True


def _is_plain(head: Head, size: int) -> bool:
    """Tell whether an answer is a content of so many bytes, as it stands."""
    return head.status == 200 and not head.chunked and head.length == size and "content-encoding" not in head.fields


class _Answers:
    """The answers on one connection, in the worker's buffer."""

    def __init__(self, connection: WakeableConnection, flow: Flow) -> None:
        self.has_begun = False
        self._in_content = False
        self._connection = connection
        self._flow = flow
        self._buffer = flow.buffer
        self._at = self._end = 0

    @property
    def are_read(self) -> bool:
        """Whether nothing came that was not asked for."""
        return self._at == self._end

    @property
    def are_within(self) -> bool:
        """Whether a part of an answer has come, and not all of it."""
        return self._in_content or self._at != self._end

    def head(self) -> Head:
        """Return the next head. ProtocolError: it is none; ReadError, OSError: it did not come."""
        looked, self._in_content = 0, False
        while True:
            data = self._buffer[self._at : min(self._end, self._at + max(_HEAD, looked))].tobytes()
            end = data.find(END)
            if end >= 0:
                self._at += end + len(END)
                return read_head(data[: end + len(END)])
            if len(data) >= MAX_HEAD:
                raise ProtocolError("the head of an answer is too long")
            looked = 2 * len(data)
            if self._at + len(data) == self._end:
                self._receive()

    def content(self, size: int) -> memoryview:
        """Return the next ``size`` bytes once they are here, and count them as they come."""
        self._in_content = True
        flow, have = self._flow, min(self._end - self._at, size)
        flow.moved(have)
        if self._at + size > len(self._buffer):
            self._make_room()
        while have < size:
            count = min(self._receive(), size - have)
            flow.moved(count)
            have += count
        content = self._buffer[self._at : self._at + size]
        self._at += size
        return content

    def rest(self) -> bytes:
        """Return what has come and was not read."""
        rest, self._at = self._buffer[self._at : self._end].tobytes(), self._end
        return rest

    def _receive(self) -> int:
        if self._at == self._end:
            self._at = self._end = 0
        elif self._end == len(self._buffer):
            self._make_room()
            if self._end == len(self._buffer):
                raise ProtocolError("the head of an answer is longer than the buffer")
        self._connection.acknowledge()
        count: int = self._connection.sock.recv_into(self._buffer[self._end :])
        # Before anything is counted or written: a woken read looks like a clean end.
        self._flow.check()
        if not count:
            raise ReadError("the connection ended")
        self.has_begun = True
        self._end += count
        return count

    def _make_room(self) -> None:
        left = self._end - self._at
        self._buffer[:left] = self._buffer[self._at : self._end]
        self._at, self._end = 0, left
