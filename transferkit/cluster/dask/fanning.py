"""The whole of a model on every machine of a cluster: the first machines serve the next ones."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from transferkit.arguments import Path, Progress, check, shown
from transferkit.cancellation import Cancellation
from transferkit.cluster.dask.cluster import hosts_of
from transferkit.cluster.dask.pool import DaskPool
from transferkit.cluster.dask.tree import Tree
from transferkit.cluster.inbox import Inbox
from transferkit.cluster.meter import Meter
from transferkit.cluster.report import ClusterReport, rows_of, summed
from transferkit.registry.defaults import default
from transferkit.registry.plans import TransferPlan
from transferkit.trace import NULL_TRACE, Trace

if TYPE_CHECKING:
    from distributed import Client

WIDTH = 2
"""How many machines one machine serves, by default."""
_log = logging.getLogger("transferkit")


def fan_out(
    client: Client,
    name: str | TransferPlan,
    *,
    to: Path | None = None,
    cache: Path | None = None,
    width: int = WIDTH,
    platform: str | None = None,
    wait: float = 0.0,
    patience: float = 60.0,
    retries: int = 2,
    concurrency: int | None = None,
    progress: Progress = None,
    trace: Trace = NULL_TRACE,
    cancel: Cancellation | None = None,
    logger: logging.Logger | None = None,
    settings: Mapping[str, Any] | None = None,
) -> ClusterReport:
    """Bring a model to every machine of a cluster, and return what was done, with a row for each machine.

    ``name`` is that of a model, or the plan of its pull. It comes into the ``cache`` of each machine, and its files
    into the folder ``to`` where that is said; in both, ``$NAME`` is a variable of that machine's environment. Each
    machine has to have a cache of its own: that two share one is an error, and ``spread`` is what fills such. There is
    one task for each machine, however many workers it has.

    The machines are a tree: the first one pulls from the registry, and each serves ``width`` others while it still
    receives. A machine whose server has gone asks the ones before that, so the registry sends each byte once, or twice
    where the first machine dies. Content is held to its digest, and a password that is made for the call lets in the
    machines of the tree alone; what is sent between them is not encrypted. A machine that joins meanwhile gets it from
    those that serve; one without workers for ``patience`` seconds is given up.

    Raises:
        TypeError, ValueError, TransferKitError: as for ``spread``.
        IncompleteError: some machines have it not; the message names them.
        CancelledError: ``cancel`` was triggered.
    """
    check(to=to, cache=cache, concurrency=concurrency, progress=progress, cancel=cancel, trace=trace, logger=logger)
    if width < 1:
        raise ValueError(f"width is at least 1, not {width}")
    given = dict(settings or {})
    plan = name if isinstance(name, TransferPlan) else _planned(name, platform, given)
    if plan.kind != "pull" or plan.step != "whole":
        raise ValueError(f"a whole pull comes to every machine, and this is a {plan.step} {plan.kind}")
    began, inbox = time.monotonic(), Inbox()
    with ExitStack() as stack:
        pool = DaskPool(client, inbox.put, resources={}, wait=wait)
        stack.callback(pool.close)
        hosts = hosts_of(pool.cluster)
        names = [*hosts]
        label = plan.source.rpartition("/")[2].partition("@")[0]
        callback, seen = stack.enter_context(shown(progress, label, plan.blobs * len(names), trace))
        meter = Meter([plan.size] * len(names), plan.size * len(names), logger or _log)
        meter.listen(callback, seen)
        common: dict[str, Any] = {
            "plan": plan,
            "to": None if to is None else str(to),
            "cache": None if cache is None else str(cache),
            "concurrency": concurrency,
            "settings": given,
        }
        tree = Tree(pool, inbox, names, common, width=width, meter=meter, retries=retries, patience=patience)
        tree.run(cancel or Cancellation())
        if tree.failures:
            raise tree.error()
        meter.end()
    return summed(
        [tree.received[number] for number in sorted(tree.received)],
        blobs=len(plan.blobs),
        seconds=time.monotonic() - began,
        again=tree.again,
        workers=rows_of(tree.rows),
        paths={},
        record=meter.record,
    )


def _planned(name: str, platform: str | None, settings: Mapping[str, Any]) -> TransferPlan:
    if not isinstance(name, str):
        raise TypeError(f"name is the name of a model, or a TransferPlan, not {type(name).__name__}")
    if not settings:
        return default().plan_pull(name, platform=platform)
    from transferkit.registry.registry import Registry

    with Registry(**settings) as registry:
        return registry.plan_pull(name, platform=platform)
