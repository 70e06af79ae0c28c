"""A copy of many blobs from a source to a target: every operation of this library is one.

One unit of work a blob; one retry loop a unit. A failing blob does not hide the others; an error that would be the same
for each of them ends the copy at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import TypeVar

from transferkit.cancellation import Cancellation
from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Fetcher, Outcome, Pusher
from transferkit.errors import (
    CancelledError,
    CertificateError,
    ConnectError,
    DigestMismatchError,
    IncompleteError,
    RateLimitedError,
    RetriesExhaustedError,
    StorageError,
    TransferKitError,
    UnauthorizedError,
)
from transferkit.report import Report
from transferkit.retry import Retry
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.pool import Pool
from transferkit.transfer.progress import Progress, ProgressCallback
from transferkit.transfer.speed import SMALLEST, Speeds
from transferkit.transfer.throttle import Throttle
from transferkit.transfer.watchdog import Watchdog

T = TypeVar("T")

# The same for every blob: the disk, the credentials and the certificate will not get better for the next one.
_FATAL = (StorageError, UnauthorizedError, CertificateError)


def is_fatal(error: TransferKitError) -> bool:
    """Tell whether an error ends the whole copy: it would be the same for every other blob."""
    if isinstance(error, RetriesExhaustedError):
        return isinstance(error.__cause__, ConnectError)
    if isinstance(error, RateLimitedError):
        return not error.retryable  # it asks for a longer wait than the user allows
    return isinstance(error, _FATAL) or (isinstance(error, ConnectError) and not error.retryable)


@dataclass(slots=True)
class _Totals:
    skipped: int = 0
    mounted: int = 0
    retried: int = 0
    failures: dict[str, TransferKitError] = field(default_factory=dict)


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
        progress: ProgressCallback | None = None,
        progress_interval: float = 0.1,
        present: Sequence[Descriptor] = (),
        cancellation: Cancellation | None = None,
        executor: Callable[[int], Executor] | None = None,
        logger: logging.Logger | None = None,
        stall_timeout: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger or logging.getLogger(__name__)
        self._source = source
        self._target = target
        self._retry = retry
        self._clock = clock
        self._interval = progress_interval
        self._totals = _Totals(skipped=len(present))
        self._blobs = len(descriptors) + len(present)
        there = sum(descriptor.size for descriptor in present)
        total = there + sum(descriptor.size for descriptor in descriptors)
        self._progress = Progress(progress, total, present=there, logger=self._logger)
        self._pool: Pool[Descriptor] = Pool(
            self._copy_one,
            descriptors,
            concurrency=concurrency,
            cancellation=cancellation or Cancellation(),
            executor=executor,
        )
        flows = self._pool.flows
        self._speeds = Speeds()
        self._throttle = Throttle(flows, sleep=self._pool.sleep, clock=clock)
        self._watchdog = Watchdog(flows, self._speeds, stall_timeout=stall_timeout, clock=clock)

    def run(self) -> Report:
        """Copy everything and return what was done.

        Raises:
            IncompleteError: some blobs failed; the others are in place.
            TransferKitError: something that would fail for every blob; it stopped the copy.
            CancelledError, KeyboardInterrupt: the copy was ended from outside.
        """
        began = self._clock()
        flows = self._pool.flows
        self._progress.tick(flows, always=True)
        if self._pool.has_work:
            with self._watchdog:
                self._pool.run(lambda: self._progress.tick(flows), interval=self._interval)
        self._progress.tick(flows, always=True)
        totals = self._totals
        if totals.failures:
            raise _incomplete(totals.failures, self._blobs)
        return Report(
            blobs=self._blobs,
            bytes=sum(flow.traffic for flow in flows),
            skipped=totals.skipped,
            mounted=totals.mounted,
            retried=totals.retried,
            seconds=self._clock() - began,
        )

    def _copy_one(self, descriptor: Descriptor, flow: WorkerFlow) -> None:
        mismatches = 0

        def attempt() -> Outcome:
            nonlocal mismatches
            flow.begin_attempt()
            self._throttle.enter(flow)
            flow.check()
            try:
                return self._target.push(descriptor, self._source, flow=flow)
            except DigestMismatchError as error:
                # Once more: a proxy may have spoiled it. Twice the same is the registry's own content.
                mismatches += 1
                error.retryable = mismatches == 1
                raise

        def again(error: TransferKitError, wait: float) -> None:
            self._throttle.note(error, flow, wait)
            with self._pool.lock:
                self._totals.retried += 1
            self._logger.debug("%s: trying again in %.2f s: %s", descriptor.digest.short, wait, error)

        began = self._clock() if descriptor.size >= SMALLEST else 0.0
        try:
            outcome = self._retry.call(attempt, position=flow.peak, sleep=self._pool.sleep, on_retry=again)
        except CancelledError:
            raise
        except TransferKitError as error:
            flow.settle(0)
            if is_fatal(error):
                raise
            self._totals.failures[descriptor.digest] = error
        else:
            if outcome is not Outcome.MOVED:
                self._count(outcome)
            elif began:
                self._speeds.record(descriptor.size, self._clock() - began)
        finally:
            flow.busy = False

    def _count(self, outcome: Outcome) -> None:
        with self._pool.lock:  # "+=" on an attribute is not atomic
            if outcome is Outcome.PRESENT:
                self._totals.skipped += 1
            else:
                self._totals.mounted += 1


def run_one(work: Callable[[WorkerFlow], T], *, retry: Retry, cancellation: Cancellation) -> T:
    """Do one thing that is no blob, with the same retries, in a worker that can be cancelled and interrupted."""
    results: list[T] = []

    def unit(_: None, flow: WorkerFlow) -> None:
        def attempt() -> T:
            flow.begin_attempt()
            flow.check()
            return work(flow)

        results.append(retry.call(attempt, position=flow.peak, sleep=pool.sleep))

    pool: Pool[None] = Pool(unit, [None], concurrency=1, cancellation=cancellation)
    pool.run(lambda: None, interval=1.0)
    return results[0]


def _incomplete(failures: dict[str, TransferKitError], blobs: int) -> IncompleteError:
    digest, first = next(iter(failures.items()))
    rest = f" (and {len(failures) - 1} more in .failures)" if len(failures) > 1 else ""
    return IncompleteError(
        f"{len(failures)} of {blobs} blobs failed, the others are in place: {digest[:19]}: {first}{rest}",
        failures=failures,
    )
