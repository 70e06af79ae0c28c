"""What the cache alone says of a name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from transferkit.errors import IncompleteError, ManifestNotFoundError
from transferkit.names import Reference
from transferkit.registry import local
from transferkit.storage.cache import DiskCache

HELLO = {"digest": "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", "size": 5}
RAW = json.dumps({"layers": [HELLO]}).encode()
DIGEST = f"sha256:{hashlib.sha256(RAW).hexdigest()}"
OTHER = f"sha256:{64 * 'a'}"


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[DiskCache]:
    with_name = DiskCache(tmp_path)
    with_name.link("m:v1", RAW)
    yield with_name
    with_name.close()


@pytest.mark.parametrize("name", ["m:v1", "M:V1", f"m:v1@{DIGEST}", f"m:v2@{DIGEST}", f"@{DIGEST}"])
def test_names_and_digests_are_found(cache: DiskCache, name: str) -> None:
    assert local.resolve(cache, Reference.parse(name)).raw == RAW


@pytest.mark.parametrize("name", ["m:v2", "other:v1", f"m:v1@{OTHER}", f"@{OTHER}"])
def test_what_is_not_there_is_not_found(cache: DiskCache, name: str) -> None:
    with pytest.raises(ManifestNotFoundError, match=r'model ".*" not found in '):
        local.resolve(cache, Reference.parse(name))


def test_a_digest_of_another_algorithm_is_compared(cache: DiskCache) -> None:
    longer = f"sha512:{hashlib.sha512(RAW).hexdigest()}"
    assert local.resolve(cache, Reference.parse(f"m:v1@{longer}")).raw == RAW


def test_an_index_without_its_manifests_says_how_to_get_them(cache: DiskCache) -> None:
    entry = {"digest": OTHER, "size": 5, "platform": {"os": "linux", "architecture": "arm64"}}
    cache.link("i", json.dumps({"manifests": [entry]}).encode())
    root = local.resolve(cache, Reference.parse("i"))
    with pytest.raises(ManifestNotFoundError, match=r'the manifest for linux/arm64 of an index .* platform="all"'):
        local.graph_of(cache, root, "all")


def test_what_is_missing_is_listed(cache: DiskCache) -> None:
    graph = local.graph_of(cache, local.resolve(cache, Reference.parse("m:v1")), "all")
    with pytest.raises(
        IncompleteError, match=r"m:v1 is incomplete: 5 bytes are missing, of sha256:2cf24dba5fb0"
    ) as caught:
        local.check_complete(cache, graph.blobs, "m:v1")
    assert list(caught.value.failures) == [HELLO["digest"]]
    cache.put(b"hello")
    local.check_complete(cache, graph.blobs, "m:v1")
