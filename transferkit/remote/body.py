"""What a response means for a blob: the bytes that were asked for, all of it, or something else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from transferkit.errors import ProtocolError, SizeMismatchError
from transferkit.protocol.ranges import check_content_range
from transferkit.transport.response import Response


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


def open_body(response: Response, start: int, end: int, size: int, subject: str) -> BlobBody:
    """Return the bytes ``start`` to ``end`` (inclusive) of a blob of ``size`` bytes, or (200) all of it.

    Raises:
        RangeRefused: it is another range.
        ProtocolError, SizeMismatchError: as by :func:`check_response`. The response is closed.
    """
    try:
        if response.status == 206:
            check_content_range(response.headers.get("content-range"), start=start, end=end, total=size)
        else:
            start, end = 0, size - 1
        check_response(response, end - start + 1, subject)
    except BaseException:
        response.close()
        raise
    return BlobBody(response.readinto, response.close, start, end - start + 1)


def check_response(response: Response, expected: int | None, subject: str) -> None:
    """Hold a response to the bytes of the content themselves, ``expected`` of them where it announces how many.

    Raises:
        ProtocolError: it is encoded, or by the look of it a page, which must not take the place of what is there.
        SizeMismatchError: it announces another length.
    """
    encoding = response.headers.get("content-encoding")
    if encoding is not None and encoding.lower() != "identity":
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
