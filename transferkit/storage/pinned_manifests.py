"""Manifests that are kept by their digests, under no tag: ``pinned/<host>/<namespace>/<model>/sha256-<hex>``.

A snapshot that was asked for as ``name@sha256:...`` has one: it keeps the snapshot, and the blobs, as a name does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from transferkit.content.digest import Digest
from transferkit.errors import ManifestNotFoundError
from transferkit.names import Name
from transferkit.storage.directory import Directory
from transferkit.storage.links import Links

_DIGITS = 64  # of a digest in a file's name: no name of a manifest has room for all of a SHA-512


class PinnedManifests:
    """Those of one store. Thread-safe, and safe next to other processes."""

    def __init__(self, root: str, blobs: Directory, *, durable: bool) -> None:
        self._links = Links(root, blobs.disk, "pinned")
        self._blobs = blobs
        self._durable = durable

    def add(self, name: Name, digest: Digest, raw: bytes) -> None:
        """Keep a manifest of the repository of ``name``. StorageError: the disk refused."""
        self._links.write(_pinned(name, digest), raw, self._blobs.open_unfinished, durable=self._durable)

    def find(self, name: Name, digest: Digest) -> bytes | None:
        """Return what is kept under a digest, if something is. StorageError: it cannot be read."""
        with suppress(ManifestNotFoundError):
            return self._links.read(_pinned(name, digest)) if name.model else None
        return None

    def remove(self, name: Name, digest: Digest) -> bool:
        """Keep a manifest no more; ``False``: it was not kept."""
        return self._links.remove(_pinned(name, digest), durable=self._durable)

    def contents(self) -> Iterator[bytes]:
        """Yield what is in each file, be it a manifest or not. StorageError: something cannot be read."""
        return self._links.contents()


def _pinned(name: Name, digest: Digest) -> Name:
    return replace(name, tag=f"{digest.algorithm}-{digest.hex[:_DIGITS]}")
