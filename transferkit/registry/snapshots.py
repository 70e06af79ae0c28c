"""Snapshots: the files of a model as a folder in the cache, made once, for programs that want a path."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from transferkit.content.descriptor import Descriptor
from transferkit.content.graph import Graph
from transferkit.content.interfaces import Fetcher
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
    is_named = offline or pulling.linked(cache, reference.name) == graph.root.raw
    if is_named and (path := snapshots.find(digest)):
        return path
    is_alone = _wait(job, cache, f"snapshot.{digest.file_name}", graph.blobs)
    is_named = offline or pulling.linked(cache, reference.name) == graph.root.raw
    if not is_named:  # it keeps what it leads to from being collected
        job.hold(lambda flow: cache.lock(reference.name, flow))
        pulling.bring(job, cache, reference, graph, source)
    if path := snapshots.find(digest):
        return path
    return _make(job, cache, manifest, graph, source, str(reference), offline=offline, is_alone=is_alone)


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


def _make(
    job: Job,
    cache: DiskCache,
    manifest: Manifest,
    graph: Graph,
    source: Fetcher,
    name: str,
    *,
    offline: bool,
    is_alone: bool,
) -> str:
    snapshots, digest = cache.snapshots, manifest.digest
    contents = files_of(manifest, config_of(job, manifest, cache, source) or None)

    job.hold(lambda flow: cache.pinned(graph.digests))
    folder = job.operation.call(lambda flow: snapshots.begin(digest, is_alone=is_alone))

    def bring(blobs: Sequence[Descriptor]) -> tuple[int, int]:
        if offline or not cache.missing(blobs):  # they have just come
            return check_there(cache, name, blobs)[0], sum(blob.size for blob in graph.blobs)
        return job.fill(cache, blobs, source).bytes, sum(blob.size for blob in blobs)

    fill_folder(job, source, contents, folder, cache=cache, version=digest, bring=bring)
    return job.operation.call(lambda flow: snapshots.publish(folder, digest))
