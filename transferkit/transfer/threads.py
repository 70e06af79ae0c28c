"""The threads of one operation: those of its workers, and one that looks after them.

An interrupt (Ctrl-C) may come between any two byte codes of the calling thread, also within a lock of the standard
library that then stays locked. So the calling thread only waits, at a plain lock; what must not be interrupted runs in
a thread that no signal reaches.
"""

from __future__ import annotations

import _thread
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Protocol

from transferkit.errors import CancelledError

_LOOK = 0.1  # seconds between two looks of who waits for the end: a ring may be lost to an interrupt


class Bell:
    """A flag to wait for that takes no lock of Python's own. ``ring`` may come from any thread and any signal handler.

    Who waits is let go by one ring, also by one that came before; ``is_rung`` stays.
    """

    def __init__(self) -> None:
        self.is_rung = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        self.is_rung = True
        try:
            self._lock.release()
        except RuntimeError:
            pass  # it was rung already, and nobody has heard it yet

    def wait(self, seconds: float) -> bool:
        """Wait for a ring, and tell whether there was one."""
        return self._lock.acquire(timeout=seconds)


class Job(Protocol):
    """What the threads are for. ``done`` is rung at its end."""

    done: Bell

    def drive(self, executor: Executor, tick: Callable[[], None] | None = None, interval: float = ...) -> None: ...
    def stop(self, error: BaseException, reason: CancelledError | None = None) -> None: ...


class Threads:
    """A pool of at most ``size`` threads and the thread that drives it, made when they are needed; a context manager.

    With an ``executor`` of the caller's (a serial one runs everything without threads) the calling thread drives.
    """

    def __init__(self, size: int, executor: Callable[[int], Executor] | None = None) -> None:
        self._size = size
        self._make_executor = executor
        self._executor: Executor | None = None
        self._driver: threading.Thread | None = None
        self._claim: dict[str, str] = {}
        """Who enters itself first, in one step, decides whether the driver comes to life."""
        self._jobs: deque[Job] = deque()
        self._job: Job | None = None
        self._orders = Bell()
        self._gone = Bell()
        self._closing = False

    def run(self, job: Job, tick: Callable[[], None], interval: float) -> None:
        """Have a job done; ``tick`` is called from this thread every ``interval`` seconds meanwhile."""
        if self._make_executor is not None:
            if self._executor is None:
                self._executor = self._make_executor(self._size)
            job.drive(self._executor, tick, interval)
            return
        self._job = job
        try:
            self._jobs.append(job)
            if self._driver is None:
                self._driver = threading.Thread(target=self._drive, name="transferkit-driver", daemon=True)
                # Thread.start waits at a condition, which an interrupt could leave locked.
                _thread.start_new_thread(self._launch, ())
            self._orders.ring()
            while not job.done.is_rung:
                if not job.done.wait(interval):
                    tick()
        except BaseException as error:
            job.stop(error, CancelledError(f"stopped by {type(error).__name__}"))
            raise

    def _launch(self) -> None:
        if self._driver is None or self._claim.setdefault("by", "driver") != "driver":
            return
        try:
            self._driver.start()
        except RuntimeError:
            self._drive()  # no other thread is to be had

    def _drive(self) -> None:
        executor = ThreadPoolExecutor(self._size, thread_name_prefix="transferkit")
        try:
            while not self._closing:
                try:
                    job = self._jobs.popleft()
                except IndexError:
                    self._orders.wait(-1)
                    continue
                job.drive(executor)
        finally:
            executor.shutdown(wait=True)
            self._gone.ring()

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for all threads; an interrupt that comes meanwhile is raised after it."""
        interrupt: BaseException | None = None
        while not self._gone.is_rung:
            try:
                self._close()
            except BaseException as error:  # noqa: BLE001 - a second Ctrl-C must not leave them behind either
                interrupt = error
        if interrupt is not None:
            raise interrupt

    def _close(self) -> None:
        self._closing = True
        if self._job is not None and not self._job.done.is_rung:
            self._job.stop(CancelledError("stopped"))
        if self._executor is not None:
            self._executor.shutdown(wait=True)
            self._gone.ring()
        elif self._driver is None or self._claim.setdefault("by", "caller") == "caller":
            self._gone.ring()
        else:
            self._orders.ring()
            while not self._gone.is_rung:
                self._gone.wait(_LOOK)
            self._driver.join()
