"""Doing what a registry asks for when it has had enough: all workers pause together, and fewer come back.

429, 503 and timeouts halve how many attempts run at once; while there is calm, that doubles again. Nothing here costs a
blob more than a look at one attribute until there is trouble.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from transferkit.errors import RateLimitedError, RegistryError, TransferKitError, TransportTimeout
from transferkit.transfer.flow import WorkerFlow

RECOVERY = 5.0  # seconds of calm after which twice as many attempts may run
_LOOK = 0.02  # seconds between two looks of a worker that waits for its turn


class Throttle:
    """Lets attempts begin. Thread-safe. ``sleep`` may end early: the flow is asked before each attempt anyway."""

    def __init__(
        self,
        flows: Sequence[WorkerFlow],
        *,
        sleep: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._flows = flows
        self._sleep = sleep
        self._clock = clock
        self._lock = threading.Lock()
        self._troubled = False
        self._limit = float(len(flows))
        self._since = 0.0
        self._resume_at = 0.0

    def enter(self, flow: WorkerFlow) -> None:
        """Wait until an attempt may begin. Raises as ``flow.check`` does."""
        if self._troubled:
            flow.busy = False
            self._wait(flow)
        flow.busy = True

    def _wait(self, flow: WorkerFlow) -> None:
        while True:
            flow.check()
            now = self._clock()
            if now < self._resume_at:
                self._sleep(self._resume_at - now)
                continue
            limit = self.limit(now)
            # Two workers may come through at once: one attempt too many harms nobody, a lock on the way in would.
            if sum(other.busy for other in self._flows) < limit:
                return
            self._sleep(_LOOK)

    def limit(self, now: float) -> int:
        """Return how many attempts may run at ``now``."""
        with self._lock:
            if not self._troubled:
                return len(self._flows)
            calm = max(0.0, now - max(self._since, self._resume_at))
            limit = self._limit * 2 ** min(calm / RECOVERY, 64.0)  # more is a number too large
            if limit >= len(self._flows):
                self._troubled = False
                return len(self._flows)
            return max(1, int(limit))

    def note(self, error: TransferKitError, flow: WorkerFlow, wait: float) -> None:
        """Take in that an attempt failed and will be tried again after ``wait`` seconds."""
        flow.busy = False
        overload = isinstance(error, RegistryError) and (isinstance(error, RateLimitedError) or error.status == 503)
        if not overload and not isinstance(error, TransportTimeout):
            return
        now = self._clock()
        limit = self.limit(now)
        with self._lock:
            # Sixty answers of one second are one complaint, not sixty: they halve once.
            if not self._troubled or now - self._since >= 1.0:
                self._limit = max(1.0, limit / 2)
                self._since = now
            self._troubled = True
            if overload:
                self._resume_at = max(self._resume_at, now + wait)
