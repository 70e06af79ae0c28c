"""Attempts at one unit of work: the retry loop, and everybody who has to hear of a failure."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from transferkit.content.descriptor import Descriptor
from transferkit.errors import DigestMismatchError, SlowError, TransferKitError
from transferkit.retry import Retry
from transferkit.transfer.concurrency import Concurrency, is_limit
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.outcomes import Outcomes

T = TypeVar("T")
U = TypeVar("U")


class Attempts:
    """Runs the attempts of units of work. Thread-safe. ``outcomes`` hears of what is tried again."""

    def __init__(
        self, retry: Retry, concurrency: Concurrency, outcomes: Outcomes | None, *, logger: logging.Logger
    ) -> None:
        self._retry = retry
        self._concurrency = concurrency
        self._outcomes = outcomes
        self._logger = logger

    def run(
        self,
        attempt: Callable[[U, WorkerFlow], T],
        unit: U,
        flow: WorkerFlow,
        descriptor: Descriptor | None = None,
        *,
        start: int = 0,
    ) -> T:
        """Run ``attempt(unit, flow)`` until it succeeds or is given up.

        Content with a wrong digest is fetched once more; twice the same is the source's own. ``descriptor`` is the blob
        that the unit, from byte ``start`` on, is of.

        Raises:
            TransferKitError: as ``Retry.call`` does.
        """
        flow.watch.spared = False
        flow.begin_attempt()
        self._concurrency.enter(flow)
        try:
            flow.check()
            result = attempt(unit, flow)
        except TransferKitError as error:
            first = error
        else:
            flow.attempt = 0
            return result
        try:
            return self._go_on(first, attempt, unit, flow, descriptor, start)
        finally:
            flow.attempt = 0
            del first  # its traceback refers to this frame

    def _go_on(
        self,
        first: TransferKitError,
        attempt: Callable[[U, WorkerFlow], T],
        unit: U,
        flow: WorkerFlow,
        descriptor: Descriptor | None,
        start: int,
    ) -> T:
        concurrency = self._concurrency
        # What is no blob has been asked for by a name: another answer would be no better.
        mismatches = int(isinstance(first, DigestMismatchError)) if descriptor is not None else 2
        first.retryable = first.retryable or mismatches == 1
        others = -1
        slow = 0

        def one() -> T:
            nonlocal mismatches
            concurrency.enter(flow)
            flow.check()
            try:
                return attempt(unit, flow)
            except DigestMismatchError as error:
                mismatches += 1
                error.retryable = mismatches == 1
                raise

        def excused(error: TransferKitError) -> bool:
            # While others move on the host, it is the host's limit that this unit failed at, and not its own budget.
            nonlocal others
            before, others = others, concurrency.moved_by_others(flow)
            return others > before >= 0 and is_limit(error, flow)

        def again(error: TransferKitError, wait: float) -> None:
            nonlocal slow
            slow += isinstance(error, SlowError)
            # It is not the connection that is slow. To be cut once more might mean never to arrive.
            flow.watch.spared = slow >= self._retry.options.free_restarts
            concurrency.failed(error, flow, wait)
            if descriptor is not None:
                self._logger.debug("%s: trying again in %.2f s: %s", descriptor.digest.short, wait, error)
                if self._outcomes is not None:
                    self._outcomes.again(descriptor, error, start + flow.counter.position)
            flow.begin_attempt()

        return self._retry.go_on(
            first,
            one,
            position=lambda: flow.counter.peak,
            sleep=flow.wait,
            on_retry=again,
            excused=excused,
        )
