"""Which unit of work comes next: whole blobs, and chunks of large ones, so that neither waits for the other."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from operator import attrgetter
from typing import Any

from transferkit.content.descriptor import Descriptor
from transferkit.transfer.chunked import ChunkedBlob
from transferkit.transfer.crew import Job

MOST_OPEN = 32  # large blobs at most: each has three files open (content, state, lock)

Unit = Any  # one of ``wholes``, a ``ChunkedBlob`` that is to be begun, a ``ChunkUnit``, or a ``Job``


class Scheduler:
    """The units of one run. Thread-safe; taking a whole one costs no lock while no large blob is under way.

    Large blobs are begun first, as their chunks come out of that: one more where each of those under way has a worker.
    Then every second worker prefers chunks, the others wholes, and each takes the other kind when its own has run out.
    """

    def __init__(self, wholes: Iterable[Any], larges: Iterable[ChunkedBlob] = ()) -> None:
        self._larges = deque(larges)
        self._wholes = deque(wholes)
        self._active: list[ChunkedBlob] = []
        self._jobs: deque[Job] = deque()
        self._news = threading.Condition()
        self._opening = 0
        self._stopped = False
        self._waits = False  # whether a worker has found no chunk that it may begin, at last

    def __bool__(self) -> bool:
        """Whether there is something that no worker has taken."""
        # In the order in which a large blob moves on, as in ``take``.
        return bool(self._wholes or self._larges or self._opening or self._active or self._jobs)

    @property
    def is_dry(self) -> bool:
        """Whether there is nothing to take for a worker that would come now."""
        return self._waits or not self

    def take(self, worker: int) -> Unit | None:
        """Return the next unit for a worker; waits while there may be one. ``None``: there is nothing left."""
        while not self._stopped:
            if self._jobs and (job := _pop(self._jobs)) is not None:
                return job  # what is under way comes before what is not
            # Without the lock, so in the order in which a large blob moves on: from the queue to the beginning ones and
            # to the active ones, always in the new place before it leaves the old one.
            if not self._larges and not self._opening and not self._active:
                return _pop(self._wholes)
            with self._news:
                unit = self._choose(worker)
                self._waits = unit is None
                if unit is not None:
                    return unit
                if not self._stopped and not self._jobs and (self._active or self._opening):
                    self._news.wait()
        return None

    def _choose(self, worker: int) -> Unit | None:
        if self._opening + len(self._active) < MOST_OPEN and all(blob.workers for blob in self._active):
            self._opening += 1
            large = _pop(self._larges)
            if large is not None:
                return large
            self._opening -= 1
        if worker % 2 and (whole := _pop(self._wholes)) is not None:
            return whole
        # Where fewest are at work first: a single worker writes where the hasher is, and nothing has to be read back.
        for blob in sorted(self._active, key=attrgetter("workers")):
            unit = blob.take()
            if unit is not None:
                return unit
        return _pop(self._wholes)

    @property
    def waiting(self) -> int:
        """How many whole ones nobody has taken."""
        return len(self._wholes)

    def more(self, most: int, fits: Callable[[Any], bool]) -> list[Any]:
        """Return at most so many of the next whole ones, up to the first that does not fit."""
        taken: list[Any] = []
        while len(taken) < most and (unit := _pop(self._wholes)) is not None:
            if not fits(unit):
                self._wholes.appendleft(unit)
                break
            taken.append(unit)
        return taken

    def offer(self, job: Job) -> None:
        """Hand out a job next."""
        self._jobs.append(job)
        self.notify()

    def withdraw(self, job: Job) -> None:
        """Hand out a job no more."""
        with suppress(ValueError):  # somebody has taken it
            self._jobs.remove(job)

    def opened(self, blob: ChunkedBlob | None) -> None:
        """Take in that a large blob is under way now, or that there is nothing to do for it (``None``)."""
        with self._news:
            if blob is not None:
                self._active.append(blob)
            self._opening -= 1
            self._news.notify_all()

    def closed(self, blob: ChunkedBlob, *, then: Descriptor | ChunkedBlob | None = None) -> None:
        """Take in that nobody is at a large blob any more; ``then`` is how it is to be had instead."""
        if isinstance(then, ChunkedBlob):
            self._larges.appendleft(then)
        elif then is not None:
            self._wholes.appendleft(then)
        with self._news:
            self._waits = False
            self._active.remove(blob)
            self._news.notify_all()

    def hashed(self) -> None:
        """Wake one of those that wait: the hasher of a blob has moved on, by a chunk at most."""
        with self._news:
            self._news.notify()

    def notify(self) -> None:
        """Wake who waits: there are chunks to be had."""
        with self._news:
            self._news.notify_all()

    def stop(self) -> None:
        """Hand out nothing more, and let go who waits."""
        self._stopped = True
        self.notify()

    def close(self) -> None:
        """Keep what is in place of the blobs that are neither complete nor given up. No worker is left."""
        for blob in self._active:
            blob.ingest.keep()


def _pop(queue: deque[Any]) -> Unit | None:
    try:
        return queue.popleft()  # atomic, so without a lock
    except IndexError:
        return None
