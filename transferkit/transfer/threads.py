"""The threads of one operation: its workers, and the driver, which looks after them.

An interrupt (Ctrl-C) may come between any two byte codes of the calling thread, and leave a lock of the standard
library locked. So that thread only waits, in one call in C; the driver does what must not be interrupted.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from queue import SimpleQueue

from transferkit.cancellation import Cancellation
from transferkit.errors import CancelledError
from transferkit.transfer.ending import cut_at_exit
from transferkit.transfer.pool import Bell, Pool, wait_for
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
        self._size = size
        self._executor = executor
        self._driver: threading.Thread | None = None
        # Who enters itself first decides whether the driver comes to life: one step, which an interrupt cannot cut.
        self._claim: dict[str, str] = {}
        self._orders: SimpleQueue[Pool | None] = SimpleQueue()
        self._pool: Pool | None = None
        self._gone: Bell = SimpleQueue()
        self._is_gone = False

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
                if self._driver is None:
                    self._driver = threading.Thread(target=self._drive, name="transferkit-driver", daemon=True)
                    # Thread.start waits at a condition: where an interrupt comes to it, nobody could be waited for.
                    try:
                        _thread.start_new_thread(self._launch, (self._driver,))
                    except RuntimeError:  # the system has no thread left, or the interpreter ends
                        self._driver = None
                        self._orders.get()
                        with self._executor(self._size) as executor:
                            pool.drive(executor)
                while not pool.is_over:
                    if not wait_for(pool.done, max(interval, SHORTEST)):
                        tick()
        except BaseException as error:
            pool.stop(error)
            raise
        if pool.error is not None:
            raise pool.error

    def _launch(self, driver: threading.Thread) -> None:
        if self._claim.setdefault("by", "driver") == "driver":
            try:
                driver.start()
            except RuntimeError:
                self._drive()  # the system has no more threads

    def _drive(self) -> None:
        try:
            with self._executor(self._size) as executor:
                while (pool := self._orders.get()) is not None:
                    pool.drive(executor)
        finally:
            self._is_gone = True
            self._gone.put(None)

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *_: object) -> None:
        interrupt: BaseException | None = None
        while not self._is_gone:
            try:
                self._close()
            except BaseException as error:  # noqa: BLE001 - a second Ctrl-C must not leave them behind either
                interrupt = error
        if interrupt is not None:
            raise interrupt

    def _close(self) -> None:
        if self._pool is not None and not self._pool.is_over:
            self._pool.stop(CancelledError("stopped"))
        if self._driver is None or self._claim.setdefault("by", "caller") == "caller":
            self._is_gone = True
            return
        self._orders.put(None)
        while not self._is_gone:
            wait_for(self._gone, 0.1)  # an interrupt may have swallowed the ring
        if self._driver.is_alive():
            self._driver.join()
