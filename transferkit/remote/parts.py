"""One upload session, and the parts that go to it: what the registry says that it has is compared with what was sent.

Knows the requests ``PATCH`` and ``GET`` of a session. When a session begins, how it ends, and what follows where a
registry does not take parts, is :mod:`~transferkit.remote.upload`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType

from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Body, Fetcher, Flow, Seekable
from transferkit.errors import (
    DeniedError,
    NotFoundError,
    ProtocolError,
    ReadError,
    RegistryError,
    TransferKitError,
    UnauthorizedError,
)
from transferkit.protocol.upload import SMALLEST_PART, part_range, received
from transferkit.transport.client import Client
from transferkit.transport.request import Request, RequestBody
from transferkit.transport.response import Response

OCTETS = {"Content-Type": "application/octet-stream"}
_EMPTY = {"Content-Length": "0"}
_SHRINK = 4  # a part that is too large is followed by parts of a fourth: 64 MiB, 16, 4, 1


class StartAgain(Exception):
    """The session is of no use any more, and another one may be; ``error`` says why."""

    def __init__(self, error: TransferKitError) -> None:
        super().__init__(str(error))
        self.error = error


class PartDropped(ProtocolError):
    """The registry took a part, and does not have it."""


class Content:
    """A blob's content, opened where a request's body begins. A context manager, for one thread."""

    def __init__(self, source: Fetcher, descriptor: Descriptor, flow: Flow) -> None:
        self._source = source
        self._descriptor = descriptor
        self._flow = flow
        self._body: Body | None = None
        self._unread_at: int | None = None

    def seek(self, offset: int) -> Body:
        """Return a body whose next byte is the one at ``offset``.

        Raises:
            SourceError: it is a file that is not there, or not what its digest says.
            ReadError: the source ends before.
        """
        self._unread_at = offset
        # The same file for all parts: opened anew, it would be hashed anew, from its beginning, for each of them.
        if self._body is not None and isinstance(self._body, Seekable):
            self._body.seek(offset, flow=self._flow)
            return self._body
        self.close()
        self._body = body = self._source.fetch(self._descriptor, offset=offset, flow=self._flow)
        skip, buffer = offset - body.offset, self._flow.buffer
        while skip:
            self._flow.check()
            count = body.readinto(buffer[:skip])
            if not count:
                raise ReadError(f"the source ended {skip} bytes early")
            skip -= count
        return body

    @contextmanager
    def at(self, offset: int) -> Iterator[Body]:
        """Open it at ``offset`` for one request; it stays open for the next one."""
        body = self._body if self._unread_at == offset else None
        body = body or self.seek(offset)
        self._unread_at = None
        yield body

    def close(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()

    def __enter__(self) -> Content:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Job:
    """What the requests of one attempt at one blob have in common."""

    client: Client
    repository: str
    descriptor: Descriptor
    content: Content
    scope: str
    flow: Flow

    @property
    def what(self) -> str:
        return self.descriptor.digest.short

    def request(
        self,
        method: str,
        url: str,
        *,
        ok: tuple[int, ...],
        headers: Mapping[str, str] = _EMPTY,
        sender: RequestBody | None = None,
        timeout: float = 0.0,
        anonymous: bool = False,
    ) -> Response:
        request = Request(
            method=method,
            url=url,
            headers=headers,
            body=sender,
            ok=ok,
            timeout=timeout,
            scope=self.scope,
            subject=self.what,
            anonymous=anonymous,
        )
        return self.client.send(request, self.flow)

    def sender(self, start: int, end: int) -> RequestBody:
        """Return the bytes from ``start`` to ``end`` as a request's body, opened and, where need be, hashed so far."""
        # Before the request begins: a server that waits for a body would not wait for 40 GB to be hashed.
        self.content.seek(start)
        return RequestBody(end - start, partial(self.content.at, start), self.flow, start=start)

    def commit(self, url: str, *, headers: Mapping[str, str] = _EMPTY, sender: RequestBody | None = None) -> None:
        """Send the request that ends a session.

        Raises:
            ProtocolError: the registry stored something else.
        """
        digest = self.descriptor.digest
        with self.request(
            "PUT",
            url,
            headers=headers,
            sender=sender,
            # 204 and 200 come from registries before the specification, and from storage behind a redirect.
            ok=(200, 201, 204),
            timeout=self.client.options.commit_timeout,
        ) as answer:
            said = answer.headers.get("docker-content-digest", digest)
            answer.finish()
        if said != digest:
            raise ProtocolError(f"{self.what}: {self.client.origin} stored it as {said[:80]!r}")


@dataclass(slots=True)
class Session:
    """What is known of an upload under way. It outlives the attempts at its blob."""

    url: str
    """Where its next request goes; absolute."""
    minimum: int
    """The smallest part that the registry takes, but for the last one; bytes."""
    part: int
    """The length of the parts, 0 for a single request."""
    refused: int | None = None
    """The shortest body that the registry refused with 413."""
    confirmed: int = 0
    """Bytes that the registry said to have."""
    sent: int = 0
    """The end of what was ever begun to be sent: it cannot have more."""
    resumed: bool = False
    """It has been through an attempt that failed."""
    stalled: bool = False
    """That attempt ended in silence."""
    asked: int = -1
    """How far it was when the registry was asked last."""


def ask(job: Job, session: Session) -> bool:
    """Ask the registry how far a session is; ``False`` where that cannot be gone on with.

    Raises:
        TransportError, RegistryError: there is no answer now, and another attempt may get one.
    """
    try:
        with job.request("GET", session.url, headers={}, ok=(200, 202, 204)) as answer:
            position = received(answer.headers.get("range"), sent=session.sent)
            location = answer.headers.get("location")
            answer.finish()
            if position is None or position > session.sent:
                return False
            if location:
                session.url = job.client.locate(answer.url, location)
            session.confirmed = session.asked = position
            return True
    except (RegistryError, NotFoundError) as error:
        if error.retryable or isinstance(error, (UnauthorizedError, DeniedError)):
            raise
        # 404: it is gone. docker-registry 2 itself ends a session that broke in the middle of a body: its size is not
        # the one that the URL was signed for.
        return False


def send_parts(job: Job, session: Session) -> None:
    """Send all that the registry does not have, part after part.

    Raises:
        PartDropped: it says that it has less than it took.
        RegistryError: it refused one; 416: it wants to go on elsewhere.
    """
    size = job.descriptor.size
    while session.confirmed < size:
        start = session.confirmed
        end = min(start + session.part, size)
        try:
            got = _send_part(job, session, start, end)
        except RegistryError as error:
            if error.status != 413:
                raise
            session.refused = end - start
            smaller = max(session.refused // _SHRINK, SMALLEST_PART, session.minimum)
            if smaller >= session.refused:
                raise
            session.part = smaller
            job.flow.counter.set_position(start)
            continue
        if got is not None and got > end:
            raise ProtocolError(f"{job.what}: {job.client.origin} has {got} bytes, and was sent {end}")
        # ECR answers 201 to a part that it drops, and repeats the Range that it gave for the first one.
        if got is None or got <= start:
            raise PartDropped(f"dropped the part from {start} to {end - 1}")
        session.confirmed = got
        job.flow.counter.set_position(got)


def _send_part(job: Job, session: Session, start: int, end: int) -> int | None:
    """Send one part and return how far the registry says that it is then."""
    sender = job.sender(start, end)
    session.sent = max(session.sent, end)
    headers = {**OCTETS, "Content-Range": part_range(start, end)}
    # 201 and 204 are not the specification's answer; what counts is the Range.
    with job.request("PATCH", session.url, headers=headers, sender=sender, ok=(201, 202, 204)) as answer:
        got = received(answer.headers.get("range"), sent=end)
        location = answer.headers.get("location")
        answer.finish()
        if location:
            session.url = job.client.locate(answer.url, location)
    return got
