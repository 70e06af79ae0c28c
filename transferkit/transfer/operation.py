"""One operation on one host: everything that it does shares its cancellation, its threads, its retry policy, its trace
and its controller.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, TypeVar

from transferkit.cancellation import Cancellation
from transferkit.content.descriptor import AnyBlob, Descriptor
from transferkit.content.interfaces import Fetcher, Ingester, Pusher
from transferkit.errors import shown_as
from transferkit.options import TransferOptions
from transferkit.report import Record, Report, human_bytes
from transferkit.retry import Retry
from transferkit.trace import NULL_TRACE, Trace, Traces
from transferkit.trace.recording import Recording
from transferkit.transfer.attempts import Attempts
from transferkit.transfer.concurrency import FIRST, Concurrency
from transferkit.transfer.copy import Copy
from transferkit.transfer.flow import WorkerFlow, worker_flows
from transferkit.transfer.outcomes import Outcomes, ProgressCallback
from transferkit.transfer.pool import Pool
from transferkit.transfer.pulse import Pulse
from transferkit.transfer.scheduler import Scheduler
from transferkit.transfer.threads import WORKERS, Threads
from transferkit.transfer.waits import Waits
from transferkit.transfer.watchdog import Speeds, Watchdog

T = TypeVar("T")
U = TypeVar("U")
PLENTY = 1024  # descriptors that this process may have, at which its workers leave some to import with


class Operation:
    """What a call of the user's does, as a context manager; one thread's.

    ``concurrency`` is a ceiling for workers, which ``executor`` makes. ``progress`` is called by who calls ``copy``.
    ``host`` is what a line in the log says of whom it waits for. ``proven`` is how many workers were of most use in an
    earlier call; 0: nobody knows.
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
        proven: int = 0,
    ) -> None:
        self._options = options or TransferOptions()
        self._retry = retry or Retry(self._options.retry)
        self._ceiling = max(1, concurrency)
        self._progress = progress
        self._recording = Recording()
        self._trace = self._recording if trace is NULL_TRACE else Traces(trace, self._recording)
        self._cancellation = cancellation or Cancellation()
        self._logger = logger or logging.getLogger("transferkit")
        self._waits = Waits(self._logger, host)
        self._pulse = Pulse(self._trace, self._logger, self._waits)
        self._threads = Threads(self._ceiling, executor)
        self._concurrency = Concurrency(proven=proven)
        self._counted = 0  # bytes of earlier runs, which the progress of this one begins with
        self._apart = 0  # those of them that were no transfer

    def __enter__(self) -> Operation:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, KeyboardInterrupt):
            last = self._pulse.last
            how_far = f" at {human_bytes(last.completed)} of {human_bytes(last.total)}" if last.total else ""
            shown_as(error, f"stopped{how_far}. Run it again: it goes on from there.")
        self._threads.__exit__()

    def call(self, work: Callable[[WorkerFlow], T]) -> T:
        """Do one thing that is no blob, with the same retries, in a worker that can be cancelled and interrupted."""
        results: list[T] = []
        attempts = Attempts(self._retry, self._concurrency, waits=self._waits)

        def run(_: object, flow: WorkerFlow) -> None:
            results.append(attempts.run(lambda _, flow: work(flow), None, flow))

        flows = [WorkerFlow()]
        pool = Pool(run, Scheduler([work]), flows, concurrency=self._concurrency, waits=self._waits)
        self._threads.run(
            pool, self._cancellation, partial(self._pulse.look, flows), interval=self._options.progress_interval
        )
        self._waits.end()
        return results[0]

    @property
    def proven(self) -> int:
        """How many workers at once are of most use, as far as this call has found out; 0: it has not."""
        return self._concurrency.proven

    @property
    def record(self) -> Record:
        """How the call went so far."""
        return self._recording.record

    def announce(self, descriptors: Sequence[Descriptor]) -> None:
        """Tell the trace what will be copied."""
        Outcomes(self._trace, self._logger).announced(descriptors)

    def copy(
        self,
        descriptors: Sequence[Descriptor],
        source: Fetcher,
        target: Pusher | Ingester,
        *,
        present: Sequence[AnyBlob] = (),
        then: int = 0,
    ) -> Report:
        """Copy everything and return what was done; ``present`` are blobs known to be at the target already.

        ``then`` is how many bytes the next run will have: its progress goes on where this one's ends.

        Raises:
            IncompleteError: some blobs failed; the others are in place.
            TransferKitError: something that would fail for every blob; it stopped the copy.
            CancelledError, KeyboardInterrupt: the copy was ended from outside.
        """
        began = time.monotonic()
        options = self._options
        blobs = len(descriptors) + len(present)
        there = sum(descriptor.size for descriptor in present)
        size = there + sum(descriptor.size for descriptor in descriptors)
        begun, progress = self._counted, self._progress
        outcomes = Outcomes(
            self._trace,
            self._logger,
            progress=progress,
            total=begun + size + then,
            present=there,
            begun=begun,
            apart=(self._apart, 0),
        )
        attempts = Attempts(self._retry, self._concurrency, outcomes, waits=self._waits)
        copy = Copy(
            descriptors, source, target, ceiling=self._ceiling, attempts=attempts, outcomes=outcomes, options=options
        )
        flows = worker_flows(copy.workers, options)
        flows[0].counter.set_position(copy.begun)
        outcomes.found(present)
        self._run(copy.work, copy.scheduler, flows, copy.speeds, outcomes, is_tail=copy.is_tail, first=copy.first)
        outcomes.check(blobs)
        self._counted = begun + size if then else 0
        self._apart = min(self._apart, self._counted)
        return Report(
            blobs=blobs,
            bytes=sum(flow.counter.traffic for flow in flows),
            skipped=outcomes.skipped + len(present),
            mounted=outcomes.mounted,
            retried=outcomes.retried,
            healed=outcomes.healed,
            seconds=time.monotonic() - began,
            record=self.record,
        )

    def each(
        self,
        items: Sequence[U],
        work: Callable[[U, WorkerFlow], object],
        *,
        total: int | None = 0,
        present: int = 0,
        workers: int | None = None,
        then: int = 0,
        doing: str = "",
    ) -> None:
        """Do ``work(item, flow)`` for each of some things that are no blobs, in several workers, with the same retries.

        ``total`` is how many bytes they have together, ``present`` of them done already; ``None``: that is no progress.
        ``then`` is how many the next run will have: its progress goes on where this one's ends. An attempt says with
        ``flow.counter.set_position`` where it begins, and counts its bytes with ``flow.moved``. ``workers`` bounds how
        many there are, where that is less than for all. ``doing`` names what is no transfer (``Status.doing``). The
        first error that no other attempt mends ends all.
        """
        attempts = Attempts(self._retry, self._concurrency, waits=self._waits)
        begun, size, progress = self._counted, total or 0, None if total is None else self._progress
        apart = (begun + present, then) if doing else (self._apart, 0)
        outcomes = Outcomes(
            self._trace, self._logger, progress=progress, total=begun + size + then, begun=begun + present, apart=apart
        )
        flows = worker_flows(max(1, min(workers or self._ceiling, self._ceiling, len(items))), self._options)
        scheduler, counted = Scheduler(items), total is not None
        self._run(
            lambda item, flow: attempts.run(work, item, flow), scheduler, flows, Speeds(), outcomes, counted, doing
        )
        if counted:
            self._counted = begun + size if then else 0
            self._apart = self._counted if doing else min(self._apart, self._counted)

    def _run(
        self,
        work: Callable[[Any, WorkerFlow], object],
        scheduler: Scheduler,
        flows: Sequence[WorkerFlow],
        speeds: Speeds,
        outcomes: Outcomes,
        counted: bool = True,
        doing: str = "",
        is_tail: Callable[[], bool] = lambda: False,
        first: int = FIRST,
    ) -> None:
        """Have all units done, watched, and tell the progress before, meanwhile and after."""
        options = self._options

        def tick(*, always: bool = False) -> None:
            outcomes.tick(flows, always=always)
            self._pulse.look(flows, outcomes if counted else None, doing)

        if len(flows) > 1 and _descriptors() < PLENTY:
            self._retry.prepare()  # many workers may use up all of them
        watchdog = Watchdog(
            flows, speeds, stall_timeout=options.stall_timeout, cuts_slow=options.cut_slow, is_tail=is_tail
        )
        pool = Pool(
            work, scheduler, flows, concurrency=self._concurrency, watchdog=watchdog, waits=self._waits, first=first
        )
        tick(always=True)
        self._threads.run(pool, self._cancellation, tick, interval=options.progress_interval)
        self._waits.end()
        tick(always=True)
        self._pulse.end()


def _descriptors() -> float:
    """Return how many this process may have open: its limit, where the system has one."""
    limit: int = os.sysconf("SC_OPEN_MAX") if hasattr(os, "sysconf") else -1
    return limit if limit >= 0 else math.inf
