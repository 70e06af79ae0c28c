"""Pushing: a model of the cache, or files, into a registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from transferkit.arguments import check_sources
from transferkit.content.descriptor import OCTET_STREAM, Descriptor
from transferkit.content.graph import Graph
from transferkit.content.interfaces import Fetcher
from transferkit.content.title import TITLE, check_titles
from transferkit.errors import SourceError, StorageError
from transferkit.names import Name, Reference
from transferkit.registry.artifacts import EMPTY, InMemory, artifact
from transferkit.registry.files import Files, FileSet, look, titled
from transferkit.registry.job import Job
from transferkit.remote.repository import Repository
from transferkit.storage.cache import DiskCache
from transferkit.storage.hashes import HashIndex
from transferkit.storage.uploads import UploadNotes
from transferkit.storage.walk import FoundFile

DEFAULT_TYPE = "application/vnd.transferkit.files.v1"  # of an artifact whose user names none


def push_model(job: Job, cache: DiskCache, graph: Graph, source: Name, target: Reference) -> None:
    """Push a model of the cache; where its own repository is on the same registry, blobs are mounted from there."""
    job.hold(lambda flow: cache.pinned(graph.digests))
    check_sources(cache, graph.blobs)
    _push(job, cache, graph, cache, target, mount_of(source, target.name))


def mount_of(source: Name, target: Name) -> str | None:
    """Return the repository that blobs may be mounted from: another one of the same host."""
    is_same = source.host.lower() == target.host.lower() and source.repository != target.repository
    return source.repository if is_same else None


def push_files(
    job: Job,
    cache: DiskCache,
    files: Files,
    target: Reference,
    artifact_type: str | None,
    annotations: Mapping[str, str],
) -> Graph:
    """Push files as the layers of an artifact, in their order, and return that."""
    listed = titled(files)
    if not listed:
        raise SourceError("there are no files to push: files= is empty; name some, or pass folder= for all of a folder")
    found = job.operation.call(lambda flow: [look(title, path, cache.disk) for title, path in listed])
    contents = hashed(job, cache, found)
    layers = [
        Descriptor(file.digest, file.size, media_type=OCTET_STREAM, annotations=((TITLE, file.path),))
        for file in contents.files
    ]
    check_titles(tuple(layers))
    manifest = artifact(artifact_type or DEFAULT_TYPE, layers, annotations)
    graph = Graph(manifest, (manifest,))
    _push(job, cache, graph, InMemory(EMPTY, contents), target, None)
    return graph


def hashed(job: Job, cache: DiskCache, found: Sequence[FoundFile], *, then: int | None = None) -> FileSet:
    """Return files with their digests; what the cache remembers is not hashed. ``then`` is as for ``FileSet.take``."""
    with suppress(StorageError):  # one that can only be read remembers nothing
        cache.open_unfinished()
    files = FileSet(cache.disk, HashIndex(cache.blobs.path, cache.disk, rehash=job.options.rehash_existing))
    files.take(found, job.operation, then=then)
    return files


def _push(job: Job, cache: DiskCache, graph: Graph, source: Fetcher, target: Reference, mount: str | None) -> None:
    repository = noted(job, cache, job.site(target).repository)
    job.announce(graph)
    job.send(graph.blobs, source, repository, mount=mount)
    name_model(job, graph, source, repository, target)


def name_model(job: Job, graph: Graph, source: Fetcher, repository: Repository, target: Reference) -> None:
    """Push the documents of a graph whose blobs are there; the root comes last, under its tag."""
    for document in graph.documents:
        job.push(document, source, repository, target.name.tag if document is graph.root else document.digest)


def noted(job: Job, cache: DiskCache, repository: Repository) -> Repository:
    """Return a repository to which a later push goes on with the uploads that this one leaves unfinished."""
    client, options = repository.client, job.options
    place = f"{client.base_url} {repository.name}"
    notes = UploadNotes(cache.blobs.path, place, threshold=options.resume_threshold)
    job.held.callback(notes.close)
    return Repository(client, repository.name, part_size=options.part_size, notes=notes)
