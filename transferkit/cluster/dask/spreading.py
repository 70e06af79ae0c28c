"""One plan on all workers of a cluster, into one store that all of them see."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transferkit.arguments import Path, Progress, check
from transferkit.cancellation import Cancellation
from transferkit.cluster.dask.pool import DaskPool
from transferkit.cluster.inbox import Inbox
from transferkit.cluster.report import ClusterReport
from transferkit.cluster.running import run_on
from transferkit.registry.plans import TransferPlan
from transferkit.trace import NULL_TRACE, Trace

if TYPE_CHECKING:
    from distributed import Client


def spread(
    client: Client,
    plan: TransferPlan,
    *,
    to: Path | None = None,
    cache: Path | None = None,
    pieces: int | None = None,
    ranges: bool = False,
    retries: int = 2,
    resources: Mapping[str, float] | None = None,
    wait: float = 0.0,
    concurrency: int | None = None,
    progress: Progress = None,
    trace: Trace = NULL_TRACE,
    cancel: Cancellation | None = None,
    logger: logging.Logger | None = None,
    settings: Mapping[str, Any] | None = None,
) -> ClusterReport:
    """Run a plan on all workers of a cluster, and return what was done, with a row for each worker.

    The workers fill one store: a folder (``to``) or a cache on a disk that they share, or a registry. What is done at
    the end is done by a worker as well: the caller need not see that disk.

    A piece takes ``resources`` of its worker; by default one ``net``, where workers have that (``dask worker
    --resources net=1``), so that a machine runs one piece, however many threads it has. What is lost with a worker is
    run again by Dask. A piece that fails is run again up to ``retries`` times, on another worker if there is one.
    ``wait`` is how many seconds are waited for a first worker. The other keywords are those of ``run_plan``.

    Raises:
        TypeError: ``client`` is none, or an asynchronous one.
        TransferKitError: there are no workers, or one has another version of this library; the scheduler has gone.
        IncompleteError, CancelledError: as for ``run_plan``.
    """
    check(to=to, cache=cache, concurrency=concurrency, progress=progress, cancel=cancel, trace=trace, logger=logger)
    inbox = Inbox()
    return run_on(
        lambda: DaskPool(client, inbox.put, resources=resources, wait=wait),
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
