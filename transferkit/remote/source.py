"""Blobs of one place, as they are fetched from there: whole, from an offset on, and in parts."""

from __future__ import annotations

from transferkit import errors
from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.flow import Flow
from transferkit.remote.blob_url import BlobURL
from transferkit.remote.body import BlobBody, open_body
from transferkit.remote.endpoint import Place
from transferkit.remote.proof import RANGE, WHOLE


class BlobSource:
    """The blobs of a place: a ``RangeFetcher``. Thread-safe."""

    def __init__(self, endpoint: Place) -> None:
        self.client = endpoint.client
        self._endpoint = endpoint
        self._urls: dict[Digest, BlobURL] = {}

    def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Flow) -> BlobBody:
        """Open a blob from ``offset`` on; SizeMismatchError or ProtocolError: what came is not the blob."""
        endpoint = self._endpoint
        request = endpoint.read(
            method="GET",
            url=endpoint.home(descriptor.digest),
            ok=(*WHOLE, 206) if offset else WHOLE,
            headers={"Range": f"bytes={offset}-"} if offset else {},
            subject=descriptor.digest.short,
            missing=errors.BlobNotFoundError,
            is_content=True,
        )
        try:
            response = self.client.send(request, flow)
            body = open_body(response, offset, descriptor.size - 1, descriptor)
        except errors.TransferKitError as error:
            self.client.clean(error)
            if not offset:
                raise
            # It has less than what was there already, or no ranges: only a fresh start can tell who is right.
            endpoint.questions.go_without(error, RANGE, descriptor.digest, flow, costly=True)
            return self.fetch(descriptor, flow=flow)
        if offset:
            endpoint.questions.answered(RANGE, descriptor.digest, flow)
        body.length = response.length
        return self._cleaned(body)

    def fetch_range(self, descriptor: Descriptor, chunk: Chunk, *, flow: Flow) -> BlobBody:
        """Open a part of a blob, or all of it (``offset`` 0) where the server has no ranges or refuses the first."""
        url = self._url(descriptor)
        try:
            return self._cleaned(url.fetch(chunk, flow))
        except errors.TransferKitError as error:
            self.client.clean(error)
            if url.has_ranges:
                raise
            self._endpoint.questions.go_without(error, RANGE, descriptor.digest, flow)
        whole = self.fetch(descriptor, flow=flow)
        whole.length = descriptor.size
        return whole

    def _cleaned(self, body: BlobBody) -> BlobBody:
        """Return a body whose errors, too, repeat no secret that was sent."""
        read, clean = body.readinto, self.client.clean

        def readinto(buffer: memoryview) -> int:
            try:
                return read(buffer)
            except errors.TransferKitError as error:
                clean(error)
                raise

        body.readinto = readinto
        return body

    def _url(self, descriptor: Descriptor) -> BlobURL:
        digest = descriptor.digest
        return self._urls.get(digest) or self._urls.setdefault(digest, BlobURL(self._endpoint, descriptor))

    def concerns_all(self, error: errors.TransferKitError) -> bool:
        """Tell whether an error would be the same for every other content: credentials, certificate, no connection."""
        if isinstance(error, errors.RetriesExhaustedError):
            return isinstance(error.__cause__, errors.ConnectError)
        if isinstance(error, (errors.ConnectError, errors.RateLimitedError)):
            return not error.retryable  # it asks for a longer wait than the user allows, or the host is unknown
        return isinstance(error, (errors.UnauthorizedError, errors.CertificateError))
