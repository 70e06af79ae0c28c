"""The parts of one run: which are under way, what has become of the others, and how far all of them are.

A part is a piece of a plan, or a repository of a mirror.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from transferkit.cancellation import Cancellation
from transferkit.cluster.failures import on_worker
from transferkit.cluster.inbox import Inbox
from transferkit.cluster.lines import Message, heard_of
from transferkit.cluster.meter import Meter
from transferkit.cluster.piece import Done, Task, is_final
from transferkit.cluster.pools import GRACE, Pool, is_broken, result_of
from transferkit.cluster.report import WorkerRow
from transferkit.errors import TransferKitError
from transferkit.report.record import Record
from transferkit.trace import Trace
from transferkit.transfer.outcomes import ProgressCallback

_LOOK = 0.1  # seconds between two calls of ``progress``
_ENOUGH = 3  # times that all processes died before one of them began a piece
_log = logging.getLogger("transferkit")


class Part(Protocol):
    """A part of a run."""

    @property
    def size(self) -> int:
        """How many bytes it has; 0 where that is found out where it runs."""


P = TypeVar("P", bound=Part)


class Work(Generic[P]):
    """The parts of one run. One thread's.

    ``task`` makes what is sent of a part, ``reasons`` says of the error that one failed with what failed for which
    reason, by names, and ``what`` how the log calls a part. ``total`` is how many bytes all have; ``None``: that is
    found out where they run. ``again`` counts further attempts, ``lost`` what was lost with workers, and ``failures``
    is what was given up.
    """

    def __init__(
        self,
        pool: Pool,
        inbox: Inbox,
        parts: Sequence[P],
        task: Callable[..., Task],
        reasons: Callable[[P, TransferKitError], Mapping[str, TransferKitError]],
        *,
        total: int | None,
        retries: int,
        what: Callable[[int], str] = "piece {}".format,
        logger: logging.Logger | None = None,
    ) -> None:
        self.again = 0
        self.lost: list[WorkerRow] = []
        self.failures: dict[str, TransferKitError] = {}
        self._pool, self._inbox, self._parts, self._task, self._reasons = pool, inbox, list(parts), task, reasons
        self._logger, self._what = logger or _log, what
        self._retries, self._left = retries, [retries] * len(parts)
        self._last: int | None = None  # the part that is the last step
        self._open: set[int] = set()
        self._running: dict[int, str] = {}  # where pieces run that have said so
        self._waiting: list[int] = []  # pieces whose pool is broken
        self._over: set[int] = set()  # pieces that have ended where they ran
        self._gone: list[int] = []  # pieces whose workers have died, in this order
        self._ended: dict[int, Done] = {}
        self._nobody = 0  # breaks in a row that no piece is to blame for
        self._meter = Meter([part.size for part in parts], total, self._logger)
        self._events: tuple[str, ...] = ()

    @property
    def record(self) -> Record:
        """How the run went."""
        return self._meter.record

    def run(self, progress: ProgressCallback | None, trace: Trace, cancel: Cancellation | None) -> list[Done]:
        """Run all parts, and return what they did; those that were given up are ``failures``.

        Raises:
            CancelledError: they were ended.
        """
        self._meter.listen(progress, trace)
        self._events = heard_of(trace)
        self._finish(range(len(self._parts)), cancel or Cancellation())
        return [*self._ended.values()]

    def last(self, step: P, cancel: Cancellation | None) -> Done:
        """Run the last step on a worker, and return what it did. TransferKitError: it failed."""
        number = self._last = len(self._parts)
        self._parts.append(step)
        self._left.append(self._retries)
        self._meter.add(0)
        self._finish([number], cancel or Cancellation())
        done = self._ended.pop(number)
        if done.error is not None:
            raise done.error
        return done

    def _finish(self, numbers: Iterable[int], cancel: Cancellation) -> None:
        """Submit parts, and take in what happens until all have ended. CancelledError: they were ended."""
        try:
            with cancel.watch(lambda: self._inbox.put(("wake",))):
                for number in numbers:
                    self._submit(number)
                while self._open and not cancel.cancelled:
                    self._turn(_LOOK)
                    self._pool.check()
        except BaseException:
            self._stop()
            raise
        if cancel.cancelled and self._open:
            self._stop()
            raise cancel.error()

    def end(self) -> None:
        """Tell the exact final figure."""
        self._meter.end()

    # -- parts

    def _submit(self, number: int, avoid: str = "") -> None:
        self._open.add(number)
        attempt = self._retries - self._left[number]
        task = self._task(self._parts[number], number=number, events=self._events, attempt=attempt)
        try:
            self._pool.submit(task, avoid)
        except Exception as error:
            if not is_broken(error):
                raise
            self._waiting.append(number)

    def _turn(self, seconds: float) -> None:
        """Take in what has happened, wait for it if need be, and tell how far all pieces are."""
        for message in self._inbox.read(seconds):
            self._take(message)
        if self._waiting and not self._in_flight():
            self._renew()
        self._meter.tell(len(self._running))

    def _in_flight(self) -> int:
        return len(self._open) - len(self._waiting)

    def _take(self, message: Message) -> None:
        kind, *rest = message
        if kind == "wake" or rest[0] >= len(self._parts):
            return
        number = rest[0]
        if kind == "begun":
            self._begun(number, rest[1])
        elif kind == "told":
            self._meter.take(number, *rest[1:])
        elif kind == "over":
            self._over.add(number)
        elif kind == "lost":
            self._gone.append(number)
        elif kind == "done" and number in self._open:
            self._done(number, *result_of(rest[1]))

    def _begun(self, number: int, worker: str) -> None:
        """Take in where a piece runs: a second time, where a cluster has lost the worker that it ran on."""
        if number not in self._open:
            return  # the news of its end came first
        if number in self._running:
            self._meter.again(number)
            self.again += 1
            self.lost.append(WorkerRow(name=self._running[number], failed=1))
        self._running[number] = worker
        self._over.discard(number)
        self._meter.begin(number)

    def _done(self, number: int, done: Any, error: BaseException | None) -> None:
        """Take in what has become of a piece."""
        if error is not None and is_broken(error):
            self._waiting.append(number)
            return
        worker = self._running.pop(number, "a worker")
        if isinstance(error, Exception) and not isinstance(error, TransferKitError | OSError | MemoryError):
            self._open.discard(number)
            raise error  # an argument, or a fault of ours: it would be the same everywhere
        if error is not None or done is None:
            why = f"{type(error).__name__}: {error}" if error is not None else "its run was cancelled there"
            self._fail(number, worker, error if isinstance(error, TransferKitError) else TransferKitError(why))
            return
        if done.error is not None:
            self._fail(number, done.worker, done.error, done)
            return
        self._open.discard(number)
        self._ended[number] = done
        self._meter.done(number, done.report.bytes, done.size)

    def _fail(self, number: int, worker: str, error: TransferKitError, done: Done | None = None) -> None:
        """Run a piece again, or give it up."""
        self._meter.again(number)
        row = WorkerRow(name=worker, failed=1)
        if done is not None:  # what came before it failed stays
            row += WorkerRow(name="", bytes=done.report.bytes, skipped=done.report.skipped, seconds=done.seconds)
        self.lost.append(row)
        if self._left[number] > 0 and not is_final(error):
            self._left[number] -= 1
            self.again += 1
            self._logger.warning("%s is run again: %s", self._what(number), on_worker(error, worker))
            self._submit(number, avoid=worker)
            return
        self._open.discard(number)
        if number == self._last:
            self._ended[number] = Done(number=number, worker=worker, error=on_worker(error, worker))
            return
        for name, reason in self._reasons(self._parts[number], error).items():
            self.failures[name] = on_worker(reason, worker)

    def _renew(self) -> None:
        """Have new workers in the place of dead ones. Who died first takes the blame: the others died of it.

        Where nobody knows who that was, all that ran do; where none ran, nobody, but not for ever.
        """
        waiting = self._waiting
        blamed = [number for number in self._gone if number in waiting][:1]
        blamed = blamed or [number for number in waiting if number in self._running]
        self._gone.clear()
        self._nobody = 0 if blamed else self._nobody + 1
        if self._nobody >= _ENOUGH:
            raise TransferKitError(
                "the processes end as soon as they begin; a script has to call this under "
                'if __name__ == "__main__": (see "spawn" in the documentation of multiprocessing)'
            )
        self._pool.renew()
        self._waiting = []
        for number in waiting:
            worker = self._running.pop(number, "a process")
            if number in blamed:
                self._fail(number, worker, TransferKitError("the process has died"))
            else:
                self._meter.again(number)
                self._submit(number)

    def _stop(self) -> None:
        """End all pieces, and wait for that, for a moment."""
        self._pool.cancel()
        left = set(self._running) - self._over if not self._pool.is_local else self._open - {*self._waiting}
        deadline = time.monotonic() + GRACE
        ended = "done" if self._pool.is_local else "over"
        while left and (seconds := deadline - time.monotonic()) > 0:
            for message in self._inbox.read(min(seconds, _LOOK)):
                if message[0] == ended:
                    left.discard(message[1])
        if left:
            self._logger.warning("%d parts have not ended in %.0f s", len(left), GRACE)
