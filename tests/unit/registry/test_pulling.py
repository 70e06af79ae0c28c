"""What of a pull is done in the cache alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from transferkit.content.manifest import parse
from transferkit.names import Name
from transferkit.registry import pulling
from transferkit.storage.cache import DiskCache

RAW = b'{"layers": []}'
DIGEST = f"sha256:{hashlib.sha256(RAW).hexdigest()}"


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[DiskCache]:
    with DiskCache(tmp_path) as cache:
        yield cache


def test_a_document_is_kept_by_its_digest_and_written_once(cache: DiskCache) -> None:
    pulling.keep(cache, parse(RAW))
    path = Path(cache.path(DIGEST))
    before = path.stat()
    pulling.keep(cache, parse(RAW))
    assert (path.read_bytes(), path.stat().st_ino) == (RAW, before.st_ino)


def test_a_document_that_was_damaged_is_written_again(cache: DiskCache) -> None:
    pulling.keep(cache, parse(RAW))
    path = Path(cache.path(DIGEST))
    path.write_bytes(RAW[::-1])
    pulling.keep(cache, parse(RAW))
    assert path.read_bytes() == RAW


def test_what_a_name_stands_for(cache: DiskCache) -> None:
    name = Name("h", "n", "m", "t")
    assert (pulling.linked(cache, name), pulling.linked(cache, Name())) == (None, None)
    cache.link(name, RAW)
    assert pulling.linked(cache, name) == RAW
