"""Which files of a model have tensors, and what is said where none can be read."""

from __future__ import annotations

import hashlib

import pytest

from transferkit.content.descriptor import Descriptor
from transferkit.errors import InvalidModelError
from transferkit.models.values import Contents, Entry, Packing
from transferkit.names import Reference
from transferkit.registry import opening

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
    assert ["a.safetensors", "b/C.SafeTensors"] == [
        file.path for file in opening._tensor_files(found, NAME, None, None)
    ]
    chosen = opening._tensor_files(found, NAME, lambda path: path.startswith("b/"), None)
    assert ["b/C.SafeTensors"] == [file.path for file in chosen]


def test_what_is_packed_is_no_file_yet() -> None:
    packed = contents(entry("", Packing.TAR), entry("model.safetensors", Packing.TAR_GZIP))
    with pytest.raises(
        InvalidModelError, match=r"has no \.safetensors files; it has application/x, model\.safetensors; what"
    ):
        opening._tensor_files(packed, NAME, None, None)
    both = contents(entry("w.safetensors"), entry("rest", Packing.TAR))
    assert ["w.safetensors"] == [file.path for file in opening._tensor_files(both, NAME, None, None)]
