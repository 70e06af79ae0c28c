"""The flow of one worker: where it counts, and how it is told to stop, whatever it is blocked in."""

from __future__ import annotations

import mmap
import threading

from transferkit.content.interfaces import Abort
from transferkit.errors import SlowError, StalledError, TransferKitError
from transferkit.transfer.bandwidth import Bandwidth

# With half of it, 32 threads spent a fifth more on handing the interpreter to each other between system calls.
BUFFER = 512 * 1024
BUFFERS = 64 * BUFFER  # bytes of all workers together: where there are more than 64, each has less
_LOOK = 0.05  # seconds between two looks at a cut while the worker waits for others' bodies to end


class WorkerFlow:
    """The ``Flow`` of one worker thread, reused from unit to unit.

    ``body`` numbers the body that is under way, 0 between bodies; ``busy`` says that an attempt runs; ``spared`` that
    the unit was cut for slowness often enough.

    The worker alone writes the counters, so counting takes no lock; whoever sums them up reads a figure that was true a
    moment ago. ``cut`` may come from any thread.
    """

    __slots__ = (
        "_aborts",
        "_bandwidth",
        "_bodies",
        "_buffer",
        "_cut",
        "_final",
        "_gate",
        "_kept",
        "_lock",
        "_peak",
        "_size",
        "_start",
        "_wasted",
        "body",
        "busy",
        "fresh",
        "number",
        "paused",
        "progress",
        "spared",
    )

    def __init__(
        self,
        number: int = 0,
        *,
        bandwidth: Bandwidth | None = None,
        bodies: threading.Semaphore | None = None,
        buffer: int = BUFFER,
    ) -> None:
        self.number = number
        self._bandwidth = bandwidth
        self._gate = bodies
        self._size = buffer
        self.progress = 0
        self.body = 0
        self.busy = False
        self.fresh = False
        self.paused = False
        self.spared = False
        self._bodies = 0
        self._start = 0
        self._peak = 0
        self._kept = 0
        self._wasted = 0
        self._buffer: memoryview | None = None
        self._cut: TransferKitError | None = None
        self._final = False
        self._aborts: dict[Abort, None] = {}  # in order; by equality, which a bound method keeps and its id does not
        # Reentrant: a signal handler that cancels may run in a thread that is in here already.
        self._lock = threading.RLock()

    @property
    def buffer(self) -> memoryview:
        if self._buffer is None:
            self._buffer = _memory(self._size)
        return self._buffer

    # -- what the operation sees

    def check(self) -> None:
        if self._cut is not None:
            raise self._cut

    def attach(self, abort: Abort) -> None:
        with self._lock:
            self._aborts[abort] = None
            cut = self._cut
        if cut is not None:
            raise cut

    def detach(self, abort: Abort) -> None:
        with self._lock:
            self._aborts.pop(abort, None)

    def begin_body(self) -> None:
        if self._gate is not None and not self.body:
            while not self._gate.acquire(timeout=_LOOK):
                self.check()
        self._bodies += 1
        self.paused = False
        self.body = self._bodies

    def end_body(self) -> None:
        if self._gate is not None and self.body:
            self._gate.release()
        self.body = 0

    def moved(self, count: int) -> None:
        if self._cut is not None:
            raise self._cut
        self.progress += count
        if self._bandwidth is not None:
            self._wait_for_bandwidth(self._bandwidth, count)

    def _wait_for_bandwidth(self, bandwidth: Bandwidth, count: int) -> None:
        self.paused = True  # a body that waits for its turn is not silent
        bandwidth.moved(count)
        self.paused = False
        self.check()

    def settle(self, position: int) -> None:
        before = self.progress - self._start
        self._peak = max(self._peak, before, position)
        if position < before:
            self._wasted += before - position
        else:
            self._kept += position - before
        self.progress += position - before

    # -- what the engine sees

    def begin(self) -> None:
        """Begin a unit of work."""
        self._start = self.progress
        self._peak = 0

    def begin_attempt(self) -> None:
        """Forget a cut that was meant for the attempt before; one that is final stays."""
        self.end_body()
        self.fresh = isinstance(self._cut, (StalledError, SlowError))
        if self._cut is not None and not self._final:
            with self._lock:
                if not self._final:
                    self._cut = None

    def position(self) -> int:
        """How many bytes of this unit are counted."""
        return self.progress - self._start

    def peak(self) -> int:
        """The furthest byte of this unit that was ever reached."""
        return max(self._peak, self.progress - self._start)

    @property
    def traffic(self) -> int:
        """Bytes that were moved, thrown away ones included, and ones that were there already not."""
        return self.progress + self._wasted - self._kept

    def cut(self, error: TransferKitError, *, final: bool) -> None:
        """Make the operation raise ``error``, and wake it; a final cut holds for all that follows."""
        with self._lock:
            if self._final:
                return
            self._cut = error
            self._final = final
            for abort in list(self._aborts):
                abort()

    def cut_body(self, body: int, error: TransferKitError) -> None:
        """Cut the body with this number (``body``), and no other that may have come in its place."""
        with self._lock:
            if self.body == body:
                self.cut(error, final=False)


def buffer_size(workers: int, limit: float | None) -> int:
    """Return the bytes that each of so many workers reads at once, under a limit of bytes a second for all of them."""
    size = min(BUFFER, BUFFERS // workers)
    # Who reads much at once would wait long for it: 50 turns a second are smooth enough.
    return max(4096, min(size, int(limit / 50))) if limit else size


def _memory(size: int) -> memoryview:
    """Return a buffer whose pages take memory once they are used: small blobs use few of them, a ``bytearray`` all."""
    if hasattr(mmap, "MAP_PRIVATE"):
        return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    return memoryview(bytearray(size))
