"""Which ranges of a file are asked for, where parts of it are wanted: few of them, and none too long.

Knows numbers alone. A span is ``(start, end)`` in bytes, ``end`` not inclusive.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import TypeAlias

Span: TypeAlias = tuple[int, int]

GAP = 128 * 1024  # bytes that are read in vain rather than asked around: 100 Mbit/s bring them in a round trip of 10 ms


def joined(spans: Iterable[Span], gap: int = 0) -> list[Span]:
    """Return the fewest spans that have all bytes of these, sorted; between two of them lie more than ``gap`` bytes.

    >>> joined([(90, 95), (0, 10), (10, 20), (24, 30)], gap=4)
    [(0, 30), (90, 95)]
    """
    found: list[Span] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if found and start - found[-1][1] <= gap:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def cut(spans: Iterable[Span], most: int) -> list[Span]:
    """Cut each span into the fewest pieces of at most ``most`` bytes, which are about equally long.

    >>> cut([(0, 100), (200, 210)], most=40)
    [(0, 34), (34, 68), (68, 100), (200, 210)]
    """
    pieces: list[Span] = []
    for start, end in spans:
        step = -(-(end - start) // -(-(end - start) // most))
        pieces += [(at, min(at + step, end)) for at in range(start, end, step)]
    return pieces


def covering(spans: Iterable[Span], ends: Sequence[int]) -> list[int]:
    """Return the numbers of the chunks that have bytes of these spans; chunks follow each other, and end at ``ends``.

    >>> covering([(5, 12), (35, 36)], ends=[10, 20, 30, 40])
    [0, 1, 3]
    """
    numbers = joined((bisect_right(ends, start), bisect_left(ends, end) + 1) for start, end in spans if start < end)
    return [number for first, last in numbers for number in range(first, last)]
