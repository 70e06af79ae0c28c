"""What of a model is to be fetched again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from transferkit.content.digest import Digest
from transferkit.content.manifest import parse
from transferkit.errors import ManifestNotFoundError
from transferkit.names import Reference
from transferkit.registry import repairing
from transferkit.registry.job import Job
from transferkit.storage.cache import DiskCache

NAME = Reference.parse("h:1/n/m:t")


def digest_of(content: bytes) -> Digest:
    return Digest(f"sha256:{hashlib.sha256(content).hexdigest()}")


def manifest(*contents: bytes) -> bytes:
    layers = [{"digest": digest_of(content), "size": len(content)} for content in contents]
    return json.dumps({"layers": layers}).encode()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[DiskCache]:
    with DiskCache(tmp_path) as cache:
        yield cache


def never() -> AbstractContextManager[Job]:
    raise AssertionError("a job was begun")


def test_what_is_whole_needs_no_job(cache: DiskCache) -> None:
    cache.put(b"hello")
    cache.link(NAME.name, manifest(b"hello"))
    assert repairing.repair(cache, NAME, set(), never) == []


def test_what_belongs_to_another_model_is_left_to_that(cache: DiskCache) -> None:
    cache.put(b"hello")
    cache.link(NAME.name, manifest(b"hello"))
    assert repairing.repair(cache, NAME, {digest_of(b"other")}, never) == []


@pytest.mark.parametrize("change", ["missing", "bad", "manifest"])
def test_what_is_wrong_needs_one(cache: DiskCache, change: str) -> None:
    if change != "missing":
        cache.put(b"hello")
    cache.link(NAME.name, manifest(b"hello"))
    bad = {"missing": set(), "bad": {digest_of(b"hello")}, "manifest": {digest_of(manifest(b"hello"))}}[change]
    with pytest.raises(AssertionError, match="a job was begun"):
        repairing.repair(cache, NAME, bad, never)


def test_a_name_that_is_not_there_is_not_made_up(cache: DiskCache) -> None:
    with pytest.raises(ManifestNotFoundError):
        repairing.repair(cache, NAME, set(), never)


def test_of_an_index_what_is_not_here_is_not_missed(cache: DiskCache) -> None:
    mine, theirs = manifest(b"hello"), manifest(b"other")
    entries = [{"digest": digest_of(raw), "size": len(raw)} for raw in (mine, theirs)]
    index = json.dumps({"manifests": entries}).encode()
    cache.put(b"hello")
    cache.put(mine)
    cache.link(NAME.name, index)
    assert repairing.repair(cache, NAME, set(), never) == []
    fetched: list[Digest] = []
    graph = repairing._here(cache, parse(index), {digest_of(theirs)}, fetched.append)
    assert ([each.raw for each in graph.documents], fetched) == ([mine, index], [digest_of(theirs)])
