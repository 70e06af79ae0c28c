"""Upload sessions of Ollama's registry: the body goes straight to the storage behind, whole or in parts.

Source: Ollama's public client, August 2026. Nothing in here is ever sent to another registry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from transferkit.content.interfaces import Body, Outcome
from transferkit.errors import NotFoundError, ProtocolError, RegistryError
from transferkit.names import check_repository
from transferkit.protocol import routes
from transferkit.protocol.upload import commit_url, received, signed_headers
from transferkit.remote.body import BlobBody
from transferkit.remote.upload import EMPTY, OCTETS, STORED, StartAgain, Upload, UploadSession, status_of
from transferkit.transport.request import Request, RequestBody
from transferkit.transport.response import Response

# Bytes; decimal, as Ollama's client has them.
SMALLEST_PART = 100_000_000
LARGEST_PART = 1_000_000_000

_REDIRECTS = (301, 302, 303, 307, 308)


def begin(upload: Upload) -> UploadSession | Outcome:
    """Ask whether the registry has the blob, or can mount it; if not, that began a session."""
    client, descriptor, name = upload.client, upload.descriptor, upload.endpoint.name
    source = check_repository(descriptor.source) if descriptor.source else None
    path = f"{routes.mount(name, descriptor.digest, source)}&" if source else f"{routes.uploads(name)}?"
    headers = {**EMPTY, "X-Redirect-Uploads": "2", "X-Content-Length": str(descriptor.size)}
    request = upload.request(method="POST", url=f"{path}digest={descriptor.digest}", ok=(201, 202), headers=headers)
    with client.send(request, upload.flow) as response:
        response.finish()
    location = _location(response)
    # Its own client takes an answer that leads nowhere for a yes too.
    if response.status == 201 or not location:
        return Outcome.MOUNTED if source else Outcome.PRESENT
    direct = response.headers.get("x-direct-upload-url")
    return OllamaSession(
        client.locate(response.url, location),
        storage=client.locate(response.url, direct) if direct else None,
        signed=signed_headers(response.headers) if direct else {},
    )


def part_length(size: int) -> int:
    """Return the length of the parts of a blob of ``size`` bytes: a 16th of it, within limits."""
    return min(max(size // 16, SMALLEST_PART), LARGEST_PART)


def composite_etag(parts: list[bytes]) -> str:
    """Return what S3 calls the ``ETag`` of an object in parts, from the MD5 digests (16 bytes each) of its parts."""
    return f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"


def _location(response: Response) -> str | None:
    return response.headers.get("docker-upload-location") or response.headers.get("location")


class OllamaSession(UploadSession):
    """A session of Ollama's kind. It tells nobody how far it is; the storage behind it has whole parts.

    ``storage`` is the signed URL that takes the whole body, byte for byte, and ``signed`` the header fields that belong
    to its signature; without it, the body goes in parts.
    """

    def __init__(self, url: str, *, storage: str | None, signed: Mapping[str, str]) -> None:
        super().__init__(url)
        self._storage = storage
        self._signed = signed
        self._is_stored = False
        self._digests: list[bytes] = []  # MD5, of the parts that are there

    def resume(self, upload: Upload) -> bool:
        return True

    def send(self, upload: Upload) -> Outcome:
        client, flow, size = upload.client, upload.flow, upload.descriptor.size
        length = part_length(size)
        try:
            if self._storage is not None and not self._is_stored:
                request = _to_storage(upload, self._storage, upload.body(0, size), self._signed)
                with client.send(request, flow) as response:
                    _check_storage(upload, response)
                self._is_stored = True
                self.confirmed = size
            while self.confirmed < size:
                start, end = self.confirmed, min(self.confirmed + length, size)
                part = _Part(upload, start, end)
                headers = {**OCTETS, "Content-Range": f"{start}-{end - 1}", "X-Redirect-Uploads": "1"}
                request = upload.request(
                    method="PATCH", url=self.url, ok=(201, 202, 204, 307), headers=headers, body=part.body
                )
                with client.send(request, flow) as response:
                    response.finish()
                if response.status == 307:
                    flow.counter.set_position(start)
                    storage = client.locate(response.url, response.headers.get("location"))
                    request = _to_storage(upload, storage, part.body, {})
                    with client.send(request, flow) as stored:
                        _check_storage(upload, stored)
                elif received(response.headers.get("range"), sent=end) not in (end, None):
                    raise ProtocolError(f"{upload.subject}: {client.origin} has not the {end} bytes that it was sent")
                self.url = client.locate(response.url, _location(response))
                self._digests.append(part.digest)
                self.confirmed = end
                flow.counter.set_position(end)
            etag = composite_etag(self._digests) if self._storage is None else ""
            request = upload.commit(commit_url(self.url, upload.descriptor.digest, etag=etag))
            with client.send(request, flow) as response:
                upload.check_stored(response)
        except (NotFoundError, RegistryError) as error:
            # Another session brings other URLs, where the signature of one has expired.
            expired = request.anonymous and status_of(error) in routes.EXPIRED
            if expired or (self.resumed and not error.retryable):
                raise StartAgain(error) from error
            raise
        return Outcome.MOVED


def _to_storage(upload: Upload, url: str, body: RequestBody, signed: Mapping[str, str]) -> Request:
    """Return the request that gives a body to the storage, which sees nothing of the user's."""
    request = upload.commit(url, headers={**OCTETS, **signed}, body=body)
    return request._replace(ok=(*STORED, *_REDIRECTS), anonymous=True)


def _check_storage(upload: Upload, response: Response) -> None:
    response.finish()
    if response.status in _REDIRECTS:  # the signature is for this URL; its header fields are nobody else's
        raise ProtocolError(f"{upload.subject}: {response.origin} redirects a signed upload; refused")


class _Part:
    """A part whose MD5 is taken while it is sent, each time anew."""

    def __init__(self, upload: Upload, start: int, end: int) -> None:
        upload.seek(start)
        self._upload = upload
        self._start = start
        self.digest = b""
        self.body = RequestBody(end - start, self._open, upload.flow, start=start)

    @contextmanager
    def _open(self) -> Iterator[Body]:
        # The storage's own checksum, not ours: no secret and no verification hangs on it.
        md5 = hashlib.md5(usedforsecurity=False)
        with self._upload.content(self._start) as body:

            def readinto(buffer: memoryview) -> int:
                count = body.readinto(buffer)
                md5.update(buffer[:count])
                return count

            try:
                # Not the file itself any more: the kernel would show what it sends to nobody.
                yield BlobBody(readinto, body.close, offset=body.offset, length=body.length)
            finally:
                self.digest = md5.digest()
