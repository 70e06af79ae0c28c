"""Cuts the flows whose body is silent, or far behind its siblings: ``Speeds`` knows how fast those have been of late.

It sees body bytes only: the wait for the head of an answer has a limit of its own. Not so in a bundle, whose heads come
between its bodies: what is late there is asked for again in the ordinary way, which waits as long as it may. Its cut
wakes the worker where it is blocked; the retry loop then goes on, on a new connection, from what is in place.

At the tail, when a worker has nothing to do, whoever is late is all that the others wait for. Then it cuts sooner, and
also who waits for a head; but each unit twice at most, and only where others have shown that it can be quicker.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from transferkit.content.descriptor import Descriptor
from transferkit.errors import SlowError, StalledError
from transferkit.report import human_bytes
from transferkit.transfer.flow import WorkerFlow

PERIOD = 0.1  # seconds between two looks, at most
WINDOW = 5.0  # seconds: slowness is judged over the last ones
SAMPLES = 30  # the last ones; a link changes
ENOUGH = 5  # below this there is nothing to compare with
SMALLEST = 100_000  # bytes: a smaller blob's speed is the latency, not the link
SLOW = 0.1  # of the median
FLOOR = 256 * 1024  # bytes/s: on a link that is slow for all, a new connection only costs
TAIL_WINDOW = 0.3  # seconds: over so many slowness is judged at the tail
LOOKS = 4  # within that: where the whole machine stands still, there are fewer
LATE = 0.3  # seconds for a head at the tail, or for all of what is too small to have a rate
LATER = 3.0  # times as long as nine of ten others took for all of theirs, where that is more
SILENT = 0.6  # seconds without a byte at the tail, of a body that was quick, where there are no others to compare
PAUSE = 0.2  # seconds without a byte, after which one came: nginx's ``limit_rate`` sends what is due every second
PAUSES = 8  # the last ones
HASTENED = 2  # times that a unit is cut for the tail: a host may be slow at this one content, whoever asks
SPENT = 8 * 1024 * 1024  # bytes of what may not be gone on with, over which nobody is hastened: the smallest chunk


class Speeds:
    """Rolling medians of finished units. Thread-safe."""

    def __init__(self) -> None:
        self._rates: deque[float] = deque(maxlen=SAMPLES)
        self._times: deque[float] = deque(maxlen=SAMPLES)
        # To sort a deque is one step only where the interpreter has a lock of its own.
        self._lock = threading.Lock()

    def record(self, size: int, seconds: float) -> None:
        """Take in a unit of ``size`` bytes that took ``seconds``; of several small ones together, ``size`` is 0."""
        with self._lock:
            self._times.append(seconds)
            if size >= SMALLEST and seconds > 0:
                self._rates.append(size / seconds)

    def median(self) -> float | None:
        """Return bytes a second, ``None`` while there are too few samples."""
        with self._lock:
            return _quantile(self._rates, 0.5)

    def late(self, units: int = 1) -> float | None:
        """Return the seconds after which so many small units are late, ``None`` while there are too few samples."""
        with self._lock:
            usual = _quantile(self._times, 0.9)
        return None if usual is None else max(LATE, LATER * usual * units)


def _quantile(samples: deque[float], part: float) -> float | None:
    values = sorted(samples)
    return values[int(len(values) * part)] if len(values) >= ENOUGH else None


@dataclass(slots=True)
class _Watch:
    """What was seen of one body."""

    body: int
    began: float
    moved_at: float
    seen: deque[tuple[float, int]] = field(default_factory=deque)


class Watchdog:
    """Watches the flows of one run: whoever looks after its workers calls ``look`` every ``period`` seconds.

    ``is_tail`` tells whether a worker has nothing to do. Without ``cuts_slow`` only silence is cut.
    """

    def __init__(
        self,
        flows: Sequence[WorkerFlow],
        speeds: Speeds,
        *,
        stall_timeout: float,
        cuts_slow: bool = True,
        is_tail: Callable[[], bool] = lambda: False,
    ) -> None:
        self.period = min(PERIOD, stall_timeout / 4)
        self._flows = flows
        self._speeds = speeds
        self._stall_timeout = stall_timeout
        self._cuts_slow = cuts_slow
        self._is_tail = is_tail
        self._watches: dict[int, _Watch] = {}
        self._asked: dict[int, tuple[object, float]] = {}  # what each worker without a body is at, and since when
        self._hastened: Counter[object] = Counter()
        self._spent: Counter[object] = Counter()  # bytes that have to come twice for that
        self._looks: deque[float] = deque(maxlen=LOOKS)
        self._pauses: deque[float] = deque(maxlen=PAUSES)

    def look(self, now: float) -> None:
        """Look at every flow once; ``now`` is the clock's time in seconds."""
        self._looks.append(now)
        # Where the whole machine stands still, nobody is late.
        is_steady = len(self._looks) == LOOKS and now - self._looks[0] <= 2 * TAIL_WINDOW
        is_tail = is_steady and self._cuts_slow and self._is_tail()
        for number, flow in enumerate(self._flows):
            body = flow.watch.body
            if not body:
                self._watches.pop(number, None)
                self._look_at_question(number, flow, now, is_tail)
                continue
            watch = self._watches.get(number)
            position = flow.counter.progress
            if watch is None or watch.body != body or flow.watch.paused:
                # It is the worker that is busy elsewhere, with the disk or with a limit: begin to look anew.
                self._watches[number] = watch = _Watch(body, now, now)
            if watch.seen and position != watch.seen[-1][1]:
                pause = watch.seen[-1][0] - watch.moved_at
                if pause >= PAUSE:
                    self._pauses.append(pause)
                watch.moved_at = now
            watch.seen.append((now, position))
            silence = now - watch.moved_at
            if silence >= self._stall_timeout:
                flow.cut_body(body, StalledError(f"no byte for {self._stall_timeout:g} s on an open connection"))
            elif self._cuts_slow and not flow.watch.spared:
                self._judge(flow, watch.seen, body, WINDOW)
            if is_tail and self._may_hasten(flow):
                self._hasten(flow, watch, body, silence)

    def _look_at_question(self, number: int, flow: WorkerFlow, now: float, is_tail: bool) -> None:
        unit, since = self._asked.get(number, (None, now))
        if unit is not flow.unit or not (flow.attempt and flow.is_on_wire):
            self._asked[number] = flow.unit, now
            return
        late = self._speeds.late() if is_tail and self._may_hasten(flow) else None
        if late is not None and now - since >= late:
            self._asked[number] = None, now
            self._hastened[unit] += 1
            flow.cut_body(0, StalledError(f"no answer for {now - since:.1f} s, with nothing else left to do"))

    def _usual_pause(self) -> float:
        """Return twice as long as bodies that go on pause usually; 0: they do not."""
        return 2 * sorted(self._pauses)[len(self._pauses) // 2] if len(self._pauses) > 1 else 0.0

    def _may_hasten(self, flow: WorkerFlow) -> bool:
        unit = flow.unit
        if unit is None or self._hastened[unit] >= HASTENED:
            return False
        # A chunk goes on from where it is; a whole may have to begin anew.
        return not isinstance(unit, Descriptor) or self._spent[unit] + flow.counter.position <= SPENT

    def _hasten(self, flow: WorkerFlow, watch: _Watch, body: int, silence: float) -> None:
        """Cut a body that the others would wait for sooner than they would otherwise."""
        unit, now = flow.unit, watch.seen[-1][0]
        if len(watch.seen) < LOOKS:
            return
        is_small, position = isinstance(unit, Descriptor) and unit.size < SMALLEST, flow.counter.position
        late, pause = self._speeds.late(flow.watch.units), self._usual_pause()
        late = None if late is None else max(late, pause)
        if late is not None and (silence >= late or (is_small and now - watch.began >= late)):
            what = (
                f"no byte for {silence:.1f} s" if silence >= late else f"not all of it within {now - watch.began:.1f} s"
            )
            is_cut = flow.cut_body(body, StalledError(f"{what} on an open connection, with nothing else left to do"))
        elif silence >= max(SILENT, pause) and _was_quick(watch, position):
            text = f"no byte for {silence:.1f} s after a quick beginning, with nothing else left to do"
            is_cut = flow.cut_body(body, StalledError(text))
        else:
            is_cut = not _is_growing(watch.seen) and self._judge(flow, watch.seen, body, max(TAIL_WINDOW, pause))
        if is_cut:
            self._hastened[unit] += 1
            self._spent[unit] += position

    def _judge(self, flow: WorkerFlow, seen: deque[tuple[float, int]], body: int, window: float) -> bool:
        """Cut a body that is slow over the last ``window`` seconds, and tell so."""
        now, position = seen[-1]
        # The oldest look that is kept is the youngest that is a whole window ago.
        while len(seen) > 1 and now - seen[1][0] >= WINDOW:
            seen.popleft()
        began, before = next((look for look in reversed(seen) if now - look[0] >= window), seen[0])
        median = self._speeds.median() if now - began >= window else None
        if median is None or median < FLOOR:
            return False
        rate = (position - before) / (now - began)
        if rate >= SLOW * median:
            return False
        what = f"{human_bytes(rate)}/s" if rate else "no byte"
        text = f"{what} for {now - began:.1f} s, where others have {human_bytes(median)}/s"
        return flow.cut_body(body, SlowError(text) if rate else StalledError(text))


def _was_quick(watch: _Watch, moved: int) -> bool:
    """Tell whether a body that is silent now had a rate worth having before; its unit has ``moved`` so many bytes."""
    return moved >= max(SMALLEST, FLOOR * (watch.moved_at - watch.began + PERIOD))


def _is_growing(seen: deque[tuple[float, int]]) -> bool:
    """Tell whether more moved between the last two looks than before: TCP begins slowly, and soon is quick."""
    if len(seen) < 3:
        return True
    before, last = seen[-2][1] - seen[-3][1], seen[-1][1] - seen[-2][1]
    return 2 * last > 3 * before
