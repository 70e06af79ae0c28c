"""The body of a request, in blocks of bounded size.

Knows WSGI's ``wsgi.input`` and the two ways a body has an end (``Content-Length``, or chunked where the server ends the
stream itself). Does not know what the body is for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from transferkit.content.descriptor import MAX_SIZE
from transferkit.server.answers import Refusal

# 512 KiB: with 256 KiB a large upload took a tenth longer, and 300 uploads at a time take 150 MB in the worst case.
BLOCK = 512 * 1024

# ASCII digits only: int() takes "+5", "1_0" and digits of other scripts as well.
_LENGTH = re.compile(r"[0-9]{1,30}\Z", re.ASCII)


class Truncated(Refusal):
    """The body ended before its announced end: the client vanished, and most likely nobody reads this answer."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(status, "BLOB_UPLOAD_INVALID", message)


class Incoming:
    """The body of one request. One reader, once."""

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self.length: int | None = 0
        """Bytes announced; ``None``: chunked, so only the end will tell."""
        stream = environ["wsgi.input"]
        # These hand over what has arrived: what a client sent before it vanished is kept. read waits for the block.
        self._read_into: Callable[[memoryview], int] | None = getattr(stream, "readinto1", None)
        self._read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
        if environ.get("wsgi.input_terminated") and "HTTP_TRANSFER_ENCODING" in environ:
            self.length = None  # it wins over a Content-Length: RFC 9112, section 6.3
        elif text := environ.get("CONTENT_LENGTH"):
            if not _LENGTH.match(text) or int(text) > MAX_SIZE:
                raise Refusal(400, "SIZE_INVALID", "Content-Length is not a number of bytes")
            self.length = int(text)

    def __bool__(self) -> bool:
        return self.length != 0

    def expect(self, length: int) -> None:
        """Hold the body to ``length`` bytes (another header said so).

        Raises:
            Refusal: ``Content-Length`` says something else.
        """
        if self.length not in (None, length):
            raise Refusal(
                400, "SIZE_INVALID", f"Content-Range speaks of {length} bytes, Content-Length of {self.length}"
            )
        self.length = length

    def blocks(self) -> Iterator[bytes | memoryview]:
        """Yield the body as it arrives, in blocks that are good until the next one.

        Raises:
            Truncated: it ended early.
        """
        remaining = self.length
        # One buffer for the whole body: a new one for each block costs its pages each time.
        buffer = memoryview(bytearray(BLOCK if remaining is None else min(BLOCK, remaining)))
        while remaining is None or remaining > 0:
            try:
                block = self._next(buffer if remaining is None else buffer[:remaining])
            except TimeoutError as error:
                # It may be on its way still, and nothing is wrong with it: RFC 9110, section 15.5.9.
                raise Truncated("the body did not go on in time", status=408) from error
            except (OSError, ValueError) as error:
                raise Truncated("the body broke off") from error
            if not block:
                if remaining:
                    raise Truncated(f"the body ended {remaining} bytes early")
                return
            if remaining is not None:
                remaining -= len(block)
            yield block

    def _next(self, buffer: memoryview) -> bytes | memoryview:
        if self._read_into is None:
            return self._read(len(buffer))
        return buffer[: self._read_into(buffer)]

    def whole(self, limit: int) -> bytes:
        """Return the body, at most ``limit`` bytes of it.

        Raises:
            Truncated: it ended early.
            Refusal: 413, it is longer.
        """
        too_long = Refusal(413, "SIZE_INVALID", f"the body is longer than {limit} bytes")
        if self.length is not None and self.length > limit:
            raise too_long
        body = bytearray()
        for block in self.blocks():
            body += block
            if len(body) > limit:
                raise too_long
        return bytes(body)
