"""Many repositories from one registry to another, on all workers of a cluster."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from transferkit.arguments import Progress, check, shown
from transferkit.cancellation import Cancellation
from transferkit.cluster.dask.pool import DaskPool, key_of
from transferkit.cluster.dask.repository import RepositoryCopy, RepositoryTask, named
from transferkit.cluster.inbox import Inbox
from transferkit.cluster.piece import Done
from transferkit.cluster.report import ClusterReport, WorkerRow, rows_of, summed
from transferkit.cluster.work import Work
from transferkit.errors import IncompleteError, TransferKitError
from transferkit.trace import NULL_TRACE, Trace

if TYPE_CHECKING:
    from distributed import Client


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
    trace: Trace = NULL_TRACE,
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
    elsewhere, and of the caller. ``progress`` and ``trace`` are of the copies that are known by then. ``credentials``,
    ``retries``, ``resources`` and the other keywords are those of plans and of ``spread``.

    Raises:
        InvalidNameError: a repository is none.
        TypeError, TransferKitError: as for ``spread``.
        IncompleteError: some tags failed; ``.failures`` has their errors, by ``repository:tag``.
        CancelledError: ``cancel`` was triggered.
    """
    check(progress=progress, cancel=cancel, trace=trace, logger=logger)
    if isinstance(repositories, str):
        raise TypeError("repositories is a list of names, not a text")
    wanted = list(dict.fromkeys(repositories))
    patterns = (tags,) if isinstance(tags, str) else tuple(tags)
    parts = [RepositoryCopy(name=each, source=named(source, each), target=named(target, each)) for each in wanted]
    began, inbox = time.monotonic(), Inbox()
    with ExitStack() as stack:
        pool = DaskPool(client, inbox.put, resources=resources, wait=wait)
        stack.callback(pool.close)
        line = pool.open(key_of(source, target, *wanted, "", *patterns))
        callback, seen = stack.enter_context(shown(progress, "mirror", (), trace))

        def task(part: RepositoryCopy, **more: Any) -> RepositoryTask:
            return RepositoryTask(
                copy=part,
                tags=patterns,
                line=line,
                referrers=referrers,
                credentials=credentials,
                settings=dict(settings or {}),
                **more,
            )

        work = Work(
            pool,
            inbox,
            parts,
            task,
            RepositoryCopy.reasons,
            total=None,
            retries=retries,
            what=lambda number: wanted[number],
            logger=logger,
        )
        done = work.run(callback, seen, cancel)
        if work.failures:
            raise _incomplete(work.failures)
        work.end()
    reports = [each.report for each in done]
    return summed(
        reports,
        blobs=sum(report.blobs for report in reports),
        seconds=time.monotonic() - began,
        again=work.again,
        workers=rows_of([*map(_row, done), *work.lost]),
        paths={},
        record=work.record,
    )


def _incomplete(failures: dict[str, TransferKitError]) -> IncompleteError:
    """Return one error for all tags that failed."""
    name, first = next(iter(failures.items()))
    more = f" (and {len(failures) - 1} more in .failures)" if len(failures) > 1 else ""
    text = f"{len(failures)} tags were not copied, the others were: {name}: {first}{more}"
    return IncompleteError(text, failures=failures)


def _row(done: Done) -> WorkerRow:
    report = done.report
    return WorkerRow(
        name=done.worker,
        pieces=1,
        blobs=report.blobs,
        bytes=report.bytes,
        skipped=report.skipped,
        seconds=done.seconds,
    )
