"""How the blobs of a plan are divided: by bytes and count, the same way each time."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

from transferkit.content.blob_range import BlobRange
from transferkit.content.chunk import MIN_CHUNK, Chunk
from transferkit.content.descriptor import Descriptor

PER_BLOB = 64 * 1024  # what a request costs, as bytes: small blobs count, too
SMALL = 1024 * 1024  # bytes; smaller ones go in bundles
BUNDLE = 256  # small blobs that stay together at most: registries answer them on one connection
MOST = 4096  # blobs of a piece that is filled by bytes
GRAIN = 4  # bundles, and ranges of a blob, for each share of a piece: what is left over is divided, too
LARGE = 2 * MIN_CHUNK
"""Smaller blobs are never cut into ranges."""


@dataclass(slots=True)
class Part:
    """What goes together: blobs and ranges of others, and what they cost."""

    number: int
    cost: int = 0
    blobs: tuple[Descriptor, ...] = ()
    ranges: tuple[BlobRange, ...] = ()


def by_pieces(blobs: Sequence[Descriptor], pieces: int, *, ranges: bool) -> list[Part]:
    """Divide blobs into so many pieces, or fewer where there are not enough of them: each next part to who has least.

    No two pieces differ by more than what the largest part costs. Source: R. L. Graham, "Bounds on Multiprocessing
    Timing Anomalies", 1969 (longest processing time first).
    """
    share = -(-(sum(blob.size for blob in blobs) + PER_BLOB * len(blobs)) // pieces)
    parts = list(_parts(blobs, -(-share // GRAIN), ranges=ranges))
    loads = [(0, number) for number in range(pieces)]
    found: list[list[Part]] = [[] for _ in range(pieces)]
    for part in sorted(parts, key=lambda part: (-part.cost, part.number)):
        load, number = loads[0]
        found[number].append(part)
        heapq.heapreplace(loads, (load + part.cost, number))
    return [_joined(number, group) for number, group in enumerate(found) if group]


def by_bytes(blobs: Sequence[Descriptor], size: int, *, ranges: bool) -> list[Part]:
    """Divide blobs into pieces of so many bytes, one filled after the other; a larger blob has a piece of its own."""
    found: list[Part] = []
    group: list[Part] = []
    taken = 0
    for part in _parts(blobs, size, ranges=ranges, bundle=1):
        moved = part.cost - PER_BLOB
        if group and (taken + moved > size or len(group) >= MOST):
            found.append(_joined(len(found), group))
            group, taken = [], 0
        group.append(part)
        taken += moved
    return [*found, _joined(len(found), group)] if group else found


def _parts(blobs: Sequence[Descriptor], most: int, *, ranges: bool, bundle: int = BUNDLE) -> Iterator[Part]:
    """Yield what is not divided further: bundles of small blobs, blobs, and, with ``ranges``, ranges of large ones."""
    step = max(MIN_CHUNK, most // MIN_CHUNK * MIN_CHUNK)
    number = 0
    waiting: list[Descriptor] = []
    cost = 0
    for blob in blobs:
        own = blob.size + PER_BLOB
        if ranges and blob.size >= LARGE and blob.size > step:
            for start in range(0, blob.size, step):
                chunk = Chunk(start, min(start + step, blob.size) - 1)
                yield Part(number, chunk.size + PER_BLOB, ranges=(BlobRange(blob, chunk),))
                number += 1
        elif blob.size >= SMALL or bundle == 1:
            yield Part(number, own, (blob,))
            number += 1
        else:
            if waiting and (len(waiting) >= bundle or cost + own > most):
                yield Part(number, cost, tuple(waiting))
                number, cost = number + 1, 0
                waiting.clear()
            waiting.append(blob)
            cost += own
    if waiting:
        yield Part(number, cost, tuple(waiting))


def _joined(number: int, parts: list[Part]) -> Part:
    """Return parts as one, in their order."""
    parts.sort(key=attrgetter("number"))
    return Part(
        number,
        sum(part.cost for part in parts),
        tuple([blob for part in parts for blob in part.blobs]),
        tuple([piece for part in parts for piece in part.ranges]),
    )
