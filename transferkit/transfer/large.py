"""Large blobs: a worker opens one, fetches a chunk, which is a unit of its own, and finishes the one that it leaves
last.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import cast

from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import ChunkLister, Fetcher, Ingest, Ingester, Outcome, RangeFetcher
from transferkit.errors import (
    CancelledError,
    DigestMismatchError,
    ReadError,
    RetriesExhaustedError,
    TransferKitError,
    VerificationError,
)
from transferkit.transfer.attempts import Attempts
from transferkit.transfer.chunked import ChunkedBlob, ChunkUnit, State
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.outcomes import Outcomes
from transferkit.transfer.pump import pump
from transferkit.transfer.scheduler import Scheduler
from transferkit.transfer.watchdog import Speeds

LIST_ATTEMPTS = 3  # at a list of chunks that is cut short: it is read again from its start, and can be done without


class LargeBlobs:
    """Copies large blobs in chunks, from a source that has ranges to a target that the engine fills. Thread-safe.

    ``make`` makes a blob that is to be begun once more, ``count_begun`` takes over what an earlier run has left of one,
    ``give_up`` takes in that one failed for good, and ``ends_all`` tells whether an error would be the same for all.
    """

    def __init__(
        self,
        source: Fetcher,
        target: Ingester,
        scheduler: Scheduler,
        attempts: Attempts,
        outcomes: Outcomes,
        speeds: Speeds,
        *,
        make: Callable[..., ChunkedBlob],
        count_begun: Callable[[Descriptor, WorkerFlow], None],
        give_up: Callable[[Descriptor, TransferKitError], None],
        ends_all: Callable[[TransferKitError], bool],
    ) -> None:
        self._source = source
        self._target = target
        self._scheduler = scheduler
        self._attempts = attempts
        self._list_attempts = attempts.limited(LIST_ATTEMPTS)
        self._outcomes = outcomes
        self._speeds = speeds
        self._debug = outcomes.logger.debug
        self._make = make
        self._count_begun = count_begun
        self._give_up = give_up
        self._ends_all = ends_all

    # -- opening

    def open(self, blob: ChunkedBlob, flow: WorkerFlow) -> None:
        """Open a blob, and read the list of its chunks if there is one; the chunks are units of their own."""
        descriptor = blob.descriptor
        if not blob.again:
            self._outcomes.started(descriptor)
            self._count_begun(descriptor, flow)
        try:
            ingest = self._attempts.run(self._open, descriptor, flow, descriptor)
        except TransferKitError as error:
            self._scheduler.opened(None)
            if not isinstance(error, CancelledError):
                flow.counter.set_position(0)
            self._give_up(descriptor, error)
            return
        if ingest is None:
            self._scheduler.opened(None)
            flow.counter.set_position(descriptor.size)
            self._outcomes.ended(descriptor, Outcome.PRESENT)
            return
        blob.ingest = ingest
        flow.counter.set_position(ingest.in_place + ingest.unverified)
        self._scheduler.opened(blob)
        try:
            ingest.follow(flow, self._scheduler.hashed)
            if isinstance(self._source, ChunkLister) and not blob.again:
                self._list_attempts.run(self._read_list, blob, flow)
        except RetriesExhaustedError as error:
            self._debug("%s: the rest of its chunks comes by plain ranges: %s", descriptor.digest.short, error)
        except TransferKitError as error:
            self._fail(blob, error)
        finally:
            blob.list_ended()
            self._leave(blob, flow)

    def _open(self, descriptor: Descriptor, flow: WorkerFlow) -> Ingest | None:
        flow.attempt = 0  # it asks nothing of the host, and may have to wait for another process
        return self._target.ingest(descriptor, flow=flow)

    def _read_list(self, blob: ChunkedBlob, flow: WorkerFlow) -> None:
        """Make one attempt at the list of chunks, which are fetched while it still comes."""
        # Closed on every way out: a traceback would keep the list's connection open.
        with closing(cast(ChunkLister, self._source).chunksums(blob.descriptor, flow=flow)) as pairs:
            for chunk, digest in pairs:
                flow.watch.has_body = True  # where it is cut from now on, that is no limit of the host
                flow.attempt = 0  # its chunks may take its place
                if not blob.add_listed(chunk, digest):
                    return
                self._scheduler.notify()

    # -- chunks

    def copy_chunk(self, unit: ChunkUnit, flow: WorkerFlow) -> None:
        """Fetch one chunk, continued from where it is after each failure."""
        blob, descriptor = unit.blob, unit.blob.descriptor
        began = time.monotonic()
        try:
            self._go_on(unit, flow)
            try:
                if unit.at < unit.end:
                    self._attempts.run(self._fetch_chunk, unit, flow, descriptor, start=unit.start)
            except DigestMismatchError as error:
                # Twice something else than the list says: it may be the list that lies, and the whole will tell.
                self._debug("%s: fetched once more, by plain ranges: %s", descriptor.digest.short, error)
                self._outcomes.again(descriptor, error, unit.start)
                blob.trusts_chunksums = False
                unit.rewind()
                flow.counter.next_unit()
                self._attempts.run(self._fetch_chunk, unit, flow, descriptor, start=unit.start)
            if unit.at == unit.end:
                seconds = time.monotonic() - began
                self._speeds.record(unit.end - unit.start, seconds)
                blob.came(unit, seconds)
                flow.next_attempt()  # a cut that came after the last byte is nobody's
                unit.ingest.follow(flow, self._scheduler.hashed)
        except TransferKitError as error:
            self._fail(blob, error)
        finally:
            if unit.hasher is not None and unit.at < unit.end and blob.is_over:
                flow.counter.set_position(0)  # a part of it is not known to be right, and is of use to nobody
            self._leave(blob, flow, unit)

    def _go_on(self, unit: ChunkUnit, flow: WorkerFlow) -> None:
        """Hash what an earlier run has left of a chunk; it was counted when the blob was opened."""
        left = unit.ingest.take_unverified(Chunk(unit.start, unit.end - 1))
        if not left:
            return
        is_of_use = unit.hasher is not None and left[0].start == unit.start
        flow.counter.take_over(sum(piece.size for piece in left), left[0].size if is_of_use else 0)
        if unit.hasher is not None and is_of_use:
            unit.ingest.hash_unverified(left[0], unit.hasher, flow)
            unit.at = left[0].end + 1
            if unit.at == unit.end:
                self._check_chunk(unit, flow)

    def _fetch_chunk(self, unit: ChunkUnit, flow: WorkerFlow) -> None:
        """Make one attempt at what is missing of a chunk."""
        blob, descriptor = unit.blob, unit.blob.descriptor
        if blob.is_over:
            return
        wanted = Chunk(unit.at, unit.end - 1)
        with cast(RangeFetcher, self._source).fetch_range(descriptor, wanted, flow=flow) as body:
            if body.offset != wanted.start or body.length not in (wanted.size, None):
                self._debug("%s: no ranges there; it is read as one stream", descriptor.digest.short)
                blob.become(State.STREAM)
                return
            if blob.become(State.OPEN):
                self._scheduler.notify()
            pump(body, unit, flow)
        if unit.at < unit.end:
            received = f"received {unit.at - unit.start}/{unit.end - unit.start} bytes of a chunk"
            raise ReadError(f"{descriptor.digest.short}: incomplete: {received}")
        if unit.hasher is not None and not self._check_chunk(unit, flow):
            raise DigestMismatchError(f"{descriptor.digest.short}: the chunk {wanted} has another digest")

    def _check_chunk(self, unit: ChunkUnit, flow: WorkerFlow) -> bool:
        """Say that a complete chunk is in place, or, where it is not right, begin it again."""
        is_right = unit.is_right()
        if is_right:
            unit.ingest.record(unit.start, unit.end - 1)
        else:
            unit.rewind()
            flow.counter.set_position(0)
        return is_right

    # -- ending

    def _fail(self, blob: ChunkedBlob, error: TransferKitError) -> None:
        """Stop fetching a blob; an error that would be the same for every blob goes on to the caller."""
        if not isinstance(error, CancelledError):
            blob.fail(error)
        if self._ends_all(error):
            raise error

    def _leave(self, blob: ChunkedBlob, flow: WorkerFlow, unit: ChunkUnit | None = None) -> None:
        if blob.leave(unit):
            self._finish(blob, flow)
        else:
            self._scheduler.notify()

    def _finish(self, blob: ChunkedBlob, flow: WorkerFlow) -> None:
        """Commit a blob of which nothing is missing, or see what becomes of the others."""
        descriptor, ingest = blob.descriptor, blob.ingest
        in_place = ingest.in_place + ingest.unverified
        is_complete = not blob.is_over
        try:
            if is_complete:
                ingest.commit(flow)
                self._outcomes.ended(descriptor, Outcome.MOVED)
                self._scheduler.closed(blob)
                return
            ingest.keep()
        except CancelledError:
            raise
        except TransferKitError as error:
            blob.fail(error)
        flow.counter.set_position(flow.counter.position - in_place)  # whoever has counted it
        if blob.error is None:
            self._scheduler.closed(blob, then=descriptor)
        elif is_complete and isinstance(blob.error, VerificationError) and not blob.again:
            # Its chunks may have been right by their list, or an earlier run's bytes are to blame.
            self._outcomes.again(descriptor, blob.error, 0)
            self._scheduler.closed(blob, then=self._make(descriptor, again=True))
        else:
            self._scheduler.closed(blob)
            self._give_up(descriptor, blob.error)
