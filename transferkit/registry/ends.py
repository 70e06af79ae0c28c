"""The two ends of a copy: a name in a registry, or a tag in an image layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from transferkit.content.digest import Digest
from transferkit.content.graph import Document, Graph
from transferkit.content.interfaces import Fetcher
from transferkit.names import Reference
from transferkit.registry.job import Job
from transferkit.registry.sites import Site, same_host
from transferkit.remote.steady import SteadySource
from transferkit.storage.layout import OCILayout, Tagged


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

    def take(self, graph: Graph, end: End, tag: str | None = None) -> None:
        """Bring a graph here from another end, under ``tag``, or by default under its own name."""


@dataclass(slots=True)
class RegistryEnd:
    """A name in a registry."""

    job: Job
    reference: Reference
    site: Site
    source: Fetcher

    @classmethod
    def find(cls, job: Job, reference: Reference) -> RegistryEnd:
        site = job.site(reference)
        return cls(job, reference, site, SteadySource(site.source))

    def document(self) -> Document:
        return self.job.document(self.site, self.reference)

    def load(self, digest: Digest) -> Document:
        return self.job.by_digest(self.site, digest)

    def referrers(self, digest: Digest) -> Iterator[Digest]:
        found = self.job.operation.call(lambda flow: list(self.site.repository.referrers(digest, flow=flow)))
        return (descriptor.digest for descriptor in found)

    def take(self, graph: Graph, end: End, tag: str | None = None) -> None:
        mount, own = None, self.site.repository
        if isinstance(end, RegistryEnd) and same_host(end.site.repository, own):
            mount = end.site.repository.name if end.site.repository.name != own.name else None
        self.job.push(graph, end.source, own, tag or self.reference.digest or self.reference.name.tag, mount=mount)


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

    def take(self, graph: Graph, end: End, tag: str | None = None) -> None:
        layout = self.tagged.layout
        blobs = graph.blobs
        present = [blob for blob in blobs if layout.knows(blob)]
        there = set(present)
        missing = [blob for blob in blobs if blob not in there]
        layout.prepare(missing)
        self.job.operation.copy(missing, end.source, layout, present=present)
        for document in graph.documents:
            layout.put(document.raw)
        if tag is None:
            layout.tag(graph.root, self.tagged.tag or "latest")
        else:
            layout.add(graph.root)
        layout.flush()


def find_end(job: Job, what: Reference | Tagged) -> End:
    """Return the end that a reference, or a tag in a layout, stands for."""
    return RegistryEnd.find(job, what) if isinstance(what, Reference) else LayoutEnd(job, what)
