"""What a worker does with a unit: it copies a whole blob, begins a large one, or fetches a chunk.

A failing blob does not hide the others; an error that its source or its target says would be the same for each of them
ends the copy at once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import cast

from transferkit.content.descriptor import MAX_SIZE, Descriptor
from transferkit.content.interfaces import (
    Fetcher,
    Ingester,
    Judge,
    Keeping,
    Outcome,
    PartPusher,
    Pipeliner,
    Pusher,
    RangeFetcher,
    Resuming,
    Storer,
)
from transferkit.errors import CancelledError, TransferKitError
from transferkit.options import TransferOptions
from transferkit.transfer.attempts import Attempts
from transferkit.transfer.bundles import Bundles
from transferkit.transfer.chunked import ChunkedBlob, ChunkUnit
from transferkit.transfer.concurrency import FIRST
from transferkit.transfer.crew import Job
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.large import LargeBlobs
from transferkit.transfer.outcomes import Outcomes
from transferkit.transfer.pump import stream
from transferkit.transfer.scheduler import Scheduler
from transferkit.transfer.watchdog import Speeds


class Copy:
    """Copies ``descriptors`` from ``source`` to ``target``: ``work`` does one unit of its ``scheduler``. Thread-safe.

    Where the source has ranges and the engine fills the target, large blobs come in chunks, and the others whole.
    ``workers`` is how many there are use for, at most ``ceiling``.
    """

    def __init__(
        self,
        descriptors: Sequence[Descriptor],
        source: Fetcher,
        target: Pusher | Ingester,
        *,
        ceiling: int,
        attempts: Attempts,
        outcomes: Outcomes,
        options: TransferOptions,
    ) -> None:
        in_chunks = isinstance(source, RangeFetcher) and isinstance(target, Ingester)
        threshold = options.chunk_threshold if in_chunks else MAX_SIZE
        if isinstance(target, Keeping):
            threshold = max(threshold, target.resume_threshold - 1)
        large = partial(ChunkedBlob, size=options.chunk_size, window=ceiling)
        wholes = [descriptor for descriptor in descriptors if descriptor.size <= threshold]
        larges = [large(descriptor) for descriptor in descriptors if descriptor.size > threshold]
        self.scheduler = Scheduler(wholes, larges)
        self.speeds = Speeds()
        shared = self.scheduler, attempts, outcomes, self.speeds
        self._bundles: Bundles | None = None
        if isinstance(source, Pipeliner) and isinstance(target, Storer):
            self._bundles = Bundles(source, target, *shared, one=self._copy_whole)
        self.first = 1 if self._bundles is not None and all(map(self._bundles.is_small, descriptors)) else FIRST
        """How many workers to begin with."""
        units = target.parts(wholes) if isinstance(target, PartPusher) else len(wholes)
        units += sum(-(-blob.descriptor.size // blob.chunk_size) for blob in larges)
        self.workers = max(1, min(ceiling, units))
        self._source = source
        self._target = target
        self._attempt = partial(stream, source, target) if isinstance(target, Ingester) else self._push
        self._fills = isinstance(target, Ingester)
        self._judges = [side for side in (source, target) if isinstance(side, Judge)]
        self._attempts = attempts
        self._outcomes = outcomes
        self._begun = target.received(descriptors) if isinstance(target, Resuming) else {}
        self.begun = sum(self._begun.values())
        """How many bytes an earlier run has left, which whoever begins counts first."""
        self._larges = LargeBlobs(
            source,
            cast(Ingester, target),  # else there are none
            *shared,
            make=large,
            count_begun=self._count_begun,
            give_up=self._give_up,
            ends_all=self._ends_all,
        )

    def is_tail(self) -> bool:
        """Tell whether a worker has nothing to do, and who is late may be asked for again: not what is being sent."""
        return self._fills and self.scheduler.is_dry

    def work(self, unit: Descriptor | ChunkUnit | ChunkedBlob | Job, flow: WorkerFlow) -> None:
        """Do one unit of work; raise what would fail for every blob, or ends the copy from outside."""
        if isinstance(unit, Descriptor):
            bundle = self._bundles.take(unit, flow) if self._bundles is not None else None
            if self._bundles is None or bundle is None:
                self._copy_whole(unit, flow)
            else:
                self._bundles.copy(bundle, flow)
        elif isinstance(unit, ChunkUnit):
            self._larges.copy_chunk(unit, flow)
        elif isinstance(unit, Job):
            self._attempts.once(unit.run, flow)
        else:
            self._larges.open(unit, flow)

    def _give_up(self, descriptor: Descriptor, error: TransferKitError) -> None:
        """Take in that a blob failed for good; an error that would be the same for every blob goes on to the caller."""
        if self._ends_all(error):
            raise error
        self._outcomes.failed(descriptor, error)

    def _ends_all(self, error: TransferKitError) -> bool:
        return isinstance(error, CancelledError) or any(judge.concerns_all(error) for judge in self._judges)

    def _count_begun(self, descriptor: Descriptor, flow: WorkerFlow) -> None:
        """Take over what an earlier run has left of a blob from the first figure of the progress."""
        begun = self._begun.pop(descriptor.digest, 0)
        if begun:
            flow.counter.take_over(begun, begun)

    # -- whole blobs

    def _copy_whole(self, descriptor: Descriptor, flow: WorkerFlow, failed: TransferKitError | None = None) -> None:
        """Copy a blob as one stream; ``failed`` is why a first attempt did."""
        self._outcomes.started(descriptor)
        if self._begun:
            self._count_begun(descriptor, flow)
        began = time.monotonic()
        try:
            outcome = self._attempts.run(self._attempt, descriptor, flow, descriptor, failed=failed)
        except TransferKitError as error:
            if not isinstance(error, CancelledError):
                flow.counter.set_position(0)
            self._give_up(descriptor, error)
        else:
            if outcome is Outcome.MOVED:
                self.speeds.record(descriptor.size, time.monotonic() - began)
            self._outcomes.ended(descriptor, outcome)

    def _push(self, descriptor: Descriptor, flow: WorkerFlow) -> Outcome:
        return cast(Pusher, self._target).push(descriptor, self._source, flow=flow)
