"""How a plan, or a piece of one, is run: nothing is moved of what is there, and names come last."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from transferkit.arguments import Path, directory_of
from transferkit.content.descriptor import Descriptor
from transferkit.content.graph import ALL, Graph
from transferkit.content.interfaces import Fetcher
from transferkit.names import Reference
from transferkit.registry import local, pulling
from transferkit.registry.job import Job, Store
from transferkit.registry.plans.checks import source_of
from transferkit.registry.plans.folders import Folder
from transferkit.registry.plans.manifests import graph_of
from transferkit.report import Report
from transferkit.storage.cache import DiskCache

if TYPE_CHECKING:
    from transferkit.registry.plans.value import TransferPlan


def check_places(plan: TransferPlan, to: str | None, cache: Path | None) -> None:
    """Raise TypeError where a plan has no use for a folder or a cache, or lacks its folder."""
    if plan.kind == "download" and to is None:
        raise TypeError("a plan of a download has to be told where the blobs go: to=")
    if plan.kind == "download" and cache is not None:
        raise TypeError("a download goes into a folder (to=), and uses no cache")
    if plan.kind in ("copy", "push") and to is not None:
        raise TypeError(f"a {plan.kind} goes to a registry, and fills no folder (to=)")
    if plan.kind == "copy" and cache is not None:
        raise TypeError("a copy uses no cache")


def run(job: Job, plan: TransferPlan, to: str | None, cache: DiskCache, *, is_given: bool) -> Report:
    """Run a plan; ``is_given``: the cache is one that was asked for, and files of a folder come by way of it."""
    began = time.monotonic()
    if plan.kind == "download":
        assert to is not None
        report = _download(job, plan, to)
    else:
        report = _pull(job, plan, to, cache, by_cache=to is None or is_given)
    return replace(report, seconds=time.monotonic() - began, record=job.operation.record)


def _download(job: Job, plan: TransferPlan, to: str) -> Report:
    source = job.sites.at(plan.source, plan.repository)
    with closing(directory_of(to, job.options)) as directory:
        report = _fetch(job, directory, plan.blobs, source) if not plan.is_last else Report()
        paths: dict[str, str] = {blob.digest: directory.blob_path(blob.digest) for blob in plan.blobs}
    return replace(report, paths=paths)


def _pull(job: Job, plan: TransferPlan, to: str | None, cache: DiskCache, *, by_cache: bool) -> Report:
    reference, report = source_of(plan), Report()
    graph = graph_of(plan, reference)[0] if plan.documents else None  # first: it may be none
    folder = None if to is None else Folder(to, job, cache if by_cache else None)
    source = job.site(reference).source
    if folder is not None and not by_cache:
        if not plan.is_last:
            report = folder.fetch(plan, source, reference)
    elif not plan.is_last:
        job.hold(lambda flow: cache.pinned([blob.digest for blob in plan.blobs]))
        report = _fetch(job, cache, plan.blobs, source)
        cache.blobs.flush()
    if graph is not None:
        if by_cache:
            _link(job, cache, reference, graph)
        if folder is not None:
            folder.finish(graph, reference, plan.platform or ALL)
    return report


def _fetch(job: Job, store: Store, blobs: Sequence[Descriptor], source: Fetcher) -> Report:
    there = store.known(blobs)
    present = [blob for blob in blobs if blob in there]
    missing = [blob for blob in blobs if blob not in there]
    job.operation.announce(blobs)
    store.prepare(missing)
    return job.operation.copy(missing, source, store, present=present)


def _link(job: Job, cache: DiskCache, reference: Reference, graph: Graph) -> None:
    """Give what is in the cache its name, once all of it is there."""
    if not reference.is_pinned:
        job.hold(lambda flow: cache.lock(reference.name, flow))
    job.hold(lambda flow: cache.pinned(graph.digests))
    local.check_complete(cache, graph.blobs, str(reference))
    for document in graph.documents:
        pulling.keep(cache, document)
    if not reference.is_pinned:
        cache.link(reference.name, graph.root.digest)
    cache.blobs.flush()
