"""Copying from one end to another: through memory, mounted where both are one host, tagged last."""

from __future__ import annotations

from collections import deque

from transferkit.content.digest import Digest
from transferkit.content.graph import ALL, MOST_BYTES, Document, Graph, collect
from transferkit.errors import ProtocolError
from transferkit.names import Reference
from transferkit.registry.ends import End, Referrers, find_end
from transferkit.registry.hub import HubEnd
from transferkit.registry.job import Job
from transferkit.storage.layout import Tagged

_MOST = 1000  # manifests that refer to one, and to those


def copy(
    job: Job, source: Reference | Tagged | HubEnd, target: Reference | Tagged, wanted: str, *, referrers: bool
) -> Document:
    """Copy all that ``source`` leads to, to ``target``; what is there already is left, so a half copy is completed.

    Of an index, for one platform, the manifest for that is what the target gets.
    """
    origin: End = source if isinstance(source, HubEnd) else find_end(job, source)
    destination = find_end(job, target)
    graph, found = survey(origin, wanted, referrers=referrers)
    destination.take(graph, origin, found)
    return graph.root


def survey(origin: End, wanted: str, *, referrers: bool) -> tuple[Graph, Referrers]:
    """Return all that is copied from an end, and what of it refers to what."""
    graph = _graph(origin, origin.document(), wanted)
    if graph.chosen(wanted) is not graph.root:
        graph = _graph(origin, graph.chosen(wanted), ALL)
    found = _referring(origin, graph) if referrers else {}
    graphs = [_graph(origin, document, ALL) for documents in found.values() for document in documents]
    return graph.with_referrers(graphs) if graphs else graph, found


def _graph(end: End, root: Document, wanted: str) -> Graph:
    return collect(root, lambda descriptor: end.load(descriptor.digest), wanted)


def _referring(end: End, graph: Graph) -> Referrers:
    """Return what refers to the documents of a graph, and to that, by what it refers to.

    Each is there once, however they lead around. ProtocolError: there is no end of them.
    """
    found: Referrers = {}
    queue = deque(document.digest for document in graph.documents)
    seen: set[Digest] = set(queue)
    size = 0
    while queue:
        subject = queue.popleft()
        for digest in end.referrers(subject):
            if digest in seen:
                continue
            seen.add(digest)
            document = end.load(digest)
            size += len(document.raw)
            if len(seen) - len(graph.documents) > _MOST or size > MOST_BYTES:
                raise ProtocolError(
                    f"more than {_MOST} manifests, or too large ones, refer to {graph.root.digest.short}"
                )
            queue.append(digest)
            found.setdefault(subject, []).append(document)
    return found
