"""The tree of machines of one call: who asks whom, who has it, and who was lost. One thread's."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from transferkit.cancellation import Cancellation
from transferkit.cluster.dask.cluster import hosts_of, listed
from transferkit.cluster.dask.host import HostTask, run_host
from transferkit.cluster.dask.pool import DaskPool, key_of
from transferkit.cluster.failures import blobs_of
from transferkit.cluster.inbox import Inbox
from transferkit.cluster.meter import Meter
from transferkit.cluster.pools import GRACE, result_of
from transferkit.cluster.report import WorkerRow
from transferkit.errors import IncompleteError, TransferKitError
from transferkit.registry.plans import TransferPlan
from transferkit.report import Report

_LOOK = 0.1
_LOOK_FOR_HOSTS = 5.0  # seconds between two looks which machines are there


class Tree:
    """The machines of one call, each with the one before it. One thread's.

    A machine that joins late is a leaf, and asks those that serve already.
    """

    def __init__(
        self,
        pool: DaskPool,
        inbox: Inbox,
        names: Sequence[str],
        common: Mapping[str, Any],
        *,
        width: int,
        meter: Meter,
        retries: int,
        patience: float,
    ) -> None:
        self.received: dict[int, Report] = {}
        self.failures: dict[int, TransferKitError] = {}
        self.rows: list[WorkerRow] = []
        self.again = 0
        self._pool, self._inbox, self._names, self._common = pool, inbox, [*names], common
        self._first = len(names)  # how many were there from the beginning
        self._width, self._meter, self._patience = width, meter, patience
        self._retries, self._left = retries, [retries] * len(names)
        self._urls: dict[int, str] = {}
        self._begun: dict[int, str] = {}  # the workers that machines have begun with
        self._over: set[int] = set()  # machines whose tasks have ended there
        self._open: dict[int, Any] = {}  # futures
        self._missing: dict[str, float] = {}  # machines without workers, since when
        self._looked = time.monotonic()
        self._password = secrets.token_urlsafe(24)
        plan: TransferPlan = common["plan"]
        self._name = key_of(plan.digest, str(common["to"]), str(common["cache"]), secrets.token_hex(8))
        self._line = pool.open(self._name)

    def run(self, cancel: Cancellation) -> None:
        """Bring it to all machines."""
        try:
            with cancel.watch(lambda: self._inbox.put(("wake",))):
                while len(self.received) + len(self.failures) < len(self._names) and not cancel.cancelled:
                    self._submit()
                    for message in self._inbox.read(_LOOK):
                        self._take(message)
                    self._look_for_hosts()
                    self._meter.tell(len(self._open))
                    self._pool.check()
        except BaseException:
            self._stop()
            raise
        if cancel.cancelled:
            self._stop()
            raise cancel.error()
        self._stop()  # those that serve have waited for that

    # -- the tree

    def mirrors(self, number: int) -> list[int]:
        """Return the machines that a machine asks, in this order: all before it in the tree.

        Where the first one has died, those that it served ask the earlier ones of them, and so one of them alone asks
        the registry. A machine asks none with a larger number, so nobody waits for himself.
        """
        if number < self._first:
            return mirrors(number, self._width)
        serving = sorted(self._urls)
        turn = number % len(serving) if serving else 0  # not all of them the same one first
        return [*serving[turn:], *serving[:turn]]

    def _submit(self) -> None:
        for number in range(len(self._names)):
            if number in self._open or number in self.received or number in self.failures:
                continue
            before = [each for each in self.mirrors(number) if each not in self.failures]
            if number >= self._first and not before and self._will_serve():
                continue
            if any(each not in self._urls for each in before):
                continue  # it has not said yet where it is
            urls = tuple(self._urls[each] for each in before)
            task = HostTask(
                number=number,
                line=self._line,
                mirrors=urls,
                serves=number < self._first and serves(number, self._first, self._width),
                password=self._password,
                **self._common,
            )
            key = key_of(self._name, str(number), str(self._left[number]))
            host = self._names[number]
            self._open[number] = self._pool.call(run_host, task, number, key=key, workers=[host])

    def _will_serve(self) -> bool:
        """Whether there is a machine that serves others, once it is there."""
        return any(serves(number, self._first, self._width) for number in {*range(self._first)} - {*self.failures})

    # -- what happens

    def _take(self, message: Any) -> None:
        kind, *rest = message
        if kind == "wake":
            return
        number = rest[0]
        if kind == "begun":
            if number in self._begun and number in self._open and number not in self.received:
                self.again += 1
                self._meter.again(number)
                self.rows.append(WorkerRow(name=self._names[number], failed=1))
            self._begun[number] = rest[1]
            self._over.discard(number)
            if number in self._open and number not in self.received:
                self._meter.begin(number)
        elif kind == "told":
            self._meter.take(number, rest[1], rest[2])
        elif kind == "over":
            self._over.add(number)
        elif kind == "serving":
            self._urls[number] = rest[1]
        elif kind == "received" and number not in self.received:
            self._received(number, rest[2], rest[3])
        elif kind == "done" and number in self._open:
            self._done(number, *result_of(rest[1]))

    def _received(self, number: int, report: Report, seconds: float) -> None:
        self.received[number] = report
        self._meter.done(number, report.bytes)
        row = WorkerRow(name=self._names[number], pieces=1, blobs=report.blobs, bytes=report.bytes)
        self.rows.append(row + WorkerRow(name="", skipped=report.skipped, seconds=seconds))

    def _done(self, number: int, done: Any, error: BaseException | None) -> None:
        self._open.pop(number)
        if number in self.received:
            return
        if isinstance(error, Exception) and not isinstance(error, TransferKitError | OSError | MemoryError):
            raise error
        if done is not None and done.error is None:
            self._received(number, done.report, done.seconds)
            return
        reason = done.error if done is not None else error
        if not isinstance(reason, TransferKitError):
            reason = TransferKitError(
                f"{type(reason).__name__}: {reason}" if reason else "its task was cancelled there"
            )
        self._meter.again(number)
        self._urls.pop(number, None)
        self.rows.append(WorkerRow(name=self._names[number], failed=1))
        if self._left[number] > 0:
            self._left[number] -= 1
            self.again += 1
            self._begun.pop(number, None)
        else:
            self.failures[number] = reason

    def _look_for_hosts(self) -> None:
        """Take in machines that have joined, and give up those that have had no worker for long."""
        now = time.monotonic()
        if now - self._looked < min(_LOOK_FOR_HOSTS, self._patience / 2):
            return
        self._looked = now
        there = hosts_of(listed(self._pool.client))
        for name in there:
            if name not in self._names:
                self._names.append(name)
                self._left.append(self._retries)
                self._meter.add(self._common["plan"].size)
        for number, name in enumerate(self._names):
            if name in there or number in self.received or number in self.failures:
                self._missing.pop(name, None)
                continue
            if now - self._missing.setdefault(name, now) < self._patience:
                continue
            future = self._open.pop(number, None)
            if future is not None:
                self._pool.client.cancel([future])
            self._meter.again(number)
            self._urls.pop(number, None)
            self.failures[number] = TransferKitError(f"it has had no worker for {self._patience:.0f} s")

    def _stop(self) -> None:
        """End all tasks, and wait for that, for a moment."""
        self._pool.cancel()
        left = (set(self._begun) & set(self._open)) - self._over
        deadline = time.monotonic() + GRACE
        while left and (seconds := deadline - time.monotonic()) > 0:
            for message in self._inbox.read(min(seconds, _LOOK)):
                if message[0] == "over":
                    left.discard(message[1])

    def error(self) -> IncompleteError:
        """Return one error for all machines that have it not."""
        failed = [f"{self._names[number]}: {error}" for number, error in sorted(self.failures.items())]
        found: dict[str, TransferKitError] = {}
        for number, error in sorted(self.failures.items()):
            for digest, reason in blobs_of(self._common["plan"], error).items():
                found.setdefault(digest, TransferKitError(f"{self._names[number]}: {reason}"))
        more = f" (and {len(failed) - 5} more)" if len(failed) > 5 else ""
        text = f"{len(failed)} of {len(self._names)} machines have it not: {'; '.join(failed[:5])}{more}"
        return IncompleteError(text, failures=found)


def mirrors(number: int, width: int) -> list[int]:
    """Return the machines that a machine asks, the nearest first.

    >>> mirrors(0, 2), mirrors(2, 2), mirrors(5, 2)
    ([], [0, 1], [2, 0, 1])
    """
    before = []
    top = number
    while number > 0:
        top, number = number, (number - 1) // width
        before.append(number)
    return [*before, *range(1, top)] if top else before


def serves(number: int, count: int, width: int) -> bool:
    """Tell whether a machine of ``count`` serves others: those of the tree, or those of the first one's, if it dies.

    >>> [serves(number, 6, 2) for number in range(6)]
    [True, True, True, False, False, False]
    """
    return width * number + 1 < count or (0 < number < width and number + 1 < count)
