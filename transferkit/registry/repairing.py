"""Repairing: what is wrong or missing of the models in the cache is fetched again, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.graph import ALL, DEEPEST, Document, Graph, collect
from transferkit.content.machine import local_platform
from transferkit.content.manifest import parse
from transferkit.errors import BlobNotFoundError, InvalidManifestError, ManifestNotFoundError
from transferkit.names import Reference
from transferkit.registry.job import Job
from transferkit.registry.pulling import keep, pull
from transferkit.registry.sites import Site
from transferkit.storage.cache import DiskCache

Begin = Callable[[], AbstractContextManager[Job]]


def repair(cache: DiskCache, reference: Reference, bad: set[Digest], begin: Begin) -> list[Digest]:
    """Fetch what is missing of a model, and what is ``bad``; return that. ``begin`` begins a job, where one is needed.

    A model whose manifest is empty or malformed is pulled again. So is an index that has no manifest here; of another
    one, those manifests count that are here.
    """
    name = reference.name
    wrong: list[Digest] = []  # documents
    try:
        root = parse(cache.manifest(name))
        here = _here(cache, root, bad, wrong.append)
    except (InvalidManifestError, ManifestNotFoundError):
        if name not in cache.links():
            raise
        return _pull(cache, reference, bad, begin)
    if not wrong and not here.manifests:
        return _pull(cache, reference, bad, begin)
    if not wrong and root.digest not in bad and not _needed(cache, here, bad):
        return []
    mended: list[Digest] = []
    with begin() as job:
        site = job.site(reference)
        job.hold(lambda flow: cache.lock(name, flow))
        for _ in range(DEEPEST):
            graph = _here(cache, root, bad, lambda digest: job.by_digest(site, digest))
            documents = [document.digest for document in graph.documents if document.digest in bad]
            mended += documents + _mend(job, cache, site, graph, bad)
            bad.difference_update(mended)
            if not documents:
                break
            # Of what a damaged manifest names, nobody has hashed anything.
            bad.update(entry.digest for entry in cache.verify([name]))
    return mended


def _pull(cache: DiskCache, reference: Reference, bad: set[Digest], begin: Begin) -> list[Digest]:
    with begin() as job:
        pulled = pull(job, cache, reference, local_platform()).digests
    bad.difference_update(pulled)
    return pulled


def _mend(job: Job, cache: DiskCache, site: Site, graph: Graph, bad: set[Digest]) -> list[Digest]:
    job.hold(lambda flow: cache.pinned(graph.digests))
    needed = _needed(cache, graph, bad)
    for blob in needed:
        if blob.digest in bad:
            cache.take_away(blob)
    job.fill(cache, needed, site.source)
    for document in graph.documents:
        keep(cache, document)
    cache.blobs.flush()
    return [blob.digest for blob in needed]


def _needed(cache: DiskCache, graph: Graph, bad: set[Digest]) -> list[Descriptor]:
    missing = {blob.digest for blob in cache.missing(graph.blobs)} | bad
    return [blob for blob in graph.blobs if blob.digest in missing]


def _here(cache: DiskCache, root: Document, bad: set[Digest], fetch: Callable[[Digest], Document | None]) -> Graph:
    """Return what is in the cache of what a document leads to; ``fetch`` brings a document whose file is wrong."""

    def load(descriptor: Descriptor) -> Document | None:
        try:
            return parse(cache.read(descriptor.digest))
        except BlobNotFoundError:
            return fetch(descriptor.digest) if descriptor.digest in bad else None

    return collect(root, load, ALL)
