"""What the cache alone knows of a name: no request is sent from here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.graph import Document, Graph, collect
from transferkit.content.manifest import parse
from transferkit.errors import BlobNotFoundError, IncompleteError, ManifestNotFoundError, TransferKitError
from transferkit.names import Reference
from transferkit.registry.pulling import linked
from transferkit.storage.cache import DiskCache

OFFLINE = "this is offline (TRANSFERKIT_OFFLINE, or offline=True), and no registry was asked"


def resolve(cache: DiskCache, reference: Reference, *, offline: bool = False) -> Document:
    """Return what a reference stands for. ManifestNotFoundError: it is not in the cache; nobody else is asked, because
    the caller wants that, or as all is ``offline``."""
    try:
        return _resolve(cache, reference)
    except ManifestNotFoundError as error:
        if offline:
            raise ManifestNotFoundError(f"{error}; {OFFLINE}: pull it once while there is a network") from error
        advice = "" if str(error).endswith("pull it again") else "; pull it first"
        raise ManifestNotFoundError(f"{error}{advice}") from error


def _resolve(cache: DiskCache, reference: Reference) -> Document:
    if reference.digest is None:
        return parse(cache.manifest(reference.name))
    for raw in (linked(cache, reference.name), cache.pinned_manifests.find(reference.name, reference.digest)):
        if raw is not None and Digest.of(raw, reference.digest.algorithm) == reference.digest:
            return parse(raw)
    try:
        return parse(cache.read(reference.digest))
    except LookupError as error:
        raise ManifestNotFoundError(f'model "{reference}" not found in {cache.root}') from error


def graph_of(cache: DiskCache, root: Document, wanted: str) -> Graph:
    """Return what a document leads to. ManifestNotFoundError: a manifest of it is not in the cache."""
    return collect(root, loader(cache), wanted)


def loader(cache: DiskCache) -> Callable[[Descriptor], Document]:
    """Return what loads the documents of an index from the cache."""

    def load(descriptor: Descriptor) -> Document:
        try:
            return parse(cache.read(descriptor.digest))
        except BlobNotFoundError as error:
            what = f"the manifest for {descriptor.platform}" if descriptor.platform else "a manifest"
            text = f'{what} of an index is not in the cache: {error}; pull it with platform="all"'
            raise ManifestNotFoundError(text) from error

    return load


def check_complete(cache: DiskCache, blobs: Sequence[Descriptor], name: str) -> None:
    """Raise IncompleteError, with each blob that is missing, where some of a model are not in the cache."""
    missing = cache.missing(blobs)
    if missing:
        failures: dict[str, TransferKitError] = {
            blob.digest: BlobNotFoundError(f"{blob.digest} is not in {cache.root}") for blob in missing
        }
        listed = ", ".join(blob.digest.short for blob in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        size = sum(blob.size for blob in missing)
        raise IncompleteError(f"{name} is incomplete: {size} bytes are missing, of {listed}{more}", failures=failures)
