"""Pushing: a model of the cache, or files, into a registry."""

from __future__ import annotations

from collections.abc import Mapping

from transferkit.content.graph import Graph
from transferkit.errors import SourceError
from transferkit.names import Name, Reference
from transferkit.registry.files import Files, FileSet, titled
from transferkit.registry.job import Job
from transferkit.storage.cache import DiskCache


def push_model(job: Job, cache: DiskCache, graph: Graph, source: Name, target: Reference) -> None:
    """Push a model of the cache; where its own repository is on the same registry, blobs are mounted from there."""
    problems = []
    for blob in graph.blobs:
        try:
            cache.check_source(blob)
        except SourceError as error:
            problems.append(error)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise SourceError(f"{problems[0]}{more}; nothing was sent", errno=problems[0].errno) from problems[0]
    site = job.site(target)
    is_same = source.host.lower() == target.name.host.lower() and source.repository != target.name.repository
    held = [*(blob.digest for blob in graph.blobs), *(document.digest for document in graph.documents)]
    with cache.pinned(held):
        job.push(graph, cache, site.repository, target.name.tag, mount=source.repository if is_same else None)


def push_files(
    job: Job, files: Files, target: Reference, artifact_type: str | None, annotations: Mapping[str, str]
) -> Graph:
    """Push files as the layers of an artifact, and return that."""
    listed = titled(files)
    if not listed:
        raise SourceError("there are no files to push")
    contents = FileSet()

    def hash_all(flow: object) -> None:
        contents.clear()
        for title, path in listed:
            contents.add(title, path, flow)  # type: ignore[arg-type]  # the flow of a worker

    job.operation.call(hash_all)
    manifest = contents.manifest(artifact_type, annotations)
    graph = Graph(manifest, (manifest,))
    job.push(graph, contents, job.site(target).repository, target.name.tag)
    return graph
