"""How many attempts run at once: one controller for all that an operation asks of its host.

It begins with two and climbs as long as more of them move more. 64 threads hide the latency of a far registry; on a
fast link they only fight for the interpreter and for the lock of the file they all write to: 5,000 blobs of 16 KiB from
loopback took 1.2 s with 2 of them and 1.9 s with 16; 2 GiB in two files took 2.4 s with 2 and 3.7 s with 64. At 40 MB/s
a connection, the same 2 GiB took 24 s with 2 and 3 s with 32.

A host that has had enough says so with 429 or 503, by refusing, resetting or cutting connections before it answers, or
by silence. Then half of what is running may go on, what the host asked for is waited for by all, and the climb begins
again from there once the host has recovered; a trial that the host refuses costs that trial. Nothing of this costs a
blob more than a look at one attribute until there is trouble.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Sequence

from transferkit.errors import (
    ConnectError,
    RateLimitedError,
    ReadError,
    RegistryError,
    TransferKitError,
    TransportTimeout,
    WriteError,
)
from transferkit.transfer.flow import WorkerFlow

FIRST = 2  # attempts to begin with
LATENCY = 0.004  # seconds between two looks before the first byte: the farther the registry, the more begin at once
PERIOD = 0.02  # seconds between two looks after it
MANY = 32  # attempts that begin before the first byte, where that does not take FAR seconds
FAR = 0.05
WINDOW = 0.06  # seconds over which a rate is measured
PATIENCE = 1.0  # seconds for new workers to move their first bytes, before they are judged without
REST = 2.0  # seconds between a trial that brought nothing and the next
GAIN = 1.15  # twice the workers have to move so many times the bytes
LEVEL = 0.95  # where the processor idles: there more of them cost nothing
IDLE = 0.7  # of one core
FULL = 0.7  # of all cores: more workers would only wait for one

RECOVERY = 1.0  # seconds of calm after trouble until more are tried; doubled each time that a trial is refused
LONGEST = 16.0  # and this at most
MEMORY = 30.0  # seconds for which the level that the host refused is not tried again
_LOOK = 0.02  # seconds between two looks of a worker that waits for its turn


def is_overload(error: TransferKitError) -> bool:
    """Tell whether a host says that it has had enough."""
    return isinstance(error, RateLimitedError) or (isinstance(error, RegistryError) and error.status == 503)


def is_limit(error: TransferKitError, flow: WorkerFlow) -> bool:
    """Tell whether an attempt failed at what a host bears, and not at its own content; ``flow`` is its worker's."""
    if isinstance(error, (ReadError, WriteError)):
        return not flow.watch.begun
    return isinstance(error, (ConnectError, TransportTimeout)) or is_overload(error)


class Concurrency:
    """Says how many attempts may run (``level``), and lets them begin. Thread-safe.

    ``cores`` is how many there are; ``cpu`` tells the seconds that the process has computed.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
        cores: int | None = None,
    ) -> None:
        self.level = 0
        """How many attempts may run."""
        self._clock = clock
        self._cpu = cpu
        self._cores = cores or _cores()
        self._lock = threading.Lock()
        self._generation = 1
        """Counts the falls: the failures of attempts that began before the last one are no news."""
        self._troubled = False
        self._resume_at = 0.0
        self._fell_at = -math.inf
        self._fell_with = 0
        """How many bytes had been moved then."""
        self._recovery = RECOVERY
        self._refused = 0
        """How many attempts were too many then."""
        self.begin(())

    def begin(self, flows: Sequence[WorkerFlow]) -> None:
        """Begin a run of these workers; what the host said in an earlier one still holds."""
        self._flows = flows
        self._ceiling = len(flows)
        self.level = min(self._ceiling, self.level if self._troubled else FIRST)
        self._total = 0
        self._fell_with = 0
        self._heard = self._looked = self._clock()
        self._used = self._cpu()
        self._resting_until = 0.0
        self._usual: int | None = None
        """The level before the trial that is on, if one is."""
        self._rate = 0.0
        """What it moved."""
        self._window: tuple[float, int, float] | None = None
        """When the window began that a rate is measured over, and what was moved, and computed, until then."""
        self._set(self.level, [0] * self._ceiling)

    @property
    def pause(self) -> float:
        """Seconds until the next look."""
        if self._ceiling <= FIRST and not self._troubled:
            return math.inf
        return PERIOD if self._total else LATENCY

    def bound(self, workers: int) -> None:
        """Be content with so many workers: the system has no more threads."""
        with self._lock:
            self._ceiling = workers
            self.level = min(self.level, workers)

    # -- attempts

    def enter(self, flow: WorkerFlow) -> None:
        """Wait until an attempt may begin. Raises as ``flow.wait`` does."""
        if self._troubled:
            self._wait(flow)
        flow.attempt = self._generation

    def _wait(self, flow: WorkerFlow) -> None:
        while True:
            pause = self._resume_at - self._clock()
            # Two workers may come through at once: one attempt too many harms nobody, a lock on the way in would.
            if pause <= 0 and self._running() < self.level:
                return
            flow.wait(pause if pause > 0 else _LOOK)

    def _running(self) -> int:
        return sum(1 for flow in self._flows if flow.attempt)

    def failed(self, error: TransferKitError, flow: WorkerFlow, wait: float) -> None:
        """Take in that an attempt failed, and will be made again after ``wait`` seconds."""
        with self._lock:
            running = self._running()
            generation, flow.attempt = flow.attempt, 0
            if not is_limit(error, flow):
                return
            now = self._clock()
            if is_overload(error):
                self._resume_at = max(self._resume_at, now + wait)
            # Sixty refusals of one moment are one complaint, not sixty: they halve once.
            if generation == self._generation:
                self._fall(running, now)

    def _fall(self, running: int, now: float) -> None:
        usual, self._usual = self._usual, None
        if usual is not None and running > usual:
            # The host takes what it took before, and not more.
            level = usual
            self._recovery = min(2 * self._recovery, LONGEST)
        else:
            level = max(1, running // 2)
            self._recovery = RECOVERY
        self._generation += 1
        self._refused = running
        self._fell_at = now
        self._fell_with = sum(self._moved())
        self._troubled = True
        self.level = min(self.level, level)

    def moved_by_others(self, flow: WorkerFlow) -> int:
        """Return how many bytes all workers but this one have moved."""
        return sum(self._moved()) - flow.counter.traffic

    # -- climbing

    def look(self) -> int:
        """Return how many attempts there should be now. Only the thread that starts the workers asks."""
        with self._lock:
            self._look(self._clock(), self._moved(), self._cpu())
            return self.level

    def _moved(self) -> list[int]:
        return [flow.counter.traffic for flow in self._flows]

    def _look(self, now: float, moved: list[int], used: float) -> None:
        total = sum(moved)
        idles = used - self._used < IDLE * (now - self._looked)
        self._looked, self._used = now, used
        if self._troubled and not self._has_recovered(now, total):
            self._total, self._heard = total, now
            self._set(self.level, moved)
            return
        if total == self._total:
            if idles and (self.level < MANY or now - self._heard >= FAR) and not self._remembers(now):
                self._usual, self._rate = (self._usual or self.level, 0.0) if total else (None, 0.0)
                self._set(2 * self.level, moved)
            return
        self._total, self._heard = total, now
        if now < self._resting_until:
            return
        if self._window is None:
            if self._all_at_work(moved, now):
                self._window = now, total, used
            return
        began, before, computed = self._window
        elapsed = now - began
        if elapsed >= WINDOW:
            self._judge((total - before) / elapsed, (used - computed) / elapsed, moved)

    def _has_recovered(self, now: float, total: int) -> bool:
        if now < max(self._fell_at, self._resume_at) + self._recovery or total == self._fell_with:
            return False
        if self.level >= self._ceiling:
            self._troubled = False
        return True

    def _judge(self, rate: float, share: float, moved: Sequence[int]) -> None:
        """Decide on the rate of so many attempts as there are now, which keep ``share`` cores busy."""
        now = self._clock()
        usual, self._usual = self._usual, None
        remembers = self._remembers(now)
        most = min(self._ceiling, max(self.level, self._refused - 1)) if remembers else self._ceiling
        if usual is not None and rate < self._rate * self._least_gain(usual, share):
            self._resting_until = now + REST
            self._set(usual, moved)
        elif share >= FULL * self._cores:
            self._resting_until = now + REST
            self._set(self.level, moved)
        elif self.level < most:
            self._usual, self._rate = self.level, rate
            # Between what the host takes and what it refused, the middle.
            self._set(min(2 * self.level, (self.level + most + 1) // 2 if remembers else most), moved)
        else:
            self._resting_until = self._fell_at + MEMORY if remembers else math.inf

    def _remembers(self, now: float) -> bool:
        """Whether the host has refused some so lately that so many are not tried again."""
        return now < self._fell_at + MEMORY

    def _least_gain(self, usual: int, share: float) -> float:
        """Return how many times as much as before a trial has to move."""
        return LEVEL if share < IDLE else 1 + (GAIN - 1) * (self.level / usual - 1)

    def _set(self, level: int, moved: Sequence[int]) -> None:
        """Begin to find out what there is to be moved with so many."""
        self.level = min(self._ceiling, level)
        self._began = self._clock()
        self._base = list(moved)
        self._window = None

    def _all_at_work(self, moved: Sequence[int], now: float) -> bool:
        """Whether most of those that should be at work have moved something since they were told."""
        if now - self._began >= PATIENCE:
            return True
        return 4 * sum(map(int.__ne__, moved[: self.level], self._base)) >= 3 * self.level


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
