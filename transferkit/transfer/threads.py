"""The threads of one operation: its workers, and the driver, which looks after them.

The calling thread only waits, in one call in C, for it may be interrupted (Ctrl-C) between any two byte codes; the
driver does what must not be interrupted.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue

from transferkit.cancellation import Cancellation
from transferkit.errors import CancelledError
from transferkit.transfer.driver import Driver, Orders
from transferkit.transfer.ending import cut_at_exit
from transferkit.transfer.pool import Pool, wait_for
from transferkit.transfer.watchdog import PERIOD

with suppress(RuntimeError):  # the interpreter ends already, and starts no thread any more
    import concurrent.futures.thread  # noqa: F401 - now: the workers may be out of descriptors

Tick = Callable[[], None]

SHORTEST = 0.01  # seconds: an interval of 0 means as often as makes sense, not a loop that keeps a core busy


def _make_workers(size: int) -> Executor:
    """Return an executor with so many threads, or one that starts nothing where the interpreter ends already."""
    try:
        from concurrent.futures import ThreadPoolExecutor
    except RuntimeError:
        return Executor()
    return ThreadPoolExecutor(size, thread_name_prefix="transferkit")


WORKERS = _make_workers


class Threads:
    """At most ``size`` workers and their driver, made when they are needed; a context manager that waits for them.

    ``executor`` makes the workers; a serial one has the driver do their work.
    """

    def __init__(self, size: int, executor: Callable[[int], Executor] = WORKERS) -> None:
        self._executor = partial(executor, size)
        self._drivers: list[Driver] = []  # the last one is at work, where it has not left
        self._orders: Orders = SimpleQueue()
        self._pool: Pool | None = None

    def run(self, pool: Pool, cancellation: Cancellation, tick: Tick = lambda: None, interval: float = PERIOD) -> None:
        """Have the work of a pool done; ``tick`` is called from this thread every ``interval`` seconds meanwhile.

        Raises:
            CancelledError: the cancellation was triggered.
            BaseException: what ``work`` raised, or what a signal handler raised in this thread.
        """
        if not pool.scheduler:
            return
        self._pool = pool
        try:
            with cancellation.watch(lambda: pool.stop(cancellation.error())), cut_at_exit(pool):
                self._orders.put(pool)
                if not self._drivers or self._drivers[-1].has_left:
                    self._start_driver(pool)
                while not pool.is_over:
                    if not wait_for(pool.done, max(interval, SHORTEST)):
                        tick()
        except BaseException as error:
            pool.stop(error)
            raise
        if pool.error is not None:
            raise pool.error

    def _start_driver(self, pool: Pool) -> None:
        self._drivers.append(Driver(self._orders, self._executor))
        try:
            self._drivers[-1].start()
        except RuntimeError:  # the system has no thread left, or the interpreter ends
            self._drivers.pop()
            with suppress(Empty):  # one that was about to leave has taken it
                self._orders.get_nowait()
                with self._executor() as executor:
                    pool.drive(executor)

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *_: object) -> None:
        interrupt: BaseException | None = None
        while self._drivers:
            try:
                if self._pool is not None and not self._pool.is_over:
                    self._pool.stop(CancelledError("stopped"))
                self._drivers[-1].dismiss()
                self._drivers.pop()
            except BaseException as error:  # noqa: BLE001 - a second Ctrl-C must not leave them behind either
                interrupt = error
        if interrupt is not None:
            raise interrupt
