"""What a store has of each model: bytes that are here, and blobs that are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from transferkit.errors import InvalidManifestError
from transferkit.names import Name
from transferkit.storage.cache import DiskCache
from transferkit.storage.inventory import inventory


def manifest(*sizes: tuple[str, int]) -> bytes:
    layers = [{"mediaType": "a/b", "digest": digest, "size": size} for digest, size in sizes]
    return json.dumps({"schemaVersion": 2, "layers": layers}).encode()


def test_models_are_told_apart_by_what_of_them_is_here(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    here, gone = cache.put(b"weights"), f"sha256:{64 * '1'}"
    whole, half = manifest((here.digest, 7)), manifest((here.digest, 7), (gone, 9))
    cache.link("whole", whole)
    cache.link("half", half)
    found = {model.name.model: model for model in inventory(cache)}
    assert (7 + len(whole), ()) == (found["whole"].stored, found["whole"].missing)
    assert (7 + len(half), [gone]) == (found["half"].stored, [blob.digest for blob in found["half"].missing])


def test_a_malformed_manifest_hides_no_other_one_and_is_said_where_it_was_asked_for(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    cache.link("good", manifest())
    cache.link("bad", b"{")
    assert ["good"] == [model.name.model for model in inventory(cache)]
    with pytest.raises(InvalidManifestError):
        inventory(cache, [Name("registry.ollama.ai", "library", "bad", "latest")])


def test_models_of_a_shared_store_are_there_too(tmp_path: Path) -> None:
    below = DiskCache(tmp_path / "below")
    blob = below.put(b"weights")
    below.link("model", manifest((blob.digest, 7)))
    (model,) = inventory(DiskCache(tmp_path / "above", shared=[below]))
    assert ("model", ()) == (model.name.model, model.missing)
