"""What a worker does with a whole blob.

A failing blob does not hide the others; an error that its source or its target says would be the same for each of them
ends the copy at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Fetcher, Ingester, Judge, Outcome, Pusher
from transferkit.errors import CancelledError, TransferKitError
from transferkit.transfer.attempts import Attempts
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.outcomes import Outcomes
from transferkit.transfer.pump import Stream
from transferkit.transfer.scheduler import Unit
from transferkit.transfer.speed import SMALLEST, Speeds


class Copy:
    """Copies blobs from ``source`` to ``target``, each as one stream. Thread-safe."""

    def __init__(
        self,
        source: Fetcher,
        target: Pusher | Ingester,
        *,
        attempts: Attempts,
        outcomes: Outcomes,
        speeds: Speeds,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._judges = [side for side in (source, target) if isinstance(side, Judge)]
        self._attempt = (Stream(source, target) if isinstance(target, Ingester) else _Push(source, target)).copy
        self._attempts = attempts
        self._outcomes = outcomes
        self._speeds = speeds
        self._clock = clock

    def work(self, unit: Unit, flow: WorkerFlow) -> None:
        """Do one unit of work.

        Raises:
            TransferKitError: something that would fail for every blob, or the end of the copy from outside.
        """
        if isinstance(unit, Descriptor):
            self._copy_whole(unit, flow)

    def _copy_whole(self, descriptor: Descriptor, flow: WorkerFlow) -> None:
        self._outcomes.started(descriptor)
        began = self._clock() if descriptor.size >= SMALLEST else 0.0
        try:
            outcome = self._attempts.run(self._attempt, descriptor, flow, descriptor)
        except TransferKitError as error:
            if not isinstance(error, CancelledError):
                flow.counter.set_position(0)
            self._give_up(descriptor, error)
        else:
            if began and outcome is Outcome.MOVED:
                self._speeds.record(descriptor.size, self._clock() - began)
            self._outcomes.ended(descriptor, outcome)

    def _give_up(self, descriptor: Descriptor, error: TransferKitError) -> None:
        """Take in that a blob failed for good; an error that would be the same for every blob goes on to the caller."""
        if self._ends_all(error):
            raise error
        self._outcomes.failed(descriptor, error)

    def _ends_all(self, error: TransferKitError) -> bool:
        return isinstance(error, CancelledError) or any(judge.concerns_all(error) for judge in self._judges)


class _Push:
    """Attempts at blobs of a target that reads from the source by itself."""

    def __init__(self, source: Fetcher, target: Pusher) -> None:
        self._source = source
        self._target = target

    def copy(self, descriptor: Descriptor, flow: WorkerFlow) -> Outcome:
        return self._target.push(descriptor, self._source, flow=flow)
