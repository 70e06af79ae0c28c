"""Pulling: the blobs of a model into the cache, and its name at last."""

from __future__ import annotations

from contextlib import suppress

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.graph import Document, Graph
from transferkit.content.interfaces import Fetcher
from transferkit.errors import (
    BlobNotFoundError,
    IncompleteError,
    InvalidManifestError,
    ManifestNotFoundError,
    StorageError,
    TransferKitError,
)
from transferkit.names import Name, Reference
from transferkit.registry.job import Job
from transferkit.registry.sites import Site
from transferkit.remote.foreign import ForeignLayers
from transferkit.storage.cache import DiskCache

_AGAIN = 3  # times that blobs are fetched which somebody has removed meanwhile


def pull(job: Job, cache: DiskCache, reference: Reference, wanted: str, *, foreign: bool = False) -> Graph:
    """Bring all that a reference leads to into the cache, and link the tag that it names, if any; return it.

    Whoever pulls the same name waits until another process has done it. Raises as ``Registry.pull`` does. ``foreign``:
    layers that the registry does not have are fetched from where the manifest says.
    """
    site = job.site(reference)
    if not reference.is_pinned:  # no name is linked then, and the blobs have locks of their own
        job.hold(lambda flow: cache.lock(reference.name, flow))
    root = job.document(site, reference)
    with job.naming(reference):
        graph = job.graph(site, root, wanted)
        if not graph.layers:
            raise InvalidManifestError("invalid manifest: no layers")
    bring(job, cache, reference, graph, source_of(site, foreign=foreign))
    return graph


def source_of(site: Site, *, foreign: bool) -> Fetcher:
    """Return what the blobs of a site are read from; ``foreign``: also from where manifests say that they are."""
    return ForeignLayers(site.source, site.repository) if foreign else site.source


def bring(job: Job, cache: DiskCache, reference: Reference, graph: Graph, source: Fetcher) -> int:
    """Bring the blobs of a graph into the cache, and link its root; return how many bytes were moved.

    Where the reference has a digest and no tag nothing is linked: its documents are blobs then.
    """
    job.hold(lambda flow: cache.pinned(graph.digests))
    blobs, moved = graph.blobs, 0
    job.announce(graph)
    for _ in range(_AGAIN):
        moved += job.fill(cache, blobs, source, first=frozenset(graph.configs))
        if not cache.missing(blobs):  # seen once more: somebody may have pruned the store
            break
    else:
        raise StorageError(f"{cache.root} loses blobs as fast as they are stored; who removes them?")
    for document in graph.documents:
        keep(cache, document)
    if not reference.is_pinned:
        cache.link(reference.name, graph.root.digest)
    cache.blobs.flush()
    return moved


def describe(job: Job, cache: DiskCache, reference: Reference, digest: Digest, *, offline: bool) -> Descriptor:
    """Return what a blob is: what the cache has verified, without a request, else what the registry says."""
    try:
        known = Descriptor(digest, cache.get(digest).size)
        if offline or cache.knows(known):
            return known
    except BlobNotFoundError:
        if offline:
            raise
    repository = job.site(reference).repository
    return job.operation.call(lambda flow: repository.describe(digest, flow=flow))


def pull_blob(job: Job, cache: DiskCache, reference: Reference, digest: Digest, *, offline: bool) -> Descriptor:
    """Bring one blob of a repository into the cache; return what it is."""
    job.hold(lambda flow: cache.pinned([digest]))
    descriptor = describe(job, cache, reference, digest, offline=offline)
    if offline:
        return descriptor
    job.operation.announce([descriptor])
    failure: TransferKitError | None = None
    try:
        job.fill(cache, [descriptor], job.site(reference).source)
    except IncompleteError as error:
        failure = error.failures[digest]
    if failure is not None:
        raise failure
    cache.blobs.flush()
    return descriptor


def keep(cache: DiskCache, document: Document) -> None:
    """See that a document is in the cache by its digest."""
    if not cache.knows(Descriptor(document.digest, len(document.raw))):
        cache.put(document.raw)


def linked(cache: DiskCache, name: Name) -> bytes | None:
    """Return the manifest that has a name in the cache, if one has."""
    with suppress(ManifestNotFoundError):
        return cache.manifest(name) if name.model else None
    return None
