"""Pushing one blob to a registry of Ollama's: its body goes straight to the storage behind, whole or in parts.

Source: Ollama's public client, August 2026. Nothing in here is ever sent to another registry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType

from transferkit.content.interfaces import Body, Outcome
from transferkit.errors import NotFoundError, ProtocolError, RegistryError
from transferkit.protocol import routes
from transferkit.protocol.upload import (
    commit_url,
    composite_etag,
    ollama_part,
    part_range,
    received,
    signed_headers,
)
from transferkit.remote.parts import OCTETS, Job, StartAgain
from transferkit.transport.request import RequestBody
from transferkit.transport.response import Response

# Bytes; decimal, as Ollama's client has them.
SMALLEST_PART = 100_000_000
LARGEST_PART = 1_000_000_000

_STORED = (200, 201, 204)
_REDIRECTS = (301, 302, 303, 307, 308)
# What a signed URL answers that has expired. Another session brings another one.
_EXPIRED = frozenset({400, 401, 403})


@dataclass(slots=True)
class OllamaSession:
    """An upload under way. It outlives the attempts at its blob: parts that are there are not sent again."""

    url: str
    """Where its next request goes; absolute."""
    direct: str | None
    """The signed URL that takes the whole body, byte for byte."""
    signed: dict[str, str]
    """The header fields that belong to its signature."""
    part: int
    """The length of the parts, where there is no such URL."""
    parts: list[bytes] = field(default_factory=list)
    """The MD5 digests of the parts that are there."""
    confirmed: int = 0
    """Bytes that are there."""
    resumed: bool = False
    """It has been through an attempt that failed."""


def begin(job: Job) -> OllamaSession | Outcome:
    """Ask whether the registry has the blob, or can mount it; if not, that began a session.

    Raises:
        ProtocolError: the session, or the storage, is where no request may go.
    """
    descriptor = job.descriptor
    source = routes.check_repository(descriptor.source) if descriptor.source else None
    path = (
        f"{routes.mount(job.repository, descriptor.digest, source)}&digest={descriptor.digest}"
        if source
        else f"{routes.uploads(job.repository)}?digest={descriptor.digest}"
    )
    headers = {"Content-Length": "0", "X-Redirect-Uploads": "2", "X-Content-Length": str(descriptor.size)}
    with job.request("POST", path, headers=headers, ok=(201, 202)) as answer:
        answer.finish()
        if answer.status == 201:
            return Outcome.MOUNTED if source else Outcome.PRESENT
        direct = answer.headers.get("x-direct-upload-url")
        return OllamaSession(
            url=_next(job, answer),
            direct=job.client.locate(answer.url, direct) if direct else None,
            signed=signed_headers(answer.headers) if direct else {},
            part=ollama_part(descriptor.size, smallest=SMALLEST_PART, largest=LARGEST_PART),
        )


def _next(job: Job, answer: Response) -> str:
    """Return where the session goes on."""
    headers = answer.headers
    return job.client.locate(answer.url, headers.get("docker-upload-location") or headers.get("location"))


def send(job: Job, session: OllamaSession) -> None:
    """Send what is missing, and end the session.

    Raises:
        StartAgain: the session does not go on, or its storage URL has expired.
        RegistryError, TransportError, ProtocolError: the registry or the storage refused, or a connection did not hold.
    """
    digest, size = job.descriptor.digest, job.descriptor.size
    try:
        if session.direct is None:
            _send_parts(job, session)
            url = commit_url(session.url, digest, etag=composite_etag(session.parts))
        else:
            if session.confirmed < size or not size:
                _put(job, session.direct, job.sender(0, size), session.signed)
                session.confirmed = size
            url = commit_url(session.url, digest)
        job.commit(url)
    except (NotFoundError, RegistryError) as error:
        if session.resumed and not error.retryable:
            raise StartAgain(error) from error
        raise


def _put(job: Job, url: str, sender: RequestBody, signed: Mapping[str, str]) -> None:
    """Give a body to the storage, which sees nothing of the user's."""
    try:
        with job.request(
            "PUT",
            url,
            headers={**OCTETS, **signed},
            sender=sender,
            ok=(*_STORED, *_REDIRECTS),
            timeout=job.client.options.commit_timeout,
            anonymous=True,
        ) as answer:
            answer.finish()
    except RegistryError as error:
        if error.status in _EXPIRED:
            raise StartAgain(error) from error
        raise
    if answer.status in _REDIRECTS:
        # The signature is for this URL; its header fields are nobody else's.
        raise ProtocolError(f"{job.what}: {answer.origin} redirects a signed upload ({answer.status}); refused")


def _send_parts(job: Job, session: OllamaSession) -> None:
    size = job.descriptor.size
    while session.confirmed < size:
        start = session.confirmed
        end = min(start + session.part, size)
        summed = _Summed(job, start, end)
        headers = {**OCTETS, "Content-Range": part_range(start, end), "X-Redirect-Uploads": "1"}
        with job.request(
            "PATCH", session.url, headers=headers, sender=summed.sender, ok=(201, 202, 204, 307)
        ) as answer:
            answer.finish()
        if answer.status == 307:
            target = job.client.locate(answer.url, answer.headers.get("location"))
            job.flow.counter.set_position(start)
            _put(job, target, summed.sender, {})
        else:
            got = received(answer.headers.get("range"), sent=end)
            if got is not None and got != end:
                raise ProtocolError(f"{job.what}: {job.client.origin} has {got} bytes, and was sent {end}")
        session.url = _next(job, answer)
        session.parts.append(summed.digest)
        session.confirmed = end
        job.flow.counter.set_position(end)


class _Summed:
    """A part whose MD5 is taken while it is sent, each time anew."""

    def __init__(self, job: Job, start: int, end: int) -> None:
        job.content.seek(start)
        self._job = job
        self._start = start
        # The storage's own checksum, not ours: no secret and no verification hangs on it.
        self._md5 = hashlib.md5(usedforsecurity=False)
        self.sender = RequestBody(end - start, self._open, job.flow, start=start)

    @contextmanager
    def _open(self) -> Iterator[Body]:
        self._md5 = hashlib.md5(usedforsecurity=False)
        with self._job.content.at(self._start) as body:
            yield _SummedBody(body, self._md5.update)

    @property
    def digest(self) -> bytes:
        return self._md5.digest()


class _SummedBody:
    """A body whose bytes are all shown to somebody; no file any more, for the kernel shows them to nobody."""

    def __init__(self, body: Body, show: Callable[[memoryview], None]) -> None:
        self.offset = body.offset
        self._body = body
        self._show = show

    @property
    def length(self) -> int | None:
        return self._body.length

    def readinto(self, buffer: memoryview, /) -> int:
        count = self._body.readinto(buffer)
        self._show(buffer[:count])
        return count

    def close(self) -> None:
        pass

    def __enter__(self) -> Body:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()
