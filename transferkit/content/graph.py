"""A manifest and all that it leads to: the manifests of an index, nested ones too, and the blobs of them all.

Source: OCI image specification v1.1, image-index.md; the matching of platforms is containerd's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from transferkit.content.descriptor import Descriptor, unique
from transferkit.content.digest import Digest
from transferkit.content.manifest import INDEXES, MEDIA_TYPES, Index, Manifest
from transferkit.errors import InvalidDescriptorError, InvalidManifestError

Document = Manifest | Index
Load = Callable[[Descriptor], Document | None]

ALL = "all"  # in place of a platform: every manifest of an index
DEEPEST = 8  # indexes in indexes; a digest cannot lead back to itself, but a registry may be patient
_MOST = 4096  # documents that one manifest may lead to
MOST_BYTES = 64 * 1024 * 1024  # that they have together: they are kept in memory


@dataclass(frozen=True, slots=True)
class Graph:
    """What a reference stands for: ``root`` as it was received, and ``documents``, children before their parents."""

    root: Document
    documents: tuple[Document, ...]

    @property
    def manifests(self) -> list[Manifest]:
        return [document for document in self.documents if isinstance(document, Manifest)]

    @property
    def layers(self) -> list[Descriptor]:
        """The layers of all manifests, in their order."""
        return [layer for manifest in self.manifests for layer in manifest.layers]

    @property
    def configs(self) -> list[Descriptor]:
        """The configs of all manifests that have one."""
        return [manifest.config for manifest in self.manifests if manifest.config is not None]

    @property
    def blobs(self) -> list[Descriptor]:
        """Every blob once, configs first: they are small, and say what the rest is."""
        return unique([*self.configs, *self.layers])

    @property
    def digests(self) -> list[Digest]:
        """The digests of all blobs and documents."""
        return [*(blob.digest for blob in self.blobs), *(document.digest for document in self.documents)]

    def with_referrers(self, graphs: Iterable[Graph]) -> Graph:
        """Return this graph and some that refer to it, as one; what they refer to comes first."""
        documents = {document.digest: document for document in self.documents}
        for graph in graphs:
            for document in graph.documents:
                documents.setdefault(document.digest, document)
        return _checked(Graph(self.root, tuple(documents.values())))

    def chosen(self, wanted: str) -> Document:
        """Return what was asked for: the root, or of an index the manifest for a platform."""
        return self.root if wanted == ALL or isinstance(self.root, Manifest) else self.manifests[0]


def collect(root: Document, load: Load, wanted: str = ALL) -> Graph:
    """Return what ``root`` leads to; ``load`` fetches a document, or leaves it out (``None``). Of an index only what is
    for ``wanted``, if that is no ``"all"``.

    Raises:
        InvalidManifestError: nothing is for that platform, or there is no end of it, or it contradicts itself.
    """
    found: dict[str, Document] = {}
    size = 0

    def visit(document: Document, depth: int) -> None:
        nonlocal size
        size += len(document.raw)
        if depth > DEEPEST or len(found) >= _MOST or size > MOST_BYTES:
            raise InvalidManifestError(f"the index {root.digest.short} leads to more than anybody can mean")
        if isinstance(document, Index):
            for descriptor in choose(document, wanted):
                if descriptor.digest not in found and (child := load(descriptor)) is not None:
                    _check_child(child, descriptor)
                    visit(child, depth + 1)
        found[document.digest] = document

    visit(root, 0)
    return _checked(Graph(root, tuple(found.values())))


def _check_child(document: Document, descriptor: Descriptor) -> None:
    """Hold a document to what the index says of it: two clients must not take it for two things."""
    if len(document.raw) != descriptor.size:
        has = f"{len(document.raw)} bytes, and the index says {descriptor.size}"
        raise InvalidManifestError(f"the manifest {descriptor.digest.short} has {has}")
    is_index = isinstance(document, Index)
    if descriptor.media_type in MEDIA_TYPES and is_index != (descriptor.media_type in INDEXES):
        what = "an index" if is_index else "a manifest"
        raise InvalidManifestError(
            f"{descriptor.digest.short} is {what}, and its index calls it {descriptor.media_type}"
        )


def _checked(graph: Graph) -> Graph:
    try:
        graph.blobs  # noqa: B018 - the look is the check
    except InvalidDescriptorError as error:
        raise InvalidManifestError(
            f"the manifests of {graph.root.digest.short} contradict each other: {error}"
        ) from error
    return graph


def choose(index: Index, wanted: str) -> Iterable[Descriptor]:
    """Return the entries of an index that are for a platform; of its variants those that are named, else the first.

    Raises:
        InvalidManifestError: there is none; the message says which there are.
    """
    if wanted == ALL:
        return index.manifests
    exact = [entry for entry in index.manifests if entry.platform == wanted]
    near = [entry for entry in index.manifests if (entry.platform or "").startswith(f"{wanted}/")]
    if exact or near:
        return exact or near[:1]
    # What says nothing of a platform is for all; attestations say that they are for none.
    plain = [entry for entry in index.manifests if entry.platform is None]
    if plain:
        return plain
    there = ", ".join(dict.fromkeys(entry.platform or "" for entry in index.manifests)) or "nothing"
    raise InvalidManifestError(
        f"the index {index.digest.short} has nothing for {wanted}; it has {there[:300]}: pass platform= one of "
        f'these, or "{ALL}"'
    )
