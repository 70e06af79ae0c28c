"""Copying from registry to registry: through memory, mounted where both are one host, tagged last."""

from __future__ import annotations

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.graph import ALL, Document, Graph
from transferkit.errors import ProtocolError
from transferkit.names import Reference
from transferkit.registry.job import Job
from transferkit.registry.sites import Site, same_host
from transferkit.remote.steady import SteadySource

_MOST = 1000  # manifests that refer to one, and to those


def copy(job: Job, source: Reference, target: Reference, wanted: str, *, referrers: bool) -> Document:
    """Copy all that ``source`` leads to, to ``target``; what is there already is left, so a half copy is completed."""
    origin, destination = job.site(source), job.site(target)
    root = job.document(origin, source)
    graph = job.graph(origin, root, wanted)
    tag = target.name.tag if target.digest is None else target.digest
    one_host = same_host(origin.repository, destination.repository)
    mount = origin.repository.name if one_host and origin.repository.name != destination.repository.name else None
    steady = SteadySource(origin.source)
    job.push(graph, steady, destination.repository, tag, mount=mount)
    if referrers:
        for document in _referring(job, origin, graph):
            further = job.graph(origin, document, ALL)
            job.push(further, steady, destination.repository, document.digest, mount=mount)
    return root


def _referring(job: Job, site: Site, graph: Graph) -> list[Document]:
    """Return what refers to the documents of a graph, and what refers to that; each once, however they lead around."""
    found: dict[Digest, Document] = {}
    queue = [document.digest for document in graph.documents]
    seen = set(queue)
    while queue:
        for descriptor in _list(job, site, queue.pop(0)):
            if descriptor.digest in seen:
                continue
            seen.add(descriptor.digest)
            if len(seen) > _MOST:
                raise ProtocolError(f"more than {_MOST} manifests refer to {graph.root.digest.short}")
            queue.append(descriptor.digest)
            found[descriptor.digest] = job.by_digest(site, descriptor.digest)
    return list(found.values())


def _list(job: Job, site: Site, digest: Digest) -> list[Descriptor]:
    return job.operation.call(lambda flow: list(site.repository.referrers(digest, flow=flow)))
