"""Cuts the flows whose body is silent, or far behind its siblings: ``Speeds`` knows how fast those have been of late.

It sees body bytes only: the wait for the head of an answer has a limit of its own. Its cut wakes the worker where it is
blocked; the retry loop then goes on, on a new connection, from what is in place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from transferkit.errors import SlowError, StalledError
from transferkit.report import human_bytes
from transferkit.transfer.flow import WorkerFlow

PERIOD = 0.25  # seconds between two looks, at most
WINDOW = 5.0  # seconds: slowness is judged over the last ones
SAMPLES = 30  # the last ones; a link changes
ENOUGH = 5  # below this there is nothing to compare with
SMALLEST = 100_000  # bytes: a smaller blob's speed is the latency, not the link
SLOW = 0.1  # of the median
FLOOR = 256 * 1024  # bytes/s: on a link that is slow for all, a new connection only costs


class Speeds:
    """A rolling median of finished bodies. Thread-safe: workers only append."""

    def __init__(self) -> None:
        self._rates: deque[float] = deque(maxlen=SAMPLES)

    def record(self, size: int, seconds: float) -> None:
        """Take in a body of ``size`` bytes that took ``seconds``."""
        if size >= SMALLEST and seconds > 0:
            self._rates.append(size / seconds)

    def median(self) -> float | None:
        """Return bytes a second, ``None`` while there are too few samples."""
        rates = list(self._rates)
        if len(rates) < ENOUGH:
            return None
        return sorted(rates)[len(rates) // 2]


@dataclass(slots=True)
class _Watch:
    """What was seen of one body."""

    body: int
    moved_at: float
    seen: deque[tuple[float, int]] = field(default_factory=deque)


class Watchdog:
    """Watches the flows of one run: whoever looks after its workers calls ``look`` every ``period`` seconds."""

    def __init__(self, flows: Sequence[WorkerFlow], speeds: Speeds, *, stall_timeout: float) -> None:
        self.period = min(PERIOD, stall_timeout / 4)
        self._flows = flows
        self._speeds = speeds
        self._stall_timeout = stall_timeout
        self._watches: dict[int, _Watch] = {}

    def look(self, now: float) -> None:
        """Look at every flow once; ``now`` is the clock's time in seconds."""
        for number, flow in enumerate(self._flows):
            body = flow.watch.body
            if not body:
                self._watches.pop(number, None)
                continue
            watch = self._watches.get(number)
            position = flow.counter.progress
            if watch is None or watch.body != body or flow.watch.paused:
                # It is the worker that is busy elsewhere, with the disk or with a limit: begin to look anew.
                self._watches[number] = watch = _Watch(body, now)
            if watch.seen and position != watch.seen[-1][1]:
                watch.moved_at = now
            watch.seen.append((now, position))
            if now - watch.moved_at >= self._stall_timeout:
                flow.cut_body(body, StalledError(f"no byte for {self._stall_timeout:g} s on an open connection"))
            elif not flow.watch.spared:
                self._judge(flow, watch.seen, body)

    def _judge(self, flow: WorkerFlow, seen: deque[tuple[float, int]], body: int) -> None:
        now, position = seen[-1]
        # The oldest look that is kept is the youngest that is a whole window ago.
        while len(seen) > 1 and now - seen[1][0] >= WINDOW:
            seen.popleft()
        began, before = seen[0]
        median = self._speeds.median() if now - began >= WINDOW else None
        if median is None or median < FLOOR:
            return
        rate = (position - before) / (now - began)
        if rate < SLOW * median:
            text = f"{human_bytes(rate)}/s for {now - began:.0f} s, where others have {human_bytes(median)}/s"
            flow.cut_body(body, SlowError(text))
