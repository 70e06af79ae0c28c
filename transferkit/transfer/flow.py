"""The flow of one worker: how it is told to stop, whatever it is blocked in, with its counter and its watch."""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from transferkit.content.flow import Abort
from transferkit.errors import SlowError, StalledError, TransferKitError
from transferkit.options import TransferOptions
from transferkit.transfer.crew import Board, Crew

# With half of it, 32 threads spent a fifth more on handing the interpreter to each other between system calls.
BUFFER = 512 * 1024
BUFFERS = 64 * BUFFER  # bytes of all workers together: where there are more than 64, each has less
_LOOK = 0.05  # seconds between two tries to get what another worker holds


class ByteCounter:
    """The bytes of one worker, over all its units of work. It alone writes, so counting takes no lock."""

    __slots__ = ("_found", "_net", "_peak", "_start", "_wasted", "progress")

    def __init__(self) -> None:
        self.progress = 0
        """Bytes that are in place, over all units."""
        self._start = 0
        self._peak = 0
        self._wasted = 0  # negative where more was in place already: that was no traffic
        self._net = 0  # that of this unit
        self._found = 0  # bytes of the units before that were in place already

    def next_unit(self) -> None:
        """Count a new unit of work from 0."""
        self._start = self.progress
        self._peak = 0
        if self._net:
            self._found += max(0, -self._net)
            self._net = 0

    def take_over(self, counted: int, position: int) -> None:
        """Begin a unit at ``position``, of which others have ``counted`` so many bytes as in place already."""
        self.set_position(-counted)
        self._found -= self._net  # whoever has counted them has taken them for traffic, or has found them
        self._net = 0
        self.next_unit()
        self.set_position(position)

    def set_position(self, position: int) -> None:
        before = self.progress - self._start
        self._peak = max(self._peak, before, position)
        self._wasted += before - position
        self._net += before - position
        self.progress += position - before

    @property
    def position(self) -> int:
        """How many bytes of this unit are counted."""
        return self.progress - self._start

    def peak(self) -> int:
        """The furthest byte of this unit that was ever reached."""
        return max(self._peak, self.position)

    @property
    def traffic(self) -> int:
        """Bytes that were moved, those that were thrown away included, those that were in place already not."""
        return self.progress + self._wasted

    @property
    def found(self) -> int:
        """Bytes that were in place already, or were counted without being moved."""
        return self._found + max(0, -self._net)


class BodyWatch:
    """What the watchdog sees of one worker: the number of the body that is under way, 0 between bodies.

    ``limit`` bounds how many bodies of all workers move at once; ``wait`` is how the worker waits for its turn.
    """

    __slots__ = ("_bodies", "_limit", "_wait", "body", "has_body", "paused", "spared", "units")

    def __init__(self, limit: threading.Semaphore | None = None, wait: Callable[[float], None] = time.sleep) -> None:
        self.body = 0
        self.has_body = False
        """Whether a body has begun in this attempt: the host has answered."""
        self.paused = False
        """Whether the worker is busy elsewhere than at its body: at the disk, or waiting for its share."""
        self.spared = False
        """Whether the unit was cut for slowness so often that it is not cut any more."""
        self.units = 1
        """How many units come in the body."""
        self._bodies = 0
        self._limit = limit
        self._wait = wait

    def start(self, units: int = 1) -> None:
        if self._limit is not None and not self.body:
            while not self._limit.acquire(blocking=False):
                self._wait(_LOOK)
        self._bodies += 1
        self.paused = False
        self.units = units
        self.has_body = True
        self.body = self._bodies

    def stop(self) -> None:
        if self._limit is not None and self.body:
            self._limit.release()
        self.body = 0


class Bandwidth:
    """Hands out time: each worker reserves what its bytes take, in the order in which they come. Thread-safe."""

    def __init__(self, rate: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at = clock()

    def reserve(self, count: int) -> float:
        """Return how many seconds to wait now that ``count`` bytes were moved."""
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now) + count / self._rate
            return self._free_at - now


class WorkerFlow:
    """The ``Flow`` of one worker thread, reused from unit to unit.

    ``attempt`` says that an attempt runs, and in which generation of the controller it began; 0: none. ``cut`` may come
    from any thread, and from a signal handler.
    """

    def __init__(
        self,
        number: int = 0,
        *,
        bandwidth: Bandwidth | None = None,
        bodies: threading.Semaphore | None = None,
        buffer: int = BUFFER,
    ) -> None:
        self.number = number
        self.counter = ByteCounter()
        # Without a limit the watch needs no way back to us, which would be a cycle that holds the buffer.
        self.watch = BodyWatch() if bodies is None else BodyWatch(bodies, self.wait)
        self.attempt = 0
        self.fresh = False
        self.unit: object = None
        """What it is at: a blob, or a part of one."""
        self.waits = ""
        """What it waits for, while it does; ``until`` is when that ends, by the monotonic clock."""
        self.until = 0.0
        self.board: Board | None = None  # while it is at work; for longer, that would be a cycle that holds the buffer
        self._bandwidth = bandwidth
        self.buffer_size = buffer  # bytes
        self._buffer: memoryview | None = None
        self._cut: TransferKitError | None = None
        self._final = False
        self._aborts: dict[Abort, None] = {}  # in order; by equality, which a bound method keeps and its id does not
        # Reentrant: a signal handler that cancels may run in a thread that is in here already.
        self._lock = threading.RLock()
        # A locked lock that ``cut`` opens. The lock in an Event may be held by the thread that a handler interrupts.
        self._bell = threading.Lock()
        self._bell.acquire()

    @property
    def buffer(self) -> memoryview:
        if self._buffer is None:
            # Its pages take memory once they are used: small blobs use few of them, of a bytearray all.
            self._buffer = memoryview(mmap.mmap(-1, self.buffer_size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        return self._buffer

    # -- what the operation sees

    def check(self) -> None:
        if self._cut is not None:
            raise self._cut

    def wait(self, seconds: float, why: str = "") -> None:
        if self._cut is None and seconds > 0:
            self.until, self.waits = time.monotonic() + seconds, why
            self._bell.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))
            self.waits = ""
        if self._cut is not None:
            raise self._cut

    def attach(self, abort: Abort) -> None:
        with self._lock:
            self._aborts[abort] = None
            if self._cut is not None:
                raise self._cut

    def detach(self, abort: Abort) -> None:
        with self._lock:
            self._aborts.pop(abort, None)

    def moved(self, count: int) -> None:
        if self._cut is not None:
            raise self._cut
        self.counter.progress += count
        if self._bandwidth is not None:
            self.watch.paused = True  # a body that waits for its turn is not silent
            self.wait(self._bandwidth.reserve(count))
            self.watch.paused = False

    def crew(self) -> Crew:
        return Crew(self, self.board)

    # -- what the engine sees

    @property
    def is_on_wire(self) -> bool:
        """Whether the worker has a connection, or is about to have one, that it may be blocked on."""
        return bool(self._aborts)

    def next_attempt(self) -> None:
        """Forget a cut that was meant for the attempt before; one that is final stays."""
        self.watch.stop()
        self.watch.has_body = False
        with self._lock:  # a cut of the last body comes before this, or not at all
            self.fresh = isinstance(self._cut, (StalledError, SlowError))
            if self._cut is not None and not self._final:
                self._cut = None
                self._bell.acquire(blocking=False)

    def cut(self, error: TransferKitError, *, final: bool) -> None:
        """Make the operation raise ``error``, and wake it; a final cut holds for all that follows."""
        with self._lock:
            if self._final:
                return
            self._cut = error
            self._final = final
            with suppress(RuntimeError):  # it was open already
                self._bell.release()
            for abort in list(self._aborts):
                abort()

    def cut_body(self, body: int, error: TransferKitError) -> bool:
        """Cut the body with this number (``watch.body``; 0: who waits for one), and no other that may have come in its
        place; tell whether it was that."""
        with self._lock:
            is_it = self.watch.body == body
            if is_it:
                self.cut(error, final=False)
            return is_it


def worker_flows(count: int, options: TransferOptions) -> list[WorkerFlow]:
    """Return the flows of so many workers, with the limits that all of them share."""
    limit, most = options.max_bandwidth, options.body_concurrency
    bandwidth = Bandwidth(limit) if limit else None
    bodies = threading.BoundedSemaphore(most) if most else None
    size = min(BUFFER, BUFFERS // count)
    if limit:
        # Who reads much at once would wait long for it: 50 turns a second are smooth enough.
        size = max(4096, int(min(size, limit / 50)))
    return [WorkerFlow(number, bandwidth=bandwidth, bodies=bodies, buffer=size) for number in range(count)]
