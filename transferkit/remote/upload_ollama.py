"""Upload sessions of Ollama's registry: the body goes straight to the storage behind, whole or in parts.

Source: Ollama's public client, August 2026. Nothing in here is ever sent to another registry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transferkit.content.interfaces import Body, Outcome
from transferkit.errors import NotFoundError, ProtocolError, RegistryError, TransferKitError
from transferkit.protocol import routes
from transferkit.protocol.upload import commit_url, received, signed_headers
from transferkit.remote.body import BlobBody
from transferkit.remote.proof import MOUNT, SUCCESS, contradicts, is_page
from transferkit.remote.upload import EMPTY, OCTETS, StartAgain, Upload, UploadSession, status_of
from transferkit.transport.request import Request, RequestBody
from transferkit.transport.response import Response

# Bytes; decimal, as Ollama's client has them.
SMALLEST_PART = 100_000_000
LARGEST_PART = 1_000_000_000

_REDIRECTS = (301, 302, 303, 307, 308)


def start_session(upload: Upload) -> UploadSession | Outcome:
    """Ask whether the registry has the blob, or can mount it; if not, that started a session."""
    source = upload.mount_source() if upload.descriptor.source else None
    if source is not None:
        try:
            return _begin(upload, source)
        except TransferKitError as error:
            upload.endpoint.questions.go_without(error, MOUNT, upload.descriptor.digest, upload.flow)
    return _begin(upload)


def restore_session(upload: Upload, note: dict[str, Any]) -> UploadSession:
    """Return the session that a process before has left, behind the parts that are there."""
    digests = [bytes.fromhex(text) for text in note["digests"]]
    confirmed = min(len(digests) * part_length(upload.descriptor.size), upload.descriptor.size)
    return OllamaSession(str(note["url"]), resumed=True, confirmed=confirmed, storage=None, signed={}, digests=digests)


def _begin(upload: Upload, source: str | None = None) -> UploadSession | Outcome:
    client, descriptor, name = upload.client, upload.descriptor, upload.endpoint.name
    url = f"{routes.uploads(name, descriptor.digest, source)}{'&' if source else '?'}digest={descriptor.digest}"
    headers = {**EMPTY, "X-Redirect-Uploads": "2", "X-Content-Length": str(descriptor.size)}
    response = upload.ask(upload.request(method="POST", url=url, ok=(201, 202), headers=headers))
    location = _location(response)
    if is_page(response) or contradicts(response, descriptor.digest):
        raise ProtocolError(f"{upload.subject}: {client.origin} does not answer as Ollama's registry does")
    # Its own client takes an answer that leads nowhere for a yes too.
    if response.status == 201 or not location:
        return Outcome.MOUNTED if source else Outcome.PRESENT
    direct = response.headers.get("x-direct-upload-url")
    return OllamaSession(
        client.locate(response, location),
        storage=client.locate(response, direct) if direct else None,
        signed=signed_headers(response.headers) if direct else {},
    )


def part_length(size: int) -> int:
    """Return the length of the parts of a blob of ``size`` bytes: a 16th of it, within limits."""
    return min(max(size // 16, SMALLEST_PART), LARGEST_PART)


def _location(response: Response) -> str | None:
    return response.headers.get("docker-upload-location") or response.headers.get("location")


@dataclass(eq=False, kw_only=True)
class OllamaSession(UploadSession):
    """A session of Ollama's kind. It tells nobody how far it is; the storage behind it has whole parts."""

    storage: str | None  # the signed URL that takes the whole body, byte for byte; without it, that goes in parts
    signed: Mapping[str, str]  # the header fields that belong to its signature
    is_stored: bool = False
    md5: Any = None  # of the part under way, as far as it was sent
    digests: list[bytes] = field(default_factory=list)  # MD5, of the parts that are there

    def note(self) -> dict[str, Any]:
        # A body that goes in one has no place to go on from.
        return {} if self.storage is not None else {"digests": [digest.hex() for digest in self.digests]}

    def send(self, upload: Upload) -> Outcome:
        client, counter, size = upload.client, upload.flow.counter, upload.descriptor.size
        # ``storage`` is where the next body goes, if not to the registry; ``url`` where the session goes on after it.
        storage, url, body = None if self.is_stored else self.storage, self.url, None
        while True:
            start = self.confirmed
            end = size if self.storage is not None else min(start + part_length(size), size)
            is_commit = storage is None and start == size
            if storage is not None:
                request = self._to_storage(upload, storage, body or upload.body(0, size))
            elif is_commit:
                request = upload.commit(commit_url(self.url, upload.descriptor.digest, etag=self._etag()))
            else:
                body = upload.body(start, end, self._hashed)
                headers = {**OCTETS, "Content-Range": f"{start}-{end - 1}", "X-Redirect-Uploads": "1"}
                ok = (201, 202, 204, 307)
                request = upload.request(method="PATCH", url=self.url, ok=ok, headers=headers, body=body)
            try:
                response = client.send(request, upload.flow)
            except (NotFoundError, RegistryError) as error:
                if request.body is not None and request.body.error is not None:
                    raise  # it is the source's, which may be a registry too
                # Another session brings other URLs, where the signature of one has expired.
                expired = request.anonymous and status_of(error) in routes.EXPIRED
                if expired or (self.resumed and not error.retryable):
                    raise StartAgain(error) from error
                raise
            if is_commit:
                upload.check_stored(response)
                return Outcome.MOVED
            response.finish()
            if storage is not None:
                if response.status in _REDIRECTS:  # the signature is for this URL; its header fields are nobody else's
                    raise ProtocolError(f"{upload.subject}: {response.origin} redirects a signed upload; refused")
                storage = None
            else:
                url = client.locate(response, _location(response))
                if response.status == 307:
                    counter.set_position(start)
                    storage = client.locate(response, response.headers.get("location"))
                    continue
                if received(response.headers.get("range"), sent=end) not in (end, None):
                    raise ProtocolError(f"{upload.subject}: {client.origin} has not the {end} bytes that it was sent")
            self.is_stored = self.storage is not None
            if not self.is_stored:
                self.digests.append(self.md5.digest())
            self.confirmed, self.url = end, url
            counter.set_position(end)
            upload.note(self)

    def _to_storage(self, upload: Upload, url: str, body: RequestBody) -> Request:
        """Return the request that gives a body to the storage, which sees nothing of the user's."""
        request = upload.commit(url, headers={**OCTETS, **self.signed}, body=body)
        return request._replace(ok=(*SUCCESS, *_REDIRECTS), anonymous=True)

    def _etag(self) -> str:
        """Return the ETag that S3 gives to an object in parts; nothing where it came whole."""
        if self.storage is not None:
            return ""
        return f"{hashlib.md5(b''.join(self.digests), usedforsecurity=False).hexdigest()}-{len(self.digests)}"

    def _hashed(self, content: Body) -> BlobBody:
        """Return a part as it is sent, its MD5 taken on the way: the storage's own checksum, no secret hangs on it."""
        self.md5 = md5 = hashlib.md5(usedforsecurity=False)

        def readinto(buffer: memoryview) -> int:
            count = content.readinto(buffer)
            md5.update(buffer[:count])
            return count

        # Not the file itself any more: the kernel would show what it sends to nobody.
        return BlobBody(readinto, lambda: None, content.offset, content.length)
