"""Running a plan on an executor: its pieces by whoever is free, its last step here."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from concurrent.futures import Executor
from contextlib import ExitStack
from typing import Any

from transferkit.arguments import Path, Progress, check, shown
from transferkit.cancellation import Cancellation
from transferkit.cluster.failures import blobs_of, incomplete
from transferkit.cluster.inbox import Inbox
from transferkit.cluster.piece import Done, Piece, client_of
from transferkit.cluster.pools import ExecutorPool, Pool
from transferkit.cluster.report import ClusterReport, WorkerRow, rows_of, summed
from transferkit.cluster.work import Work
from transferkit.registry.plans import TransferPlan
from transferkit.registry.plans.places import here
from transferkit.report import Report
from transferkit.trace import NULL_TRACE, Trace

PIECES = 4  # for each worker, by default: the last ones to end are short then
CONNECTIONS = 64  # of all workers together, by default


def run_plan(
    plan: TransferPlan,
    executor: Executor | None = None,
    *,
    to: Path | None = None,
    cache: Path | None = None,
    processes: int | None = None,
    pieces: int | None = None,
    ranges: bool = False,
    retries: int = 2,
    concurrency: int | None = None,
    progress: Progress = None,
    trace: Trace = NULL_TRACE,
    cancel: Cancellation | None = None,
    logger: logging.Logger | None = None,
    settings: Mapping[str, Any] | None = None,
) -> ClusterReport:
    """Run a plan on an executor, and return what was done, with a row for each worker.

    The plan is split into ``pieces``, by default four for each worker, and what is done at the end is done here. All
    pieces fill one store: a folder or a cache on a disk that all workers and the caller see, or a registry. ``to`` and
    ``cache`` are those of ``TransferPlan.run``, and ``ranges`` that of ``TransferPlan.split``.

    ``executor`` is any of ``concurrent.futures``, and ``Client.get_executor()`` of Dask; without one there are as many
    ``processes`` as processors. A piece that fails, or whose process dies, is run again up to ``retries`` times, by
    whoever is free, and goes on from what is on the disk. Where a process of a ``ProcessPoolExecutor`` dies, that is
    broken for good: what is left is run by another one of the same making.

    ``concurrency`` is a ceiling for the blobs that each piece moves at once; by default 64 are divided between all
    workers. ``progress`` and ``trace`` hear from this thread. ``settings`` are keywords of ``Registry``, where pieces
    run; they have to be pickled there, so secrets are better left to the plan's ``credentials``.

    Cancelling, and Ctrl-C, ends all pieces within two seconds; what has come is kept, and the next run goes on there.

    Raises:
        TypeError, ValueError: an argument is none; or the plan is a piece already. Nothing was done.
        IncompleteError: some pieces failed; ``.failures`` says for each blob why, and on which worker.
        OutOfSpaceError: all that failed did as the disk is full.
        TransferKitError: no worker is left.
        CancelledError: ``cancel`` was triggered.
    """
    check(to=to, cache=cache, concurrency=concurrency, progress=progress, cancel=cancel, trace=trace, logger=logger)
    inbox = Inbox()

    def make() -> Pool:
        if type(executor).__module__.partition(".")[0] == "distributed":
            from transferkit.cluster.dask import pool_of

            return pool_of(executor, inbox.put)
        return ExecutorPool(executor, inbox.put, processes)

    return run_on(
        make,
        inbox,
        plan,
        to=to,
        cache=cache,
        pieces=pieces,
        ranges=ranges,
        retries=retries,
        concurrency=concurrency,
        progress=progress,
        trace=trace,
        cancel=cancel,
        logger=logger,
        settings=settings or {},
    )


def run_on(
    make: Any,
    inbox: Inbox,
    plan: TransferPlan,
    *,
    to: Path | None,
    cache: Path | None,
    pieces: int | None,
    ranges: bool,
    retries: int,
    concurrency: int | None,
    progress: Progress,
    trace: Trace,
    cancel: Cancellation | None,
    logger: logging.Logger | None,
    settings: Mapping[str, Any],
) -> ClusterReport:
    """Run a plan on the pool that ``make`` makes, whose news come by ``inbox``."""
    if not isinstance(plan, TransferPlan):
        raise TypeError(f"plan is a TransferPlan, not {type(plan).__name__}")
    if plan.step != "whole":
        raise ValueError(f"a plan is run as a whole, and this is a {plan.step} of one: TransferPlan.run runs that")
    if retries < 0:
        raise ValueError(f"retries is at least 0, not {retries}")
    began = time.monotonic()
    with ExitStack() as stack:
        callback, seen = stack.enter_context(shown(progress, _label(plan), plan.blobs, trace))
        pool: Pool = make()
        stack.callback(pool.close)
        parts = plan.split(pieces=pieces or PIECES * pool.workers, ranges=ranges)
        where: dict[str, Any] = {
            "to": None if to is None else os.fspath(to),
            "cache": None if cache is None else os.fspath(cache),
            "concurrency": concurrency or max(4, CONNECTIONS // pool.workers),
        }
        line = pool.open(_name(plan, len(parts), where))

        def task(part: TransferPlan, **more: Any) -> Piece:
            return Piece(plan=part, line=line, settings=dict(settings), **where, **more)

        work = Work(pool, inbox, parts, task, blobs_of, total=plan.size, retries=retries, logger=logger)
        ended = work.run(callback, seen, cancel)
        if work.failures:
            raise incomplete(work.failures, sum(len(blobs_of(part)) for part in parts))
        last = finish(plan, pool, work, settings, to=to, cache=cache, cancel=cancel, logger=logger)
        work.end()
    rows = [_row(done, parts[done.number]) for done in ended]
    return summed(
        [done.report for done in ended if done.error is None],
        blobs=len(plan.blobs),
        seconds=time.monotonic() - began,
        again=work.again,
        workers=rows_of([*rows, *work.lost]),
        paths=_paths(plan, to, pool) or last.paths,
        record=work.record,
    )


def finish(
    plan: TransferPlan,
    pool: Pool,
    work: Work[TransferPlan],
    settings: Mapping[str, Any],
    *,
    to: Path | None,
    cache: Path | None,
    cancel: Cancellation | None,
    logger: logging.Logger | None,
) -> Report:
    """Do what is done at the end: here, where the store is on a disk of this machine, else on a worker."""
    if not pool.is_local:
        return work.last(plan.last(), cancel).report
    with client_of(plan, settings) as registry:
        return plan.last().run(registry, to=to, cache=cache, cancel=cancel, logger=logger)


def _paths(plan: TransferPlan, to: Path | None, pool: Pool) -> dict[str, str]:
    """Return the files of a download, where they are on a disk of this machine."""
    if plan.kind != "download" or to is None or not pool.is_local:
        return {}
    folder = here(to, "to")
    return {blob.digest: os.path.join(folder, blob.digest.file_name) for blob in plan.blobs}


def _name(plan: TransferPlan, pieces: int, where: Mapping[str, Any]) -> str:
    """Return what names a run: the same for the same one."""
    text = json.dumps([plan.digest, pieces, where["to"], where["cache"]])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _label(plan: TransferPlan) -> str:
    return plan.repository or (plan.target or plan.source).rpartition("/")[2].partition("@")[0]


def _row(done: Done, piece: TransferPlan) -> WorkerRow:
    report = done.report
    count = len(piece.blobs) + len({part.blob.digest for part in piece.ranges})
    return WorkerRow(
        name=done.worker,
        pieces=int(done.error is None),
        blobs=count if done.error is None else 0,
        bytes=report.bytes,
        skipped=report.skipped,
        seconds=done.seconds,
        failed=int(done.error is not None),
    )
