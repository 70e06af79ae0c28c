"""Attempts at one unit of work: the retry loop, and everybody who has to hear of a failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from transferkit.content.descriptor import Descriptor
from transferkit.errors import DigestMismatchError, SlowError, StorageError, TransferKitError
from transferkit.retry import Retry
from transferkit.transfer.concurrency import Concurrency, is_limit, is_overload, is_starved
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.outcomes import Outcomes
from transferkit.transfer.waits import Waits

T = TypeVar("T")
U = TypeVar("U")


class Attempts:
    """Runs the attempts of units of work. Thread-safe. ``outcomes`` and ``waits`` hear of what is tried again."""

    def __init__(
        self,
        retry: Retry,
        concurrency: Concurrency,
        outcomes: Outcomes | None = None,
        *,
        waits: Waits | None = None,
        optional: bool = False,
    ) -> None:
        self._retry = retry
        self._concurrency = concurrency
        self._outcomes = outcomes
        self._waits = waits
        self._optional = optional

    def limited(self, attempts: int) -> Attempts:
        """Return attempts at something that can be done without, so many at most; nobody hears of them."""
        return Attempts(self._retry.limited(attempts), self._concurrency, optional=True)

    def run(
        self,
        attempt: Callable[[U, WorkerFlow], T],
        unit: U,
        flow: WorkerFlow,
        descriptor: Descriptor | None = None,
        *,
        start: int = 0,
        failed: TransferKitError | None = None,
    ) -> T:
        """Run ``attempt(unit, flow)`` until it succeeds or is given up. Raises as ``Retry.call`` does.

        A failure at the host's limit does not use up the attempts or the patience of a unit where others have got
        further since its last failure. Content with a wrong digest is fetched once more; twice the same is the source's
        own. ``descriptor`` is the blob that the unit, from byte ``start`` on, is of. ``failed`` is why ``first``, of
        which the unit is a part, did; this goes on after that.
        """
        if failed is not None:
            first = failed
        else:
            flow.watch.spared = False
            flow.next_attempt()
            self._concurrency.enter(flow)
            try:
                flow.check()
                result = attempt(unit, flow)
                flow.attempt = 0
                return result
            except TransferKitError as error:
                first = error
        try:
            return self._go_on(first, lambda: attempt(unit, flow), flow, descriptor, start)
        finally:
            flow.attempt = 0
            del first, failed  # its traceback refers to this frame

    @property
    def level(self) -> int:
        """How many attempts may run at once at the moment."""
        return self._concurrency.level

    @property
    def are_free(self) -> bool:
        """Whether an attempt may begin without waiting, for all that the host has said."""
        return not self._concurrency.is_troubled

    def first(self, attempt: Callable[[WorkerFlow], T], flow: WorkerFlow) -> T:
        """Make a first attempt at several units together; where it fails, ``run`` goes on with one of them."""
        flow.watch.spared = False
        flow.next_attempt()
        self._concurrency.enter(flow)
        flow.check()
        result = attempt(flow)
        flow.attempt = 0
        return result

    def once(self, attempt: Callable[[WorkerFlow], None], flow: WorkerFlow) -> None:
        """Make one attempt at something whose failure is somebody else's to deal with."""
        flow.next_attempt()
        self._concurrency.enter(flow)
        try:
            attempt(flow)
        finally:
            flow.attempt = 0
            flow.next_attempt()  # a cut that was meant for this one

    def _go_on(
        self, first: TransferKitError, attempt: Callable[[], T], flow: WorkerFlow, blob: Descriptor | None, start: int
    ) -> T:
        concurrency, outcomes = self._concurrency, self._outcomes
        # What is no blob was asked for by its name: other content than that will not become right.
        mismatches = blob is None or isinstance(first, DigestMismatchError)
        first.retryable = first.retryable or (blob is not None and mismatches) or is_starved(first)
        others, slow, is_excused, why = -1, 0, False, "retry"

        def one() -> T:
            nonlocal mismatches
            concurrency.enter(flow)
            flow.check()
            try:
                return attempt()
            except DigestMismatchError as error:
                error.retryable, mismatches = not mismatches, True
                raise
            except StorageError as error:
                error.retryable = is_starved(error)
                raise

        def excused(error: TransferKitError) -> bool:
            # It failed at the host's limit, where others have got further than ever since its last failure.
            nonlocal others, is_excused
            before, others = others, max(others, concurrency.progress_of_others(flow))
            is_excused = not self._optional and others > before >= 0 and is_limit(error, flow)
            return is_excused

        def again(error: TransferKitError, wait: float) -> None:
            nonlocal slow, why
            slow += isinstance(error, SlowError)
            # It is not the connection that is slow. To be cut once more might mean never to arrive.
            flow.watch.spared = slow >= self._retry.options.free_restarts
            why = "rate limit" if is_overload(error) else "retry"
            if not self._optional or is_overload(error):
                concurrency.failed(error, flow, wait, excused=is_excused)
            flow.attempt = 0
            if self._waits is not None:
                self._waits.failed(error, wait)
            if outcomes is not None and blob is not None:
                outcomes.again(blob, error, start + flow.counter.position, wait)
            flow.next_attempt()

        def sleep(seconds: float) -> None:
            flow.wait(seconds, why)

        peak = flow.counter.peak
        return self._retry.call(one, position=peak, sleep=sleep, on_retry=again, excused=excused, first=first)
