"""Workers that take units of work until there are none, and a caller that waits for them.

The executor lives inside one call. It cannot cancel what runs, so every way out cuts the flows of all workers first,
which wakes them wherever they are blocked, and waits for them after: no thread is left behind.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

from transferkit.cancellation import Cancellation
from transferkit.errors import CancelledError, TransferKitError
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.growth import Growth

U = TypeVar("U")
U_co = TypeVar("U_co", covariant=True)

Work = Callable[[U, WorkerFlow], None]

SHORTEST = 0.01  # seconds: an interval of 0 means as often as makes sense, not a loop that keeps a core busy


class Units(Protocol[U_co]):
    """Where a pool takes its units of work from. Thread-safe."""

    def take(self, worker: int) -> U_co | None:
        """Return the next unit for a worker; ``None``: there is nothing left for it. May wait."""

    def stop(self) -> None:
        """Hand out nothing more; called from any thread, and from signal handlers."""

    def __bool__(self) -> bool:
        """Whether there is something left."""


class Queue(Generic[U]):
    """Units in their order."""

    def __init__(self, units: Iterable[U]) -> None:
        self._units = deque(units)

    def take(self, worker: int) -> U | None:
        try:
            return self._units.popleft()  # atomic: the queue takes no lock
        except IndexError:
            return None

    def stop(self) -> None:
        self._units.clear()

    def __bool__(self) -> bool:
        return bool(self._units)


class Pool(Generic[U]):
    """Runs ``work(unit, flow)`` for every unit, at most ``concurrency`` at once.

    ``work`` deals with the failures of its unit; whatever it raises ends the whole run at once.
    """

    def __init__(
        self,
        work: Work[U],
        units: Units[U],
        *,
        concurrency: int,
        cancellation: Cancellation,
        executor: Callable[[int], Executor] | None = None,
        make_flow: Callable[[int], WorkerFlow] = WorkerFlow,
    ) -> None:
        self._work = work
        self._units = units
        self._size = max(1, concurrency)
        self._cancellation = cancellation
        self._executor = executor or _threads
        self._finished = threading.Event()
        self._stopping = threading.Event()
        self._fatal: BaseException | None = None
        self.lock = threading.Lock()
        self._running: set[int] = set()
        self._wanted = 0
        self.flows = [make_flow(number) for number in range(self._size)]

    def run(self, tick: Callable[[], None], *, interval: float) -> None:
        """Do all the work; call ``tick`` from this thread every ``interval`` seconds while it goes on.

        Raises:
            CancelledError: the cancellation was triggered.
            BaseException: what ``work`` raised, or what a signal handler raised in this thread.
        """
        if not self._units:
            return
        with self._cancellation.watch(lambda: self.stop(self._cancellation.error())):
            executor = self._executor(self._size)
            growth = Growth(self._size)
            futures: list[Future[None]] = []
            ticked = time.monotonic()
            try:
                self._start(executor, growth.workers, futures)
                while not self._finished.wait(max(interval, SHORTEST) if growth.done else growth.pause):
                    if not growth.done and self._units:
                        workers = growth.look([flow.counter.traffic for flow in self.flows])
                        if not self._start(executor, workers, futures):
                            growth.stop()
                    now = time.monotonic()
                    if growth.done or now - ticked >= interval:
                        ticked = now
                        tick()
            except BaseException as error:
                self.stop(CancelledError(f"stopped by {type(error).__name__}"))
                raise
            finally:
                _shut_down(executor)
            for future in futures:
                future.result()  # a defect in the worker loop itself must not pass for success
        if self._fatal is not None:
            raise self._fatal

    def _start(self, executor: Executor, workers: int, futures: list[Future[None]]) -> bool:
        """Start workers until there are ``workers``; where there are more, the last ones end with their units.

        Tell whether all of them could be started.
        """
        self._wanted = workers
        with self.lock:
            flows = [flow for flow in self.flows[:workers] if flow.number not in self._running]
            self._running.update(flow.number for flow in flows)
        # Workers come and go for as long as the run is; of those that are gone, the ones with a defect are kept.
        futures[:] = [future for future in futures if not future.done() or future.exception() is not None]
        for number, flow in enumerate(flows):
            try:
                futures.append(executor.submit(self._worker, flow))
            except RuntimeError:
                if not futures:
                    raise
                # The system has no thread left. The executor keeps this one for when another ends; the rest never were.
                with self.lock:
                    self._running.difference_update(other.number for other in flows[number + 1 :])
                return False
        return True

    @property
    def has_work(self) -> bool:
        """Whether there are units that no worker has taken."""
        return bool(self._units)

    def sleep(self, seconds: float) -> None:
        """Wait, at most until the run is stopped."""
        self._stopping.wait(seconds)

    def stop(self, error: BaseException) -> None:
        """End the run with ``error``; the first one stands. Workers are woken wherever they are blocked."""
        # No lock around what follows: a signal handler may be the one who calls.
        if self._fatal is None:
            self._fatal = error
        self._units.stop()
        reason = error if isinstance(error, CancelledError) else CancelledError("stopped: another blob failed for good")
        for flow in self.flows:
            flow.cut(reason, final=True)
        self._stopping.set()

    def _worker(self, flow: WorkerFlow) -> None:
        number = flow.number
        try:
            while number < self._wanted and not self._stopping.is_set():
                unit = self._units.take(number)
                if unit is None:
                    return
                flow.counter.begin()
                self._work(unit, flow)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the caller has to hear of it
            if not (self._stopping.is_set() and isinstance(error, TransferKitError)):
                self.stop(error)
        finally:
            with self.lock:
                self._running.discard(number)
                last = not self._running
            if last:
                self._finished.set()


def _threads(size: int) -> Executor:
    return ThreadPoolExecutor(size, thread_name_prefix="transferkit")


def _shut_down(executor: Executor) -> None:
    """Wait for the workers, which were woken; a second Ctrl-C must not leave them behind either."""
    interrupted: BaseException | None = None
    while True:
        try:
            executor.shutdown(wait=True)
            break
        except KeyboardInterrupt as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted
