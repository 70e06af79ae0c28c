"""A cache under the registry client: what a repair fetches, a pull that is killed anywhere, and what others need."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import transferkit as tk
from tests.unit.storage.models import HOUR, ReadOnlyDisk, digest_of, manifest_of
from tests.unit.storage.suite import FailingDisk
from transferkit.registry import Registry
from transferkit.server import OCIRegistry
from transferkit.storage.cache import DiskCache
from transferkit.testing.registry import RunningRegistry, running_registry

MIB = 1024 * 1024
CHUNK = 256 * 1024
LARGE = random.Random(11).randbytes(4 * MIB)
CONFIG, SMALL = b'{"model_format":"gguf"}', b"MIT"
RAW = manifest_of(CONFIG, LARGE, SMALL)
OPTIONS = tk.TransferOptions(
    chunk_threshold=MIB,
    chunk_size=CHUNK,
    resume_threshold=MIB,
    concurrency=4,
    retry=tk.RetryOptions(attempts=2, patience=0.0, max_wait=0.01),
)


@pytest.fixture(scope="module", params=[True, False], ids=["chunksums", "plain"])
def served(request, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """A registry with a model, with and without the digests of its chunks."""
    folder = tmp_path_factory.mktemp("served")

    def middleware(_app):
        return OCIRegistry(folder / "store", chunksums=request.param, chunk_size=CHUNK)

    with running_registry(folder / "store", middleware=middleware) as registry:
        blobs = []
        for data in (CONFIG, LARGE, SMALL):
            (folder / digest_of(data).file_name).write_bytes(data)
            blobs.append(tk.Blob(digest_of(data), len(data)))
        where = {"base_url": registry.url, "repository": "library/model"}
        tk.upload(blobs, folder, manifest=RAW, manifest_ref="v1", **where)
        name = f"{registry.url.removeprefix('http://')}/library/model:v1"
        yield SimpleNamespace(registry=registry, name=name, has_digests=request.param)


def opened(root: Path, disk=None, **options) -> Registry:
    return Registry(cache=DiskCache(root, resume_threshold=MIB, disk=disk, **options), options=OPTIONS)


def sent(registry: RunningRegistry, data: bytes) -> int:
    """Return how many bytes of a blob the registry has sent."""
    path = f"blobs/{digest_of(data)}"
    return sum(request.sent for request in registry.log if request.path.endswith(path) and request.method == "GET")


def assert_whole(root: Path) -> None:
    for data in (CONFIG, LARGE, SMALL, RAW):
        assert data == (root / "blobs" / digest_of(data).file_name).read_bytes()
    (manifest,) = [path for path in (root / "manifests").rglob("*") if path.is_file()]
    assert RAW == manifest.read_bytes()


def damage(cache: DiskCache, data: bytes, *positions: int) -> None:
    with open(cache.path(digest_of(data)), "r+b") as file:
        for position in positions:
            file.seek(position)
            file.write(b"damaged")


def test_a_repair_fetches_the_wrong_chunks_alone_where_their_digests_are_to_be_had(served, tmp_path):
    with opened(tmp_path) as registry:
        registry.pull(served.name)
        damage(registry.cache, LARGE, 5, 9 * CHUNK + 77)
        served.registry.log.clear()
        assert [digest_of(LARGE)] == registry.repair(served.name)
        assert_whole(tmp_path)
        assert (2 * CHUNK if served.has_digests else len(LARGE)) == sent(served.registry, LARGE)
        assert 0 == sent(served.registry, SMALL)
        served.registry.log.clear()
        assert [] == registry.repair(served.name)
        assert 0 == sum(sent(served.registry, data) for data in (LARGE, SMALL, CONFIG))


def test_a_repair_fetches_what_is_wrong_small_or_missing(served, tmp_path):
    with opened(tmp_path) as registry:
        registry.pull(served.name)
        damage(registry.cache, SMALL, 0)
        os.unlink(registry.cache.path(digest_of(CONFIG)))
        assert {digest_of(SMALL), digest_of(CONFIG)} == set(registry.repair())
        assert_whole(tmp_path)


def test_a_pull_after_a_verify_fetches_what_was_found_wrong(served, tmp_path):
    with opened(tmp_path) as registry:
        registry.pull(served.name)
        damage(registry.cache, SMALL, 0)
        (wrong,) = registry.cache.verify()
        assert digest_of(SMALL) == wrong.digest
        registry.pull(served.name)
        registry.cache.take_away(tk.Descriptor(wrong.digest, 3))
        registry.pull(served.name)
        assert_whole(tmp_path)


def test_a_pull_that_is_killed_at_any_call_is_completed_by_the_next(served, tmp_path):
    counting = FailingDisk(lambda *_: False)
    with opened(tmp_path / "count", counting) as registry:
        registry.pull(served.name)
    calls = sum(counting.counts.values())
    step = 1 if os.environ.get("TRANSFERKIT_TEST_FULL") == "1" else 25
    for crash in range(random.randint(1, step), calls, step):
        root = tmp_path / str(crash)
        disk = FailingDisk(lambda _, __, count, crash=crash: count >= crash)
        try:
            with opened(root, disk) as registry:
                registry.pull(served.name)
        except tk.TransferKitError:
            pass
        for path in (root / "manifests").rglob("*"):
            if path.is_file():
                assert_whole(root)
        for path in (root / "blobs").glob("sha256-*"):
            assert path.name == digest_of(path.read_bytes()).file_name
        with opened(root, durable=False) as registry:
            registry.pull(served.name)
        assert_whole(root)


def test_what_a_running_pull_has_is_not_collected(served, tmp_path):
    """Everything in the store is older than the grace, and another process collects at every tick of the pull."""
    with opened(tmp_path) as registry:
        registry.pull(served.name)
        registry.cache.unlink(served.name)
        os.unlink(registry.cache.path(digest_of(LARGE)))
        other = DiskCache(tmp_path)
        removed = []

        def collect(*_: int) -> None:
            removed.extend(other.gc(grace=-HOUR))

        assert {digest_of(CONFIG), digest_of(SMALL), digest_of(RAW)} == {
            entry.digest for entry in other.gc(grace=-HOUR, dry_run=True)
        }
        registry.pull(served.name, progress=collect)
        assert [] == removed
        assert_whole(tmp_path)
        assert [] == other.gc(grace=-HOUR)


def test_what_a_running_push_has_is_not_collected(served, tmp_path):
    with opened(tmp_path) as registry:
        registry.pull(served.name)
        removed = []

        def collect(*_: int) -> None:
            registry.cache.unlink(served.name)
            removed.extend(DiskCache(tmp_path).gc(grace=-HOUR))

        target = served.name.replace(":v1", "-pushed:v1")
        assert RAW == registry.push(target, source=served.name, progress=collect).raw
        assert [] == removed
        assert 4 == len(registry.cache.gc(grace=-HOUR))


def test_a_pull_beside_an_ollama_that_prunes_succeeds(served, tmp_path):
    pruned = []

    def prune(*_: int) -> None:
        if len(pruned) < 2 and (tmp_path / "blobs").exists():
            pruned.append(shutil.rmtree(tmp_path / "blobs/.partial", ignore_errors=True))

    options = dataclasses.replace(OPTIONS, progress_interval=0.01, max_bandwidth=40e6)
    with Registry(cache=tmp_path, options=options) as registry:
        registry.pull(served.name, progress=prune)
    assert 2 == len(pruned)
    assert_whole(tmp_path)


def test_what_is_smaller_than_a_store_continues_comes_in_one_piece(served, tmp_path):
    """However small the chunks are that the options ask for."""
    with Registry(cache=DiskCache(tmp_path / "cache"), options=OPTIONS) as registry:
        registry.pull(served.name)
        with tk.OCILayout(tmp_path / "layout") as layout:
            registry.copy(served.name, layout.at("v1"))
    assert_whole(tmp_path / "cache")


@pytest.mark.parametrize("kind", ["cache", "layout"])
def test_a_disk_that_is_full_ends_a_pull_at_once(served, tmp_path, kind):
    disk = FailingDisk(lambda name, count, _: name == "pwrite" and count > 3, errno.ENOSPC)
    with opened(tmp_path / "cache", disk if kind == "cache" else None) as registry:
        layout = tk.OCILayout(tmp_path / "layout", resume_threshold=MIB, disk=disk)
        with pytest.raises(tk.OutOfSpaceError):
            registry.pull(served.name) if kind == "cache" else registry.copy(served.name, layout.at("v1"))


@pytest.mark.parametrize("kind", ["cache", "layout"])
def test_progress_begins_with_what_an_earlier_pull_has_left(served, tmp_path, kind):
    options = dataclasses.replace(OPTIONS, progress_interval=0.001, max_bandwidth=20e6)
    layout = tk.OCILayout(tmp_path / "layout", resume_threshold=MIB)

    def run(progress, cancel=None):
        with Registry(cache=tmp_path / "cache", options=options) as registry:
            if kind == "cache":
                return registry.pull(served.name, progress=progress, cancel=cancel)
            return registry.copy(served.name, layout.at("v1"), progress=progress, cancel=cancel)

    cancel, figures = tk.Cancellation(), []
    with pytest.raises(tk.CancelledError):
        run(lambda completed, _: completed > MIB and cancel.cancel("enough"), cancel)
    run(lambda completed, total: figures.append(completed))
    assert figures[0] >= MIB
    assert figures[-1] == len(LARGE) + len(CONFIG) + len(SMALL)


def test_a_pull_into_a_store_that_can_only_be_read_and_has_everything_succeeds(served, tmp_path):
    with opened(tmp_path) as registry:
        registry.pull(served.name)
    with opened(tmp_path, ReadOnlyDisk()) as registry:
        assert RAW == registry.pull(served.name).raw
    with opened(tmp_path / "own", shared=[tmp_path]) as registry:
        served.registry.log.clear()
        assert RAW == registry.pull(served.name).raw
        assert 0 == sum(sent(served.registry, data) for data in (LARGE, SMALL, CONFIG))
        assert [tmp_path / "blobs" / digest_of(LARGE).file_name] == [Path(registry.cache.path(digest_of(LARGE)))]
        assert RAW == registry.resolve_local(served.name).raw


def test_so_does_one_into_a_store_of_somebody_elses_who_has_noted_nothing(served, tmp_path):
    """A model that was baked into an image, or Ollama's own store, mounted to be read."""
    with opened(tmp_path) as registry:
        registry.pull(served.name)
    shutil.rmtree(tmp_path / "blobs" / ".partial")
    with opened(tmp_path, ReadOnlyDisk()) as registry:
        assert RAW == registry.pull(served.name).raw
    path = tmp_path / "blobs" / digest_of(RAW).file_name
    path.write_bytes(RAW[:-1] + b" ")
    with opened(tmp_path, ReadOnlyDisk()) as registry, pytest.raises(tk.StorageError):
        registry.pull(served.name)


def test_a_layout_is_a_target_and_a_source_as_a_folder_and_as_a_tar_file(served, tmp_path):
    with opened(tmp_path / "cache") as registry:
        for target in ("folder", "x.tar"):
            with tk.OCILayout(tmp_path / target, resume_threshold=MIB) as layout:
                assert RAW == registry.copy(served.name, layout.at("v1")).raw
            layout = tk.OCILayout(tmp_path / target)
            assert ["v1"] == layout.tags()
            assert RAW == layout.document("v1").raw
            name = served.name.replace(":v1", f"-{target.removesuffix('.tar')}:v2")
            registry.copy(layout.at("v1"), name)
            assert RAW == registry.resolve(name).raw
            assert json.loads(RAW) == registry.resolve(name).json()
