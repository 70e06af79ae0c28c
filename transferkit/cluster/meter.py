"""How far all pieces of a run are, from what each of them tells."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from transferkit.report.record import Record
from transferkit.trace import NULL_TRACE, Status, Trace
from transferkit.trace.recording import Recording
from transferkit.transfer.outcomes import ProgressCallback

_BLOBS = 64  # under way, that are told of


class Meter:
    """Adds up pieces of these ``sizes``, of ``total`` bytes; ``None``: each says itself how many it has. One thread's.

    What a piece tells that is run again begins anew, but what it moved stays moved.
    """

    def __init__(self, sizes: Sequence[int], total: int | None, logger: logging.Logger) -> None:
        self._sizes = [*sizes]
        self._grows = total is None
        self._total = total or 0
        self._logger = logger
        self._last: dict[int, Status] = {}
        self._in_place = 0  # bytes of pieces that are done
        self._moved = self._cached = self._retried = self._healed = 0  # of attempts that are over
        self._told = (-1, -1)
        self._complained = False
        self._progress: ProgressCallback | None = None
        self._trace: Trace = NULL_TRACE
        self._recording = Recording(clock=time.monotonic)

    @property
    def record(self) -> Record:
        """How the run went."""
        return self._recording.record

    def listen(self, progress: ProgressCallback | None, trace: Trace) -> None:
        """Take in who is told."""
        self._progress, self._trace = progress, trace

    def add(self, size: int) -> None:
        """Take in that there is a piece more, of so many bytes."""
        self._sizes.append(size)
        self._total += size

    def begin(self, number: int) -> None:
        """Take in that a piece has begun."""
        self._last[number] = Status()

    def take(self, number: int, status: Status, events: Sequence[tuple[Any, ...]]) -> None:
        """Take in how far a piece is, and what happened there."""
        if number in self._last:  # else its attempt is over
            self._last[number] = status
            self._grow(number, status.total)
        for event, *arguments in events:
            self._tell(getattr(self._trace, event), *arguments)

    def _grow(self, number: int, size: int) -> None:
        if self._grows:
            self._sizes[number] = size
            self._total = sum(self._sizes)

    def done(self, number: int, moved: int, size: int = 0) -> None:
        """Take in that a piece is done, having moved so many bytes; ``size`` is how many it had, if nobody knew."""
        status = self._last.pop(number, Status())
        self._grow(number, size)  # the last that it told may come after its end
        self._moved += moved
        self._cached += min(status.cached, self._sizes[number])
        self._retried, self._healed = self._retried + status.retried, self._healed + status.healed
        self._in_place += self._sizes[number]

    def again(self, number: int) -> None:
        """Take in that an attempt at a piece is over."""
        status = self._last.pop(number, Status())
        self._moved += status.moved
        self._retried, self._healed = self._retried + status.retried, self._healed + status.healed

    def tell(self, workers: int) -> None:
        """Tell how far all of it is, where that has changed."""
        status = self._status(workers)
        self._tell(self._recording.status, status)
        now = (status.completed, status.moved)
        is_known = self._total > 0 or not self._grows  # else nobody knows yet what there is to be done
        if now != self._told and is_known:
            self._told = now
            self._say(status)

    def end(self) -> None:
        """Tell that all of it is done."""
        self._last.clear()
        status = Status(
            completed=self._total,
            total=self._total,
            cached=self._cached,
            moved=self._moved,
            retried=self._retried,
            healed=self._healed,
        )
        self._tell(self._recording.status, status)
        self._say(status)

    def _say(self, status: Status) -> None:
        self._tell(self._trace.status, status)
        if self._progress is not None:
            try:
                self._progress(status.completed, status.total)
            except Exception:
                if not self._complained:
                    self._complained = True
                    self._logger.warning("the progress callback raised; the run goes on", exc_info=True)

    def _status(self, workers: int) -> Status:
        running = [*self._last.items()]
        each = [status for _, status in running]
        completed = sum(min(self._sizes[number], status.completed) for number, status in running)
        blobs = sorted((pair for status in each for pair in status.blobs), key=lambda pair: -pair[0].size)
        reasons = [status.reason for status in each]
        return Status(
            completed=min(self._total, self._in_place + completed),
            total=self._total,
            cached=self._cached + sum(status.cached for status in each),
            moved=self._moved + sum(status.moved for status in each),
            workers=max(workers, sum(status.workers for status in each)),
            verifying=sum(status.verifying for status in each),
            waiting=sum(status.waiting for status in each),
            reason=reasons[0] if reasons and all(reasons) else "",
            pause=min((status.pause for status in each), default=0.0),
            retried=self._retried + sum(status.retried for status in each),
            healed=self._healed + sum(status.healed for status in each),
            blobs=tuple(blobs[:_BLOBS]),
        )

    def _tell(self, event: Callable[..., object], *arguments: object) -> None:
        try:
            event(*arguments)
        except Exception:
            self._logger.warning("the trace raised; the run goes on", exc_info=True)
