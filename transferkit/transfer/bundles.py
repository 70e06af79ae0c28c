"""Small blobs that are asked for together: several requests on their way, one answer after the other.

A worker takes as many from the scheduler as leave enough for the others, and more of them while the first ones come, so
that the server always has something to do. What of a bundle does not come as it should goes the ordinary way, blob by
blob, with its retries: so no blob is asked for in bundles twice.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing

from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Keeping, Outcome, Pipeliner, Storer
from transferkit.errors import TransferKitError, VerificationError
from transferkit.transfer.attempts import Attempts
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.outcomes import Outcomes
from transferkit.transfer.scheduler import Scheduler
from transferkit.transfer.watchdog import Speeds

SMALL = 64 * 1024  # bytes; what is larger is under way for longer than it is asked for
DEPTH = 8  # requests at once: with 16 it was no faster, and more has to be asked for again where one is refused
RUN = 64  # blobs, or a few more, until a worker sees what else there is to do


class Bundles:
    """Copies small blobs from a source that takes several requests to a target of whole contents. Thread-safe."""

    def __init__(
        self,
        source: Pipeliner,
        target: Storer,
        scheduler: Scheduler,
        attempts: Attempts,
        outcomes: Outcomes,
        speeds: Speeds,
        *,
        one: Callable[[Descriptor, WorkerFlow, TransferKitError | None], None],
    ) -> None:
        self._source = source
        self._target = target
        self._scheduler = scheduler
        self._attempts = attempts
        self._outcomes = outcomes
        self._speeds = speeds
        # What the target would go on with, where it breaks off, comes in the ordinary way.
        self._limit = min(SMALL, target.resume_threshold) if isinstance(target, Keeping) else SMALL
        self._one = one  # copies a blob in the ordinary way, of which a first attempt may have failed

    def is_small(self, descriptor: Descriptor) -> bool:
        """Tell whether a blob may come in a bundle, with a buffer of the usual size."""
        return descriptor.size < self._limit

    def take(self, first: Descriptor, flow: WorkerFlow) -> deque[Descriptor] | None:
        """Return a small blob and those that go with it; ``None``: it is none, or there are none."""
        fits = self._fits(flow)
        more = self._next(DEPTH - 1, fits) if fits(first) else ()
        return deque((first, *more)) if more else None

    def _fits(self, flow: WorkerFlow) -> Callable[[Descriptor], bool]:
        """Return what tells whether a blob may come in a bundle of this worker: all of it has to be in the buffer."""
        limit = min(self._limit, flow.buffer_size + 1)
        return lambda descriptor: descriptor.size < limit

    def _next(self, most: int, fits: Callable[[Descriptor], bool]) -> list[Descriptor]:
        fair = self._scheduler.waiting // (2 * max(1, self._attempts.level))
        return self._scheduler.more(min(most, fair), fits)

    def copy(self, bundle: deque[Descriptor], flow: WorkerFlow) -> None:
        """Copy small blobs together where the source has answered one by one before, and the rest of them so."""
        was_asked, failed = False, None
        while bundle:
            if len(bundle) > 1 and not was_asked:
                try:
                    was_asked = self._ask(bundle, flow)
                except TransferKitError as error:
                    was_asked, failed = True, error
            if bundle:
                flow.unit = bundle.popleft()
                flow.counter.next_unit()
                self._one(flow.unit, flow, failed)
                failed = None

    def _ask(self, bundle: deque[Descriptor], flow: WorkerFlow) -> bool:
        """Ask for all of a bundle, and take out of it what has come; ``False``: nothing was asked.

        TransferKitError: that was the first attempt at what is the first of the bundle now.
        """
        for descriptor in tuple(bundle):
            if self._target.exists(descriptor, flow=flow):
                bundle.remove(descriptor)
                flow.counter.next_unit()
                flow.counter.set_position(descriptor.size)
                self._outcomes.started(descriptor)
                self._outcomes.ended(descriptor, Outcome.PRESENT)
        return len(bundle) > 1 and self._attempts.first(lambda flow: self._take_in(bundle, flow), flow)

    def _take_in(self, bundle: deque[Descriptor], flow: WorkerFlow) -> bool:
        counter, watch, outcomes = flow.counter, flow.watch, self._outcomes
        half, left = len(bundle) // 2, RUN - len(bundle)
        further: list[Descriptor] = []
        fits = self._fits(flow)

        def is_missing(descriptor: Descriptor) -> bool:
            # What is in its place is hashed between two bundles, as that takes the buffer.
            return fits(descriptor) and not self._target.has(descriptor)

        def more() -> Sequence[Descriptor]:
            taken = tuple(further)
            further.clear()
            return taken

        counter.next_unit()
        flow.unit, began = bundle[0], time.monotonic()
        # First: it may wait for its turn, and a connection that was taken has to be parted with.
        watch.start(len(bundle))
        try:
            contents = self._source.pipeline(tuple(bundle), more=more, flow=flow)
            if contents is None:
                return False
            with closing(contents):
                for content in contents:
                    watch.paused = True
                    try:
                        self._target.store(bundle[0], content, flow=flow)
                    except VerificationError as wrong:
                        contents.throw(wrong)  # which raises it again
                    descriptor = bundle.popleft()
                    outcomes.started(descriptor)
                    outcomes.ended(descriptor, Outcome.MOVED)
                    if len(bundle) <= half and left > 0 and self._attempts.are_free:
                        taken = self._next(min(left, DEPTH - half), is_missing)
                        left -= len(taken)
                        further.extend(taken)
                        bundle.extend(taken)
                        now = time.monotonic()
                        self._speeds.record(0, now - began)
                        began = now
                        watch.start(len(bundle))
                    watch.paused = False
                    counter.next_unit()
                    flow.unit = bundle[0] if bundle else None
            self._speeds.record(0, time.monotonic() - began)
        finally:
            counter.set_position(0)  # of one that has come in part
            watch.stop()
        return True
