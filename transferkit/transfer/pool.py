"""Workers that take units of work until there are none.

They cannot be cancelled, so every way out cuts their flows first, which wakes them wherever they are blocked, and waits
for them after: no thread is left behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from queue import Empty, SimpleQueue
from typing import Any

from transferkit.errors import CancelledError, TransferKitError
from transferkit.transfer.concurrency import FIRST, Concurrency
from transferkit.transfer.crew import Job
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.scheduler import Scheduler
from transferkit.transfer.waits import Waits
from transferkit.transfer.watchdog import PERIOD, Watchdog

Bell = SimpleQueue[None]  # what is put in wakes who waits; also a signal handler may put


def wait_for(bell: Bell, seconds: float) -> bool:
    """Wait for a ring, and tell whether there was one."""
    try:
        bell.get(timeout=seconds)
    except Empty:
        return False
    return True


class Pool:
    """Runs ``work(unit, flow)`` for all units, in as many workers at once as the controller says. Used once.

    ``work`` deals with the failures of its unit; whatever it raises ends the whole run at once, with that ``error``.
    ``done`` rings when the run ``is_over``. ``first`` is how many workers to begin with.
    """

    def __init__(
        self,
        work: Callable[[Any, WorkerFlow], object],
        scheduler: Scheduler,
        flows: Sequence[WorkerFlow],
        *,
        concurrency: Concurrency,
        watchdog: Watchdog | None = None,
        waits: Waits | None = None,
        first: int = FIRST,
    ) -> None:
        self.is_over = False
        self.done: Bell = SimpleQueue()
        self._work = work
        self.scheduler = scheduler
        self._flows = flows
        self._concurrency = concurrency
        self._first = first
        self._watchdog = watchdog
        self._waits = waits
        # Who is at work, or about to be. The driver adds, each worker takes itself out: each is one step.
        self._running: set[int] = set()
        self._news: Bell = SimpleQueue()
        self._ends: dict[str, BaseException] = {}

    @property
    def error(self) -> BaseException | None:
        """Why the run was ended before its time, if it was."""
        return self._ends.get("error")

    def stop(self, error: BaseException) -> None:
        """End the run with ``error``; the first one stands. Workers are woken, wherever they are blocked."""
        # No lock around what follows: a signal handler may be the one who calls. This is one step, so two of them at
        # once are told of the same.
        self._ends.setdefault("error", error)
        if not isinstance(error, CancelledError):
            is_blob, name = isinstance(error, TransferKitError), type(error).__name__
            error = CancelledError("stopped: another blob failed for good" if is_blob else f"stopped by {name}")
        for flow in self._flows:
            flow.cut(error, final=True)
        self._news.put(None)

    def offer(self, job: Job) -> None:
        """Let an idle worker do a job, or one more that is started for it."""
        self.scheduler.offer(job)
        self._news.put(None)

    def withdraw(self, job: Job) -> None:
        self.scheduler.withdraw(job)

    def drive(self, executor: Executor) -> None:
        """Start the workers, look after them, and return once they have ended. ``error`` keeps what is raised."""
        controller, watchdog, waits = self._concurrency, self._watchdog, self._waits
        period = watchdog.period if watchdog is not None else PERIOD
        controller.begin(self._flows, self._first)
        if waits is not None:
            waits.begin(self._flows)
        level = controller.level
        watched = time.monotonic()
        while True:
            try:
                if self.error is not None:
                    self.scheduler.stop()
                elif self.scheduler:
                    self._start(executor, level)
                if not self._running:
                    if self.error is None and self.scheduler:
                        continue  # the last one ended while another could not be started
                    break
                wait_for(self._news, min(controller.pause, period))
                if self.scheduler:
                    level = controller.look()
                now = time.monotonic()
                if now - watched >= period:
                    watched = now
                    if watchdog is not None:
                        watchdog.look(now)
                    if waits is not None:
                        waits.look()
            except BaseException as error:  # noqa: BLE001 - whatever it is, the workers are waited for first
                self.stop(error)
        try:
            self.scheduler.close()
        except BaseException as error:  # noqa: BLE001 - the caller waits for the end
            self.stop(error)
        self.is_over = True
        self.done.put(None)

    def _start(self, executor: Executor, workers: int) -> None:
        """Start workers until there are ``workers``; where there are more, the last ones end with their units."""
        for flow in self._flows[:workers]:
            if flow.number in self._running:
                continue
            ticket = [flow]
            self._running.add(flow.number)
            try:
                executor.submit(self._worker, ticket)
            except RuntimeError:
                # The system has no thread left, or the interpreter ends. The executor has kept the ticket all the same,
                # and a thread that has nothing else to do may have taken it.
                if not _taken(ticket):
                    continue
                self._running.remove(flow.number)
                if self._running:
                    self._concurrency.bound(len(self._running))
                else:  # nobody is at work, so the driver is
                    self._running.add(flow.number)
                    self._worker([flow])
                return

    def _worker(self, ticket: list[WorkerFlow]) -> None:
        flow = _taken(ticket)
        if flow is None:
            return
        number = flow.number
        flow.board = self
        try:
            while self.error is None and number < self._concurrency.level:
                unit = self.scheduler.take(number)
                if unit is None:
                    return
                flow.counter.next_unit()
                flow.unit = unit
                self._work(unit, flow)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the caller has to hear of it
            if self.error is None or not isinstance(error, TransferKitError):
                self.stop(error)
        finally:
            flow.board = flow.unit = None
            self._running.remove(number)
            if not self._running:
                self._news.put(None)


def _taken(ticket: list[WorkerFlow]) -> WorkerFlow | None:
    """Return the flow of a start, once: two threads that work with one flow would write into one buffer."""
    try:
        return ticket.pop()  # atomic
    except IndexError:
        return None
