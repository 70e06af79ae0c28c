"""A large blob in chunks: which of them are wanted, which are under way, and when it is whole.

The chunks are units of work among the others. A window keeps them near the hasher: no chunk is begun that ends much
further from the hashed prefix than as many chunks as there are workers, and the last one not a byte further, so that
little is left to hash when the last byte arrives.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from transferkit.content.chunk import MAX_CHUNK, Chunk, Ranges, chunk_size, partition
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest, Hasher
from transferkit.content.interfaces import LargeIngest
from transferkit.errors import TransferKitError

WINDOW = 64  # chunks that may be under way or unhashed, where nobody says how many workers there are
COMPARED = 8  # chunks that few workers are ahead at most: more than the samples that say what is slow
_LISTED = 4 * WINDOW  # chunks of a list that are held: what is further down is read when it is wanted


@dataclass(slots=True)
class ChunkUnit:
    """One chunk on its way; ``done`` bytes of it are in place. Belongs to the worker that took it."""

    blob: RangedBlob
    chunk: Chunk
    digest: Digest | None = None
    done: int = 0
    hasher: Hasher | None = None

    def __post_init__(self) -> None:
        self.begin_again()

    def begin_again(self) -> None:
        """Forget what came: it was not the chunk."""
        self.done = 0
        self.hasher = self.digest.hasher() if self.digest is not None and self.blob.believes_list else None

    def write(self, data: memoryview) -> None:
        """Put the next bytes in their place.

        Raises:
            StorageError: the disk refused.
        """
        ingest, start = self.blob.ingest, self.chunk.start + self.done
        # With a digest of its own, a chunk is in place when that was found right, and not before.
        ingest.write_at(start, data, final=self.hasher is None)
        if self.hasher is None:
            ingest.record(start, start + len(data) - 1)
        else:
            self.hasher.update(data)
        self.done += len(data)


class RangedBlob:
    """The chunks of one blob. Thread-safe.

    Chunks are handed out once the source was seen to honour ranges (``open_up``). Whoever finishes the last one of them
    (``leave`` says so) commits the blob.
    """

    def __init__(
        self, descriptor: Descriptor, ingest: LargeIngest, *, size: int | None = None, window: int | None = None
    ) -> None:
        self.descriptor = descriptor
        self.ingest = ingest
        self.chunk_size = size or chunk_size(descriptor.size)
        self._window = window or WINDOW
        self.attempts = 0
        """How often the whole digest was found wrong."""
        self.believes_list = True
        """Whether the digests that a list gives count."""
        self.error: TransferKitError | None = None
        self._lock = threading.Lock()
        self._units: deque[ChunkUnit] = deque()
        self._coming: Iterator[tuple[Chunk, Digest | None]] = iter(())
        self._listing = False
        self._open = False
        self._active = 0
        self._taken: dict[int, int] = {}
        """First and last byte of what is under way: a list that is read again must not bring it twice."""
        self.plan()

    def plan(self) -> None:
        """Want every missing byte, in plain ranges."""
        parts = partition(self.descriptor.size, self.chunk_size)
        self._coming = ((piece, None) for chunk in parts for piece in self.ingest.missing_in(chunk))

    def want_missing(self) -> None:
        """Want what is missing although everything was handed out."""
        with self._lock:
            self.plan()

    def follow_list(self) -> None:
        """Want the chunks of a list that is about to be read from its start, instead of plain ranges."""
        with self._lock:
            self._coming = iter(())
            self._units.clear()
            self._listing = True

    def listed(self, chunk: Chunk, digest: Digest) -> bool:
        """Take in a chunk of the list; ``False``: come again, enough are held."""
        with self._lock:
            if self.error is not None:
                return True  # nobody will fetch it
            if len(self._units) >= _LISTED:
                return False
            for piece in self._not_taken(self.ingest.missing_in(chunk)):
                # Part of a chunk proves nothing: its digest is that of all of it. What is left comes as a plain range.
                for part in [piece] if piece.size <= MAX_CHUNK else _split(piece):
                    self._units.append(ChunkUnit(self, part, digest if part == chunk else None))
            return True

    def _not_taken(self, pieces: list[Chunk]) -> list[Chunk]:
        """Return what of ``pieces`` is not under way already: a list that is read again may have other bounds."""
        if not self._taken:
            return pieces
        taken = Ranges()
        for start, end in self._taken.items():
            taken.add(start, end)
        return [rest for piece in pieces for rest in taken.missing_in(piece)]

    def leave_list(self) -> bool:
        """Want plain ranges in place of the rest of a list; ``False``: not yet, the two would overlap."""
        with self._lock:
            if self._units or self._active > 1:
                return False
            self.plan()
            return True

    def disbelieve_list(self) -> None:
        """Take its chunks for plain ranges from now on: the digest of the whole decides."""
        with self._lock:
            self.believes_list = False
            for unit in self._units:
                unit.begin_again()

    def list_ended(self) -> None:
        """The list is complete, or there is none after all."""
        with self._lock:
            self._listing = False

    def open_up(self) -> None:
        """Hand out chunks from now on: the source honours ranges."""
        self._open = True

    @property
    def is_open(self) -> bool:
        return self._open

    def workers(self) -> int:
        """Return how many workers are at it."""
        return self._active

    def take(self, *, first: bool = False) -> ChunkUnit | None:
        """Return a chunk to fetch, ``None`` while there is none that may be begun."""
        with self._lock:
            if self.error is not None or not (self._open or first):
                return None
            if not self._units:
                coming = next(self._coming, None)
                if coming is None:
                    return None
                self._units.append(ChunkUnit(self, *coming))
            if not self._is_near(self._units[0].chunk):
                return None
            self._active += 1
            unit = self._units.popleft()
            self._taken[unit.chunk.start] = unit.chunk.end
            return unit

    def _is_near(self, chunk: Chunk) -> bool:
        """Whether a chunk may be begun, being near enough to what is hashed."""
        hashed = self.ingest.hashed
        # Few workers go further than there are of them, or a slow chunk that all wait for has nothing to be compared
        # with. What is unhashed in the end is decided by when the last chunk is begun.
        window = self._window if chunk.end + 1 == self.descriptor.size else max(self._window, COMPARED)
        # Where nobody but the reader of a list is at it, nobody will bring the hasher nearer.
        if self._active <= self._listing or chunk.start <= hashed:
            return True
        return chunk.end < hashed + window * max(self.chunk_size, chunk.size)

    def enter(self) -> None:
        """Count a worker that is at the blob without a chunk, so that nobody finishes it meanwhile."""
        with self._lock:
            self._active += 1

    def leave(self, unit: ChunkUnit | None = None) -> bool:
        """Count a worker out; ``True``: it was the last one, and nothing is left to fetch."""
        with self._lock:
            self._active -= 1
            if unit is not None:
                self._taken.pop(unit.chunk.start, None)
            if self._active or self._listing:
                return False
            if self.error is not None:
                return True
            if not self._units:
                coming = next(self._coming, None)
                if coming is not None:
                    self._units.append(ChunkUnit(self, *coming))
            return not self._units

    def fail(self, error: TransferKitError) -> None:
        """Give the blob up: no further chunk is begun. The first error stands."""
        with self._lock:
            if self.error is None:
                self.error = error
            self._units.clear()
            self._coming = iter(())

    def restart(self) -> None:
        """Begin again, by plain ranges: what came was not the content.

        Raises:
            StorageError: the disk refused.
        """
        self.attempts += 1
        self.ingest.restart()
        with self._lock:
            self.plan()


def _split(chunk: Chunk) -> list[Chunk]:
    """Cut a chunk that is too long for one connection, and for what a failure may cost."""
    return [Chunk(at, min(at + MAX_CHUNK - 1, chunk.end)) for at in range(chunk.start, chunk.end + 1, MAX_CHUNK)]


def total_chunks(descriptors: Iterable[Descriptor], threshold: int, *, size: int | None = None) -> int:
    """Return how many units of work blobs are, those over ``threshold`` bytes counted in chunks (of ``size`` bytes)."""
    return sum(-(-d.size // (size or chunk_size(d.size))) if d.size > threshold else 1 for d in descriptors)
