"""The blob endpoints: reading, whole or one range, and unlinking.

Knows conditional and range requests (RFC 9110, sections 13 and 14). A blob's ``ETag`` is its digest: it never changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol

from werkzeug.wrappers import Request

from transferkit.content.digest import Digest
from transferkit.server.answers import Answer, Refusal, origin_for
from transferkit.server.file_part import BLOCK, FilePart
from transferkit.server.store import Repository

_RANGE = re.compile(r"bytes=(?:([0-9]{1,19})-([0-9]{0,19})|-([0-9]{1,19}))\Z", re.ASCII)


class Content(Protocol):
    """A content, or the part of it that was selected, as an iterable of bytes of bounded size. One reader."""

    size: int
    """Bytes of the whole."""

    def select(self, start: int, stop: int) -> None:
        """Give only the bytes from ``start`` to ``stop``, not inclusive."""

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None:
        """Let go of it; twice is fine."""


def location_of(repository: Repository, digest: Digest) -> str:
    return f"/v2/{repository.name}/blobs/{digest}"


def read(repository: Repository, request: Request, digest: Digest) -> Answer:
    """``GET`` and ``HEAD``."""
    return content_of(open_blob(repository, digest), request, digest)


def open_blob(repository: Repository, digest: Digest) -> FilePart:
    """Open a blob of this repository.

    Raises:
        Refusal: 404, it has no such blob.
    """
    if not repository.has_blob(digest):
        raise _unknown(digest)
    try:
        return FilePart.open(repository.store.content(digest))
    except FileNotFoundError:  # somebody tidied the directory up by hand
        raise _unknown(digest) from None


def content_of(file: Content, request: Request, digest: Digest) -> Answer:
    """Answer ``GET`` or ``HEAD`` with the content of ``digest``, which ``file`` has from now on, or a range of it.

    Raises:
        Refusal: 412 or 416.
    """
    try:
        return _content(file, request, digest)
    except BaseException:
        file.close()
        raise


def _content(file: Content, request: Request, digest: Digest) -> Answer:
    size = file.size
    headers = {"Accept-Ranges": "bytes", "ETag": f'"{digest}"', "Docker-Content-Digest": digest}
    if "HTTP_IF_MATCH" in request.environ and not request.if_match.contains(digest):
        raise Refusal(412, "BLOB_UNKNOWN", "the blob is another one than If-Match names", headers=headers)
    if "HTTP_IF_NONE_MATCH" in request.environ and request.if_none_match.contains_weak(digest):
        file.close()
        return Answer(304, headers)
    start, stop, status = 0, size, 200
    span = _span(request, digest, size)
    if span is not None:
        start, stop, status = *span, 206
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    headers["Content-Type"] = "application/octet-stream"
    headers["Content-Length"] = str(stop - start)
    if origin := origin_for(request):
        headers["Location"] = origin + request.path
    file.select(start, stop)
    body: bytes | Content = file
    if request.method == "HEAD":
        file.close()
        body = b""
    elif stop - start <= BLOCK and isinstance(file, FilePart):
        body = file.whole()  # in one packet with the head
    return Answer(status, headers, body)


def unlink(repository: Repository, digest: Digest) -> Answer:
    """``DELETE``: this repository no longer has it; others may."""
    if not repository.unlink_blob(digest):
        raise _unknown(digest)
    return Answer(202)


def _span(request: Request, digest: Digest, size: int) -> tuple[int, int] | None:
    """Return start and stop of the one range that was asked for, ``None`` for the whole.

    Several ranges, other units and what does not parse get the whole: RFC 9110, section 14.2 allows that.
    """
    match = _RANGE.match(request.headers.get("Range", ""))
    if match is None or ("HTTP_IF_RANGE" in request.environ and request.headers["If-Range"] != f'"{digest}"'):
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        start, stop = max(size - int(suffix), 0), size
    else:
        start, stop = int(first), min(int(last) + 1 if last else size, size)
        if last and int(last) < int(first):
            return None
    if start >= stop:
        raise Refusal(416, "RANGE_INVALID", f"the blob has {size} bytes", headers={"Content-Range": f"bytes */{size}"})
    return start, stop


def _unknown(digest: Digest) -> Refusal:
    return Refusal(404, "BLOB_UNKNOWN", "the repository has no such blob", detail={"digest": digest})
