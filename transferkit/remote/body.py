"""What a response means for a blob: whether it is one, where in it the body begins, and how many bytes follow."""

from __future__ import annotations

from collections.abc import Callable

from transferkit.errors import ProtocolError, SizeMismatchError
from transferkit.transport.response import Response


class BlobBody:
    """The bytes of a blob from ``offset`` on, as something else reads them. It closes that with itself."""

    __slots__ = ("close", "length", "offset", "readinto")

    def __init__(
        self, readinto: Callable[[memoryview], int], close: Callable[[], None], *, offset: int, length: int | None
    ) -> None:
        self.readinto = readinto
        self.close = close
        self.offset = offset
        self.length = length

    def __enter__(self) -> BlobBody:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_response(response: Response, expected: int, subject: str) -> None:
    """Hold a response to the bytes of the blob themselves, ``expected`` of them where it announces how many.

    Raises:
        ProtocolError: it is encoded, or by the look of it a page, which must not take the place of what is there.
        SizeMismatchError: it announces another length.
    """
    encoding = response.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise ProtocolError(f"{subject}: {response.origin} sent the blob with Content-Encoding {encoding[:40]!r}")
    if response.length == expected:
        return
    kind = response.headers.get("content-type", "").partition(";")[0][:60]
    hint = f" (it is {kind}: a page of a proxy or of a login?)" if "html" in kind else ""
    if response.length is not None:
        text = f"{subject}: {response.origin} announces {response.length} bytes, expected {expected}{hint}"
        raise SizeMismatchError(text)
    if hint and response.status == 200:
        raise ProtocolError(f"{subject}: {response.origin} sent a page for the blob{hint}")
