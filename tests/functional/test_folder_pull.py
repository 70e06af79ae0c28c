"""Models in folders: the files by their names, whatever tool has pushed them, and nothing of the user's is lost."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

import transferkit as tk
from tests.functional import models
from tests.functional.folders import (
    FILES,
    TITLE,
    WHERE,
    change,
    contents,
    image_of,
    model_of,
    name_in,
    tar_of,
    unfinished,
)
from tests.functional.models import Model, at_once, client, digest_of, index_of, links, put_manifest, stored
from transferkit.storage.disk import Disk
from transferkit.testing import FaultRule, HTTPFaults, corrupt, respond, running_registry, truncate

MIB = 1024 * 1024


def requests(registry) -> list[str]:
    """The requests that fetched something, as method and last part of the path."""
    return [f"{each.method} {each.path.rpartition('/')[2]}" for each in registry.log]


# -- files by their names


@pytest.mark.parametrize("cache", ["cache", None], ids=["cache", "straight"])
def test_files_get_their_names_and_a_second_pull_costs_one_request(registry, tmp_path, cache):
    model = model_of(FILES).put(registry.url, WHERE)
    keywords = {} if cache else {"cache": None}
    with client(tmp_path / "c") as registries:
        report = registries.pull(name_in(registry), to=tmp_path / "out", **keywords)
        assert FILES == contents(tmp_path / "out")
        assert (model.digest, "oras", str(tmp_path / "out")) == (report.digest, report.format, report.folder)
        assert (tuple(sorted(FILES)), (), ()) == (report.written, report.kept, report.left)
        assert {name: str(tmp_path / "out" / name) for name in sorted(FILES)} == report.paths
        registry.log.clear()
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
        again = registries.pull(name_in(registry), to=tmp_path / "out", **keywords)
    assert ["GET v1"] == requests(registry)
    assert ((), tuple(sorted(FILES)), 0) == (again.written, again.kept, again.bytes)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert [] == unfinished(tmp_path / "out")
    if cache:
        assert 1 == len(links(tmp_path / "c"))
        assert models.names_of(*model.blobs, model.raw) == set(stored(tmp_path / "c"))
    else:
        assert {} == stored(tmp_path / "c")
        assert set(report.linked.values()) == {"straight"}
        assert sum(map(len, FILES.values())) == report.bytes


def test_only_what_is_chosen_is_fetched(registry, tmp_path):
    model_of(FILES).put(registry.url, WHERE)
    registry.log.clear()
    with client(tmp_path / "c") as registries:
        report = registries.pull(name_in(registry), to=tmp_path / "out", only=["*.json", "deep/*"], exclude="*.txt")
        assert ("config.json",) == report.written
        assert ["GET v1", f"GET {digest_of(FILES['config.json'])}"] == requests(registry)
        assert [] == links(tmp_path / "c")  # a name never stands for a model that is not whole
        more = registries.pull(name_in(registry), to=tmp_path / "out", only=lambda path: path.startswith("deep"))
        assert (("deep/er/a.txt",), ()) == (more.written, more.left)
        with pytest.raises(tk.InvalidManifestError, match=r"no file of it is wanted; it has config\.json, deep/er"):
            registries.pull(name_in(registry), to=tmp_path / "out", only="*.gguf")
    assert {"config.json", "deep/er/a.txt"} == set(contents(tmp_path / "out"))


@pytest.mark.parametrize("cache", ["cache", None], ids=["cache", "straight"])
def test_one_content_under_two_names_is_fetched_once(registry, tmp_path, cache):
    model_of({"a": b"same " * 999, "b/c": b"same " * 999, "d": b"other"}).put(registry.url, WHERE)
    registry.log.clear()
    with client(tmp_path / "c") as registries:
        registries.pull(name_in(registry), to=tmp_path / "out", **({} if cache else {"cache": None}))
    assert {"a": b"same " * 999, "b/c": b"same " * 999, "d": b"other"} == contents(tmp_path / "out")
    assert 1 == requests(registry).count(f"GET {digest_of(b'same ' * 999)}")


def test_of_an_index_the_files_of_a_platform(registry, tmp_path):
    one, two = model_of({"a": b"amd"}), model_of({"a": b"arm"})
    for model in (one, two):
        model.put(registry.url, WHERE, model.digest)
    put_manifest(registry.url, WHERE, "v1", index_of((one, "linux/amd64"), (two, "linux/arm64")), models.OCI_INDEX)
    with client(tmp_path / "c") as registries:
        registries.pull(name_in(registry), to=tmp_path / "out", platform="linux/arm64")
        assert {"a": b"arm"} == contents(tmp_path / "out")
        registry.log.clear()
        registries.pull(name_in(registry), to=tmp_path / "out", platform="linux/arm64")
        assert ["GET v1"] == requests(registry)  # the manifest of the platform is in the cache
        with pytest.raises(tk.InvalidManifestError, match="is an index of several"):
            registries.pull(name_in(registry), to=tmp_path / "out", platform="all")


@pytest.mark.parametrize("kind", ["modelpack", "oras", "docker"])
def test_what_was_pushed_comes_back_in_each_format(registry, tmp_path, kind):
    files = {**FILES, "model.safetensors": (10).to_bytes(8, "little") + b"{}        "}
    for path, data in files.items():
        (tmp_path / "in" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / path).write_bytes(data)
    with client(tmp_path / "c") as registries:
        registries.push(name_in(registry), folder=tmp_path / "in", format=kind)
        report = registries.pull(name_in(registry), to=tmp_path / "out")
        assert (kind, files) == (report.format, contents(tmp_path / "out"))
        assert report.digest.replace(":", "-") == registries.snapshot(name_in(registry)).name
        with pytest.raises(ValueError, match="the formats are modelpack"):
            registries.pull(name_in(registry), to=tmp_path / "out", format="zip")


def test_offline_it_is_what_the_cache_has(registry, tmp_path):
    model_of(FILES).put(registry.url, WHERE)
    with client(tmp_path / "c") as registries:
        registries.pull(name_in(registry))
    with client(tmp_path / "c", offline=True) as registries:
        report = registries.pull(name_in(registry), to=tmp_path / "out")
        assert FILES == contents(tmp_path / "out")
        assert 0 == report.bytes
        straight = registries.pull(name_in(registry), to=tmp_path / "out2", cache=None)
        assert (FILES, 3) == (contents(tmp_path / "out2"), len(straight.written))
        registries.cache.take_away(tk.Descriptor(digest_of(b"hello"), 5))
        registries.pull(name_in(registry), to=tmp_path / "out")  # the folder has it
        with pytest.raises(tk.IncompleteError):
            registries.pull(name_in(registry), to=tmp_path / "out3")


@pytest.mark.parametrize("title", ["../x", ".transferkit/state.json", ".TransferKit/x", "a/../../x", "con"])
def test_a_name_that_leads_elsewhere_is_refused_and_nothing_is_fetched(registry, tmp_path, title):
    model_of({"good": b"1", title: b"2"}).put(registry.url, WHERE)
    registry.log.clear()
    with client(tmp_path / "c") as registries, pytest.raises(tk.InvalidNameError, match="is refused as the name"):
        registries.pull(name_in(registry), to=tmp_path / "out")
    assert ["GET v1"] == requests(registry)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["deep", "deep/er", ".transferkit", ".transferkit/.partial"])
@pytest.mark.parametrize("cache", ["cache", None], ids=["cache", "straight"])
def test_a_link_that_is_planted_leads_nowhere(registry, tmp_path, place, cache):
    model_of(FILES).put(registry.url, WHERE)
    outside, link = tmp_path / "outside", tmp_path / "out" / place
    outside.mkdir()
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    with client(tmp_path / "c") as registries, pytest.raises(tk.StorageError):
        registries.pull(name_in(registry), to=tmp_path / "out", **({} if cache else {"cache": None}))
    assert [] == os.listdir(outside)
    assert {} == {name: data for name, data in contents(tmp_path / "out").items() if not name.startswith("deep")}


def test_what_it_cannot_take_is_said_at_the_call(registry, tmp_path):
    with client(tmp_path / "c") as registries:
        with pytest.raises(ValueError, match="link is one of auto, reflink, hard, copy, none"):
            registries.pull(name_in(registry), to=tmp_path / "out", link="soft")
        for keywords in ({"only": 3}, {"exclude": 3}, {"cache": "c"}, {"overwrite": "yes"}, {"format": 1}, {"to": 5}):
            with pytest.raises(TypeError, match=f"^{next(iter(keywords))} is "):
                registries.pull(name_in(registry), **{"to": tmp_path / "out", **keywords})


# -- how they come


class NoReflinks(Disk):
    def clone(self, source, path, folder=None):
        raise OSError(95, os.strerror(95))


class NoLinks(NoReflinks):
    def hard_link(self, source, path, folder=None):
        raise OSError(1, os.strerror(1))


class Reflinks(Disk):
    """As a file system that has them, by a copy."""

    def clone(self, source, path, folder=None):
        fd = self.create(path, folder)
        os.write(fd, os.pread(source, 10_000_000, 0))
        os.close(fd)


@pytest.mark.parametrize(
    ("disk", "link", "way"),
    [
        (Reflinks, "auto", "reflink"),
        (NoReflinks, "auto", "hard"),
        (NoLinks, "auto", "copy"),
        (Reflinks, "reflink", "reflink"),
        (Reflinks, "hard", "hard"),
        (Reflinks, "copy", "copy"),
        (Reflinks, "none", "straight"),
        (NoReflinks, "reflink", None),
        (NoLinks, "hard", None),
    ],
)
def test_a_file_comes_from_the_cache_in_the_way_that_there_is(registry, tmp_path, disk, link, way):
    model_of(FILES).put(registry.url, WHERE)
    cache = tk.DiskCache(tmp_path / "c", disk=disk(), durable=False)
    with client(cache) as registries:
        if way is None:
            with pytest.raises(tk.StorageError, match=rf'cannot become a {link} in .*link="auto" takes what there is'):
                registries.pull(name_in(registry), to=tmp_path / "out", link=link)
            assert {} == contents(tmp_path / "out")
            assert [] == unfinished(tmp_path / "out")
            return
        report = registries.pull(name_in(registry), to=tmp_path / "out", link=link)
        assert dict.fromkeys(sorted(FILES), way) == report.linked
        assert FILES == contents(tmp_path / "out")
        file = tmp_path / "out" / "config.json"
        if way != "straight":
            blob = Path(cache.path(digest_of(FILES["config.json"])))
            assert (way == "hard") == os.path.samefile(file, blob)
        assert (0 if way == "hard" else 0o200) == stat.S_IMODE(file.stat().st_mode) & 0o200
        assert registries.pull(name_in(registry), to=tmp_path / "out", link=link).written == ()


def test_an_edit_of_a_hard_link_is_noticed_by_the_cache(registry, tmp_path):
    model_of(FILES).put(registry.url, WHERE)
    cache = tk.DiskCache(tmp_path / "c", disk=NoReflinks(), durable=False)
    with client(cache) as registries:
        registries.pull(name_in(registry), to=tmp_path / "out")
        blob = tk.Descriptor(digest_of(FILES["config.json"]), len(FILES["config.json"]))
        assert cache.knows(blob)  # more names and another mode are no reason to hash 80 GB again
        path = tmp_path / "out" / "config.json"
        path.chmod(0o644)
        path.write_bytes(FILES["config.json"][::-1])
        assert not cache.knows(blob)
        assert [blob.digest] == [entry.digest for entry in cache.verify()]
        with pytest.raises(tk.StorageError, match=r"changed: config\.json"):
            registries.pull(name_in(registry), to=tmp_path / "out")
        report = registries.pull(name_in(registry), to=tmp_path / "out", overwrite=True)
        assert ("config.json",) == report.written
    assert FILES == contents(tmp_path / "out")
    assert all(name == digest for name, digest in stored(tmp_path / "c").items())


def test_the_same_blob_in_two_folders_stays_right_in_both(registry, tmp_path):
    model_of(FILES).put(registry.url, WHERE)
    with client(tk.DiskCache(tmp_path / "c", disk=NoReflinks(), durable=False)) as registries:
        for folder in ("one", "two"):
            registries.pull(name_in(registry), to=tmp_path / folder)
        for folder in ("one", "two"):
            assert () == registries.pull(name_in(registry), to=tmp_path / folder).written


def test_a_large_file_goes_straight_in_chunks_and_goes_on(registry, tmp_path):
    data = os.urandom(1024) * 3 * 1024
    model_of({"big/model.bin": data, "small": b"s"}).put(registry.url, WHERE)
    chunked = {"chunk_threshold": MIB, "chunk_size": MIB, "resume_threshold": MIB}
    cancel = tk.Cancellation()

    def stop(completed, total):
        if completed > len(data) // 2:
            cancel.cancel("enough")

    slow = tk.TransferOptions(**chunked, max_bandwidth=10e6, progress_interval=0.001)
    with client(tmp_path / "c", options=slow) as registries, pytest.raises(tk.CancelledError, match="enough"):
        registries.pull(name_in(registry), to=tmp_path / "out", cache=None, cancel=cancel, progress=stop)
    assert {} == contents(tmp_path / "out")
    figures = []
    registry.log.clear()
    with client(tmp_path / "c", options=tk.TransferOptions(**chunked)) as registries:
        registries.pull(
            name_in(registry), to=tmp_path / "out", cache=None, progress=lambda *figure: figures.append(figure)
        )
    assert any("range" in each.headers for each in registry.log if "/blobs/" in each.path)
    sent = sum(each.sent for each in registry.log if each.method == "GET" and "/blobs/" in each.path)
    assert sent < len(data) * 3 // 4
    assert len(data) // 4 < figures[0][0]
    assert figures[-1][0] == figures[-1][1]
    assert {"big/model.bin": data, "small": b"s"} == contents(tmp_path / "out")
    assert [] == unfinished(tmp_path / "out")


# -- versions, and what the user does


@pytest.mark.parametrize("cache", ["cache", None], ids=["cache", "straight"])
def test_a_new_version_replaces_what_is_ours_and_leaves_what_it_does_not_have(registry, tmp_path, cache):
    keywords = {} if cache else {"cache": None}
    model_of(FILES).put(registry.url, WHERE)
    with client(tmp_path / "c") as registries:
        registries.pull(name_in(registry), to=tmp_path / "out", **keywords)
        (tmp_path / "out" / "notes.txt").write_bytes(b"mine")
        new = {"config.json": b"{2}", "model.safetensors": FILES["model.safetensors"], "new.bin": b"new"}
        model_of(new).put(registry.url, WHERE)
        registry.log.clear()
        report = registries.pull(name_in(registry), to=tmp_path / "out", **keywords)
        assert (("config.json", "new.bin"), ("model.safetensors",)) == (report.written, report.kept)
        assert ("deep/er/a.txt",) == report.left
        assert 0 == requests(registry).count(f"GET {digest_of(FILES['model.safetensors'])}")
        again = registries.pull(name_in(registry), to=tmp_path / "out", **keywords)
        assert (("deep/er/a.txt",), ()) == (again.left, again.written)
        os.unlink(tmp_path / "out/deep/er/a.txt")
        assert () == registries.pull(name_in(registry), to=tmp_path / "out", **keywords).left
    assert {**new, "notes.txt": b"mine"} == contents(tmp_path / "out")


@pytest.mark.parametrize("what", ["edited", "other", "link"])
def test_a_file_that_the_user_changed_is_never_overwritten_silently(registry, tmp_path, what):
    model_of(FILES).put(registry.url, WHERE)
    path = tmp_path / "out" / "config.json"
    with client(tmp_path / "c") as registries:
        if what == "edited":
            registries.pull(name_in(registry), to=tmp_path / "out")
            change(path, b"mine")
        else:
            path.parent.mkdir()
            (tmp_path / "elsewhere").write_bytes(b"mine")
            path.symlink_to(tmp_path / "elsewhere") if what == "link" else path.write_bytes(b"mine")
        model_of({**FILES, "config.json": b"{new}", "added": b"1"}).put(registry.url, WHERE)
        registry.log.clear()
        with pytest.raises(tk.StorageError, match=r"changed: config\.json; .*overwrite=True") as caught:
            registries.pull(name_in(registry), to=tmp_path / "out")
        assert 17 == caught.value.errno  # EEXIST
        assert ["GET v1"] == requests(registry)  # nothing is fetched for nothing
        assert (b"mine", False) == (path.read_bytes(), (tmp_path / "out" / "added").exists())
        report = registries.pull(name_in(registry), to=tmp_path / "out", overwrite=True)
        assert "config.json" in report.written
    assert {**FILES, "config.json": b"{new}", "added": b"1"} == contents(tmp_path / "out")
    assert not path.is_symlink()
    if what == "link":
        assert b"mine" == (tmp_path / "elsewhere").read_bytes()


def test_a_file_that_is_right_already_is_taken(registry, tmp_path):
    model_of(FILES).put(registry.url, WHERE)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors").write_bytes(FILES["model.safetensors"])
    registry.log.clear()
    with client(tmp_path / "c") as registries:
        report = registries.pull(name_in(registry), to=tmp_path / "out", cache=None)
        assert ("model.safetensors",) == report.kept
        assert 0 == requests(registry).count(f"GET {digest_of(FILES['model.safetensors'])}")
        os.utime(tmp_path / "out" / "model.safetensors")  # touched: it is hashed, and still right
        assert () == registries.pull(name_in(registry), to=tmp_path / "out", cache=None).written


def test_a_state_that_is_gone_or_nonsense_costs_a_look_at_the_files(registry, tmp_path):
    model_of(FILES).put(registry.url, WHERE)
    state = tmp_path / "out" / ".transferkit" / "state.json"
    with client(tmp_path / "c") as registries:
        registries.pull(name_in(registry), to=tmp_path / "out")
        for text in ("", "{", "[]", '{"format": 1}', '{"format": 99, "files": {}}', "null", '{"format":1,"files":3}'):
            state.write_text(text)
            registry.log.clear()
            assert tuple(sorted(FILES)) == registries.pull(name_in(registry), to=tmp_path / "out").kept
            assert ["GET v1"] == requests(registry)
            assert 1 == json.loads(state.read_bytes())["format"]


def test_with_rehash_no_earlier_call_is_believed(registry, tmp_path):
    model_of(FILES).put(registry.url, WHERE)
    with client(tmp_path / "c") as registries:
        registries.pull(name_in(registry), to=tmp_path / "out", link="copy")
    path = tmp_path / "out" / "config.json"
    status = path.stat()
    with path.open("r+b") as file:
        file.write(b"X")
    state = tmp_path / "out" / ".transferkit" / "state.json"
    data = json.loads(state.read_bytes())
    data["files"]["config.json"][4] = path.stat().st_ctime_ns  # as if nobody could notice
    data["files"]["config.json"][2] = path.stat().st_mtime_ns
    assert status.st_ino == data["files"]["config.json"][3]
    state.write_text(json.dumps(data))
    with client(tmp_path / "c") as registries:
        assert "config.json" in registries.pull(name_in(registry), to=tmp_path / "out").kept
    options = tk.TransferOptions(rehash_existing=True)
    with client(tmp_path / "c", options=options) as registries, pytest.raises(tk.StorageError, match="config"):
        registries.pull(name_in(registry), to=tmp_path / "out")


def test_where_a_blob_fails_the_folder_is_as_it_was(tmp_path):
    faults = HTTPFaults()
    with running_registry(middleware=faults) as registry, client(tmp_path / "c") as registries:
        model_of({"a": b"1", "b": b"old"}).put(registry.url, WHERE)
        registries.pull(name_in(registry), to=tmp_path / "out")
        model_of({"a": b"2", "b": b"new"}).put(registry.url, WHERE)
        for keywords in ({}, {"cache": None}):
            faults.set(FaultRule(respond(404), method="GET", path=digest_of(b"new")))
            with pytest.raises(tk.IncompleteError):
                registries.pull(name_in(registry), to=tmp_path / "out", **keywords)
            assert {"a": b"1", "b": b"old"} == contents(tmp_path / "out")
        faults.set()
        registries.pull(name_in(registry), to=tmp_path / "out")
        assert {"a": b"2", "b": b"new"} == contents(tmp_path / "out")


@pytest.mark.parametrize(
    "keywords",
    [
        {"only": "*.json"},
        {"exclude": "*.bin"},
        {"format": "oras"},
        {"link": "hard"},
        {"overwrite": True},
        {"cache": None},
    ],
)
def test_what_is_for_a_folder_is_refused_without_one(registry, tmp_path, keywords):
    with client(tmp_path / "c") as registries, pytest.raises(TypeError, match="are for a folder: pass it as to="):
        registries.pull(name_in(registry), **keywords)
    assert 0 == len(registry.log)


@pytest.mark.parametrize("link", ["hard", "reflink"])
def test_without_a_cache_there_is_nothing_to_link_to(registry, tmp_path, link):
    with client(tmp_path / "c") as registries, pytest.raises(TypeError, match=f"link='{link}' .* cache is None"):
        registries.pull(name_in(registry), to=tmp_path / "out", cache=None, link=link)
    assert 0 == len(registry.log)


def test_a_folder_without_a_name_and_an_unknown_keyword_are_refused(registry, tmp_path):
    with client(tmp_path / "c") as registries:
        with pytest.raises(ValueError, match="to is empty"):
            registries.pull(name_in(registry), to="")
        with pytest.raises(TypeError, match=r"^pull\(\) got an unexpected keyword argument 'wrong'$"):
            registries.pull(name_in(registry), to=tmp_path / "out", wrong=1)
    assert 0 == len(registry.log)


def test_no_hard_link_over_two_file_systems_is_told_before_anything_is_fetched(registry, tmp_path):
    class TwoDisks(Disk):
        def stat(self, path):
            found = os.stat(path)
            is_folder = path.startswith(str(tmp_path / "out"))
            return os.stat_result((*found[:2], found.st_dev + is_folder, *found[3:]))

    model_of(FILES).put(registry.url, WHERE)
    registry.log.clear()
    with client(tk.DiskCache(tmp_path / "c", disk=TwoDisks())) as registries:
        with pytest.raises(tk.StorageError, match=r'are on two file systems.*link="auto" takes what there is'):
            registries.pull(name_in(registry), to=tmp_path / "out", link="hard")
        assert not any("/blobs/" in request.path for request in registry.log)
        registries.pull(name_in(registry), to=tmp_path / "out")
        registries.pull(name_in(registry), to=tmp_path / "out", link="hard")  # there is nothing to link
    assert FILES == contents(tmp_path / "out")


def test_it_is_announced_and_the_progress_ends_at_the_sum(registry, tmp_path):
    model = model_of(FILES).put(registry.url, WHERE)
    told, figures = [], []

    class Events(tk.Trace):
        def announced(self, descriptors):
            told.append([each.digest for each in descriptors])

    with client(tmp_path / "c") as registries:
        registries.pull(
            name_in(registry), to=tmp_path / "out", trace=Events(), progress=lambda *figure: figures.append(figure)
        )
    assert [[digest_of(blob) for blob in model.blobs]] == told
    size = sum(map(len, model.blobs))
    assert ((0, size), (size, size)) == (figures[0], figures[-1])
    assert sorted(figures) == figures


# -- packed layers


@pytest.mark.parametrize("cache", ["cache", None], ids=["cache", "straight"])
@pytest.mark.parametrize("zipped", [True, False])
def test_the_files_under_models_of_an_image(registry, tmp_path, zipped, cache):
    keywords = {} if cache else {"cache": None}
    link = tarfile.TarInfo()
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    below = {"etc/passwd": b"root", "models/a.gguf": b"old " * 9000, "./models/sub/b.txt": b"b", "models/gone": b"g"}
    above = {"models/a.gguf": b"new " * 9000, "models/.wh.gone": b"", "models/link": link, "models/c": b"c"}
    layers = [tar_of(below, zipped=zipped), tar_of(above, zipped=zipped)]
    image_of(*layers, zipped=zipped).put(registry.url, WHERE)
    wanted = {"a.gguf": b"new " * 9000, "sub/b.txt": b"b", "c": b"c"}
    with client(tmp_path / "c") as registries:
        report = registries.pull(name_in(registry), to=tmp_path / "out", **keywords)
        assert wanted == contents(tmp_path / "out")
        assert ("image", dict.fromkeys(sorted(wanted), "unpacked")) == (report.format, report.linked)
        registry.log.clear()
        again = registries.pull(name_in(registry), to=tmp_path / "out", **keywords)
        assert (["GET v1"], ()) == (requests(registry), again.written)
        change(tmp_path / "out" / "c", b"mine")
        with pytest.raises(tk.StorageError, match="changed: c;"):
            registries.pull(name_in(registry), to=tmp_path / "out", **keywords)
        assert b"mine" == (tmp_path / "out" / "c").read_bytes()
        os.unlink(tmp_path / "out" / "c")
        assert ("c",) == registries.pull(name_in(registry), to=tmp_path / "out", **keywords).written
        assert wanted == contents(tmp_path / "out")
        assert [] == unfinished(tmp_path / "out")
    if not cache:
        assert {} == stored(tmp_path / "c")
        assert not any(path.stat().st_size > 40_000 for path in (tmp_path / "out").rglob("*"))


@pytest.mark.parametrize("cache", ["cache", None], ids=["cache", "straight"])
@pytest.mark.parametrize("whiteout", [".wh.models", ".wh..wh..opq", "models/.wh..wh..opq"])
def test_an_image_that_removes_its_models_has_those_of_later_layers(registry, tmp_path, whiteout, cache):
    layers = [{"models/old": b"old", "models/a/b": b"old"}, {whiteout: b""}, {"models/new": b"new"}]
    image_of(*(tar_of(layer, zipped=True) for layer in layers)).put(registry.url, WHERE)
    with client(tmp_path / "c") as registries:
        registries.pull(name_in(registry), to=tmp_path / "out", **({} if cache else {"cache": None}))
        assert {"new": b"new"} == contents(tmp_path / "out")
        assert () == registries.pull(name_in(registry), to=tmp_path / "out").written


def test_what_has_become_a_link_a_folder_or_a_file_in_a_later_layer_of_an_image(registry, tmp_path):
    link = tarfile.TarInfo()
    link.type, link.linkname = tarfile.SYMTYPE, "b.gguf"
    below = {
        "models/a.gguf": b"old",
        "models/to-folder": b"old",
        "models/to-file/x": b"old",
        "models/to-link/x": b"old",
    }
    above = {"models/a.gguf": link, "models/b.gguf": b"new", "models/to-folder/x": b"new", "models/to-file": b"new"}
    linked = tarfile.TarInfo()
    linked.type, linked.linkname = tarfile.SYMTYPE, "to-folder"
    above["models/to-link"] = linked
    image_of(tar_of(below, zipped=True), tar_of(above, zipped=True)).put(registry.url, WHERE)
    with client(tmp_path / "c") as registries:
        registries.pull(name_in(registry), to=tmp_path / "out")
        assert {"b.gguf": b"new", "to-folder/x": b"new", "to-file": b"new"} == contents(tmp_path / "out")
        registry.log.clear()
        assert () == registries.pull(name_in(registry), to=tmp_path / "out").written
        assert ["GET v1"] == requests(registry)


def test_only_some_files_of_a_packed_layer(registry, tmp_path):
    image_of(tar_of({"models/a.json": b"a", "models/b.bin": b"b"}, zipped=True)).put(registry.url, WHERE)
    with client(tmp_path / "c") as registries:
        assert ("a.json",) == registries.pull(name_in(registry), to=tmp_path / "out", only="*.json").written
        registry.log.clear()
        assert () == registries.pull(name_in(registry), to=tmp_path / "out", only="*.json").written
        assert ["GET v1"] == requests(registry)
        assert ("b.bin",) == registries.pull(name_in(registry), to=tmp_path / "out").written
        with pytest.raises(tk.InvalidManifestError, match=r"it has a\.json, b\.bin"):
            registries.pull(name_in(registry), to=tmp_path / "out", only="*.txt")
    assert {"a.json": b"a", "b.bin": b"b"} == contents(tmp_path / "out")


@pytest.mark.parametrize("says", [{"io.deis.oras.content.unpack": "true"}, {}], ids=["oras", "oras-py"])
def test_a_folder_that_oras_has_packed(registry, tmp_path, says):
    layer = tar_of({"tok/vocab.txt": b"v", "tok/sub/x": b"x"}, zipped=True)
    annotations = [{TITLE: "tok", **says}, {TITLE: "config.json"}, {TITLE: "a.tar.gz"}]
    packed, plain = "application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar"
    types = [packed, plain, packed]  # oras-py says of every file that it is a tar
    Model([layer, b"{}", b"a file"], types=types, annotations=annotations).put(registry.url, WHERE)
    with client(tmp_path / "c") as registries:
        report = registries.pull(name_in(registry), to=tmp_path / "out")
    files = {"tok/vocab.txt": b"v", "tok/sub/x": b"x", "config.json": b"{}", "a.tar.gz": b"a file"}
    assert files == contents(tmp_path / "out")
    assert "unpacked" == report.linked["tok/vocab.txt"]


@pytest.mark.parametrize("name", ["models/../../x", "models//x", "models/con", "models/.transferkit/state.json"])
def test_a_member_that_leads_elsewhere_is_refused(registry, tmp_path, name):
    image_of(tar_of({"models/good": b"1", name: b"2"}, zipped=True)).put(registry.url, WHERE)
    with client(tmp_path / "c") as registries, pytest.raises(tk.InvalidNameError):
        registries.pull(name_in(registry), to=tmp_path / "out", cache=None)
    assert {} == contents(tmp_path / "out")
    assert [] == unfinished(tmp_path / "out")


@pytest.mark.parametrize("cache", ["cache", None], ids=["cache", "straight"])
def test_of_a_layer_that_is_not_what_its_digest_says_no_file_gets_its_name(tmp_path, cache):
    layer = tar_of({"models/a": bytes(5000), "models/b": b"b"})
    faults = HTTPFaults(FaultRule(corrupt(700), method="GET", path=digest_of(layer)))  # within the content of a file
    with running_registry(middleware=faults) as registry, client(tmp_path / "c") as registries:
        image_of(layer, zipped=False).put(registry.url, WHERE)
        with pytest.raises(tk.TransferKitError) as caught:
            registries.pull(name_in(registry), to=tmp_path / "out", **({} if cache else {"cache": None}))
        errors = getattr(caught.value, "failures", {"": caught.value}).values()
        assert {tk.DigestMismatchError} == {type(error) for error in errors}
        assert ({}, []) == (contents(tmp_path / "out"), unfinished(tmp_path / "out"))


def test_a_stream_that_breaks_off_goes_on_where_it_was(tmp_path):
    layer = tar_of({"models/a": os.urandom(1_000_000), "models/b": b"b"})
    faults = HTTPFaults(FaultRule(truncate(600_000), method="GET", path=digest_of(layer), times=1))
    with running_registry(middleware=faults) as registry, client(tmp_path / "c") as registries:
        image_of(layer, zipped=False).put(registry.url, WHERE)
        registries.pull(name_in(registry), to=tmp_path / "out", cache=None)
        sent = sum(each.sent for each in registry.log if each.method == "GET" and digest_of(layer) in each.path)
    assert {"a", "b"} == set(contents(tmp_path / "out"))
    assert sent < len(layer) * 5 // 4


# -- kills, and several at once

CHILD = """
import sys, transferkit as tk
name, cache, folder = sys.argv[1:]
options = tk.TransferOptions(chunk_threshold=2**20, chunk_size=2**20, resume_threshold=2**20, max_bandwidth=40e6)
with tk.Registry(cache=cache or "unused", options=options) as registry:
    print("ready", flush=True)
    report = registry.pull(name, to=folder, **({} if cache else {"cache": None}))
print(len(report.written), flush=True)
"""


@pytest.fixture
def two_versions(registry):
    """Two versions of a model with a large file, small ones, and a packed layer: names and files."""
    big = os.urandom(1024) * 4 * 1024
    versions = {}
    for tag, extra in (("v1", b"one"), ("v2", b"two")):
        files = {"config.json": b"{" + extra + b"}", "model.bin": big + extra, "sub/same": b"same"}
        layer = tar_of({f"tok/{n}": extra * n for n in range(1, 20)}, zipped=True)
        annotations = [*({TITLE: title} for title in files), {TITLE: "tok", "io.deis.oras.content.unpack": "true"}]
        types = ["application/octet-stream"] * 3 + ["application/vnd.oci.image.layer.v1.tar+gzip"]
        Model([*files.values(), layer], types=types, annotations=annotations).put(registry.url, WHERE, tag)
        versions[tag] = {**files, **{f"tok/{n}": extra * n for n in range(1, 20)}}
    return versions


@pytest.mark.parametrize("cache", ["cache", ""], ids=["cache", "straight"])
def test_after_kill_9_at_any_moment_no_file_is_partial_and_the_next_run_goes_on(
    registry, two_versions, tmp_path, cache
):
    folder = tmp_path / "out"
    with client(tmp_path / "c") as registries:
        registries.pull(name_in(registry), to=folder, **({} if cache else {"cache": None}))
    right = [set(version.items()) for version in two_versions.values()]
    command = [sys.executable, "-c", CHILD, name_in(registry, "v2"), str(tmp_path / "c") if cache else "", str(folder)]
    for wait in (0.0, 0.05, 0.1):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert "ready\n" == child.stdout.readline()
        time.sleep(wait)
        child.kill()
        child.communicate()
        assert set(contents(folder).items()) <= right[0] | right[1]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("ready")
    assert two_versions["v2"] == contents(folder)
    assert [] == unfinished(folder)


def test_two_processes_fill_one_folder_and_both_get_it(registry, two_versions, tmp_path):
    command = [sys.executable, "-c", CHILD, name_in(registry), "", str(tmp_path / "out")]
    registry.log.clear()
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [child.communicate(timeout=60)[0].split() for child in children]
    assert [0, 0] == [child.returncode for child in children]
    assert {"0", str(len(two_versions["v1"]))} == {text[1] for text in said}
    assert two_versions["v1"] == contents(tmp_path / "out")
    sent = sum(each.sent for each in registry.log if each.method == "GET" and "/blobs/" in each.path)
    assert sent < sum(map(len, two_versions["v1"].values())) * 3 // 2


def test_threads_fill_folders_from_one_cache(registry, two_versions, tmp_path):
    with client(tmp_path / "c") as registries:
        assert [] == at_once(
            lambda tag: registries.pull(name_in(registry, tag), to=tmp_path / tag), ("v1", "v2", "v1", "v2")
        )
    assert two_versions == {tag: contents(tmp_path / tag) for tag in ("v1", "v2")}
