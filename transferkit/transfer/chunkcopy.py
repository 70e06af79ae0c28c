"""What a worker does with large blobs: it begins one, fetches a chunk, and finishes the blob that it leaves last."""

from __future__ import annotations

import logging
from contextlib import closing

from transferkit.content.chunk import Chunk
from transferkit.content.interfaces import ChunkLister, Ingester, Outcome, RangeFetcher
from transferkit.errors import (
    CancelledError,
    DigestMismatchError,
    ReadError,
    RetriesExhaustedError,
    TransferKitError,
    VerificationError,
)
from transferkit.transfer.attempts import Attempts
from transferkit.transfer.chunked import OVER, ChunkedBlob, ChunkUnit, Event, State
from transferkit.transfer.copy import Copy
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.outcomes import Outcomes
from transferkit.transfer.pump import pump
from transferkit.transfer.scheduler import LargeBlob, Scheduler, Unit
from transferkit.transfer.speed import Speeds


class ChunkCopy(Copy):
    """Copies large blobs in chunks, and the others as one stream each. Thread-safe.

    ``list_attempts`` are those at lists of chunks, which can be done without; ``window`` is how many workers there are.
    """

    def __init__(
        self,
        source: RangeFetcher,
        target: Ingester,
        *,
        scheduler: Scheduler,
        attempts: Attempts,
        list_attempts: Attempts,
        outcomes: Outcomes,
        speeds: Speeds,
        chunk_size: int | None,
        window: int,
        logger: logging.Logger,
    ) -> None:
        super().__init__(source, target, attempts=attempts, outcomes=outcomes, speeds=speeds)
        self._source = source
        self._lister = source if isinstance(source, ChunkLister) else None
        self._target = target
        self._scheduler = scheduler
        self._list_attempts = list_attempts
        self._chunk_size = chunk_size
        self._window = window
        self._logger = logger

    def work(self, unit: Unit, flow: WorkerFlow) -> None:
        if isinstance(unit, ChunkUnit):
            self._copy_chunk(unit, flow)
        elif isinstance(unit, LargeBlob):
            self._begin(unit, flow)
        else:
            self._copy_whole(unit, flow)

    # -- beginning

    def _begin(self, large: LargeBlob, flow: WorkerFlow) -> None:
        """Open a blob, and read the list of its chunks if there is one; the chunks are units of their own."""
        blob = None
        flow.begin_attempt()
        try:
            blob = self._open(large, flow)
        except TransferKitError as error:
            self._give_up(large.descriptor, error)
        finally:
            self._scheduler.begun(blob)
        if blob is None:
            return
        try:
            blob.ingest.follow(flow)
            if self._lister is not None and not blob.again:
                self._list_attempts.run(self._read_list, blob, flow, blob.descriptor)
        except RetriesExhaustedError as error:
            self._logger.debug("%s: the list of its chunks never came whole: %s", blob.descriptor.digest.short, error)
        except TransferKitError as error:
            self._fail(blob, error)
        finally:
            blob.list_ended()
            self._leave(blob, flow)

    def _open(self, large: LargeBlob, flow: WorkerFlow) -> ChunkedBlob | None:
        descriptor = large.descriptor
        if not large.again:
            self._outcomes.started(descriptor)
        ingest = self._target.ingest(descriptor, flow=flow)
        if ingest is None:
            flow.counter.set_position(descriptor.size)
            self._outcomes.ended(descriptor, Outcome.PRESENT)
            return None
        flow.counter.set_position(ingest.in_place)
        return ChunkedBlob(descriptor, ingest, size=self._chunk_size, window=self._window, again=large.again)

    def _read_list(self, blob: ChunkedBlob, flow: WorkerFlow) -> None:
        """Make one attempt at the list; chunks are fetched while it still comes."""
        if self._lister is None:
            return
        # Closed on every way out: a traceback would keep the list's connection open.
        with closing(self._lister.chunksums(blob.descriptor, flow=flow)) as pairs:
            for chunk, digest in pairs:
                flow.watch.begun = True  # where it is cut from now on, that is no limit of the host
                if not blob.add_listed(chunk, digest):
                    return
                self._scheduler.notify()

    # -- chunks

    def _copy_chunk(self, unit: ChunkUnit, flow: WorkerFlow) -> None:
        """Fetch one chunk, continued from where it is after each failure."""
        blob = unit.blob
        began = self._clock()
        try:
            try:
                self._attempts.run(self._fetch_chunk, unit, flow, blob.descriptor, start=unit.start)
            except DigestMismatchError as error:
                # Twice something else than the list says: it may be the list that lies, and the whole will tell.
                self._logger.debug("%s; fetched once more, by plain ranges", error)
                self._outcomes.again(blob.descriptor, error, unit.start)
                blob.trusts_chunksums = False
                unit.begin()
                flow.counter.begin()
                self._attempts.run(self._fetch_chunk, unit, flow, blob.descriptor, start=unit.start)
            if unit.at == unit.end:
                self._speeds.record(unit.size, self._clock() - began)
                flow.begin_attempt()  # a cut that came after the last byte is nobody's
                unit.ingest.follow(flow)
        except TransferKitError as error:
            self._fail(blob, error)
        finally:
            if unit.hasher is not None and unit.at < unit.end:
                flow.counter.set_position(0)  # a part of it is not known to be right, and is not kept
            self._leave(blob, flow, unit)

    def _fetch_chunk(self, unit: ChunkUnit, flow: WorkerFlow) -> None:
        """Make one attempt at what is missing of a chunk."""
        blob = unit.blob
        short = blob.descriptor.digest.short
        if blob.state in OVER:
            return
        wanted = Chunk(unit.at, unit.end - 1)
        with self._source.fetch_range(blob.descriptor, wanted, flow=flow) as body:
            if body.offset != wanted.start or body.length not in (wanted.size, None):
                self._logger.debug("%s: the source does not honour ranges", short)
                blob.note(Event.IGNORED)
                return
            if blob.note(Event.HONOURED):
                self._scheduler.notify()
            pump(body, unit, flow)
        if unit.at < unit.end:
            raise ReadError(f"{short}: the body ended {unit.end - unit.at} bytes early")
        if unit.digest is None or unit.hasher is None:
            return
        if not unit.digest.matches(unit.hasher):
            unit.begin()
            flow.counter.set_position(0)
            raise DigestMismatchError(f"{short}: the chunk {unit.start}-{unit.end - 1} has another digest")
        unit.ingest.record(unit.start, unit.end - 1)

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
        descriptor, ingest, in_place = blob.descriptor, blob.ingest, blob.ingest.in_place
        error = blob.error
        if blob.state not in OVER:
            try:
                ingest.commit(flow)
            except CancelledError:
                raise
            except TransferKitError as caught:
                error = caught
            else:
                self._outcomes.ended(descriptor, Outcome.MOVED)
                self._scheduler.ended(blob)
                return
        ingest.keep()
        self._outcomes.take_back(in_place)
        if blob.state is State.STREAM:
            self._scheduler.make_stream(blob)
        elif isinstance(error, VerificationError) and not blob.again and blob.state is not State.FAILED:
            # Its chunks may have been right by their list, or an earlier run's bytes are to blame.
            self._logger.debug("%s: fetched once more, by plain ranges: %s", descriptor.digest.short, error)
            self._outcomes.again(descriptor, error, 0)
            self._scheduler.begin_again(blob)
        else:
            self._scheduler.ended(blob)
            if error is not None:
                self._give_up(descriptor, error)
