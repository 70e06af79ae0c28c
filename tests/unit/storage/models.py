"""Models for the tests of stores: small blobs and their manifest, and a disk that can only be read."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from typing import Any

from transferkit.content.digest import Digest
from transferkit.storage.cache import DiskCache
from transferkit.storage.disk import Disk

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
MODEL = "application/vnd.ollama.image.model"
HOUR = 3600.0


def digest_of(data: bytes) -> Digest:
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


def manifest_of(*contents: bytes) -> bytes:
    """Return a manifest as Ollama writes it; the first content is the config."""
    described = [
        {"mediaType": MODEL if number else CONFIG, "digest": digest_of(data), "size": len(data)}
        for number, data in enumerate(contents)
    ]
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described[0], "layers": described[1:]}
    return json.dumps(document).encode()


def index_of(*manifests: bytes) -> bytes:
    described = [{"mediaType": MANIFEST, "digest": digest_of(raw), "size": len(raw)} for raw in manifests]
    return json.dumps({"schemaVersion": 2, "manifests": described}).encode()


def add(cache: DiskCache, name: str, *contents: bytes) -> bytes:
    """Store a model, as a pull does it, and return its manifest."""
    raw = manifest_of(*contents)
    with cache.pinned([digest_of(data) for data in (*contents, raw)]):
        for data in contents:
            cache.put(data)
        cache.link(name, raw)
    return raw


class ReadOnlyDisk(Disk):
    """What a file system that is mounted read-only lets through."""

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    create = reopen = open_lock = open_append = append = write_holder = pwrite = unlink = rename = set_mode = _refuse
    make_folder_in = remove_folder = _refuse

    def make_folder(self, path: str) -> None:
        if not os.path.isdir(path):
            self._refuse()
