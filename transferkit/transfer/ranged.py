"""A large blob in chunks: which of them are wanted, which are under way, and when it is whole.

The chunks are units of work among the others. A window keeps them near the hasher: no chunk is begun that ends further
from the hashed prefix than as many chunks as there are workers, so that little is left to hash when the last byte
arrives.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from transferkit.content.chunk import Chunk, chunk_size, partition
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest, Hasher
from transferkit.content.interfaces import LargeIngest
from transferkit.errors import TransferKitError

WINDOW = 64  # chunks that may be under way or unhashed, where nobody says how many workers there are
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
        self.hasher = self.digest.hasher() if self.digest is not None else None

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
        self.error: TransferKitError | None = None
        self._lock = threading.Lock()
        self._units: deque[ChunkUnit] = deque()
        self._coming: Iterator[tuple[Chunk, Digest | None]] = iter(())
        self._listing = False
        self._open = False
        self._active = 0
        self._taken: set[int] = set()
        """Where the chunks begin that are under way: a list that is read again must not bring them twice."""
        self.plan()

    def plan(self) -> None:
        """Want every missing byte, in plain ranges."""
        parts = partition(self.descriptor.size, self.chunk_size)
        self._coming = ((piece, None) for chunk in parts for piece in self.ingest.missing_in(chunk))

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
            # Part of a chunk proves nothing: its digest is that of all of it.
            if chunk.start not in self._taken and self.ingest.missing_in(chunk):
                self._units.append(ChunkUnit(self, chunk, digest))
            return True

    def leave_list(self) -> bool:
        """Want plain ranges in place of the rest of a list; ``False``: not yet, the two would overlap."""
        with self._lock:
            if self._units or self._active > 1:
                return False
            self.plan()
            return True

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
            chunk, hashed = self._units[0].chunk, self.ingest.hashed
            if chunk.start > hashed and chunk.end >= hashed + self._window * self.chunk_size:
                return None
            self._active += 1
            unit = self._units.popleft()
            self._taken.add(unit.chunk.start)
            return unit

    def enter(self) -> None:
        """Count a worker that is at the blob without a chunk, so that nobody finishes it meanwhile."""
        with self._lock:
            self._active += 1

    def leave(self, unit: ChunkUnit | None = None) -> bool:
        """Count a worker out; ``True``: it was the last one, and nothing is left to fetch."""
        with self._lock:
            self._active -= 1
            if unit is not None:
                self._taken.discard(unit.chunk.start)
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


def total_chunks(descriptors: Iterable[Descriptor], threshold: int, *, size: int | None = None) -> int:
    """Return how many units of work blobs are, those over ``threshold`` bytes counted in chunks (of ``size`` bytes)."""
    return sum(-(-d.size // (size or chunk_size(d.size))) if d.size > threshold else 1 for d in descriptors)
