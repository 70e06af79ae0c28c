"""How many attempts run at once: one controller for all that an operation asks of its host.

It begins with two, or one where all blobs are small and come in bundles, and climbs as long as more of them move more:
64 threads hide the latency of a far registry, and on a fast link only fight for the interpreter and for the lock of the
file they all write to. 2 GiB in two files took 2.4 s with 2 and 3.7 s with 64 from loopback, and 24 s with 2 and 3 s
with 32 at 40 MB/s a connection; 5,000 small blobs took 0.31 s with 1 and 0.35 s with 2.

A host that has had enough says so with 429 or 503, by refusing, resetting or cutting connections before it answers, or
by silence. Then half of what is running may go on, all wait for as long as the host asks, and once it has recovered the
climb goes on from there. Where it refuses more attempts than before, the former level is kept.
"""

from __future__ import annotations

import errno
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence

from transferkit.errors import (
    ConnectError,
    RateLimitedError,
    ReadError,
    RegistryError,
    StorageError,
    TransferKitError,
    TransportTimeout,
    WriteError,
)
from transferkit.transfer.flow import WorkerFlow

FIRST = 2  # attempts to begin with
FEW = 8  # attempts; one failure among more of them is their number's fault
LATENCY = 0.002  # seconds between two looks before the first byte: the farther the registry, the more begin at once
NEAR = 0.005  # seconds before the first byte in which no more begin: a registry next door takes them to open a file
PERIOD = 0.02  # seconds between two looks after it
MANY = 32  # attempts that begin before the first byte, where that does not take FAR seconds
FAR = 0.05
WINDOW = 0.06  # seconds over which a rate is measured
PATIENCE = 1.0  # seconds for new workers to move their first bytes, before they are judged without
REST = 2.0  # seconds between a trial that brought nothing and the next
GAIN = 1.15  # twice the workers have to move so many times the bytes
LEVEL = 0.95  # where the processor idles: there more of them cost nothing
UNSURE = 0.8  # on the way to the most there may be: in a window few small blobs come, and tell a rate so badly
IDLE = 0.7  # of one core
FULL = 0.55  # of all cores: more workers would wait for one; a server on the same machine takes the rest
ONE_CORE = 1.15  # of one core: what the interpreter keeps busy by itself, where it has a lock
COSTLY = 400e6  # bytes for a second of processor time; of large blobs, for which it has little to do, it is twice that
RECOVERY = 0.25  # seconds of calm after trouble until more are tried; doubled each time that a trial is refused
LONGEST = 16.0  # and this at most
MEMORY = 30.0  # seconds for which a level that the host has refused is not tried again
_HAS_LOCK: bool = getattr(sys, "_is_gil_enabled", lambda: True)()  # from Python 3.13 on it may have none
_LOOK = 0.02  # seconds between two looks of a worker that waits for its turn


def is_overload(error: TransferKitError) -> bool:
    """Tell whether a host says that it has had enough."""
    return isinstance(error, RateLimitedError) or (isinstance(error, RegistryError) and error.status == 503)


def is_starved(error: TransferKitError) -> bool:
    """Tell whether the system had no descriptor for a file: it has one again once others have ended."""
    return isinstance(error, StorageError) and error.errno in (errno.EMFILE, errno.ENFILE)


def is_limit(error: TransferKitError, flow: WorkerFlow) -> bool:
    """Tell whether an attempt failed at what the host, or our own system, bears, and not at its own content; ``flow``
    is its worker's."""
    if isinstance(error, (ReadError, WriteError, TransportTimeout)):
        return not flow.watch.has_body
    return isinstance(error, ConnectError) or is_overload(error) or is_starved(error)


class Concurrency:
    """Says how many attempts may run (``level``), and lets them begin. Thread-safe."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
        cores: int | None = None,
        proven: int = 0,
    ) -> None:
        self.level = 0
        self.proven = proven
        """How many attempts moved most, as far as that was found out: a later controller begins with half of them."""
        self._clock = clock
        self._cpu = cpu
        usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        self._cores = cores or len(usable)
        self._lock = threading.Lock()
        self._troubled = False
        self._falls = 1  # the failure of an attempt that began before the last fall is no news
        self._fell_at = -math.inf
        self._fell_with = 0  # bytes that had been moved then
        self._refused = 0  # attempts that were too many then; 0: not known
        self._suspect: WorkerFlow | None = None  # whose unit failed last: it may be that unit's own fault
        self._resume_at = 0.0
        self._recovery = RECOVERY
        # When the window began that a rate is measured over, and what was moved, and computed, until then.
        self._window: tuple[float, int, float] | None = None
        self.begin(())

    def begin(self, flows: Sequence[WorkerFlow], first: int = FIRST) -> None:
        """Begin a run of these workers, with ``first`` of them; what the host said in an earlier one still holds."""
        self._flows = flows
        self._ceiling = len(flows)
        self._total = self._fell_with = 0
        self._heard = self._looked = self._clock()
        self._used = self._cpu()
        self._resting_until = 0.0
        self._usual: int | None = None  # the level before the trial that is on, if one is
        self._rate = 0.0  # what it moved
        # With half of what was proven: that it is still of use is tried at once, and else it would never be less.
        self._set(self.level if self._troubled else max(first, self.proven // 2), self._moved())

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
        while self._troubled:
            pause = self._resume_at - self._clock()
            # Two workers may come through at once: one attempt too many harms nobody, a lock on the way in would.
            if pause <= 0 and self._running() < self.level:
                break
            flow.wait(*((pause, "rate limit") if pause > 0 else (_LOOK, "turn")))
        flow.attempt = self._falls

    @property
    def is_troubled(self) -> bool:
        """Whether the host has had enough, and has not recovered yet."""
        return self._troubled

    def _running(self) -> int:
        return sum(1 for flow in self._flows if flow.attempt)

    def failed(self, error: TransferKitError, flow: WorkerFlow, wait: float, *, excused: bool = False) -> None:
        """Take in that an attempt failed, and will be made again after ``wait`` seconds.

        ``excused``: the same unit had failed before, and others have moved on since.
        """
        with self._lock:
            running = self._running()
            began, flow.attempt = flow.attempt, 0
            # Where nobody else has failed since, it may be the unit's own fault, and the others go on as they are.
            repeats = excused and flow is self._suspect
            # Sixty refusals of one moment are one complaint, not sixty: they halve once.
            if not repeats and is_limit(error, flow) and began == self._falls:
                self._fall(running, flow)
            if is_overload(error) and (not repeats or getattr(error, "retry_after", None)):
                self._resume_at = max(self._resume_at, self._clock() + wait)
                self._troubled = True

    def _fall(self, running: int, flow: WorkerFlow) -> None:
        now, total = self._clock(), sum(self._moved())
        usual, self._usual = self._usual, None
        self.proven = 0
        # One failure among few says nothing of a limit. Soon after it a trial that is refused as well does.
        is_next = now < max(self._fell_at, self._resume_at) + REST
        remembers = running > FEW or self._remembers(now)
        if usual is not None and running > usual:
            remembers = remembers or is_next
            self._recovery = min(2 * self._recovery, LONGEST)  # it takes what it took before, and no more
        else:
            usual = max(1, running // 2) if is_next or running > FIRST else self.level
            self._recovery = RECOVERY
        self.level = min(self.level, usual)
        self._troubled = True
        self._resting_until = 0.0
        self._falls += 1
        self._suspect = flow
        self._fell_at, self._fell_with, self._refused = now, total, running if remembers else 0

    def progress_of_others(self, flow: WorkerFlow) -> int:
        """Return how many bytes of all workers but this one are in place."""
        return sum(other.counter.progress for other in self._flows) - flow.counter.progress

    def _moved(self) -> list[int]:
        return [flow.counter.traffic for flow in self._flows]

    # -- climbing

    def look(self) -> int:
        """Return how many attempts there should be now. Only the thread that starts the workers asks."""
        with self._lock:
            self._look(self._clock(), self._moved(), self._cpu())
            return self.level

    def _look(self, now: float, moved: list[int], used: float) -> None:
        total = sum(moved)
        idles = used - self._used < IDLE * (now - self._looked)
        self._looked, self._used = now, used
        if self._troubled and not self._has_recovered(now, total):
            self._total, self._heard = total, now
            self._set(self.level, moved)
        elif total == self._total:
            silent = now - self._heard
            if idles and silent >= (NEAR if self.level < MANY else FAR) and not self._remembers(now):
                self._usual, self._rate = (self._usual or self.level, 0.0) if total else (None, 0.0)
                self._set(2 * self.level, moved)
        else:
            self._total, self._heard = total, now
            if now >= self._resting_until:
                self._measure(now, total, moved, used)

    def _has_recovered(self, now: float, total: int) -> bool:
        if now < max(self._fell_at, self._resume_at) + self._recovery or total == self._fell_with:
            return False
        self._troubled = self.level < self._ceiling
        return True

    def _remembers(self, now: float) -> bool:
        """Whether the host has refused some so lately that so many are not tried again."""
        return self._refused > 0 and now < self._fell_at + MEMORY

    def _measure(self, now: float, total: int, moved: list[int], used: float) -> None:
        """Measure the rate over a window, which begins once most have moved something since they were told to."""
        if self._window is None:
            at_work = sum(map(int.__ne__, moved[: self.level], self._base))
            if 4 * at_work >= 3 * self.level or now - self._began >= PATIENCE:
                self._window = now, total, used
            return
        began, before, computed = self._window
        elapsed = now - began
        if elapsed >= WINDOW:
            self._judge(now, (total - before) / elapsed, (used - computed) / elapsed, moved)

    def _judge(self, now: float, rate: float, share: float, moved: list[int]) -> None:
        """Decide on the rate of so many attempts as there are now, which keep ``share`` cores busy."""
        usual, self._usual = self._usual, None
        remembers = self._remembers(now)
        most = min(self._ceiling, max(self.level, self._refused - 1)) if remembers else self._ceiling
        if self.level < self._ceiling or self.level > self.proven:  # else there is no use for more, this time
            self.proven = self.level
        gain = 1 + (GAIN - 1) * (self.level / (usual or 1) - 1)
        if share < IDLE:
            gain = LEVEL if self.level == most else UNSURE
        if usual is not None and rate < gain * self._rate:
            self._resting_until = now + REST
            self.proven = usual
            self._set(usual, moved)
        elif share >= FULL * self._cores or _is_interpreters(rate, share):
            self._resting_until = now + REST
            self._set(self.level, moved)
        elif self.level < most:
            if usual is None or rate >= self._rate:
                usual, self._rate = self.level, rate
            self._usual = self.proven = usual  # the best of them
            # Between what the host takes and what it refused, the middle.
            self._set(min(2 * self.level, (self.level + most + 1) // 2 if remembers else most), moved)
        else:
            self._resting_until = self._fell_at + MEMORY if remembers else math.inf

    def _set(self, level: int, moved: list[int]) -> None:
        """Begin to find out what there is to be moved with so many."""
        self.level = min(self._ceiling, level)
        self._began = self._clock()
        self._base = moved
        self._window = None


def _is_interpreters(rate: float, share: float) -> bool:
    """Tell whether the interpreter is what is busy: more workers would only hand its lock to each other."""
    return _HAS_LOCK and IDLE <= share <= ONE_CORE and rate < COSTLY * share
