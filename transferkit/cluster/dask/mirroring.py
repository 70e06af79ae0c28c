"""Many repositories from one registry to another, on all workers of a cluster."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from transferkit.arguments import Progress, check, shown
from transferkit.cancellation import Cancellation
from transferkit.cluster.dask.lines import DaskLine
from transferkit.cluster.dask.pool import DaskPool, key_of
from transferkit.cluster.dask.repository import Mirrored, RepositoryTask, named, run_repository
from transferkit.cluster.failures import on_worker
from transferkit.cluster.inbox import Inbox
from transferkit.cluster.piece import is_final
from transferkit.cluster.pools import GRACE, result_of
from transferkit.cluster.report import ClusterReport, WorkerRow, rows_of
from transferkit.errors import IncompleteError, TransferKitError
from transferkit.trace import Status, Trace
from transferkit.trace.recording import Recording

if TYPE_CHECKING:
    from distributed import Client

_LOOK = 0.1
_log = logging.getLogger("transferkit")


def mirror(
    client: Client,
    source: str,
    target: str,
    *,
    repositories: Iterable[str],
    tags: str | Iterable[str] = (),
    referrers: bool = False,
    credentials: str = "",
    retries: int = 2,
    resources: Mapping[str, float] | None = None,
    wait: float = 0.0,
    progress: Progress = None,
    cancel: Cancellation | None = None,
    logger: logging.Logger | None = None,
    settings: Mapping[str, Any] | None = None,
) -> ClusterReport:
    """Copy repositories from one registry to another, and return what was done, with a row for each worker.

    ``source`` and ``target`` are registries, with a path before all names if need be (``localhost:5000/mirror``);
    ``repositories`` are names below them. ``tags`` are patterns (``v*``), by default all tags. Each repository is one
    task, so that what its tags share is moved once; in the report a repository is a piece.

    It is incremental: a tag that stands for the same digest in both is left after two requests, and of others what
    the target has is not moved. So the same call goes on after the loss of any worker, which Dask runs again
    elsewhere, and of the caller. ``progress`` is of the copies that are known by then. ``credentials``, ``retries``,
    ``resources`` and the other keywords are those of plans and of ``spread``.

    Raises:
        InvalidNameError: a repository is none.
        TypeError, TransferKitError: as for ``spread``.
        IncompleteError: some tags failed; ``.failures`` has their errors, by ``repository:tag``.
        CancelledError: ``cancel`` was triggered.
    """
    check(progress=progress, cancel=cancel, logger=logger)
    if isinstance(repositories, str):
        raise TypeError("repositories is a list of names, not a text")
    wanted = list(dict.fromkeys(repositories))
    patterns = (tags,) if isinstance(tags, str) else tuple(tags)
    pairs = [(named(source, each), named(target, each)) for each in wanted]
    began, inbox = time.monotonic(), Inbox()
    with ExitStack() as stack:
        pool = DaskPool(client, inbox.put, resources=resources, wait=wait)
        stack.callback(pool.close)
        name = key_of(source, target, *wanted, "", *patterns)
        line = pool.open(name)
        callback, seen = stack.enter_context(shown(progress, "mirror", ()))

        def task(number: int) -> RepositoryTask:
            return RepositoryTask(
                number=number,
                source=pairs[number][0],
                target=pairs[number][1],
                tags=patterns,
                line=line,
                referrers=referrers,
                credentials=credentials,
                settings=dict(settings or {}),
            )

        copies = Copies(pool, inbox, wanted, task, retries=retries, logger=logger or _log)
        copies.run(callback, seen, cancel or Cancellation())
    if copies.failures:
        raise copies.error()
    done = [*copies.done.values()]
    return ClusterReport(
        blobs=sum(each.blobs + each.skipped for each in done),
        bytes=sum(each.bytes for each in done),
        skipped=sum(each.skipped for each in done),
        seconds=time.monotonic() - began,
        pieces=len(done),
        again=copies.again,
        workers=rows_of(copies.rows),
        record=copies.recording.record,
    )


class Copies:
    """The repositories of one call. One thread's."""

    def __init__(
        self, pool: DaskPool, inbox: Inbox, names: list[str], task: Any, *, retries: int, logger: logging.Logger
    ) -> None:
        self.done: dict[int, Mirrored] = {}
        self.failures: dict[str, TransferKitError] = {}
        self.rows: list[WorkerRow] = []
        self.again = 0
        self.recording = Recording()
        self._pool, self._inbox, self._names, self._task, self._logger = pool, inbox, names, task, logger
        self._retries, self._left = retries, [retries] * len(names)
        self._open: set[int] = set()
        self._begun: dict[int, str] = {}
        self._last: dict[int, Status] = {}

    def run(self, progress: Any, trace: Trace, cancel: Cancellation) -> None:
        """Copy all of them."""
        try:
            with cancel.watch(lambda: self._inbox.put(("wake",))):
                for number in range(len(self._names)):
                    self._submit(number)
                while self._open and not cancel.cancelled:
                    for message in self._inbox.read(_LOOK):
                        self._take(message)
                    self._tell(progress, trace)
                    self._pool.check()
        except BaseException:
            self._stop()
            raise
        if cancel.cancelled and self._open:
            self._stop()
            raise cancel.error()

    def _submit(self, number: int, avoid: str = "") -> None:
        self._open.add(number)
        task: RepositoryTask = self._task(number)
        line: DaskLine = task.line
        key = key_of(line.topic, task.source, task.target, str(self._left[number]))
        others = [each for each in self._pool.cluster if each != avoid] if avoid else []
        where = {"workers": others, "allow_other_workers": True} if others else {}
        self._pool.call(run_repository, task, number, key=key, **where)

    def _take(self, message: Any) -> None:
        kind, *rest = message
        if kind == "wake" or rest[0] not in self._open:
            return
        number = rest[0]
        if kind == "begun":
            if number in self._begun:
                self.again += 1
                self.rows.append(WorkerRow(name=self._begun[number], failed=1))
            self._begun[number] = rest[1]
        elif kind == "told":
            self._last[number] = rest[1]
        elif kind == "done":
            self._ended(number, *result_of(rest[1]))

    def _ended(self, number: int, done: Any, error: BaseException | None) -> None:
        if isinstance(error, Exception) and not isinstance(error, TransferKitError | OSError | MemoryError):
            raise error
        worker = done.worker if done is not None else self._begun.get(number, "a worker")
        if done is None:
            reason = error if isinstance(error, TransferKitError) else TransferKitError(f"it was lost: {error}")
            failures = {"": reason}
        else:
            failures = dict(done.failures)
            row = WorkerRow(name=worker, pieces=int(not failures), blobs=done.blobs + done.skipped, bytes=done.bytes)
            self.rows.append(row + WorkerRow(name="", skipped=done.skipped, seconds=done.seconds))
        self._begun.pop(number, None)
        if not failures:
            self._open.discard(number)
            self.done[number] = done
            return
        self.rows.append(WorkerRow(name=worker, failed=1))
        if self._left[number] > 0 and not all(map(is_final, failures.values())):
            self._left[number] -= 1
            self.again += 1
            reason = next(iter(failures.values()))
            self._logger.warning("%s is copied again: %s", self._names[number], on_worker(reason, worker))
            self._submit(number, avoid=worker)
            return
        self._open.discard(number)
        for tag, reason in failures.items():
            name = f"{self._names[number]}:{tag}" if tag else self._names[number]
            self.failures[name] = on_worker(reason, worker)

    def _tell(self, progress: Any, trace: Trace) -> None:
        each = [*self._last.values()]
        status = Status(
            completed=sum(status.completed for status in each),
            total=sum(status.total for status in each),
            moved=sum(status.moved for status in each),
            workers=len(self._begun),
        )
        self.recording.status(status)
        try:
            trace.status(status)
            if progress is not None:
                progress(status.completed, status.total)
        except Exception:
            self._logger.warning("the progress callback raised; the copies go on", exc_info=True)

    def _stop(self) -> None:
        """End all copies, and wait for that, for a moment."""
        self._pool.cancel()
        left, deadline = set(self._begun), time.monotonic() + GRACE
        while left and (seconds := deadline - time.monotonic()) > 0:
            for message in self._inbox.read(min(seconds, _LOOK)):
                if message[0] == "over":
                    left.discard(message[1])

    def error(self) -> IncompleteError:
        """Return one error for all tags that failed."""
        name, first = next(iter(self.failures.items()))
        more = f" (and {len(self.failures) - 1} more in .failures)" if len(self.failures) > 1 else ""
        text = f"{len(self.failures)} tags were not copied, the others were: {name}: {first}{more}"
        return IncompleteError(text, failures=self.failures)
