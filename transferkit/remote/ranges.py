"""Parts of a blob: asked for where its URL is known to be, and checked to be just the part."""

from __future__ import annotations

import logging

from transferkit.content.chunk import Chunk
from transferkit.content.interfaces import Flow
from transferkit.errors import ConnectError, ProtocolError, RegistryError, SizeMismatchError
from transferkit.protocol.origin import redact
from transferkit.protocol.ranges import RangeRefused, check_content_range
from transferkit.protocol.routes import EXPIRED
from transferkit.remote.blob_url import BlobURL, Target
from transferkit.remote.body import BlobBody, check_response
from transferkit.transport.response import Response

logger = logging.getLogger(__name__)


def fetch_range(url: BlobURL, chunk: Chunk, flow: Flow) -> BlobBody:
    """Open the bytes of ``chunk``; ``offset`` is its start, or 0 where the server sends all of the blob instead.

    Raises:
        BlobNotFoundError: the repository does not have it.
        RegistryError: a refusal; by a storage URL, also of the one that was asked for when the first had expired.
        SizeMismatchError: the blob has another size there.
        RangeRefused: the answer is not the range.
        ProtocolError: it is no blob, or (retryable) seems to be another version of it.
    """
    target, response = url.target, None
    if target is not None:
        try:
            response = url.endpoint.client.send(url.request(chunk, target), flow)
        except RegistryError as error:
            if not target.foreign or error.status not in EXPIRED:
                raise
            logger.debug("%s: %s answers %d; resolved again", url.subject, redact(target.url), error.status)
        except ConnectError:
            url.leave(target)
            raise
    if target is None or response is None:
        target, response = _find(url, chunk, target, flow)
    try:
        return _check(url, target, chunk, response)
    except BaseException:
        response.close()
        raise


def _find(url: BlobURL, chunk: Chunk, expired: Target | None, flow: Flow) -> tuple[Target, Response]:
    """Ask the registry for a part, or where another thread has found the target meanwhile, that one."""
    send = url.endpoint.client.send
    with url.flight.turn(flow):
        target = url.target
        if target is None or target is expired:
            response = send(url.request(chunk), flow)
            return url.found(response), response
    return target, send(url.request(chunk, target), flow)


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
    else:  # 412
        response.finish()
    url.unpin(target)
    raise ProtocolError(
        f"{subject}: {response.origin} has another version of it now than for the first part", retryable=True
    )
