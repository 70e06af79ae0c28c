"""One operation on one host: everything that it does shares its cancellation, its threads, its retry policy, its trace
and its controller.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

from transferkit.cancellation import Cancellation
from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Fetcher, Ingester, Pusher
from transferkit.options import TransferOptions
from transferkit.report import Report
from transferkit.retry import Retry
from transferkit.trace import NULL_TRACE, Trace
from transferkit.transfer.attempts import Attempts
from transferkit.transfer.concurrency import Concurrency
from transferkit.transfer.copy import Copy
from transferkit.transfer.flow import WorkerFlow, worker_flows
from transferkit.transfer.outcomes import Outcomes, ProgressCallback
from transferkit.transfer.pool import Pool
from transferkit.transfer.scheduler import Scheduler
from transferkit.transfer.threads import WORKERS, Threads
from transferkit.transfer.waits import Waits
from transferkit.transfer.watchdog import Watchdog

T = TypeVar("T")


class Operation:
    """What a call of the user's does, as a context manager; one thread's.

    ``concurrency`` is a ceiling for workers, which ``executor`` makes. ``progress`` is called by who calls ``copy``.
    ``host`` is what a line in the log says of whom it waits for.
    """

    def __init__(
        self,
        *,
        concurrency: int = 1,
        options: TransferOptions | None = None,
        retry: Retry | None = None,
        progress: ProgressCallback | None = None,
        trace: Trace = NULL_TRACE,
        cancellation: Cancellation | None = None,
        executor: Callable[[int], Executor] = WORKERS,
        logger: logging.Logger | None = None,
        host: str = "the registry",
    ) -> None:
        self._options = options or TransferOptions()
        self._retry = retry or Retry(self._options.retry)
        self._ceiling = max(1, concurrency)
        self._progress = progress
        self._trace = trace
        self._cancellation = cancellation or Cancellation()
        self._logger = logger or logging.getLogger("transferkit")
        self._waits = Waits(self._logger, host)
        self._threads = Threads(self._ceiling, executor)
        self._concurrency = Concurrency()

    def __enter__(self) -> Operation:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.__exit__()

    def call(self, work: Callable[[WorkerFlow], T]) -> T:
        """Do one thing that is no blob, with the same retries, in a worker that can be cancelled and interrupted."""
        results: list[T] = []
        attempts = Attempts(self._retry, self._concurrency, waits=self._waits)

        def run(_: object, flow: WorkerFlow) -> None:
            results.append(attempts.run(lambda _, flow: work(flow), None, flow))

        pool = Pool(run, Scheduler([work]), [WorkerFlow()], concurrency=self._concurrency, waits=self._waits)
        self._threads.run(pool, self._cancellation)
        self._waits.end()
        return results[0]

    def announce(self, descriptors: Sequence[Descriptor]) -> None:
        """Tell the trace what will be copied."""
        Outcomes(self._trace, self._logger).announced(descriptors)

    def copy(
        self,
        descriptors: Sequence[Descriptor],
        source: Fetcher,
        target: Pusher | Ingester,
        *,
        present: Sequence[Descriptor] = (),
    ) -> Report:
        """Copy everything and return what was done; ``present`` are blobs known to be at the target already.

        Raises:
            IncompleteError: some blobs failed; the others are in place.
            TransferKitError: something that would fail for every blob; it stopped the copy.
            CancelledError, KeyboardInterrupt: the copy was ended from outside.
        """
        began = time.monotonic()
        options = self._options
        blobs = len(descriptors) + len(present)
        there = sum(descriptor.size for descriptor in present)
        total = there + sum(descriptor.size for descriptor in descriptors)
        outcomes = Outcomes(self._trace, self._logger, progress=self._progress, total=total, present=there)
        attempts = Attempts(self._retry, self._concurrency, outcomes, waits=self._waits)
        copy = Copy(
            descriptors, source, target, ceiling=self._ceiling, attempts=attempts, outcomes=outcomes, options=options
        )
        flows = worker_flows(copy.workers, options)
        flows[0].counter.set_position(copy.begun)
        watchdog = Watchdog(flows, copy.speeds, stall_timeout=options.stall_timeout)
        pool = Pool(
            copy.work,
            copy.scheduler,
            flows,
            concurrency=self._concurrency,
            watchdog=watchdog,
            waits=self._waits,
        )
        tick = partial(outcomes.tick, flows)
        outcomes.found(present)
        tick(always=True)
        self._threads.run(pool, self._cancellation, tick, interval=options.progress_interval)
        self._waits.end()
        tick(always=True)
        outcomes.check(blobs)
        return Report(
            blobs=blobs,
            bytes=sum(flow.counter.traffic for flow in flows),
            skipped=outcomes.skipped + len(present),
            mounted=outcomes.mounted,
            retried=outcomes.retried,
            healed=outcomes.healed,
            seconds=time.monotonic() - began,
        )
