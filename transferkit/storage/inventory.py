"""Which models a store has: their sizes, when they came, and whether they are whole. Sends no request."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.manifest import Manifest, parse
from transferkit.errors import BlobNotFoundError, InvalidManifestError, ManifestNotFoundError, StorageError
from transferkit.names import Name
from transferkit.storage.cache import DiskCache
from transferkit.storage.garbage import reachable
from transferkit.storage.verifying import entries


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """One model of a store. Sizes in bytes.

    ``stored`` bytes of it are here, in blobs that other models may share; ``missing`` are those of its blobs that are
    not. ``time`` (Unix time) is when its name was linked.
    """

    name: Name
    digest: Digest
    media_type: str
    stored: int
    missing: tuple[Descriptor, ...]
    time: float


def inventory(cache: DiskCache, names: Iterable[Name] | None = None) -> list[StoredModel]:
    """Return the models of a store, and of those below it, or some of them, the newest first.

    Of several names that are asked for each has to be there; of all, one whose manifest is malformed is left out.

    Raises:
        ManifestNotFoundError, InvalidManifestError: a name that was asked for has no manifest, or a malformed one.
        StorageError: the folder of blobs, or that of names, cannot be read.
    """
    sizes = {entry.digest: entry.size for folder in cache.directories for entry in entries(folder)}
    found: list[StoredModel] = []
    for name in cache.links() if names is None else names:
        try:
            found.append(_look(cache, name, sizes))
        except (InvalidManifestError, ManifestNotFoundError, StorageError):
            if names is not None:
                raise
    return sorted(found, key=lambda model: -model.time)


def _look(cache: DiskCache, name: Name, sizes: dict[Digest, int]) -> StoredModel:
    raw = cache.manifest(name)
    document = parse(raw)

    def read(digest: Digest) -> bytes:
        with suppress(BlobNotFoundError):
            return cache.read(digest)
        return b""

    blobs = document.blobs if isinstance(document, Manifest) else ()
    return StoredModel(
        name=name,
        digest=document.digest,
        media_type=document.media_type,
        stored=sum(sizes.get(digest, 0) for digest in reachable([raw], read)),
        missing=tuple(blob for blob in dict.fromkeys(blobs) if blob.digest not in sizes),
        time=cache.linked_at(name),
    )
