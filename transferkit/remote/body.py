"""What a response means for a blob: the bytes that were asked for, all of it, or something else."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from transferkit.content.descriptor import Descriptor
from transferkit.errors import ProtocolError, SizeMismatchError
from transferkit.protocol.ranges import check_content_range
from transferkit.remote.proof import is_page
from transferkit.transport.response import Response

_SMALL = 1024 * 1024  # bytes
# RFC 9110 section 8.8.3; a weak one (W/"...") promises nothing about bytes, and If-Match never takes it.
_STRONG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]{1,1024}"\Z')


@dataclass(slots=True, eq=False)
class BlobBody:
    """The bytes of a blob from ``offset`` on, as something else reads them. It closes that with itself."""

    readinto: Callable[[memoryview], int]
    close: Callable[[], None]
    offset: int
    length: int | None
    version: tuple[str, str] | None = None
    """The origin that it came from, and the strong ``ETag`` there, where it has one."""

    def __enter__(self) -> BlobBody:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_body(response: Response, start: int, end: int, descriptor: Descriptor) -> BlobBody:
    """Return the bytes ``start`` to ``end`` (inclusive) of a blob, or (200) all of it.

    Where it is neither, the response is closed: RangeRefused, or as by :func:`check_response`.
    """
    size = descriptor.size
    try:
        if response.status == 206:
            check_content_range(response.headers.get("content-range"), start=start, end=end, total=size)
        else:
            start, end = 0, size - 1
        check_response(response, end - start + 1, descriptor)
    except BaseException:
        response.close()
        raise
    readinto = response.readinto
    if response.status != 206 and "content-encoding" in response.headers and encoding_of(response):
        readinto = _proven(response, descriptor)
    tag = strong_tag(response.headers.get("etag"))
    version = (response.origin, tag) if tag is not None else None
    return BlobBody(readinto, response.close, start, end - start + 1, version)


def strong_tag(said: str | None) -> str | None:
    """Return the value of an ``ETag`` field, unless it is weak, or none."""
    return said if said is not None and _STRONG.match(said) else None


def encoding_of(response: Response) -> str:
    """Return how the body is encoded, as its label says, cut to what an error shows; nothing where it is not."""
    said = response.headers.get("content-encoding", "")
    codings = {part.strip().lower() for part in said.split(",")} - {"", "identity"}
    return said[:40] if codings else ""


def encoded(response: Response, subject: str) -> ProtocolError:
    """Return the error for a body that is encoded, as its label says."""
    return ProtocolError(f"{subject}: {response.origin} sent it with Content-Encoding {encoding_of(response)!r}")


def _proven(response: Response, descriptor: Descriptor) -> Callable[[memoryview], int]:
    """Return what reads a blob that is labelled as encoded: some servers label the right bytes, which are taken."""
    hasher, seen = descriptor.digest.hasher(), 0

    def readinto(buffer: memoryview) -> int:
        nonlocal seen
        count = response.readinto(buffer)
        hasher.update(buffer[:count])
        seen += count
        is_over = not count or seen >= descriptor.size
        if is_over and not (seen == descriptor.size and descriptor.digest.matches(hasher)):
            raise encoded(response, descriptor.digest.short)
        return count

    return readinto


def check_response(response: Response, expected: int, descriptor: Descriptor) -> None:
    """Hold a response to the bytes of a blob themselves, ``expected`` of them where it announces how many.

    Raises:
        ProtocolError: it is encoded, or by the look of it a page, which must not take the place of what is there.
        SizeMismatchError: it announces another length.
    """
    if response.length == expected:
        return
    subject = descriptor.digest.short
    # A proxy that encodes has no length to announce. Of what is longer a part might be kept, and gone on with.
    may_be_kept = response.status == 206 or expected > _SMALL
    if encoding_of(response) and (response.length is not None or may_be_kept):
        raise encoded(response, subject)
    kind = response.headers.get("content-type", "").partition(";")[0][:60]
    hint = f" (it is {kind}: a page of a proxy or of a login?)" if is_page(response) else ""
    if response.length is not None:
        said = f"announces {response.length} bytes, expected {expected}{hint}"
        raise SizeMismatchError(f"{subject}: {response.origin} {said}")
    if hint and response.status != 206:
        raise ProtocolError(f"{subject}: {response.origin} sent a page for the blob{hint}")
