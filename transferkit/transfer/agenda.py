"""What is to be done next: whole blobs, and chunks of large ones, so that neither waits for the other."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable

from transferkit.content.descriptor import Descriptor
from transferkit.transfer.ranged import ChunkUnit, RangedBlob

BEGUN = 32  # large blobs under way at most: each has three files open (content, state, lock)
_LOOK = 0.25  # seconds after which a worker that waits for news looks by itself

Unit = Descriptor | ChunkUnit


class Agenda:
    """The units of one run. Thread-safe; taking a whole blob costs no lock while no large one is under way.

    Large blobs are begun first, as their chunks come out of that: one more where each of those under way has a worker.
    Then every second worker prefers chunks, the others prefer whole blobs, and each takes of the other kind when its
    own has run out.
    """

    def __init__(self, descriptors: Iterable[Descriptor], *, is_large: Callable[[Descriptor], bool]) -> None:
        self.is_large = is_large
        larges: deque[Descriptor] = deque()
        self._wholes: deque[Descriptor] = deque()
        for descriptor in descriptors:
            (larges if is_large(descriptor) else self._wholes).append(descriptor)
        self._larges = larges
        self._active: list[RangedBlob] = []
        self._news = threading.Condition()
        self._beginning = 0
        self._stopped = False

    def __bool__(self) -> bool:
        """Whether there is something that no worker has taken."""
        return bool(self._wholes or self._larges or self._active or self._beginning)

    def take(self, worker: int) -> Unit | None:
        """Return the next unit for a worker; waits while there may be one. ``None``: there is nothing left."""
        while not self._stopped:
            # Without the lock, so in the order in which a large blob moves on: from the queue to the beginning ones and
            # to the active ones, always in the new place before it leaves the old one.
            if not self._larges and not self._beginning and not self._active:
                return _pop(self._wholes)
            unit = self._choose(worker)
            if unit is not None:
                return unit
            with self._news:
                if self._stopped or not (self._active or self._beginning):
                    continue
                self._news.wait(_LOOK)
        return None

    def _choose(self, worker: int) -> Unit | None:
        with self._news:
            if self._beginning + len(self._active) < BEGUN and all(blob.workers() for blob in self._active):
                self._beginning += 1
                large = _pop(self._larges)
                if large is not None:
                    return large
                self._beginning -= 1
        chunks_first = worker % 2 == 0
        if not chunks_first:
            whole = _pop(self._wholes)
            if whole is not None:
                return whole
        # Where fewest are at work first: alone at a blob, a worker is where the hasher is, and nothing is read back.
        for blob in sorted(self._active, key=RangedBlob.workers):
            unit = blob.take()
            if unit is not None:
                return unit
        return _pop(self._wholes) if chunks_first else None

    def begun(self, blob: RangedBlob | None) -> None:
        """A large blob that was taken is under way now, or needs nothing (``None``)."""
        with self._news:
            if blob is not None:
                self._active.append(blob)
            self._beginning -= 1
            self._news.notify_all()

    def ended(self, blob: RangedBlob) -> None:
        """A large blob is in place, or given up."""
        with self._news:
            if blob in self._active:
                self._active.remove(blob)
            self._news.notify_all()

    def news(self) -> None:
        """Wake who waits: there are chunks to be had."""
        with self._news:
            self._news.notify_all()

    def stop(self) -> None:
        """Hand out nothing more. Takes no lock: a signal handler may be the one who calls."""
        self._stopped = True
        self._wholes.clear()
        self._larges.clear()

    def unfinished(self) -> list[RangedBlob]:
        """Return the large blobs that are neither in place nor given up."""
        return list(self._active)


def _pop(queue: deque[Descriptor]) -> Descriptor | None:
    try:
        return queue.popleft()
    except IndexError:
        return None
