"""A manifest and all that it leads to: the manifests of an index, nested ones too, and the blobs of them all.

Source: OCI image specification v1.1, image-index.md; the matching of platforms is containerd's.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from transferkit.content.descriptor import Descriptor, unique
from transferkit.content.manifest import Index, Manifest
from transferkit.errors import InvalidManifestError

Document = Manifest | Index
Load = Callable[[Descriptor], Document]

ALL = "all"  # in place of a platform: every manifest of an index
_DEEPEST = 8  # indexes in indexes; a digest cannot lead back to itself, but a registry may be patient
_MOST = 4096  # documents that one manifest may lead to
_MACHINES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm/v7"}


@dataclass(frozen=True, slots=True)
class Graph:
    """What a reference stands for: ``root`` as it was received, and ``documents``, children before their parents."""

    root: Document
    documents: tuple[Document, ...]

    @property
    def manifests(self) -> list[Manifest]:
        return [document for document in self.documents if isinstance(document, Manifest)]

    @property
    def blobs(self) -> list[Descriptor]:
        """Every blob once, configs first: they are small, and say what the rest is."""
        manifests = self.manifests
        configs = [manifest.config for manifest in manifests if manifest.config is not None]
        return unique([*configs, *(layer for manifest in manifests for layer in manifest.layers)])

    def chosen(self, wanted: str) -> Document:
        """Return what was asked for: the root, or of an index the manifest for a platform."""
        return self.root if wanted == ALL or isinstance(self.root, Manifest) else self.manifests[0]


def local_platform() -> str:
    """Return what this machine is, as an index names it: ``linux/amd64``."""
    machine = platform.machine()
    return f"{'linux' if sys.platform.startswith('linux') else sys.platform}/{_MACHINES.get(machine, machine)}"


def collect(root: Document, load: Load, wanted: str = ALL) -> Graph:
    """Return what ``root`` leads to; ``load`` fetches a document. Of an index only what is for ``wanted``, if that is
    no ``"all"``.

    Raises:
        InvalidManifestError: nothing is for that platform, or there is no end of it.
    """
    found: dict[str, Document] = {}

    def visit(document: Document, depth: int) -> None:
        if depth > _DEEPEST or len(found) >= _MOST:
            raise InvalidManifestError(f"the index {root.digest.short} leads to more than anybody can mean")
        if isinstance(document, Index):
            for descriptor in choose(document, wanted):
                if descriptor.digest not in found:
                    visit(load(descriptor), depth + 1)
        found[document.digest] = document

    visit(root, 0)
    return Graph(root, tuple(found.values()))


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
