"""Copying from one end to another: through memory, mounted where both are one host, tagged last."""

from __future__ import annotations

from transferkit.content.digest import Digest
from transferkit.content.graph import ALL, Document, Graph, collect
from transferkit.errors import ProtocolError
from transferkit.names import Reference
from transferkit.registry.ends import End, find_end
from transferkit.registry.job import Job
from transferkit.storage.layout import Tagged

_MOST = 1000  # manifests that refer to one, and to those


def copy(job: Job, source: Reference | Tagged, target: Reference | Tagged, wanted: str, *, referrers: bool) -> Document:
    """Copy all that ``source`` leads to, to ``target``; what is there already is left, so a half copy is completed."""
    origin, destination = find_end(job, source), find_end(job, target)
    root = origin.document()
    graph = _graph(origin, root, wanted)
    destination.take(graph, origin)
    if referrers:
        for document in _referring(origin, graph):
            destination.take(_graph(origin, document, ALL), origin, document.digest)
    return root


def _graph(end: End, root: Document, wanted: str) -> Graph:
    return collect(root, lambda descriptor: end.load(descriptor.digest), wanted)


def _referring(end: End, graph: Graph) -> list[Document]:
    """Return what refers to the documents of a graph, and what refers to that; each once, however they lead around."""
    found: list[Document] = []
    queue = [document.digest for document in graph.documents]
    seen: set[Digest] = set(queue)
    while queue:
        for digest in end.referrers(queue.pop(0)):
            if digest in seen:
                continue
            seen.add(digest)
            if len(found) == _MOST:
                raise ProtocolError(f"more than {_MOST} manifests refer to {graph.root.digest.short}")
            queue.append(digest)
            found.append(end.load(digest))
    return found
