"""One large blob that is fetched in chunks: which of them are wanted, and when it is whole.

The chunks are units of work among the others. A window keeps them near the hasher, so that little is left to hash when
the last byte arrives: a chunk is begun only if it ends within so many chunks of the hashed prefix as there may be
workers, or within ``COMPARED`` where that is more and it is not the last one.

Whether the source honours ranges is seen from the answer to the first chunk, which costs no request of its own, or from
a list of chunk digests, which comes with a promise of ranges. Until then the other chunks are held back; a source that
sends everything instead is read as one stream.

    state     chunks that are handed out     next state      what the worker that leaves it last does
    -------   ----------------------------   -------------   ----------------------------------------------------
    OPENING   none                           OPEN, PROBING   (the worker that begins it is still at it)
    PROBING   one, to one worker             OPEN, STREAM    commits it, where nothing is missing
    OPEN      those that the window allows   STREAM          commits it, where nothing is missing
    STREAM    none                           none            keeps what is in place; the blob comes as one stream
    FAILED    none                           none            keeps what is in place; the first error is told

Each may fail, but what is to be one stream stays so. Content that is found wrong at its commit is gone; another
``ChunkedBlob`` begins again, by plain ranges, once.
"""

from __future__ import annotations

import enum
import threading
from collections import deque

from transferkit.content.chunk import MAX_CHUNK, Chunk, chunk_size
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.interfaces import Ingest
from transferkit.errors import TransferKitError
from transferkit.transfer.pump import Span


class State(enum.IntEnum):
    """What is known of a blob and its source. A state is followed by later ones only."""

    OPENING = 0  # its first worker hashes what is in place, and asks for a list of chunks
    PROBING = 1  # there is no list; one worker asks for the first chunk
    OPEN = 2  # the source honours ranges: it has a list, or sent a chunk
    STREAM = 3  # the source sent everything in place of a chunk
    FAILED = 4  # it was given up


COMPARED = 8  # chunks that few workers are ahead at most: more than the samples that say what is slow
AIM = 0.25  # seconds that a chunk of a fast link takes: few requests, and no long tail
LARGEST = 4 * MAX_CHUNK  # bytes of a chunk that has grown: what came of it stays where it breaks off
MOST_LISTED = 16_384  # chunks of a list that are held, some 300 bytes each; what is behind comes as plain ranges


class ChunkUnit(Span):
    """One chunk on its way. Belongs to the worker that took it."""

    __slots__ = ("blob", "digest")

    def __init__(self, blob: ChunkedBlob, chunk: Chunk, digest: Digest | None) -> None:
        super().__init__(blob.ingest, chunk.start, chunk.end + 1)
        self.blob = blob
        self.digest = digest

    def rewind(self) -> None:
        """Go to its first byte: nothing has come yet, or what came was not the chunk."""
        self.at = self.start
        self.hasher = self.digest.hasher() if self.digest is not None and self.blob.trusts_chunksums else None

    def is_right(self) -> bool:
        """Tell whether what came has the digest of the list."""
        return self.digest is not None and self.hasher is not None and self.digest.matches(self.hasher)


class ChunkedBlob:
    """A large blob and its chunks. Thread-safe. Whoever begins it sets ``ingest``, and is at it until it leaves."""

    ingest: Ingest

    def __init__(self, descriptor: Descriptor, *, size: int | None, window: int, again: bool = False) -> None:
        self.descriptor = descriptor
        self.again = again
        """Whether its content was found wrong once already."""
        self.chunk_size = self._usual_size = size or chunk_size(descriptor.size)
        self._grows = size is None
        self.state = State.OPENING
        self.error: TransferKitError | None = None
        self.trusts_chunksums = True
        """Whether the digests that a list gives count."""
        self._window = window
        self._lock = threading.RLock()
        self._listing = True
        self._listed: deque[tuple[Chunk, Digest | None]] = deque()
        self._planned = 0
        """Where the bytes begin that are neither listed nor handed out: they are cut into plain ranges."""
        self._units: deque[ChunkUnit] = deque()
        self._is_cut = False
        """Whether a chunk was cut short, as the call ends: who began it anew would overwrite what has come of it."""
        self.workers = 1

    @property
    def is_begun(self) -> bool:
        """Whether its ``ingest`` is there."""
        return hasattr(self, "ingest")

    @property
    def is_over(self) -> bool:
        """Whether none of its chunks is wanted any more."""
        return self.state >= State.STREAM

    def become(self, state: State) -> bool:
        """Go on to ``state``, if it may follow; tell whether it does."""
        with self._lock:
            is_next = state > self.state and not self.is_over
            if is_next:
                self.state = state
            return is_next

    def fail(self, error: TransferKitError) -> None:
        """Give it up: no further chunk is begun."""
        with self._lock:
            if self.become(State.FAILED):
                self.error = error

    # -- the list

    def add_listed(self, chunk: Chunk, digest: Digest) -> bool:
        """Take in the next chunk of a list, which may begin again with other bounds; ``False``: no more is wanted."""
        with self._lock:
            self.become(State.OPEN)
            if self.is_over or len(self._listed) >= MOST_LISTED:
                return False
            if chunk.start >= self._planned:
                self._listed.append((chunk, digest))
            elif chunk.end >= self._planned:
                # A part of a chunk proves nothing: its digest is that of all of it.
                self._listed.append((Chunk(self._planned, chunk.end), None))
            self._planned = max(self._planned, chunk.end + 1)
            return True

    def list_ended(self) -> None:
        """Take in that the list is complete, or that there is none after all."""
        with self._lock:
            self._listing = False
            self.become(State.PROBING)

    # -- handing out

    def take(self) -> ChunkUnit | None:
        """Return a chunk to fetch, ``None`` while there is none that may be begun."""
        with self._lock:
            is_probe = self.state is State.PROBING and not self.workers
            is_open = (is_probe or self.state is State.OPEN) and not self._is_cut
            if not is_open or not self._refill(self.workers) or not self._is_near(self._units[0]):
                return None
            self.workers += 1
            unit = self._units.popleft()
            unit.rewind()
            return unit

    def came(self, unit: ChunkUnit, seconds: float) -> None:
        """Take in that a chunk took so long: later ones are as large as what comes in ``AIM``, where that is more.

        Each range costs a registry the opening of a file, and what it reads ahead: docker-registry took 1.6 s of
        processor time for 2 GiB in chunks of 8 MiB, and 0.8 s in chunks of 64 MiB and more.
        """
        if self._grows and seconds > 0:
            self._usual_size = min(int((unit.end - unit.start) * AIM / seconds), LARGEST)

    def leave(self, unit: ChunkUnit | None = None) -> bool:
        """Count a worker out, with its chunk if it has one; ``True``: nothing is left to do but to finish the blob."""
        with self._lock:
            if unit is not None and unit.at < unit.end:
                self._units.appendleft(unit)  # cut short: the blob failed, became a stream, or the call ended
                self._is_cut = True
            is_last = self.workers == 1 and (self.is_over or not self._refill(0))
            self.workers -= not is_last  # who finishes it is still at it
            return is_last

    def _refill(self, others: int) -> bool:
        """See that there is a chunk to hand out; ``False``: there is none, at least for now."""
        while not self._units:
            digest: Digest | None = None
            if self._listed:
                chunk, digest = self._listed.popleft()
                if chunk.size > MAX_CHUNK:
                    # It is too long for one connection, and for what a failure may cost.
                    self._listed.appendleft((Chunk(chunk.start + MAX_CHUNK, chunk.end), None))
                    chunk, digest = Chunk(chunk.start, chunk.start + MAX_CHUNK - 1), None
            elif self._listing or self._planned >= self.descriptor.size:
                return False
            else:
                chunk = Chunk(self._planned, self._next_bound(others) - 1)
                self._planned = chunk.end + 1
            for piece in self.ingest.missing_in(chunk):
                self._units.append(ChunkUnit(self, piece, digest if piece == chunk else None))
        return True

    def _next_bound(self, others: int) -> int:
        """Return where the next plain range ends, not inclusive; ``others``: how many are at the blob as well."""
        start, step = self._planned, self.chunk_size
        # What is left is cut small, for all who become free.
        size = max(min(self._usual_size, (self.descriptor.size - start) // (2 * (others + 1))), step)
        return min((start + size) // step * step, self.descriptor.size)

    def _is_near(self, unit: ChunkUnit) -> bool:
        """Whether a chunk may be begun, being near enough to what is hashed."""
        # Few workers go further than there are of them, or a slow chunk that all wait for has nothing to be compared
        # with. What is unhashed in the end is decided by when the last chunk is begun.
        window = self._window if unit.end == self.descriptor.size else max(self._window, COMPARED)
        hashed = self.ingest.offset
        # Where nobody is at it, but perhaps the reader of its list, nobody will bring the hasher nearer.
        if self.workers <= int(self._listing) or unit.start <= hashed:
            return True
        return unit.end <= hashed + window * max(self.chunk_size, unit.end - unit.start)
