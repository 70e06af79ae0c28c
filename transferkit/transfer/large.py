"""Large blobs: begun by one worker, fetched in chunks by all of them, finished by the last.

Whether the source honours ranges is seen from the answer to the first chunk, which costs no request of its own: until
then the other chunks are held back, and a source that sends everything instead is read as one stream.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import closing

from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Body, ChunkLister, Ingester, Outcome, RangeFetcher
from transferkit.errors import (
    CancelledError,
    DigestMismatchError,
    ProtocolError,
    ReadError,
    TransferKitError,
    VerificationError,
)
from transferkit.transfer.agenda import Agenda, Unit
from transferkit.transfer.attempts import Attempts, Outcomes, is_fatal
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.ranged import ChunkUnit, RangedBlob
from transferkit.transfer.speed import Speeds

_LIST_TRIES = 3  # a list that is cut short is read again from its start, that often
_LOOK = 0.05  # seconds between two looks of the reader of a list that has enough chunks


class LargeBlobs:
    """Copies large blobs in chunks from a ``RangeFetcher`` to an ``Ingester``. Thread-safe."""

    def __init__(
        self,
        source: RangeFetcher,
        target: Ingester,
        *,
        agenda: Agenda,
        attempts: Attempts,
        outcomes: Outcomes,
        speeds: Speeds,
        copy_whole: Callable[[Descriptor, WorkerFlow], None],
        chunk_size: int | None,
        window: int | None = None,
        sleep: Callable[[float], None],
        logger: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._target = target
        self._agenda = agenda
        self._attempts = attempts
        self._outcomes = outcomes
        self._speeds = speeds
        self._copy_whole = copy_whole
        self._chunk_size = chunk_size
        self._window = window
        self._sleep = sleep
        self._logger = logger
        self._clock = clock

    def work(self, unit: Unit, flow: WorkerFlow) -> None:
        """Begin a blob, or fetch one of its chunks.

        Raises:
            TransferKitError: something that would fail for every blob.
        """
        if isinstance(unit, ChunkUnit):
            self.copy_chunk(unit, flow)
        else:
            self.begin(unit, flow)

    # -- beginning

    def begin(self, descriptor: Descriptor, flow: WorkerFlow) -> None:
        """Open a blob, fetch its first missing chunk, and let the others have the rest.

        Raises:
            TransferKitError: something that would fail for every blob.
        """
        blob = None
        flow.begin_attempt()
        try:
            blob = self._open(descriptor, flow)
            if blob is not None:
                blob.enter()
        finally:
            self._agenda.begun(blob)
        if blob is None:
            return
        try:
            blob.ingest.follow(flow)
            self._read_list(blob, flow)
            unit = blob.take(first=True)
            if unit is not None:
                flow.counter.begin()
                self.copy_chunk(unit, flow)
        except TransferKitError as error:
            self._give_up(blob, error)
        finally:
            blob.list_ended()
            self._agenda.news()
            self._leave(blob, flow)

    def _open(self, descriptor: Descriptor, flow: WorkerFlow) -> RangedBlob | None:
        self._outcomes.started(descriptor)
        ingest = self._target.ingest(descriptor, flow=flow)
        if ingest is None:
            flow.counter.set_position(descriptor.size)
            self._outcomes.ended(descriptor, Outcome.PRESENT)
            return None
        flow.counter.set_position(ingest.in_place)
        return RangedBlob(descriptor, ingest, size=self._chunk_size, window=self._window)

    def _read_list(self, blob: RangedBlob, flow: WorkerFlow) -> None:
        """Read the digests of the chunks, where the source has them; chunks are fetched while the list still comes."""
        if not isinstance(self._source, ChunkLister):
            return
        descriptor = blob.descriptor
        for tries in range(1, _LIST_TRIES + 1):
            known = False
            try:
                # Closed on every way out: a traceback would keep the list's connection open.
                with closing(self._source.chunksums(descriptor, flow=flow)) as pairs:
                    for chunk, digest in pairs:
                        if not known:
                            # Its chunks come with a promise of ranges: handed out while the list still comes.
                            known = True
                            blob.follow_list()
                            blob.open_up()
                        while not blob.listed(chunk, digest):
                            self._help(blob, flow)
                        self._agenda.news()
                return
            except TransferKitError as error:
                # A list that is a lie is final; one that was cut short is read again from its start, and what was
                # verified by it is not fetched again.
                if not error.retryable:
                    raise
                self._logger.debug("%s: the list of chunks broke off: %s", descriptor.digest.short, error)
                self._attempts.wait(error, flow, tries)
        self._logger.debug("%s: the list of chunks never came whole, plain ranges", descriptor.digest.short)
        while not blob.leave_list():
            self._help(blob, flow)

    def _help(self, blob: RangedBlob, flow: WorkerFlow) -> None:
        """Fetch a chunk while the list has to wait: where all workers are at lists, nobody else would."""
        self._agenda.news()
        unit = blob.take()
        if unit is not None:
            flow.counter.begin()
            self.copy_chunk(unit, flow)
        else:
            flow.check()
            self._sleep(_LOOK)

    # -- chunks

    def copy_chunk(self, unit: ChunkUnit, flow: WorkerFlow) -> None:
        """Fetch one chunk, continued from where it is after each failure.

        Raises:
            TransferKitError: something that would fail for every blob.
        """
        blob, chunk = unit.blob, unit.chunk
        began = self._clock()
        try:
            self._fetch_right(unit, flow)
            if unit.done == chunk.size:
                self._speeds.record(chunk.size, self._clock() - began)
                flow.begin_attempt()  # a cut that came after the last byte is nobody's
                blob.ingest.follow(flow)
        except TransferKitError as error:
            self._give_up(blob, error)
        finally:
            if unit.hasher is not None and unit.done < chunk.size:
                flow.counter.set_position(0)  # a part of it is not known to be right, and is not kept
            self._agenda.news()
            self._leave(blob, flow, unit)

    def _fetch_right(self, unit: ChunkUnit, flow: WorkerFlow) -> None:
        """Fetch a chunk that has the digest of the list; where it never has, without the list."""
        try:
            self._attempt(unit, flow)
        except DigestMismatchError as error:
            # Twice something else than the list says: it may be the list that lies, and the whole will tell.
            self._logger.debug("%s; fetched once more, by plain ranges", error)
            self._outcomes.again(unit.blob.descriptor, error, unit.chunk.start)
            unit.blob.disbelieve_list()
            unit.begin_again()
            flow.counter.begin()
            self._attempt(unit, flow)

    def _attempt(self, unit: ChunkUnit, flow: WorkerFlow) -> None:
        """Make attempts at a chunk until it is there."""
        blob = unit.blob

        def attempt() -> None:
            if blob.error is None:
                self._fetch(unit, flow)

        self._attempts.run(blob.descriptor, attempt, flow, position=lambda: unit.chunk.start + unit.done)

    def _fetch(self, unit: ChunkUnit, flow: WorkerFlow) -> None:
        """Make one attempt at what is missing of a chunk."""
        blob, chunk = unit.blob, unit.chunk
        wanted = Chunk(chunk.start + unit.done, chunk.end)
        with self._source.fetch_range(blob.descriptor, wanted, flow=flow) as body:
            if body.offset != wanted.start or body.length not in (wanted.size, None):
                raise _RangesIgnored(f"{blob.descriptor.digest.short}: the source does not honour ranges")
            if not blob.is_open:
                blob.open_up()
                self._agenda.news()
            self._fill(unit, body, flow)
        if unit.digest is None or unit.hasher is None:
            return
        if not unit.digest.matches(unit.hasher):
            unit.begin_again()
            flow.counter.set_position(0)
            raise DigestMismatchError(f"{blob.descriptor.digest.short}: the chunk {chunk} has another digest")
        blob.ingest.record(chunk.start, chunk.end)

    def _fill(self, unit: ChunkUnit, body: Body, flow: WorkerFlow) -> None:
        """Read a body into its place; what has arrived when it breaks off is kept."""
        buffer = flow.buffer
        size = len(buffer)
        left = unit.chunk.size - unit.done
        filled = 0
        flow.watch.begin()
        try:
            while left:
                # Fill the buffer before hashing and writing: TLS hands out 16 KiB at most.
                count = body.readinto(buffer[filled : filled + left])
                if not count:
                    raise ReadError(f"{unit.blob.descriptor.digest.short}: the body ended {left} bytes early")
                flow.moved(count)
                filled += count
                left -= count
                if filled == size or not left:
                    whole, filled = filled, 0
                    flow.watch.paused = True
                    unit.write(buffer[:whole])
                    flow.watch.paused = False
        except BaseException:
            if filled:
                try:
                    unit.write(buffer[:filled])
                except TransferKitError:
                    pass  # the error that broke the attempt off is the one to be told
            flow.counter.set_position(unit.done)
            raise
        finally:
            flow.watch.end()

    # -- ending

    def _give_up(self, blob: RangedBlob, error: TransferKitError) -> None:
        """Stop fetching a blob; an error that would be the same for every blob goes on to the caller."""
        if isinstance(error, CancelledError):
            raise error
        blob.fail(error)
        if is_fatal(error):
            raise error

    def _leave(self, blob: RangedBlob, flow: WorkerFlow, unit: ChunkUnit | None = None) -> None:
        if blob.leave(unit):
            self._finish(blob, flow)

    def _finish(self, blob: RangedBlob, flow: WorkerFlow) -> None:
        """Commit a blob of which nothing is missing, or tell why there will be none."""
        descriptor, ingest = blob.descriptor, blob.ingest
        if blob.error is None and ingest.in_place < descriptor.size:
            # Somebody was stopped within a chunk, or a list had none for these bytes: what is there stays.
            blob.want_missing()
            self._agenda.news()
            return
        if blob.error is None:
            try:
                ingest.commit(flow)
            except VerificationError as error:
                self._outcomes.take_back(ingest.in_place)
                if not blob.attempts:
                    # Its chunks may have been right by their list, or an earlier run's bytes are to blame.
                    self._logger.debug("%s: fetched once more, by plain ranges: %s", descriptor.digest.short, error)
                    self._outcomes.again(descriptor, error, 0)
                    blob.restart()
                    self._agenda.news()
                    return
                ingest.discard()
                blob.fail(error)
                self._outcomes.failed(descriptor, error)
            else:
                self._outcomes.ended(descriptor, Outcome.MOVED)
            self._agenda.ended(blob)
            return
        self._outcomes.take_back(ingest.in_place)
        ingest.close()
        self._agenda.ended(blob)
        if isinstance(blob.error, _RangesIgnored):
            self._logger.debug("%s; it is read as one stream", blob.error)
            flow.counter.begin()
            self._copy_whole(descriptor, flow)
        else:
            self._outcomes.failed(descriptor, blob.error)


class _RangesIgnored(ProtocolError):
    """The source answers a request for a range with everything."""
