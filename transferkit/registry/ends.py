"""The two ends of a copy: a name in a registry, or a tag in an image layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.graph import Document, Graph
from transferkit.content.interfaces import Fetcher
from transferkit.names import Reference
from transferkit.registry.job import Job
from transferkit.registry.sites import Site, same_host
from transferkit.remote.repository import Repository
from transferkit.remote.steady import SteadySource
from transferkit.report import Report
from transferkit.storage.layout import OCILayout, Tagged
from transferkit.transfer.flow import WorkerFlow

Referrers: TypeAlias = "dict[Digest, list[Document]]"
"""Documents that refer to others, by the digests of these."""


class End(Protocol):
    """Where something is copied from, or to."""

    @property
    def source(self) -> Fetcher:
        """What its blobs are read from."""

    def document(self) -> Document:
        """Return what it stands for."""

    def load(self, digest: Digest) -> Document:
        """Return a document that the one it stands for leads to."""

    def referrers(self, digest: Digest) -> Iterator[Digest]:
        """Yield what refers to a document."""

    def take(self, graph: Graph, end: End, referrers: Referrers) -> None:
        """Bring a graph here from another end; its root gets the name that this end stands for, at last."""


@dataclass(slots=True)
class RegistryEnd:
    """A name in a registry."""

    job: Job
    reference: Reference
    site: Site

    @property
    def source(self) -> Fetcher:
        return self.site.source

    def document(self) -> Document:
        return self.job.document(self.site, self.reference)

    def load(self, digest: Digest) -> Document:
        return self.job.by_digest(self.site, digest)

    def referrers(self, digest: Digest) -> Iterator[Digest]:
        found = self.job.operation.call(lambda flow: list(self.site.repository.referrers(digest, flow=flow)))
        return (descriptor.digest for descriptor in found)

    def take(self, graph: Graph, end: End, referrers: Referrers) -> None:
        self.job.announce(graph)
        self.send(graph.blobs, end)
        self.name(graph, end, referrers)

    def send(self, blobs: Sequence[Descriptor], end: End) -> Report:
        """Bring blobs here from another end."""
        own, mount = self.site.repository, None
        if isinstance(end, RegistryEnd) and same_host(end.site.repository, own):
            other = end.site.repository.name
            mount = other if other != own.name else None
        return self.job.send(blobs, _steady(end), own, mount=mount)

    def name(self, graph: Graph, end: End, referrers: Referrers) -> None:
        """Push the documents of a graph whose blobs are here; the root, with the name of this end, comes last."""
        job, own, source = self.job, self.site.repository, _steady(end)
        for document in graph.documents:
            if document is not graph.root or referrers:
                job.push(document, source, own, document.digest)
        for subject, documents in referrers.items():
            job.operation.call(_referring(own, subject, documents))
        job.push(graph.root, source, own, self.reference.digest or self.reference.name.tag)


def _steady(end: End) -> Fetcher:
    return end.source if isinstance(end, LayoutEnd) else SteadySource(end.source)


@dataclass(slots=True)
class LayoutEnd:
    """A tag in an image layout."""

    job: Job
    tagged: Tagged

    @property
    def source(self) -> OCILayout:
        return self.tagged.layout

    def document(self) -> Document:
        return self.tagged.layout.document(self.tagged.tag)

    def load(self, digest: Digest) -> Document:
        return self.tagged.layout.load(digest)

    def referrers(self, digest: Digest) -> Iterator[Digest]:
        return iter(self.tagged.layout.referrers(digest))

    def take(self, graph: Graph, end: End, referrers: Referrers) -> None:
        layout = self.tagged.layout
        self.job.announce(graph)
        self.job.fill(layout, graph.blobs, end.source)
        for document in graph.documents:
            layout.put(document.raw)
        for documents in referrers.values():
            for document in documents:
                layout.add(document)
        layout.tag(graph.root, self.tagged.tag or "latest")
        layout.flush()


def _referring(target: Repository, subject: Digest, documents: list[Document]) -> Callable[[WorkerFlow], None]:
    return lambda flow: target.refer(subject, documents, flow=flow)


def find_end(job: Job, what: Reference | Tagged) -> End:
    """Return the end that a reference, or a tag in a layout, stands for."""
    return RegistryEnd(job, what, job.site(what)) if isinstance(what, Reference) else LayoutEnd(job, what)
