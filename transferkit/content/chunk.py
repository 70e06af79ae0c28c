"""Chunks: parts of a blob as HTTP ranges and chunksums lists name them, how large they should be, and sets of them."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from transferkit.content.descriptor import MAX_SIZE
from transferkit.errors import InvalidDescriptorError

MIN_CHUNK = 8 * 1024 * 1024  # below this a request's round trip shows next to its bytes
MAX_CHUNK = 64 * 1024 * 1024  # above this a failed chunk costs too much, and the last ones make a long tail
PARTS = 500  # how many chunks a blob between those bounds is cut into, at most

# "+1" is refused here although Go's ParseInt takes it; no more digits than a few zeros before 2^63.
_RANGE = re.compile(r"([0-9]{1,40})-([0-9]{1,40})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Chunk:
    """The bytes from ``start`` to ``end`` of a blob, ``end`` inclusive, as HTTP and the chunksums list count.

    Raises:
        InvalidDescriptorError: not ``0 <= start <= end < 2**63``.
    """

    start: int
    end: int

    def __post_init__(self) -> None:
        are_numbers = type(self.start) is int and type(self.end) is int
        if not (are_numbers and 0 <= self.start <= self.end <= MAX_SIZE):
            expected = "start-end with 0 <= start <= end < 2^63"
            raise InvalidDescriptorError(f"{self.start}-{self.end} is no range of bytes; it should be {expected}")

    @classmethod
    def parse(cls, text: str) -> Chunk:
        """Read ``start-end``, ASCII digits on both sides of one hyphen; InvalidDescriptorError: it is anything else."""
        match = _RANGE.match(text)
        if match is None:
            raise InvalidDescriptorError(f"{text[:80]!r} is no range of bytes; it should look like 0-1023")
        return cls(int(match[1]), int(match[2]))

    @property
    def size(self) -> int:
        """How many bytes the chunk has; at least one."""
        return self.end - self.start + 1

    def __str__(self) -> str:
        return f"{self.start}-{self.end}"


def chunk_size(size: int) -> int:
    """Return how large the chunks of a blob of ``size`` bytes are: a power of two between 8 and 64 MiB.

    It is the next power of two after a 500th of the blob: few enough requests for a large one, and chunks enough for
    all workers for a small one.
    """
    part = -(-size // PARTS)
    return min(max(1 << max(part - 1, 0).bit_length(), MIN_CHUNK), MAX_CHUNK)


class Ranges:
    """A set of bytes of a blob, kept as sorted ranges that neither overlap nor touch. Not thread-safe.

    16 bytes a range, however many chunks went into it; each call takes a binary search and the ranges that it meets.

    >>> done = Ranges()
    >>> done.add(0, 9); done.add(20, 29); done.add(10, 14)
    >>> missing = [str(chunk) for chunk in done.missing_in(Chunk(0, 39))]
    >>> done.to_list(), done.total, missing
    ([[0, 14], [20, 29]], 25, ['15-19', '30-39'])
    """

    __slots__ = ("_ends", "_starts", "total")

    def __init__(self) -> None:
        self.total = 0  # how many bytes are in the set
        self._starts = array("q")
        self._ends = array("q")  # inclusive, one for each start

    def to_list(self) -> list[list[int]]:
        """Return the ranges as ``[start, end]`` pairs, in order, ``end`` inclusive: fit for JSON."""
        return [[start, end] for start, end in zip(self._starts, self._ends, strict=True)]

    def add(self, start: int, end: int) -> None:
        """Put the bytes from ``start`` to ``end``, inclusive, into the set; some may be in it already."""
        Chunk(start, end)  # or an InvalidDescriptorError
        # All ranges that overlap or touch the new one become one with it.
        low = bisect_left(self._ends, start - 1)
        high = bisect_right(self._starts, end + 1)
        if low < high:
            start = min(start, self._starts[low])
            end = max(end, self._ends[high - 1])
        # In one step: who looks at the figure from another thread never finds more than there is.
        self.total += end - start + 1 - sum(self._ends[i] - self._starts[i] + 1 for i in range(low, high))
        self._starts[low:high] = array("q", (start,))
        self._ends[low:high] = array("q", (end,))

    def missing_in(self, chunk: Chunk) -> list[Chunk]:
        """Return the parts of ``chunk`` that are not in the set, in order."""
        missing, position = [], chunk.start
        for at in range(bisect_left(self._ends, chunk.start), bisect_right(self._starts, chunk.end)):
            if self._starts[at] > position:
                missing.append(Chunk(position, self._starts[at] - 1))
            position = self._ends[at] + 1
        if position <= chunk.end:
            missing.append(Chunk(position, chunk.end))
        return missing

    def within(self, chunk: Chunk) -> list[Chunk]:
        """Return the parts of ``chunk`` that are in the set, in order."""
        found, position = [], chunk.start
        for gap in self.missing_in(chunk):
            if gap.start > position:
                found.append(Chunk(position, gap.start - 1))
            position = gap.end + 1
        if position <= chunk.end:
            found.append(Chunk(position, chunk.end))
        return found

    def minus(self, other: Ranges) -> Ranges:
        """Return a new set with the bytes of this one that are not in the other one."""
        left = Ranges()
        for start, end in self.to_list():
            for gap in other.missing_in(Chunk(start, end)):
                left.add(gap.start, gap.end)
        return left

    def contiguous_from(self, start: int) -> int:
        """Return the first byte from ``start`` on that is not in the set."""
        at = bisect_right(self._starts, start) - 1
        return max(start, self._ends[at] + 1) if at >= 0 else start
