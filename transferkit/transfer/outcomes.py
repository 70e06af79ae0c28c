"""What became of the blobs of one copy, for its report and for the trace, and how far they are."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence

from transferkit.content.descriptor import AnyBlob, Descriptor, described
from transferkit.content.digest import Digest
from transferkit.content.interfaces import Outcome
from transferkit.errors import IncompleteError, SlowError, StalledError, TransferKitError
from transferkit.trace import Trace, hears
from transferkit.transfer.chunked import ChunkedBlob, ChunkUnit
from transferkit.transfer.flow import WorkerFlow

ProgressCallback = Callable[[int, int], object]


def _drop_frames(error: BaseException) -> None:
    """Let go of the frames that an error and its causes hold, and of all that is in those: answers, buffers, files.

    A call of many thousand blobs keeps the error of each. What was only handled when an error was raised goes, too.
    """
    current: BaseException | None = error
    while current is not None:
        current.__traceback__ = None
        current.__context__ = None
        current = current.__cause__


def under_way(flows: Iterable[WorkerFlow]) -> dict[Descriptor, int]:
    """Return the blobs that workers are at, with the bytes in place of each."""
    found: dict[Descriptor, int] = {}
    for flow in flows:
        unit = flow.unit
        blob = unit.blob if isinstance(unit, ChunkUnit) else unit
        if isinstance(blob, Descriptor):
            # It may be at its next unit by now, whose bytes are none of this one.
            found[blob] = min(blob.size, max(0, flow.counter.position))
        elif isinstance(blob, ChunkedBlob) and blob.is_begun:
            before = found.get(blob.descriptor, blob.ingest.in_place + blob.ingest.unverified)
            found[blob.descriptor] = min(blob.descriptor.size, before + _arriving(unit))
    return found


def _arriving(unit: object) -> int:
    """Return the bytes of a chunk that has a digest: all of them are in place at once, when the last one is here."""
    is_arriving = isinstance(unit, ChunkUnit) and unit.hasher is not None and unit.at < unit.end
    return unit.at - unit.start if isinstance(unit, ChunkUnit) and is_arriving else 0


def positions(flows: Iterable[WorkerFlow]) -> dict[Digest, int]:
    """Return how many bytes of each blob are in place that a worker is at."""
    return {blob.digest: position for blob, position in under_way(flows).items()}


class Outcomes:
    """What became of the blobs of one copy of ``total`` bytes, ``present`` of them there before. Thread-safe.

    ``begun`` of them were done by earlier steps of the call, whose progress goes on. ``apart`` are those before and
    after this step that are other work: what a trace hears of leaves them out.
    An exception in ``progress`` is logged once, one in the trace each time, and neither harms the transfer.
    """

    def __init__(
        self,
        trace: Trace,
        logger: logging.Logger,
        *,
        progress: ProgressCallback | None = None,
        total: int = 0,
        present: int = 0,
        begun: int = 0,
        apart: tuple[int, int] = (0, 0),
    ) -> None:
        self.logger = logger
        self.skipped = 0
        self.mounted = 0
        self.retried = 0
        self.healed = 0
        self.failures: dict[str, TransferKitError] = {}
        self._trace = trace
        self._started, self._cached, self._done = (hears(trace, event) for event in ("started", "cached", "done"))
        self._moved = hears(trace, "moved")
        self._lock = threading.Lock()
        self._progress = progress
        self.total = total
        self.present = present
        self.begun = begun
        self.apart = apart
        self._told = -1
        self._complained = False

    def _tell(self, event: Callable[..., object], *arguments: object) -> None:
        try:
            event(*arguments)
        except Exception:
            self.logger.warning("the trace raised; the transfer goes on", exc_info=True)

    def announced(self, descriptors: Sequence[Descriptor]) -> None:
        self._tell(self._trace.announced, descriptors)

    def found(self, blobs: Iterable[AnyBlob]) -> None:
        """Take in that blobs were at the target before."""
        for blob in blobs if self._cached else ():
            self._tell(self._trace.cached, described(blob))

    def started(self, descriptor: Descriptor) -> None:
        if self._started:
            self._tell(self._trace.started, descriptor)

    def ended(self, descriptor: Descriptor, outcome: Outcome) -> None:
        """Take in that a blob is in place."""
        if outcome is not Outcome.MOVED:
            with self._lock:  # "+=" on an attribute is not atomic
                self.skipped += outcome is Outcome.PRESENT
                self.mounted += outcome is Outcome.MOUNTED
        if self._done and outcome is Outcome.MOVED:
            self._tell(self._trace.done, descriptor)
        elif self._cached and outcome is not Outcome.MOVED:
            self._tell(self._trace.cached, descriptor)

    def failed(self, descriptor: Descriptor, error: TransferKitError) -> None:
        """Take in that a blob was given up."""
        _drop_frames(error)
        self.failures[descriptor.digest] = error
        self._tell(self._trace.failed, descriptor, error)

    def again(self, descriptor: Descriptor, error: TransferKitError, position: int, wait: float = 0.0) -> None:
        """Take in that an attempt failed; after ``wait`` seconds another one follows, from ``position`` on."""
        self.logger.debug("%s: again in %.2f s, from byte %d on: %s", descriptor.digest.short, wait, position, error)
        healed = isinstance(error, (StalledError, SlowError))
        with self._lock:
            self.retried += 1
            self.healed += healed
        self._tell(self._trace.retried, descriptor, error, position, wait)
        if healed:
            self._tell(self._trace.healed, descriptor, error, position)

    def completed(self, flows: Iterable[WorkerFlow]) -> int:
        """Return how many bytes are in place."""
        return self.begun + self.present + sum(flow.counter.progress for flow in flows)

    def tick(self, flows: Iterable[WorkerFlow], *, always: bool = False) -> None:
        """Tell the progress callback the bytes in place and those in all, if that has changed; and the trace where each
        blob is."""
        traces = self._moved
        if self._progress is None and not traces:
            return
        completed = self.completed(flows)
        if completed == self._told and not always:
            return
        self._told = completed
        if traces:
            self._tell(self._trace.moved, positions(flows))
        try:
            if self._progress is not None:
                self._progress(completed, self.total)
        except Exception:
            if not self._complained:
                self._complained = True
                self.logger.warning("the progress callback raised; the transfer goes on", exc_info=True)

    def check(self, blobs: int) -> None:
        """Raise IncompleteError where some of so many blobs failed."""
        if not self.failures:
            return
        digest, first = next(iter(self.failures.items()))
        failed = len(self.failures)
        others = ", the others are in place" if failed < blobs else ""
        subject = "" if digest[:19] in str(first) else f"{digest[:19]}: "
        rest = f" (and {failed - 1} more in .failures)" if failed > 1 else ""
        raise IncompleteError(
            f"{failed} of {blobs} blobs failed{others}: {subject}{first}{rest}", failures=self.failures
        )
