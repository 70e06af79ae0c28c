"""What a call is at, as its trace hears of it: how far it is, what its workers do, and what it waits for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from transferkit.trace import Status, Trace
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.outcomes import Outcomes, under_way
from transferkit.transfer.waits import Waits

_BLOBS = 64  # under way, that are told of
_ORDER = (
    "rate limit",
    "lock",
    "login",
    "retry",
    "registry",
)  # of several things that are waited for, the first is told


class Pulse:
    """Looks at the workers of one operation. For the calling thread alone.

    What earlier runs of the operation have moved, and what they have found in place, is counted on.
    """

    def __init__(
        self, trace: Trace, logger: logging.Logger, waits: Waits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.last = Status()
        """What was told last."""
        self._trace = trace
        self._logger = logger
        self._waits = waits
        self._clock = clock
        self._base = Status()
        self._began = 0.0

    def look(self, flows: Sequence[WorkerFlow], outcomes: Outcomes | None = None, doing: str = "") -> None:
        """Tell the trace what is seen of a run; without ``outcomes`` it is one that counts no bytes."""
        now, working = self._clock(), [flow for flow in flows if flow.unit is not None]
        waiting = [flow for flow in working if flow.waits]
        reason, pause = self._reason(working, waiting, now)
        seen = replace(
            self.last,
            doing=doing,
            workers=len(working),
            verifying=sum(1 for flow in working if not flow.waits and not flow.is_on_wire),
            waiting=len(waiting),
            reason=reason,
            pause=pause,
            blobs=(),
        )
        if outcomes is not None:
            blobs = sorted(under_way(flows).items(), key=lambda pair: -pair[0].size)[:_BLOBS]
            before, after = outcomes.apart
            found = outcomes.present + sum(flow.counter.found for flow in flows)
            seen = replace(
                seen,
                completed=outcomes.completed(flows) - before,
                total=outcomes.total - before - after,
                cached=(self._base.cached if outcomes.begun > before else 0) + found,
                moved=self._base.moved + sum(flow.counter.traffic for flow in flows),
                retried=self._base.retried + outcomes.retried,
                healed=self._base.healed + outcomes.healed,
                blobs=tuple(blobs),
            )
        last, self.last = self.last, seen
        if last.reason != reason:
            if last.reason:
                self._tell(self._trace.waited, last.reason, now - self._began)
            if reason:
                self._began = now
                self._tell(self._trace.waiting, reason, pause)
        self._tell(self._trace.status, seen)

    def end(self) -> None:
        """Take in that a run is over: what it has done is what the next one goes on with."""
        self._base = self.last

    def _reason(self, working: Sequence[WorkerFlow], waiting: Sequence[WorkerFlow], now: float) -> tuple[str, float]:
        """Return what the call as a whole waits for, and for how long, where no worker of it gets on."""
        if not working or len(waiting) < len(working):
            return ("registry", 0.0) if working and self._waits.is_silent and not waiting else ("", 0.0)
        reasons = {flow.waits: flow.until for flow in waiting}
        reason = next((each for each in _ORDER if each in reasons), "registry")
        return reason, max(0.0, min(flow.until for flow in waiting) - now) if reason not in ("lock", "login") else 0.0

    def _tell(self, event: Callable[..., object], *arguments: object) -> None:
        try:
            event(*arguments)
        except Exception:
            self._logger.warning("the trace raised; the transfer goes on", exc_info=True)
