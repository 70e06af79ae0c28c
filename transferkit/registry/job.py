"""What one call of a registry's works with: its operation, and how it finds and reads what names stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.graph import Document, Graph, collect
from transferkit.content.interfaces import Fetcher
from transferkit.content.manifest import Manifest
from transferkit.errors import BlobNotFoundError, InvalidManifestError, InvalidNameError
from transferkit.names import Reference, is_ollama_host
from transferkit.options import TransferOptions
from transferkit.registry.sites import Site, Sites
from transferkit.remote.repository import Repository
from transferkit.report import Report
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.operation import Operation

_AGAIN = 3  # times that blobs which a registry has lost are sent


@dataclass(frozen=True, slots=True)
class Job:
    """One call. One thread's."""

    operation: Operation
    sites: Sites
    options: TransferOptions

    def site(self, reference: Reference) -> Site:
        """Return where a reference leads to."""
        if not reference.name.model:
            raise InvalidNameError(f"{reference} is a digest alone; say in which repository: name@{reference.digest}")
        return self.operation.call(lambda flow: self.sites.find(reference, flow))

    def document(self, site: Site, reference: Reference) -> Document:
        """Fetch what a reference stands for; its digest, where it has one, is that of the bytes."""
        digest = reference.digest
        if digest is None:
            return self._fetch(site.repository, reference.name.tag)
        if is_ollama_host(reference.name.host):  # a manifest is a blob there, and found by its digest as such
            return self.operation.call(lambda flow: site.repository.fetch_manifest(digest, flow=flow, as_blob=True))
        return self._fetch(site.repository, digest)

    def _fetch(self, repository: Repository, reference: str) -> Document:
        return self.operation.call(lambda flow: repository.fetch_manifest(reference, flow=flow))

    def by_digest(self, site: Site, digest: Digest) -> Document:
        """Fetch the manifest or index of a digest."""
        return self._fetch(site.repository, digest)

    def graph(self, site: Site, root: Document, wanted: str) -> Graph:
        """Return all that a document leads to, fetched by digest."""
        return collect(root, lambda descriptor: self._fetch(site.repository, descriptor.digest), wanted)

    def push(self, graph: Graph, source: Fetcher, target: Repository, tag: str, *, mount: str | None = None) -> Report:
        """Push the blobs of a graph, then its documents by their digests, and its root under ``tag`` at last.

        ``mount`` is a repository of the same registry that may have them. What the registry has lost by then is sent
        once more.
        """
        blobs = [with_source(blob, mount) for blob in graph.blobs]
        report = self.operation.copy(blobs, source, target)
        for document in graph.documents:
            reference = tag if document is graph.root else document.digest
            for attempt in range(_AGAIN):
                try:
                    self.operation.call(_pushing(target, document, reference))
                    break
                except BlobNotFoundError:
                    if attempt == _AGAIN - 1 or not isinstance(document, Manifest):
                        raise
                    self.operation.copy(list(document.blobs), source, target)
        return report


def with_source(descriptor: Descriptor, source: str | None) -> Descriptor:
    """Return a descriptor that may be mounted from ``source``."""
    if source is None:
        return descriptor
    return Descriptor(descriptor.digest, descriptor.size, media_type=descriptor.media_type, source=source)


def _pushing(target: Repository, document: Document, reference: str) -> Callable[[WorkerFlow], Digest]:
    return lambda flow: target.push_manifest(document.raw, reference, media_type=document.media_type, flow=flow)


def layers_of(documents: Sequence[Document]) -> Iterator[Descriptor]:
    """Yield the layers of all manifests among some documents."""
    return chain.from_iterable(document.layers for document in documents if isinstance(document, Manifest))


def check_layers(graph: Graph) -> None:
    """Refuse what has nothing to pull: a manifest without layers, as Ollama's client does."""
    if not any(layers_of(graph.documents)):
        raise InvalidManifestError("invalid manifest: no layers")
