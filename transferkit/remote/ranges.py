"""What a response means for a blob, and the parts of one: asked for where its URL is known to be, and checked."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from transferkit.content.chunk import Chunk
from transferkit.content.interfaces import Flow
from transferkit.errors import ConnectError, ProtocolError, RegistryError, SizeMismatchError
from transferkit.protocol.origin import redact
from transferkit.protocol.ranges import RangeRefused, check_content_range
from transferkit.protocol.routes import EXPIRED
from transferkit.remote.blob_url import BlobURL, Target
from transferkit.transport.response import Response

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class BlobBody:
    """The bytes of a blob from ``offset`` on, as something else reads them. It closes that with itself."""

    readinto: Callable[[memoryview], int]
    close: Callable[[], None]
    offset: int
    length: int | None

    def __enter__(self) -> BlobBody:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_response(response: Response, expected: int | None, subject: str) -> None:
    """Hold a response to the bytes of the blob themselves, ``expected`` of them where it announces how many.

    Raises:
        ProtocolError: it is encoded, or by the look of it a page, which must not take the place of what is there.
        SizeMismatchError: it announces another length.
    """
    encoding = response.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise ProtocolError(f"{subject}: {response.origin} sent it with Content-Encoding {encoding[:40]!r}")
    if response.length == expected:
        return
    kind = response.headers.get("content-type", "").partition(";")[0][:60]
    hint = f" (it is {kind}: a page of a proxy or of a login?)" if "html" in kind else ""
    if response.length is not None:
        text = f"{subject}: {response.origin} announces {response.length} bytes, expected {expected}{hint}"
        raise SizeMismatchError(text)
    if hint and response.status == 200:
        raise ProtocolError(f"{subject}: {response.origin} sent a page for the blob{hint}")


def fetch_range(url: BlobURL, chunk: Chunk, flow: Flow) -> BlobBody:
    """Open the bytes of ``chunk``; ``offset`` is its start, or 0 where the server sends all of the blob instead.

    Raises:
        BlobNotFoundError: the repository does not have it.
        RegistryError: a refusal; by a storage URL, also of the one that was asked for when the first had expired.
        RangeRefused, SizeMismatchError: the response is not the range, or not of a blob of this size.
        ProtocolError: it is no blob, or (retryable) seems to be another version of it.
    """
    send = url.endpoint.client.send
    target, response = url.target, None
    if target is not None:
        try:
            response = send(url.request(chunk, target), flow)
        except RegistryError as error:
            if not target.foreign or error.status not in EXPIRED:
                raise
            logger.debug("%s: %s answers %d; resolved again", url.subject, redact(target.url), error.status)
        except ConnectError:
            if target.foreign and url.target is target:
                url.target = None  # the registry may know another
            raise
    if target is None or response is None:
        expired, response = target, None
        with url.flight.turn(flow):
            target = url.target
            if target is None or target is expired:
                response = send(url.request(chunk), flow)
                target = url.found(response)
        if response is None:  # another thread has found the target meanwhile
            response = send(url.request(chunk, target), flow)
    try:
        return _check(url, target, chunk, response)
    except BaseException:
        response.close()
        raise


def _check(url: BlobURL, target: Target, chunk: Chunk, response: Response) -> BlobBody:
    size, subject = url.descriptor.size, url.subject
    if response.status == 206:
        check_content_range(response.headers.get("content-range"), start=chunk.start, end=chunk.end, total=size)
        check_response(response, chunk.size, subject)
        if url.check_version(target, response.headers.get("etag")):
            url.has_ranges = True
            return BlobBody(response.readinto, response.close, offset=chunk.start, length=chunk.size)
    elif response.status == 200:
        check_response(response, size, subject)
        return BlobBody(response.readinto, response.close, offset=0, length=size)
    elif response.status == 416:
        said = response.headers.get("content-range", "")
        response.finish()
        if said.startswith("bytes */") and said != f"bytes */{size}":
            raise SizeMismatchError(f"{subject}: {response.origin} has {said[8:40]} bytes of it, expected {size}")
        raise RangeRefused(f"{subject}: {response.origin} refuses the bytes {chunk} of {size} (416)")
    # Or 412. Without If-Match from now on: mirrors with tags of their own would refuse again and again. Whether it was
    # another version, the digest of the whole tells.
    url.pins, target.etag = False, None
    raise ProtocolError(
        f"{subject}: {response.origin} has another version of it now than for the first part", retryable=True
    )
