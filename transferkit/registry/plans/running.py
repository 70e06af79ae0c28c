"""How a plan, or a piece of one, is run: nothing is moved of what is there, and names come last."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING

from transferkit.arguments import Path, check_sources, directory_of
from transferkit.content.descriptor import Descriptor
from transferkit.content.graph import Graph
from transferkit.content.interfaces import RangeFetcher
from transferkit.names import Reference
from transferkit.registry import local, pulling, pushing
from transferkit.registry.ends import RegistryEnd
from transferkit.registry.job import Job, Store
from transferkit.registry.plans.checks import source_of, target_of
from transferkit.registry.plans.folders import check_there, is_there, name_files, placed, waiting
from transferkit.registry.plans.manifests import graph_of
from transferkit.registry.plans.ranges import fetch_ranges, join_ranges, missing_ranges
from transferkit.registry.plans.splitting import LARGE
from transferkit.report import Report
from transferkit.storage.cache import DiskCache
from transferkit.storage.directory import Directory
from transferkit.storage.lock import patient_lock

if TYPE_CHECKING:
    from transferkit.registry.plans.value import TransferPlan


def check_places(plan: TransferPlan, to: str | None, cache: DiskCache | Path | None) -> None:
    """Raise TypeError where a plan has no use for a folder or a cache, or lacks its folder."""
    if plan.kind == "download" and to is None:
        raise TypeError("a plan of a download has to be told where the blobs go: to=")
    if plan.kind == "download" and cache is not None:
        raise TypeError("a download goes into a folder (to=), and uses no cache")
    if plan.kind in ("copy", "push") and to is not None:
        raise TypeError(f"a {plan.kind} goes to a registry, and fills no folder (to=)")
    if (plan.only or plan.exclude) and to is None:
        raise TypeError("a plan with only= or exclude= is for a folder: pass it as to=")
    if plan.kind == "copy" and cache is not None:
        raise TypeError("a copy uses no cache")


def run(job: Job, plan: TransferPlan, to: str | None, cache: DiskCache, *, is_given: bool) -> Report:
    """Run a plan; ``is_given``: the cache is one that was asked for, and files of a folder come by way of it."""
    began = time.monotonic()
    if plan.kind == "download":
        assert to is not None
        report = _download(job, plan, to)
    elif plan.kind == "copy":
        report = _copy(job, plan)
    elif plan.kind == "push":
        report = _push(job, plan, cache)
    else:
        report = _pull(job, plan, to, cache, by_cache=to is None or is_given)
    return replace(report, seconds=time.monotonic() - began, record=job.operation.record)


def _download(job: Job, plan: TransferPlan, to: str) -> Report:
    source = job.sites.at(plan.source, plan.repository)
    with closing(directory_of(to, job.options)) as directory:
        report = _fill(job, plan, directory, directory, source)
        if plan.is_last:
            check_there(directory, plan.blobs, f"the download into {directory.path}")
        paths: dict[str, str] = {blob.digest: directory.blob_path(blob.digest) for blob in plan.blobs}
    return replace(report, paths=paths)


def _pull(job: Job, plan: TransferPlan, to: str | None, cache: DiskCache, *, by_cache: bool) -> Report:
    reference = source_of(plan)
    graph = graph_of(plan, reference)[0] if plan.documents else None  # first: it may be none
    source = job.site(reference).source
    if to is not None and not by_cache:
        return _pull_straight(job, plan, to, source, reference, graph)
    digests = [blob.digest for blob in plan.blobs] + [piece.blob.digest for piece in plan.ranges]
    job.hold(lambda flow: cache.pinned(digests if graph is None else graph.digests))
    report = _fill(job, plan, cache, cache.blobs, source)
    cache.blobs.flush()
    if graph is not None and not (plan.only or plan.exclude):
        _link(job, cache, reference, graph)
    if graph is not None and to is not None:
        name_files(job, to, plan, graph, reference, cache)
    return report


def _pull_straight(
    job: Job, plan: TransferPlan, to: str, source: RangeFetcher, reference: Reference, graph: Graph | None
) -> Report:
    """Fill a folder without a cache: blobs wait beside it. One at a time gives names: who comes second finds them."""
    moved = [*plan.blobs, *(piece.blob for piece in plan.ranges)]
    with ExitStack() as stack:
        place = stack.enter_context(closing(waiting(job, to)))
        there = placed(place, plan, moved)
        if graph is not None and not is_there(place, plan):
            folder = place.staging.open_unfinished()
            job.operation.call(lambda flow: stack.enter_context(patient_lock(folder, "plan.lock", flow)))
            place.read()
            there = placed(place, plan, moved)
        report = _fill(job, plan, place.staging, place.staging, source, there=there)
        if graph is not None:
            name_files(job, to, plan, graph, reference, None)
    return report


def _fill(
    job: Job,
    plan: TransferPlan,
    store: Store,
    directory: Directory,
    source: RangeFetcher,
    *,
    there: Collection[Descriptor] = frozenset(),
) -> Report:
    """Bring what a plan moves into a store, whose blobs are in ``directory``; ``there`` is what it does not need."""
    if plan.step != "piece":
        large = [blob for blob in plan.blobs if blob.size >= LARGE and blob not in there]
        join_ranges(job, directory, large)
    if plan.is_last:
        return Report()
    wanted = [blob for blob in plan.blobs if blob not in there]
    known = store.known(wanted)
    missing = [blob for blob in wanted if blob.digest not in known]
    ranges = missing_ranges(directory, [piece for piece in plan.ranges if piece.blob not in there])
    absent = {*missing, *ranges}
    present = [blob for blob in plan.blobs if blob not in absent]
    present += [piece.unit for piece in plan.ranges if piece not in absent]
    job.operation.announce([*plan.blobs, *(piece.unit for piece in plan.ranges)])
    if missing:
        store.prepare(missing)
    size = sum(piece.size for piece in ranges)
    report = job.operation.copy(missing, source, store, present=present, then=size)
    return _sum(report, fetch_ranges(job, directory, ranges, source)) if ranges else report


def _sum(one: Report, two: Report) -> Report:
    counts = ("blobs", "bytes", "skipped", "retried", "healed")
    return replace(two, **{name: getattr(one, name) + getattr(two, name) for name in counts})


def _copy(job: Job, plan: TransferPlan) -> Report:
    source, target, report = source_of(plan), target_of(plan), Report()
    documents = graph_of(plan, source) if plan.documents else None
    origin, own = RegistryEnd(job, source, job.site(source)), RegistryEnd(job, target, job.site(target))
    if not plan.is_last:
        job.operation.announce(plan.blobs)
        report = own.send(plan.blobs, origin)
    if documents is not None:
        graph, referrers = documents
        own.name(graph, origin, referrers)
    return report


def _push(job: Job, plan: TransferPlan, cache: DiskCache) -> Report:
    source, target, report = source_of(plan), target_of(plan), Report()
    graph = graph_of(plan, source)[0] if plan.documents else None
    blobs = plan.blobs if graph is None else graph.blobs
    job.hold(lambda flow: cache.pinned([blob.digest for blob in blobs]))
    check_sources(cache, list(blobs))
    repository = pushing.noted(job, cache, job.site(target).repository)
    if not plan.is_last:
        job.operation.announce(plan.blobs)
        report = job.send(plan.blobs, cache, repository, mount=pushing.mount_of(source.name, target.name))
    if graph is not None:
        pushing.name_model(job, graph, cache, repository, target)
    return report


def _link(job: Job, cache: DiskCache, reference: Reference, graph: Graph) -> None:
    """Give what is in the cache its name, once all of it is there."""
    if not reference.is_pinned:
        job.hold(lambda flow: cache.lock(reference.name, flow))
    local.check_complete(cache, graph.blobs, str(reference))
    for document in graph.documents:
        pulling.keep(cache, document)
    if not reference.is_pinned:
        cache.link(reference.name, graph.root.digest)
    cache.blobs.flush()
