"""What one call of a registry's works with: its operation, and how it finds, reads and moves what names stand for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.graph import Document, Graph, collect
from transferkit.content.interfaces import Fetcher, Ingester
from transferkit.content.manifest import Manifest
from transferkit.errors import BlobNotFoundError, InvalidManifestError, InvalidNameError, ManifestNotFoundError
from transferkit.names import Reference
from transferkit.options import TransferOptions
from transferkit.registry.sites import Site, Sites
from transferkit.remote.repository import Repository
from transferkit.report import Report
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.operation import Operation

# Seconds before the blobs that a registry does not find are sent again: it may take a moment to see what it has
# confirmed (image-registry#220).
_SETTLING = (0.0, 0.2, 0.8)


class Store(Ingester, Protocol):
    """A store on disk that is filled."""

    def prepare(self, descriptors: Iterable[Descriptor]) -> None:
        """Make it, and see that these will fit."""

    def known(self, descriptors: Iterable[Descriptor]) -> set[Digest]:
        """Return the digests of those blobs that it has, verified."""


@dataclass(frozen=True, slots=True)
class Job:
    """One call. One thread's. What ``held`` holds is let go of when all workers have ended."""

    operation: Operation
    sites: Sites
    options: TransferOptions
    held: ExitStack

    def hold(self, make: Callable[[WorkerFlow], AbstractContextManager[object]]) -> None:
        """Enter a context until the end of the call, in a worker: there, a wait for it can be cancelled."""
        self.operation.call(lambda flow: self.held.enter_context(make(flow)))

    # -- what names stand for

    def site(self, reference: Reference) -> Site:
        """Return where a reference leads to."""
        if not reference.name.model:
            raise InvalidNameError(f"{reference} is a digest alone; say in which repository: name@{reference.digest}")
        return self.operation.call(lambda flow: self.sites.find(reference, flow))

    def document(self, site: Site, reference: Reference) -> Document:
        """Fetch what a reference stands for; its digest, where it has one, is that of the bytes."""
        with self.naming(reference):
            return self._fetch(site, reference.digest or reference.name.tag)

    @contextmanager
    def naming(self, reference: Reference) -> Iterator[None]:
        """Say in an error of a manifest which model it is of."""
        name, digest = str(reference), reference.digest
        if digest is not None:
            name = f"{name.removesuffix(digest)}{digest.short}"
        try:
            yield
        except ManifestNotFoundError as error:
            raise ManifestNotFoundError(f'model "{name}" not found: {error}') from error
        except InvalidManifestError as error:
            raise InvalidManifestError(f'model "{name}" cannot be read: {error}') from error

    def by_digest(self, site: Site, digest: Digest) -> Document:
        """Fetch the manifest or index of a digest."""
        return self._fetch(site, digest)

    def _fetch(self, site: Site, reference: str) -> Document:
        return self.operation.call(lambda flow: site.repository.fetch_manifest(reference, flow=flow))

    def graph(self, site: Site, root: Document, wanted: str) -> Graph:
        """Return all that a document leads to, fetched by digest."""
        return collect(root, lambda descriptor: self._fetch(site, descriptor.digest), wanted)

    # -- moving

    def announce(self, graph: Graph) -> None:
        """Tell the trace what will be moved: the layers in their order, then the configs."""
        self.operation.announce(tuple(dict.fromkeys([*graph.layers, *graph.configs])))

    def fill(
        self, store: Store, blobs: Sequence[Descriptor], source: Fetcher, *, first: Collection[Descriptor] = ()
    ) -> int:
        """Bring blobs into a store on disk, and return how many bytes were moved; those that it knows are left.

        ``first`` are some of them without which nobody needs the others: those begin when these are in place.
        """
        there = store.known(blobs)
        present = [blob for blob in blobs if blob.digest in there]
        missing = [blob for blob in blobs if blob.digest not in there]
        store.prepare(missing)
        early = [blob for blob in missing if blob in first]
        late = [blob for blob in missing if blob not in first]
        if not early or not late:
            return self.operation.copy(missing, source, store, present=present).bytes
        one = self.operation.copy(early, source, store, present=present, then=sum(blob.size for blob in late))
        two = self.operation.copy(late, source, store)
        return one.bytes + two.bytes

    def send(self, blobs: Sequence[Descriptor], source: Fetcher, target: Repository, *, mount: str | None) -> Report:
        """Bring blobs into a repository; ``mount`` is another one of the same registry that may have them."""
        return self.operation.copy([replace(blob, source=mount) for blob in blobs], source, target)

    def push(self, document: Document, source: Fetcher, target: Repository, reference: str) -> None:
        """Push a document whose blobs are there; those that the registry has lost by then are sent once more."""
        push = partial(target.push_manifest, document.raw, reference, media_type=document.media_type)
        for wait in _SETTLING:
            try:
                self.operation.call(lambda flow: push(flow=flow))
                return
            except BlobNotFoundError:
                if not isinstance(document, Manifest):
                    raise
            self.operation.call(partial(WorkerFlow.wait, seconds=wait, why="registry"))
            self.operation.copy(list(document.blobs), source, target)
        self.operation.call(lambda flow: push(flow=flow))
