"""Who runs pieces: an executor of ``concurrent.futures``, or one of our own. Knows nothing of plans."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, Protocol

from transferkit.cluster.exchange import PipeExchange
from transferkit.cluster.lines import Line, Message, ThreadLine
from transferkit.cluster.piece import Done, Task, run_task
from transferkit.errors import TransferKitError

GRACE = 2.0  # seconds in which pieces end that were cancelled
_MOST = 1024  # workers that are taken for as many


class Pool(Protocol):
    """Who runs pieces. What becomes of one is put into an inbox: ``("done", number, future)``."""

    workers: int
    is_local: bool
    """Whether the pieces and the caller see the same disk. Where not, each piece says that it is ``over``."""

    def open(self, name: str) -> Line:
        """Return the line of a run; the ``name`` is the same for the same one."""

    def submit(self, task: Task, avoid: str = "") -> None:
        """Have a piece run, by another worker than the one to ``avoid`` if that can be said.

        BrokenExecutor: nobody is left who could.
        """

    def renew(self) -> None:
        """Take in that the workers have died, and have new ones. TransferKitError: there are none to be had."""

    def check(self) -> None:
        """Raise TransferKitError where nobody will ever answer."""

    def cancel(self) -> None:
        """Let nothing begin any more, and tell what runs to end."""

    def close(self) -> None:
        """Let go of everything; what was cancelled and has not ended is left, or killed where the pool is our own."""


class ExecutorPool:
    """The pool of an executor; without one, of ``processes`` of our own."""

    is_local = True

    def __init__(self, executor: Executor | None, put: Callable[[Message], object], processes: int | None) -> None:
        self._own = executor is None
        count = processes or os.cpu_count() or 1
        self._executor = own_processes(count) if executor is None else executor
        self._put = put
        self._lock = threading.Lock()
        self._futures: set[Future[Done]] = set()
        self._renewed: list[Executor] = []
        has_threads = isinstance(executor, ThreadPoolExecutor)
        self._exchange = ThreadLine(put) if has_threads else PipeExchange(put)
        self.workers = min(_MOST, getattr(self._executor, "_max_workers", None) or os.cpu_count() or 1)

    def open(self, name: str) -> Line:
        return self._exchange if isinstance(self._exchange, ThreadLine) else self._exchange.line

    def submit(self, task: Task, avoid: str = "") -> None:
        future = self._executor.submit(run_task, task)
        with self._lock:
            self._futures.add(future)
        future.add_done_callback(lambda future: self._ended(task.number, future))

    def _ended(self, number: int, future: Future[Done]) -> None:
        with self._lock:
            self._futures.discard(future)
        self._put(("done", number, future))

    def renew(self) -> None:
        old = self._executor
        if not isinstance(old, ProcessPoolExecutor):
            raise TransferKitError(f"{type(old).__name__} is broken, and runs no more pieces; what has come is kept")
        if self._own:
            self._executor = own_processes(self.workers)
        else:
            # Nobody can mend it, and it has no public names for what it was made of; these are as old as the class.
            self._executor = ProcessPoolExecutor(
                self.workers,
                mp_context=getattr(old, "_mp_context", None),
                initializer=getattr(old, "_initializer", None),
                initargs=getattr(old, "_initargs", ()),
            )
        self._renewed.append(self._executor)
        if self._own:
            old.shutdown(wait=False)

    def check(self) -> None:
        """Its futures say all there is."""

    def cancel(self) -> None:
        self._exchange.cancel()
        with self._lock:
            futures = list(self._futures)
        for future in futures:
            future.cancel()

    def close(self) -> None:
        with self._lock:
            is_running = bool(self._futures)
        for executor in self._renewed or ([self._executor] if self._own else []):
            if is_running:
                _kill(executor)
            executor.shutdown(wait=not is_running, cancel_futures=True)
        self._exchange.close()


def own_processes(count: int) -> ProcessPoolExecutor:
    """Return an executor of processes that end with this one, and leave Ctrl-C to it.

    They are spawned: a fork of a program with threads may find a lock that nobody holds any more.
    """
    import multiprocessing

    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"), initializer=_begin)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="transferkit-parent", daemon=True).start()


def _end_with_parent() -> None:
    """End when the process has died that began this one: nobody else tells, and it would wait for work for ever."""
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        time.sleep(GRACE)  # the piece hears of it by its line, and ends in order
        os._exit(1)


def _kill(executor: Executor) -> None:
    """Kill the processes of an executor of our own that have not ended in time: they may be stopped."""
    for process in list((getattr(executor, "_processes", None) or {}).values()):
        with contextlib.suppress(ValueError, OSError):
            process.kill()


def is_broken(error: BaseException | None) -> bool:
    """Tell whether a piece was lost with its worker, and not by what it did."""
    return isinstance(error, BrokenExecutor)


def result_of(future: Future[Any]) -> tuple[Any, BaseException | None]:
    """Return what a future that is done came to: a result, or an error."""
    if future.cancelled():
        return None, None
    error = future.exception()
    return (None, error) if error is not None else (future.result(), None)
