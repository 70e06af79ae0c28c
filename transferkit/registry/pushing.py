"""Pushing: a model of the cache, or files, into a registry."""

from __future__ import annotations

from collections.abc import Mapping

from transferkit.arguments import check_sources
from transferkit.content.graph import Graph
from transferkit.content.interfaces import Fetcher
from transferkit.errors import SourceError
from transferkit.names import Name, Reference
from transferkit.registry.files import Files, FileSet, titled
from transferkit.registry.job import Job
from transferkit.remote.repository import Repository
from transferkit.storage.cache import DiskCache
from transferkit.storage.uploads import UploadNotes
from transferkit.transfer.flow import WorkerFlow


def push_model(job: Job, cache: DiskCache, graph: Graph, source: Name, target: Reference) -> None:
    """Push a model of the cache; where its own repository is on the same registry, blobs are mounted from there."""
    job.hold(lambda flow: cache.pinned(graph.digests))
    check_sources(cache, graph.blobs)
    is_same = source.host.lower() == target.name.host.lower() and source.repository != target.name.repository
    _push(job, cache, graph, cache, target, source.repository if is_same else None)


def push_files(
    job: Job,
    cache: DiskCache,
    files: Files,
    target: Reference,
    artifact_type: str | None,
    annotations: Mapping[str, str],
) -> Graph:
    """Push files as the layers of an artifact, and return that."""
    listed = titled(files)
    if not listed:
        raise SourceError("there are no files to push")
    contents = FileSet()

    def hash_all(flow: WorkerFlow) -> None:
        contents.clear()
        for title, path in listed:
            contents.add(title, path, flow)

    job.operation.call(hash_all)
    manifest = contents.manifest(artifact_type, annotations)
    graph = Graph(manifest, (manifest,))
    _push(job, cache, graph, contents, target, None)
    return graph


def _push(job: Job, cache: DiskCache, graph: Graph, source: Fetcher, target: Reference, mount: str | None) -> None:
    repository = _noted(job, cache, job.site(target).repository)
    job.announce(graph)
    job.send(graph.blobs, source, repository, mount=mount)
    for document in graph.documents:
        job.push(document, source, repository, target.name.tag if document is graph.root else document.digest)


def _noted(job: Job, cache: DiskCache, repository: Repository) -> Repository:
    """Return a repository to which a later push goes on with the uploads that this one leaves unfinished."""
    client, options = repository.client, job.options
    place = f"{client.base_url} {repository.name}"
    notes = UploadNotes(cache.blobs.path, place, threshold=options.resume_threshold)
    job.held.callback(notes.close)
    return Repository(client, repository.name, part_size=options.part_size, notes=notes)
