"""The chunksums list: bytes as they arrive in, pairs of a chunk and its digest out.

The body is ``<digest> <start>-<end>`` separated by blanks, ``end`` inclusive; the ranges follow each other without a
gap from the first byte of the blob to its last. Source: Ollama's ``client/ollama`` package as of April 2025, which sums
the sizes up and so takes gaps and overlaps for complete; here each line has to begin where the one before ended.
"""

from __future__ import annotations

import re
from collections.abc import Generator

from transferkit.content.chunk import Chunk
from transferkit.content.digest import Digest
from transferkit.errors import InvalidDescriptorError, InvalidDigestError, ProtocolError, ReadError

MAX_LINES = 10_000_000  # at 8 MiB a chunk that is 76 TiB
MAX_TOKEN = 160  # characters; the longest digest has 135
_MAX_BYTES = 256 * MAX_LINES  # of a list, blanks included: a flood of blanks ends somewhere
_BLANKS = b" \t\n\r\x0b\x0c"  # what bytes.split() splits at
_CUT_RANGE = re.compile(rb"([0-9]{1,40})(?:-([0-9]{0,40}))?\Z")

Pair = tuple[Chunk, Digest]
Pairs = Generator[Pair, None, None]


class ChunksumParser:
    """Reads the list of a blob of ``size`` bytes, in pieces of whatever length. One reader.

    What it yields and how it ends does not depend on where the input is split: a lie is told after all that came before
    it, and ends the reading. It keeps one line, however long the list is.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._next = 0
        self._last: Chunk | None = None
        self._lines = 0
        self._seen = 0
        self._tail = b""  # a token whose end has not come yet
        self._digest: Digest | None = None  # the first half of a line

    @property
    def begun(self) -> bool:
        """Whether a digest was read: until then, it may be an answer of another kind and no list at all."""
        return self._lines > 0 or self._digest is not None

    def feed(self, data: bytes) -> Pairs:
        """Yield the lines that ``data`` completes; ProtocolError: the list is a lie, or too long."""
        text = self._tail + data[: _MAX_BYTES - self._seen]
        self._seen += len(data)
        tokens = text.split()
        self._tail = tokens.pop() if tokens and text[-1] not in _BLANKS else b""
        for token in tokens:
            yield from self._take(token)
        _check_length(self._tail)
        if self._seen > _MAX_BYTES:
            raise ProtocolError(f"the list of chunks is longer than {_MAX_BYTES} bytes")

    def close(self) -> Pairs:
        """Yield the line that the end of the list completes, if there is one; ReadError: the list was cut short."""
        tail = self._tail
        is_word = not self.begun if self._digest is None else not _ends_early(tail)
        pairs = list(self._take(tail)) if tail and is_word else []
        # Without a line break "0-9" may have been "0-99": only one that reaches the last byte is known to be whole.
        if self._next < self._size:
            raise ReadError(f"the list of chunks was cut short: it ends at byte {self._next} of {self._size}")
        if self._digest is not None or (tail and not pairs):
            raise ProtocolError("the list of chunks goes on after the last byte of the blob")
        yield from pairs

    def _take(self, token: bytes) -> Pairs:
        """Take in the next word, and yield the line that it completes."""
        _check_length(token)
        text = token.decode("ascii", "replace")
        try:
            if self._digest is None:
                self._digest = Digest(text)
                return
            chunk = Chunk.parse(text)
        except (InvalidDigestError, InvalidDescriptorError) as error:
            raise ProtocolError(f"the list of chunks: {error}") from error
        self._check(chunk)
        digest, self._digest = self._digest, None
        self._last = chunk
        self._next = chunk.end + 1
        self._lines += 1
        yield chunk, digest

    def _check(self, chunk: Chunk) -> None:
        if self._lines >= MAX_LINES:
            raise ProtocolError(f"the list of chunks has more than {MAX_LINES} lines")
        if chunk.end >= self._size:
            raise ProtocolError(f"the list of chunks: {chunk} is past the end of a blob of {self._size} bytes")
        if chunk.start > self._next:
            text = f"{chunk} comes where byte {self._next} should"
            raise ProtocolError(f"the list of chunks leaves a gap, or is out of order: {text}")
        last = self._last
        if last is not None and chunk.start < self._next:
            how = "is there twice" if chunk == last else "is out of order" if chunk.end < last.start else "overlaps"
            raise ProtocolError(f"the list of chunks: {chunk} {how}; the line before is {last}")


def _ends_early(token: bytes) -> bool:
    """Tell whether a range without its end might become a good one with it."""
    match = _CUT_RANGE.match(token)
    return match is not None and (not match[2] or int(match[2]) < int(match[1]))


def _check_length(token: bytes) -> None:
    if len(token) > MAX_TOKEN:
        shown = token[:60].decode("ascii", "replace")
        raise ProtocolError(f"the list of chunks has a word of more than {MAX_TOKEN} characters: {shown!r}...")
