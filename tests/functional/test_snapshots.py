"""Snapshots: a folder in the cache, complete and read-only, made once however many processes ask for it."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import transferkit as tk
from tests.functional.folders import FILES, WHERE, contents, image_of, model_of, name_in, tar_of
from tests.functional.models import OCI_INDEX, Model, Still, client, digest_of, index_of, links, put_manifest
from tests.unit.storage.models import HOUR
from transferkit.storage.disk import Disk
from transferkit.testing import running_registry

CHILD = """
import logging, sys, transferkit as tk
logging.basicConfig(level=logging.WARNING)
with tk.Registry(cache=sys.argv[2]) as registry:
    print("ready", flush=True)
    print(registry.snapshot(sys.argv[1]), flush=True)
"""


@pytest.fixture
def model(registry):
    return model_of(FILES).put(registry.url, WHERE)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_snapshot_is_complete_and_read_only_and_costs_one_request_the_next_time(registry, model, tmp_path):
    with client(tmp_path / "c") as registries:
        path = registries.snapshot(name_in(registry))
        assert tmp_path / "c" / "snapshots" / model.digest.replace(":", "-") == path
        assert FILES == contents(path)
        assert sorted(["config.json", "deep", "model.safetensors"]) == sorted(os.listdir(path))
        assert {0} == {mode(each) & 0o222 for each in (path, *path.rglob("*"))}
        assert ["v1"] == [os.path.basename(link) for link in links(tmp_path / "c")]
        assert [".partial"] == [each for each in os.listdir(path.parent) if each != path.name]
        assert [] == os.listdir(path.parent / ".partial")
        registry.log.clear()
        before = path.stat().st_mtime_ns
        assert path == registries.snapshot(f"oci://{name_in(registry).removeprefix('http://')}")
        gets = [each.path for each in registry.log if "/v2/team" in each.path]
        assert ([f"/v2/{WHERE}/manifests/v1"], before) == (gets, path.stat().st_mtime_ns)


def test_offline_it_is_what_there_is(registry, model, tmp_path):
    with client(tmp_path / "c") as registries:
        path = registries.snapshot(name_in(registry))
        registries.pull(name_in(registry), to=tmp_path / "out")
    with client(tmp_path / "d") as registries:
        registries.pull(name_in(registry))
    registry.log.clear()
    with client(tmp_path / "c", offline=True) as offline:
        assert path == offline.snapshot(name_in(registry))
        with pytest.raises(tk.ManifestNotFoundError):
            offline.snapshot(name_in(registry, "v2"))
    with client(tmp_path / "d", offline=True) as offline:  # the blobs are here: it can be made
        assert FILES == contents(offline.snapshot(name_in(registry)))
        offline.cache.take_away(tk.Descriptor(digest_of(b"hello"), 5))
        assert FILES == contents(offline.snapshot(name_in(registry)))
    assert 0 == len(registry.log)


def test_a_new_version_is_another_folder(registry, model, tmp_path):
    with client(tmp_path / "c") as registries:
        old = registries.snapshot(name_in(registry))
        model_of({"config.json": b"{new}"}).put(registry.url, WHERE)
        new = registries.snapshot(name_in(registry))
        assert (FILES, {"config.json": b"{new}"}) == (contents(old), contents(new))
        assert old == registries.snapshot(f"{name_in(registry)}@{model.digest}")


def test_what_is_asked_for_by_digest_takes_no_tag(registry, model, tmp_path):
    pinned = f"{name_in(registry).removesuffix(':v1')}@{model.digest}"
    model_of({"config.json": b"{new}"}).put(registry.url, WHERE, "latest")
    with client(tmp_path / "c") as registries:
        latest = registries.snapshot(name_in(registry, "latest"))
        assert FILES == contents(registries.snapshot(pinned))
        registries.pull(pinned)
        registries.pull(pinned, to=tmp_path / "out")
        assert ["latest"] == [os.path.basename(link) for link in links(tmp_path / "c")]
        registries.pull(f"{name_in(registry)}@{model.digest}")  # a tag that somebody has written
        assert ["latest", "v1"] == sorted(os.path.basename(link) for link in links(tmp_path / "c"))
    with client(tmp_path / "c", offline=True) as offline:
        assert latest == offline.snapshot(name_in(registry, "latest"))


def test_gc_keeps_each_snapshot_that_was_asked_for_by_its_digest_until_that_is_unlinked(registry, model, tmp_path):
    other = model_of({"config.json": b"{new}"}).put(registry.url, WHERE, "latest")
    names = [f"{name_in(registry).removesuffix(':v1')}@{digest}" for digest in (model.digest, other.digest)]
    with client(tmp_path / "c") as registries:
        paths = [registries.snapshot(name) for name in names]
        assert [] == registries.cache.gc(grace=0)
        registry.log.clear()
        assert paths == [registries.snapshot(name) for name in names]
        assert 2 == len(registry.log)
    with client(tmp_path / "c", offline=True) as offline:
        Path(offline.cache.path(tk.Digest(model.digest))).unlink()  # as Ollama does that prunes its store
        assert paths == [offline.snapshot(name) for name in names]
        assert (True, False) == (offline.unlink(names[0]), offline.unlink(names[0]))
        offline.cache.gc(grace=0)
        assert [False, True] == [path.exists() for path in paths]


def test_a_pull_by_digest_is_kept_for_a_grace(registry, model, tmp_path):
    with client(tmp_path / "c") as registries:
        registries.pull(f"{name_in(registry).removesuffix(':v1')}@{model.digest}")
        assert [] == registries.cache.gc()
        assert len(FILES) + 2 == len(registries.cache.gc(grace=0))


def test_two_names_of_one_manifest_have_one_folder(registry, tmp_path):
    model_of(FILES).put(registry.url, WHERE, "v1", "latest")
    with client(tmp_path / "c") as registries:
        assert registries.snapshot(name_in(registry)) == registries.snapshot(name_in(registry, "latest"))
    assert 2 == len(links(tmp_path / "c"))


def test_files_of_a_tar_layer_are_unpacked(registry, tmp_path):
    image_of(tar_of({"models/a": b"a", "models/b/c": b"c"}, zipped=True)).put(registry.url, WHERE)
    with client(tmp_path / "c") as registries:
        path = registries.snapshot(name_in(registry))
        assert {"a": b"a", "b/c": b"c"} == contents(path)
        assert {0} == {mode(each) & 0o222 for each in (path, *path.rglob("*"))}


@pytest.mark.parametrize("links", ["hard", "copies"])
def test_gc_keeps_a_snapshot_while_a_name_leads_to_its_manifest(registry, model, tmp_path, links):
    class NoReflinks(Disk):
        def clone(self, source, path, folder=None):
            raise OSError(95, os.strerror(95))

        def hard_link(self, source, path, folder=None):
            if links == "copies":
                raise OSError(1, os.strerror(1))
            super().hard_link(source, path, folder)

    cache = tk.DiskCache(tmp_path / "c", disk=NoReflinks(), durable=False)
    with client(cache) as registries:
        old = registries.snapshot(name_in(registry))
        assert [] == cache.gc(grace=-HOUR)
        assert [] == cache.verify()
        model_of({"config.json": b"{new}"}).put(registry.url, WHERE)
        new = registries.snapshot(name_in(registry))
        assert [] == [entry for entry in cache.gc() if "snapshots" in entry.path]  # it is young
        gone = cache.gc(grace=-HOUR, dry_run=True)
        assert FILES == contents(old)
        size = sum(map(len, FILES.values())) if links == "copies" else 0
        assert [(model.digest, size)] == [(e.digest, e.size) for e in gone if e.path == str(old)]
        assert {entry.path for entry in gone} == {entry.path for entry in cache.gc(grace=-HOUR)}
        assert (False, {"config.json": b"{new}"}) == (old.exists(), contents(new))
        assert [] == os.listdir(old.parent / ".partial")
        cache.unlink(name_in(registry).removeprefix("http://"))
        cache.gc(grace=-HOUR)
        assert not new.exists()


def test_what_a_killed_process_has_left_is_removed_by_the_next_one(registry, model, tmp_path):
    left = tmp_path / "c" / "snapshots" / ".partial" / f"{model.digest.replace(':', '-')}.{16 * '0'}"
    (left / "deep").mkdir(parents=True)
    (left / "deep" / "a").write_bytes(b"half")
    (left / "deep").chmod(0o555)
    with client(tmp_path / "c") as registries:
        assert FILES == contents(registries.snapshot(name_in(registry)))
    assert not left.exists()


def test_a_link_in_the_place_of_the_snapshots_is_not_followed(registry, model, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "snapshots").symlink_to(tmp_path / "outside")
    with client(tmp_path / "c") as registries, pytest.raises(tk.StorageError):
        registries.snapshot(name_in(registry))
    assert [] == os.listdir(tmp_path / "outside")


def test_processes_that_ask_at_the_same_time_get_one_folder_that_is_made_once(tmp_path):
    """The bodies wait until all have asked."""
    arrived = threading.Event()

    def middleware(app):
        def middle(environ, start_response):
            if "/blobs/" in environ["PATH_INFO"] and environ["REQUEST_METHOD"] == "GET":
                arrived.wait(10)
            return app(environ, start_response)

        return middle

    files = {**FILES, "big": os.urandom(3_000_000)}
    with running_registry(middleware=middleware) as registry:
        model = model_of(files).put(registry.url, WHERE)
        registry.log.clear()
        command = [sys.executable, "-c", CHILD, name_in(registry), str(tmp_path / "c")]
        children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        for child in children:
            assert "ready\n" == child.stdout.readline()
        time.sleep(0.2)
        arrived.set()
        said = {child.communicate(timeout=60)[0] for child in children}
        sent = sum(each.sent for each in registry.log if each.method == "GET" and "/blobs/" in each.path)
    path = tmp_path / "c" / "snapshots" / model.digest.replace(":", "-")
    assert {f"{path}\n"} == said
    assert files == contents(path)
    assert sum(map(len, model.blobs)) == sent


def test_who_waits_sees_how_far_the_other_is_and_is_told_of_it(registry, model, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("transferkit.storage.lock.LONG", 0.1)
    cache, held, done = tk.DiskCache(tmp_path / "c"), threading.Event(), threading.Event()

    def hold():
        with cache.locked(f"snapshot.{model.digest.replace(':', '-')}", Still()):
            held.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    figures = []

    def progress(completed, total):
        figures.append((completed, total))
        if completed >= len(FILES["config.json"]):
            done.set()

    try:
        assert held.wait(5)
        timer = threading.Timer(0.2, lambda: tk.DiskCache(tmp_path / "c").put(FILES["config.json"]))
        timer.start()
        with client(tmp_path / "c") as registries, caplog.at_level(logging.WARNING):
            assert FILES == contents(registries.snapshot(name_in(registry), progress=progress))
        timer.join()
    finally:
        done.set()
        thread.join()
    size = sum(map(len, model.blobs))
    assert (0, size) == figures[0]
    assert (len(FILES["config.json"]), size) in figures
    assert "which is locked by process" in caplog.text


def test_what_has_no_files_is_refused_before_it_is_fetched(registry, tmp_path):
    Model([b"layer"], types=["application/vnd.example"], config=b"{1}").put(registry.url, WHERE)
    registry.log.clear()
    with client(tmp_path / "c") as registries, pytest.raises(tk.InvalidManifestError, match="can be read as files"):
        registries.snapshot(name_in(registry))
    assert 0 == sum("/blobs/" in each.path for each in registry.log)


def test_of_an_index_each_platform_has_its_own_and_offline_too(registry, tmp_path):
    one, two = model_of({"a": b"amd"}), model_of({"a": b"arm"})
    for each in (one, two):
        each.put(registry.url, WHERE, each.digest)
    put_manifest(registry.url, WHERE, "v1", index_of((one, "linux/amd64"), (two, "linux/arm64")), OCI_INDEX)
    with client(tmp_path / "c") as registries:
        paths = [registries.snapshot(name_in(registry), platform=f"linux/{each}") for each in ("amd64", "arm64")]
        assert [{"a": b"amd"}, {"a": b"arm"}] == [contents(path) for path in paths]
        assert [] == registries.cache.gc(grace=-HOUR)
    with client(tmp_path / "c", offline=True) as offline:
        assert paths[1] == offline.snapshot(name_in(registry), platform="linux/arm64")
