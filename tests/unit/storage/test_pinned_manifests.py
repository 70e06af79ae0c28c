"""Manifests that are kept by their digests, and are the names of nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from transferkit.content.digest import Digest
from transferkit.names import Name
from transferkit.storage.cache import DiskCache

NAME = Name("h.example", "team", "model", "latest")
RAW = b'{"layers": []}'


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_one_is_found_by_repository_and_digest_until_it_is_removed(tmp_path: Path, algorithm: str) -> None:
    digest = Digest(f"{algorithm}:{hashlib.new(algorithm, RAW).hexdigest()}")
    with DiskCache(tmp_path) as cache:
        kept = cache.pinned_manifests
        kept.add(NAME, digest, RAW)
        assert [RAW] == list(kept.contents())
        assert RAW == kept.find(Name("h.example", "team", "model", "other"), digest)
        assert None is kept.find(Name("h.example", "team", "mole", "latest"), digest)
        assert None is kept.find(Name(), digest)
        assert [] == cache.links()
        assert [True, False] == [kept.remove(NAME, digest), kept.remove(NAME, digest)]
        assert [] == list(kept.contents())


def test_what_it_names_is_kept_from_collection(tmp_path: Path) -> None:
    with DiskCache(tmp_path) as cache:
        blob, other = cache.put(b"hello"), cache.put(b"world")
        raw = b'{"layers": [{"digest": "%s", "size": 5}]}' % blob.digest.encode()
        cache.pinned_manifests.add(NAME, Digest.of(raw), raw)
        assert [other.digest] == [entry.digest for entry in cache.gc(grace=0)]
