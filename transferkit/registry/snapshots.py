"""Snapshots: the files of a model as a folder in the cache, made once, for programs that want a path."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from transferkit.content.descriptor import Descriptor
from transferkit.content.graph import Graph
from transferkit.content.manifest import Manifest
from transferkit.errors import InvalidManifestError
from transferkit.models.reading import files_of
from transferkit.names import Reference
from transferkit.registry import pulling
from transferkit.registry.folder_pull import check_there, config_of, fill_folder, graph_of
from transferkit.registry.job import Job
from transferkit.storage.cache import DiskCache
from transferkit.transfer.flow import WorkerFlow


def snapshot(job: Job, cache: DiskCache, reference: Reference, wanted: str, *, offline: bool) -> str:
    """Return the path of the snapshot of what a name stands for; it is made where it is not there."""
    graph, source = graph_of(job, cache, reference, wanted, offline=offline)
    manifest = graph.chosen(wanted)
    if not isinstance(manifest, Manifest):
        raise InvalidManifestError(f"{reference} is an index of several; take a snapshot of one of its platforms")
    snapshots, digest = cache.snapshots, manifest.digest
    path = snapshots.find(digest)
    if path and (offline or _is_kept(cache, reference, graph)):
        return path
    with job.naming(reference):  # first: it may have none
        contents = files_of(manifest, config_of(job, manifest, cache, source) or None)
    is_alone = _wait(job, cache, f"snapshot.{digest.file_name}", graph.blobs)
    path = snapshots.find(digest) or job.operation.call(lambda flow: snapshots.examine(digest, flow))
    is_kept = _is_kept(cache, reference, graph)
    if not offline and not (path and is_kept):
        job.hold(lambda flow: cache.lock(reference.name, flow))
        pulling.bring(job, cache, reference, graph, source)
    if reference.is_pinned and not is_kept:
        cache.pinned_manifests.add(reference.name, graph.root.digest, graph.root.raw)
    if path:
        return path
    job.hold(lambda flow: cache.pinned(graph.digests))
    folder = job.operation.call(lambda flow: snapshots.begin(digest, is_alone=is_alone))
    bring = partial(check_there, cache, str(reference), sum(blob.size for blob in graph.blobs))
    fill_folder(job, source, contents, folder, cache=cache, version=digest, bring=bring)
    return job.operation.call(lambda flow: snapshots.publish(folder, digest))


def _wait(job: Job, cache: DiskCache, what: str, blobs: Sequence[Descriptor]) -> bool:
    """Wait until no other process makes a snapshot; its progress is ours meanwhile."""
    total, alone = sum(blob.size for blob in blobs), [False]

    def look(flow: WorkerFlow) -> object:
        missing = cache.missing(blobs)
        there = total - sum(blob.size for blob in missing) + sum(cache.received(missing).values())
        flow.counter.set_position(min(there, total))
        return there, cache.snapshots.growth()

    def wait(_: object, flow: WorkerFlow) -> None:
        alone[0] = job.held.enter_context(cache.locked(what, flow, partial(look, flow)))

    job.operation.each([what], wait, total=total)
    return alone[0]


def _is_kept(cache: DiskCache, reference: Reference, graph: Graph) -> bool:
    """Tell whether what was asked for leads to a graph here, and keeps its snapshot from being collected."""
    if reference.is_pinned:
        return cache.pinned_manifests.find(reference.name, graph.root.digest) == graph.root.raw
    return pulling.linked(cache, reference.name) == graph.root.raw
