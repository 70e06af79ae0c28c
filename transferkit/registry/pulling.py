"""Pulling: the blobs of a model into the cache, and its name at last."""

from __future__ import annotations

from transferkit.content.graph import Document, Graph, collect
from transferkit.content.manifest import parse
from transferkit.errors import BlobNotFoundError, IncompleteError, StorageError, TransferKitError
from transferkit.names import Reference
from transferkit.registry.job import Job, check_layers
from transferkit.storage.cache import DiskCache
from transferkit.storage.verifying import Entry

_AGAIN = 3  # times that blobs are fetched which somebody has removed meanwhile


def pull(job: Job, cache: DiskCache, reference: Reference, wanted: str) -> Graph:
    """Bring all that a reference leads to into the cache, and link it; return it.

    Whoever pulls the same name waits until another process has done it. Raises as ``Registry.pull`` does.
    """
    site = job.site(reference)
    with job.operation.call(lambda flow: cache.lock(reference.name, flow)):
        root = job.document(site, reference)
        graph = job.graph(site, root, wanted)
        check_layers(graph)
        digests = [*(blob.digest for blob in graph.blobs), *(document.digest for document in graph.documents)]
        with cache.pinned(digests):
            for _ in range(_AGAIN):
                blobs = graph.blobs
                present = [blob for blob in blobs if cache.knows(blob)]
                there = set(present)
                missing = [blob for blob in blobs if blob not in there]
                cache.prepare(missing)
                job.operation.copy(missing, site.source, cache, present=present)
                if not cache.missing(blobs):  # seen once more: somebody may have pruned the store
                    break
            else:
                raise StorageError(f"{cache.root} loses blobs as fast as they are stored; who removes them?")
            for document in graph.documents:
                cache.put(document.raw)
            cache.link(reference.name, root.raw)
            cache.blobs.flush()
    return graph


def repair(job: Job, cache: DiskCache, reference: Reference, graph: Graph, wrong: list[Entry]) -> None:
    """Fetch what is missing of a model of the cache, and what was found ``wrong``."""
    named = {entry.digest for entry in wrong}
    for blob in graph.blobs:
        if blob.digest in named:
            cache.take_away(blob)
    missing = cache.missing(graph.blobs)
    cache.prepare(missing)
    job.operation.copy(missing, job.site(reference).source, cache)


def local_graph(cache: DiskCache, root: Document, wanted: str) -> Graph:
    """Return what a document in the cache leads to. NotFoundError: a manifest of it is not there."""
    return collect(root, lambda descriptor: parse(cache.read(descriptor.digest)), wanted)


def check_complete(cache: DiskCache, graph: Graph, name: str) -> None:
    """Raise IncompleteError, with each blob that is missing, where a model is not whole in the cache."""
    missing = cache.missing(graph.blobs)
    if missing:
        failures: dict[str, TransferKitError] = {
            blob.digest: BlobNotFoundError(f"{blob.digest} is not in {cache.root}") for blob in missing
        }
        listed = ", ".join(blob.digest.short for blob in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        size = sum(blob.size for blob in missing)
        raise IncompleteError(f"{name} is incomplete: {size} bytes are missing, of {listed}{more}", failures=failures)
