"""A copy of many blobs from a source to a target: every operation of this library is one.

One unit of work a blob; one retry loop a unit. A failing blob does not hide the others; an error that would be the same
for each of them ends the copy at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TypeVar

from transferkit.cancellation import Cancellation
from transferkit.content.descriptor import MAX_SIZE, Descriptor
from transferkit.content.interfaces import Fetcher, Ingester, Outcome, Pusher, RangeFetcher
from transferkit.errors import CancelledError, IncompleteError, TransferKitError
from transferkit.options import TransferOptions
from transferkit.report import Report
from transferkit.retry import Retry
from transferkit.trace import NULL_TRACE, Trace
from transferkit.transfer.agenda import Agenda, Unit
from transferkit.transfer.attempts import Attempts, Outcomes, is_fatal
from transferkit.transfer.bandwidth import Bandwidth
from transferkit.transfer.flow import WorkerFlow, buffer_size
from transferkit.transfer.large import LargeBlobs
from transferkit.transfer.pool import Pool, Queue
from transferkit.transfer.progress import Progress, ProgressCallback
from transferkit.transfer.ranged import total_chunks
from transferkit.transfer.speed import SMALLEST, Speeds
from transferkit.transfer.throttle import Throttle
from transferkit.transfer.watchdog import Watchdog

T = TypeVar("T")


class Copy:
    """Copies blobs from ``source`` to ``target``; used once. ``present`` are blobs known to be at the target already.

    ``executor`` makes the pool of threads for a number of workers; a serial one runs the same code without threads.
    """

    def __init__(
        self,
        descriptors: Sequence[Descriptor],
        source: Fetcher,
        target: Pusher,
        *,
        concurrency: int,
        retry: Retry,
        options: TransferOptions | None = None,
        progress: ProgressCallback | None = None,
        trace: Trace = NULL_TRACE,
        present: Sequence[Descriptor] = (),
        cancellation: Cancellation | None = None,
        executor: Callable[[int], Executor] | None = None,
        logger: logging.Logger | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        options = options or TransferOptions()
        logger = logger or logging.getLogger(__name__)
        self._source = source
        self._target = target
        self._clock = clock
        self._interval = options.progress_interval
        self._outcomes = Outcomes(trace, logger, skipped=len(present))
        self._blobs = len(descriptors) + len(present)
        there = sum(descriptor.size for descriptor in present)
        total = there + sum(descriptor.size for descriptor in descriptors)
        self._progress = Progress(progress, total, present=there, logger=logger)
        in_chunks = isinstance(source, RangeFetcher) and isinstance(target, Ingester)
        threshold = options.chunk_threshold if in_chunks else MAX_SIZE
        self._agenda = Agenda(descriptors, is_large=lambda descriptor: descriptor.size > threshold)
        workers = max(1, min(concurrency, total_chunks(descriptors, threshold, size=options.chunk_size)))
        self._pool: Pool[Unit] = Pool(
            self._work,
            self._agenda,
            concurrency=workers,
            cancellation=cancellation or Cancellation(),
            executor=executor,
            make_flow=self._flow_maker(options, workers),
        )
        self._speeds = Speeds()
        self._throttle = Throttle(self._pool.flows, sleep=self._pool.sleep, clock=clock)
        self._watchdog = Watchdog(self._pool.flows, self._speeds, stall_timeout=options.stall_timeout, clock=clock)
        self._attempts = Attempts(retry, self._throttle, self._outcomes, sleep=self._pool.sleep, logger=logger)
        self._large: LargeBlobs | None = None
        if isinstance(source, RangeFetcher) and isinstance(target, Ingester):
            self._large = LargeBlobs(
                source,
                target,
                agenda=self._agenda,
                attempts=self._attempts,
                outcomes=self._outcomes,
                speeds=self._speeds,
                copy_whole=self._copy_whole,
                chunk_size=options.chunk_size,
                window=len(self._pool.flows),
                sleep=self._pool.sleep,
                logger=logger,
                clock=clock,
            )

    def _flow_maker(self, options: TransferOptions, workers: int) -> Callable[[int], WorkerFlow]:
        """Return what makes the flows: with the limits that all of them share."""
        limit = options.max_bandwidth
        bandwidth = (
            Bandwidth(limit, sleep=lambda seconds: self._pool.sleep(seconds), clock=self._clock) if limit else None
        )
        buffer = buffer_size(workers, limit)
        count = options.body_concurrency
        bodies = threading.BoundedSemaphore(count) if count else None
        return lambda number: WorkerFlow(number, bandwidth=bandwidth, bodies=bodies, buffer=buffer)

    def run(self) -> Report:
        """Copy everything and return what was done.

        Raises:
            IncompleteError: some blobs failed; the others are in place.
            TransferKitError: something that would fail for every blob; it stopped the copy.
            CancelledError, KeyboardInterrupt: the copy was ended from outside.
        """
        began = self._clock()
        self._tick(always=True)
        if self._pool.has_work:
            try:
                with self._watchdog:
                    self._pool.run(self._tick, interval=self._interval)
            finally:
                # No worker is left: what is in place stays there for the next run.
                for blob in self._agenda.unfinished():
                    blob.ingest.close()
        self._tick(always=True)
        outcomes = self._outcomes
        if outcomes.failures:
            raise _incomplete(outcomes.failures, self._blobs)
        return Report(
            blobs=self._blobs,
            bytes=sum(flow.counter.traffic for flow in self._pool.flows),
            skipped=outcomes.skipped,
            mounted=outcomes.mounted,
            retried=outcomes.retried,
            healed=outcomes.healed,
            seconds=self._clock() - began,
        )

    def _tick(self, *, always: bool = False) -> None:
        self._progress.tick(self._pool.flows, taken_back=self._outcomes.taken_back, always=always)

    def _work(self, unit: Unit, flow: WorkerFlow) -> None:
        if isinstance(unit, Descriptor) and (self._large is None or not self._agenda.is_large(unit)):
            self._copy_whole(unit, flow)
        elif self._large is not None:
            self._large.work(unit, flow)

    def _copy_whole(self, descriptor: Descriptor, flow: WorkerFlow) -> None:
        """Copy a blob as one stream."""
        self._outcomes.started(descriptor)
        began = self._clock() if descriptor.size >= SMALLEST else 0.0
        try:
            outcome = self._attempts.run(
                descriptor,
                lambda: self._target.push(descriptor, self._source, flow=flow),
                flow,
                position=lambda: flow.counter.position,
            )
        except CancelledError:
            raise
        except TransferKitError as error:
            flow.counter.set_position(0)
            if is_fatal(error):
                raise
            self._outcomes.failed(descriptor, error)
        else:
            if began and outcome is Outcome.MOVED:
                self._speeds.record(descriptor.size, self._clock() - began)
            self._outcomes.ended(descriptor, outcome)


def run_one(work: Callable[[WorkerFlow], T], *, retry: Retry, cancellation: Cancellation) -> T:
    """Do one thing that is no blob, with the same retries, in a worker that can be cancelled and interrupted."""
    results: list[T] = []

    def unit(_: bool, flow: WorkerFlow) -> None:
        def attempt() -> T:
            flow.begin_attempt()
            flow.check()
            return work(flow)

        results.append(retry.call(attempt, position=lambda: flow.counter.peak, sleep=pool.sleep))

    pool: Pool[bool] = Pool(unit, Queue([True]), concurrency=1, cancellation=cancellation)
    pool.run(lambda: None, interval=1.0)
    return results[0]


def _incomplete(failures: dict[str, TransferKitError], blobs: int) -> IncompleteError:
    digest, first = next(iter(failures.items()))
    rest = f" (and {len(failures) - 1} more in .failures)" if len(failures) > 1 else ""
    return IncompleteError(
        f"{len(failures)} of {blobs} blobs failed, the others are in place: {digest[:19]}: {first}{rest}",
        failures=failures,
    )
