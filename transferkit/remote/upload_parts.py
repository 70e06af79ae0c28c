"""Uploads in parts to Ollama's registry, which leads each part to the storage behind, or takes it itself.

Each answer to a part names the session of the next one, so the parts are asked for one after the other. Those that are
led to the storage go there side by side, in other workers where the engine has some; one that fails is sent again
alone.

Source: Ollama's public client, August 2026, which has up to 16 on their way.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any, cast

from transferkit.content.flow import Crew, Flow
from transferkit.content.interfaces import Body, Outcome, Shared
from transferkit.errors import NotFoundError, ProtocolError, RegistryError
from transferkit.protocol import routes
from transferkit.protocol.upload import commit_url, received
from transferkit.remote.body import BlobBody
from transferkit.remote.proof import SUCCESS
from transferkit.remote.upload import OCTETS, StartAgain, Upload, UploadSession, status_of
from transferkit.transport.request import Request, RequestBody
from transferkit.transport.response import Response

AT_ONCE = 4  # parts of one blob: each takes a connection, and a part that is cut off is sent again

_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(slots=True, eq=False)
class Part:
    """The bytes from ``start`` to ``end``, not inclusive."""

    start: int
    end: int
    url: str = ""  # the session that it is asked for at, once that is known
    storage: str = ""  # where the registry has led it to
    hasher: Any = None  # MD5, of what was sent last: the storage's own checksum, no secret hangs on it
    md5: bytes = b""  # once it is there

    def hashed(self, content: Body, *, is_ours: bool = False) -> BlobBody:
        """Return the part as it is sent, hashed on the way; with it the content is closed where it ``is_ours``."""
        self.hasher = hasher = hashlib.md5(usedforsecurity=False)

        def readinto(buffer: memoryview) -> int:
            count = content.readinto(buffer)
            hasher.update(buffer[:count])
            return count

        # Not the file itself any more: the kernel would show what it sends to nobody.
        return BlobBody(readinto, content.close if is_ours else lambda: None, content.offset, content.length)


@dataclass(eq=False, kw_only=True)
class PartsSession(UploadSession):
    """A session whose body goes in parts. It tells nobody how far it is; the storage behind it has whole parts."""

    parts: list[Part]
    next_url: str  # where the next part is asked for, or the commit; ``url`` is that of the first one that is missing

    @classmethod
    def begin(cls, url: str, size: int, length: int) -> PartsSession:
        """Return a session of which nothing is there."""
        parts = [Part(start, min(start + length, size)) for start in range(0, size, length)]
        return cls(url, parts=parts, next_url=url)

    def go_on(self, digests: list[bytes]) -> None:
        """Take over the first parts from a process before."""
        for part, md5 in zip(self.parts, digests, strict=False):
            part.md5 = md5
            self.confirmed = part.end
        self.resumed = True

    def note(self) -> dict[str, Any]:
        there = takewhile(lambda part: part.md5, self.parts)
        return {"digests": [part.md5.hex() for part in there]}

    def send(self, upload: Upload) -> Outcome:
        client, counter, flow = upload.client, upload.flow.counter, upload.flow
        left = deque(part for part in self.parts if not part.md5)
        with flow.crew() as crew:
            while (part := self._next(upload, crew, left)) is not None:
                counted = counter.position
                body = upload.body(part.start, part.end, part.hashed, counted=counted)
                request = to_storage(upload, part.storage, body) if part.storage else self._ask(upload, part, body)
                try:
                    response = client.send(request, flow)
                except (NotFoundError, RegistryError) as error:
                    judge(error, request, resumed=self.resumed)
                    raise
                if part.storage:
                    check_storage(upload, response)
                elif self._is_led(upload, part, response):
                    counter.set_position(counted)
                    left.appendleft(part)
                    continue
                counter.set_position(counted + part.end - part.start)
                part.md5 = part.hasher.digest()
        upload.prove()
        commit = upload.commit(commit_url(self.next_url, upload.descriptor.digest, etag=self._etag()))
        try:
            response = client.send(commit, flow)
        except (NotFoundError, RegistryError) as error:
            judge(error, commit, resumed=self.resumed)
            raise
        upload.check_stored(response)
        return Outcome.MOVED

    def _next(self, upload: Upload, crew: Crew, left: deque[Part]) -> Part | None:
        """Return the part that this worker sends next; those that other workers may send are theirs."""
        while True:
            crew.look()
            self._take_in(upload)
            if left and crew.size < AT_ONCE:
                part = left.popleft()
                content = upload.seek(part.start) if part.storage else None
                if not isinstance(content, Shared):
                    return part
                crew.offer(partial(self._send_beside, upload, content, part), part)
            elif (taken := crew.take_back()) is not None:
                return cast(Part, taken)
            elif crew.size:
                crew.wait()
            else:
                return None

    def _take_in(self, upload: Upload) -> None:
        """Count the parts that are there, and note what another process needs to go on with the others."""
        there = sum(part.end - part.start for part in self.parts if part.md5)
        if there != self.confirmed:
            self.confirmed = there
            self.url = next((part.url for part in self.parts if not part.md5 and part.url), self.next_url)
            upload.note(self)

    def _ask(self, upload: Upload, part: Part, body: RequestBody) -> Request:
        """Return the request that asks where a part goes, and has it with it: the registry may take it itself."""
        part.url = self.next_url
        headers = {**OCTETS, "Content-Range": f"{part.start}-{part.end - 1}", "X-Redirect-Uploads": "1"}
        return upload.request(method="PATCH", url=part.url, ok=(201, 202, 204, 307), headers=headers, body=body)

    def _is_led(self, upload: Upload, part: Part, response: Response) -> bool:
        """Take in where the session goes on, and tell whether the part has to go to the storage."""
        client = upload.client
        response.finish()
        url = client.locate(response, location_of(response))
        if response.status == 307:
            part.storage = client.locate(response, response.headers.get("location"))
        elif received(response.headers.get("range"), sent=part.end) not in (part.end, None):
            raise ProtocolError(f"{upload.subject}: {client.origin} has not the {part.end} bytes that it was sent")
        self.next_url = url
        return bool(part.storage)

    def _send_beside(self, upload: Upload, content: Shared, part: Part, flow: Flow) -> None:
        """Send a part to the storage in another worker, whose flow this is."""
        length, start = part.end - part.start, part.start
        body = RequestBody(length, lambda: part.hashed(content.part(start), is_ours=True), flow, start=start, counted=0)
        request = to_storage(upload, part.storage, body)
        try:
            response = upload.client.send(request, flow)
        except (NotFoundError, RegistryError) as error:
            judge(error, request, resumed=self.resumed)
            raise
        check_storage(upload, response)
        part.md5 = part.hasher.digest()

    def _etag(self) -> str:
        """Return the ETag that S3 gives to an object in parts."""
        digests = b"".join(part.md5 for part in self.parts)
        return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(self.parts)}"


def location_of(response: Response) -> str | None:
    """Return where a session goes on."""
    return response.headers.get("docker-upload-location") or response.headers.get("location")


def to_storage(upload: Upload, url: str, body: RequestBody, signed: Mapping[str, str] | None = None) -> Request:
    """Return the request that gives a body to the storage, which sees nothing of the user's."""
    request = upload.commit(url, headers={**OCTETS, **(signed or {})}, body=body)
    return request._replace(ok=(*SUCCESS, *_REDIRECTS), anonymous=True)


def check_storage(upload: Upload, response: Response) -> None:
    """Finish the response of a storage."""
    response.finish()
    if response.status in _REDIRECTS:  # the signature is for this URL; its header fields are nobody else's
        raise ProtocolError(f"{upload.subject}: {response.origin} redirects a signed upload; refused")


def judge(error: NotFoundError | RegistryError, request: Request, *, resumed: bool) -> None:
    """Raise StartAgain where another session may help; else the error counts as it is."""
    if request.body is not None and request.body.error is not None:
        return  # it is the source's, which may be a registry too
    # Another session brings other URLs, where the signature of one has expired.
    expired = request.anonymous and status_of(error) in routes.EXPIRED
    if expired or (resumed and not error.retryable):
        raise StartAgain(error) from error
