"""Which files of a model have tensors, and what is said where none can be read."""

from __future__ import annotations

import hashlib

import pytest

from transferkit.content.descriptor import Descriptor
from transferkit.errors import BlobNotFoundError, InvalidManifestError, InvalidModelError
from transferkit.models.values import Contents, Entry, Packing
from transferkit.names import Reference
from transferkit.registry import opening
from transferkit.storage.cache import DiskCache

NAME = Reference.parse("h:1/n/m:t")


def entry(path: str, packing: Packing = Packing.NONE) -> Entry:
    digest = f"sha256:{hashlib.sha256(path.encode()).hexdigest()}"
    return Entry(path=path, descriptor=Descriptor(digest, 5, media_type="application/x"), packing=packing)


def contents(*entries: Entry) -> Contents:
    return Contents("oras", entries)


def test_files_are_found_by_their_ending() -> None:
    found = contents(
        entry("a.safetensors"), entry("a.safetensors.index.json"), entry("b/C.SafeTensors"), entry("c.bin")
    )
    assert ["a.safetensors", "b/C.SafeTensors"] == [file.path for file in opening._tensor_files(found, NAME, None)]
    chosen = opening._tensor_files(found, NAME, lambda path: path.startswith("b/"))
    assert ["b/C.SafeTensors"] == [file.path for file in chosen]


def test_what_is_packed_is_no_file_yet() -> None:
    packed = contents(entry("", Packing.TAR), entry("model.safetensors", Packing.TAR_GZIP))
    with pytest.raises(
        InvalidModelError, match=r"has no \.safetensors files; it has application/x, model\.safetensors; what"
    ):
        opening._tensor_files(packed, NAME, None)
    both = contents(entry("w.safetensors"), entry("rest", Packing.TAR))
    assert ["w.safetensors"] == [file.path for file in opening._tensor_files(both, NAME, None)]


def test_a_config_of_the_cache_is_read_there(tmp_path) -> None:
    cache = DiskCache(tmp_path)
    config = cache.put(b'{"a":1}')
    assert b'{"a":1}' == opening._read_config(None, cache, config, None)  # type: ignore[arg-type]


def test_a_config_that_is_nowhere_or_too_long_is_refused(tmp_path) -> None:
    cache, digest = DiskCache(tmp_path), f"sha256:{64 * 'a'}"
    with pytest.raises(BlobNotFoundError, match="offline"):
        opening._read_config(None, cache, Descriptor(digest, 5), None)  # type: ignore[arg-type]
    with pytest.raises(InvalidManifestError, match="4194304 are read"):
        opening._read_config(None, cache, Descriptor(digest, 2**40), object())  # type: ignore[arg-type]
