"""What a call says of its waits: a warning where one begins to be long, and a line at INFO where it is over.

A host is waited for as a whole, so the log has one line for it, however many workers wait. The waits for the locks of
other processes are told by the storage, in the same words. ``docs/logging.rst`` has every line.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from transferkit.errors import TransferKitError
from transferkit.transfer.flow import WorkerFlow

LONG = 5.0  # seconds without a byte until the log says so: longer than a slow start, shorter than a user's patience


class Waits:
    """The waits of one operation for ``host``, which is how the lines name it. Thread-safe.

    A wait begins with the first attempt of the operation that fails, with a pause of ``LONG`` seconds and more, and
    with as many seconds in which nothing moves. It is over when something moves again.
    """

    def __init__(self, logger: logging.Logger, host: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._host = host
        self._clock = clock
        self._lock = threading.Lock()
        self._flows: Sequence[WorkerFlow] = ()
        self._has_failed = False
        self._moved = (0, 0)
        self._moved_at = 0.0
        self._began: float | None = None  # when the wait began that the log has told of, if one is on
        self._until = 0.0  # when the pause ends that a host has asked for

    def begin(self, flows: Sequence[WorkerFlow]) -> None:
        """Begin a run of these workers."""
        with self._lock:
            self._flows = flows
            self._moved, self._moved_at = self._count(), self._clock()

    def failed(self, error: TransferKitError, wait: float) -> None:
        """Take in that an attempt failed, and that another one follows after ``wait`` seconds."""
        with self._lock:
            now = self._clock()
            self._until = max(self._until, now + wait)
            is_news = self._began is None and (wait >= LONG or not self._has_failed)
            self._has_failed = True
            if is_news:
                self._began = now
        if is_news:
            pause = f" in {wait:.0f} s" if wait >= 1 else ""
            self._logger.warning("waiting for %s: trying again%s, after: %s", self._host, pause, error)

    def look(self) -> None:
        """See whether something has moved since the last look."""
        over = is_long = False
        with self._lock:
            now, moved = self._clock(), self._count()
            if moved != self._moved:
                self._moved, self._moved_at = moved, now
                over = self._began is not None and now >= self._until
            elif self._began is None and now - self._moved_at >= LONG and self._is_asking():
                self._began, is_long = self._moved_at, True
        if over:
            self.end()
        elif is_long:
            self._logger.warning("waiting for %s: nothing has moved for %.0f s", self._host, LONG)

    def end(self) -> None:
        """Say that a wait is over, if one was on."""
        with self._lock:
            began, self._began = self._began, None
            now = self._clock()
        if began is not None:
            self._logger.info("no longer waiting for %s, after %.1f s", self._host, now - began)

    @property
    def is_silent(self) -> bool:
        """Whether nothing has moved for long, as the log has been told."""
        return self._began is not None and self._clock() - self._moved_at >= LONG

    def _is_asking(self) -> bool:
        """Tell whether somebody waits for the host, and not for the disk or for his share of the bandwidth."""
        return any(flow.is_on_wire and not flow.watch.paused for flow in self._flows)

    def _count(self) -> tuple[int, int]:
        """Count what was moved, and what is in place: a blob that was there already is no traffic, and is news."""
        counters = [flow.counter for flow in self._flows]
        return sum(counter.traffic for counter in counters), sum(counter.progress for counter in counters)
