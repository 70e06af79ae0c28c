"""Upload sessions of Ollama's registry: the body goes straight to the storage behind, whole or in parts.

What goes in parts, ``upload_parts`` knows. Source: Ollama's public client, August 2026. Nothing in here is ever sent to
another registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transferkit.content.interfaces import Outcome
from transferkit.errors import NotFoundError, ProtocolError, RegistryError, TransferKitError
from transferkit.protocol import routes
from transferkit.protocol.upload import commit_url, signed_headers
from transferkit.remote.proof import MOUNT, contradicts, is_page
from transferkit.remote.upload import EMPTY, Upload, UploadSession
from transferkit.remote.upload_parts import (
    AT_ONCE,
    PartsSession,
    check_storage,
    judge,
    location_of,
    to_storage,
)

# Bytes; decimal, as Ollama's client has them.
SMALLEST_PART = 100_000_000
LARGEST_PART = 1_000_000_000


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
    session = PartsSession.begin(str(note["url"]), upload.descriptor.size, part_length(upload.descriptor.size))
    session.go_on([bytes.fromhex(text) for text in note["digests"]])
    return session


def _begin(upload: Upload, source: str | None = None) -> UploadSession | Outcome:
    client, descriptor, name = upload.client, upload.descriptor, upload.endpoint.name
    url = f"{routes.uploads(name, descriptor.digest, source)}{'&' if source else '?'}digest={descriptor.digest}"
    headers = {**EMPTY, "X-Redirect-Uploads": "2", "X-Content-Length": str(descriptor.size)}
    response = upload.begin(upload.request(method="POST", url=url, ok=(201, 202), headers=headers), source)
    location = location_of(response)
    if is_page(response) or contradicts(response, descriptor.digest):
        raise ProtocolError(f"{upload.subject}: {client.origin} does not answer as Ollama's registry does")
    # Its own client takes an answer that leads nowhere for a yes too.
    if response.status == 201 or not location:
        return Outcome.MOUNTED if source else Outcome.PRESENT
    direct = response.headers.get("x-direct-upload-url")
    url = client.locate(response, location)
    if not direct:
        return PartsSession.begin(url, descriptor.size, part_length(descriptor.size))
    return DirectSession(url, storage=client.locate(response, direct), signed=signed_headers(response.headers))


def part_length(size: int) -> int:
    """Return the length of the parts of a blob of ``size`` bytes: a 16th of it, within limits."""
    return min(max(size // 16, SMALLEST_PART), LARGEST_PART)


def parts_at_once(size: int) -> int:
    """Return how many parts of a blob of ``size`` bytes may be on their way at once."""
    return min(max(-(-size // part_length(size)), 1), AT_ONCE)


@dataclass(eq=False, kw_only=True)
class DirectSession(UploadSession):
    """A session whose body goes to the storage behind in one request. It tells nobody how far it is."""

    storage: str  # the signed URL that takes the whole body, byte for byte
    signed: Mapping[str, str]  # the header fields that belong to its signature
    is_stored: bool = False

    def send(self, upload: Upload) -> Outcome:
        client, size = upload.client, upload.descriptor.size
        while True:
            if self.is_stored:
                request = upload.commit(commit_url(self.url, upload.descriptor.digest))
            else:
                request = to_storage(upload, self.storage, upload.body(0, size), self.signed)
            try:
                response = client.send(request, upload.flow)
            except (NotFoundError, RegistryError) as error:
                judge(error, request, resumed=self.resumed)
                raise
            if self.is_stored:
                upload.check_stored(response)
                return Outcome.MOVED
            check_storage(upload, response)
            self.is_stored, self.confirmed = True, size
            upload.flow.counter.set_position(size)
