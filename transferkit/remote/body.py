"""What a response means for a blob: where in it the body begins, and how many bytes follow."""

from __future__ import annotations

from types import TracebackType

from transferkit.transport.response import Response


class BlobBody:
    """The bytes of a blob from ``offset`` on, read from a response. It closes the response with itself."""

    __slots__ = ("_response", "length", "offset", "readinto")

    def __init__(self, response: Response, *, offset: int, length: int | None) -> None:
        self.offset = offset
        self.length = length
        self.readinto = response.readinto
        self._response = response

    def close(self) -> None:
        self._response.close()

    def __enter__(self) -> BlobBody:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._response.close()
