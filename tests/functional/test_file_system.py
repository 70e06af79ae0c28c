"""``oci://`` through ``fsspec``: what is listed, which bytes are moved, what is verified, and which errors come."""

from __future__ import annotations

import copy
import gzip
import io
import json
import os
import pickle
import random
import re
import signal
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import SimpleNamespace

import fsspec
import pytest

import transferkit as tk
from tests.functional.models import (
    IMPATIENT,
    Model,
    described,
    digest_of,
    host,
    index_of,
    put_blob,
    put_manifest,
)
from tests.functional.safetensors_files import EMPTY, manifest_of, put_model
from transferkit.filesystem import OCIFileSystem
from transferkit.server.oci import OCIRegistry
from transferkit.testing import FaultRule, HTTPFaults, corrupt, ignore_range, respond, running_registry

KIB = 1024
UNIT = 256 * KIB
LARGE = random.Random(7).randbytes(3 * UNIT)
FILES = {
    "config.json": b'{"layers": 2}',
    "empty.txt": b"",
    "unet/model.bin": LARGE,
    "unet/config.json": b"{}",
    "vae/deep/notes.txt": b"first line\nsecond line\n",
}


class Rig:
    """A registry with faults, and file systems that read from it."""

    def __init__(self, stack, folder, **server):
        self.faults = HTTPFaults()
        application = OCIRegistry(folder / "server", **{"chunksums": False, "durable": False, **server})
        self.registry = stack.enter_context(
            running_registry(folder / "server", middleware=lambda _: self.faults(application))
        )
        self.cache = folder / "cache"
        self.host = host(self.registry.url)
        self.base = f"oci://{self.host}/team/model:v1"

    def fs(self, **options):
        return OCIFileSystem(**{"cache": str(self.cache), "options": IMPATIENT, **options})

    def asked(self):
        """What was asked for since the last look: manifests by their tags, blobs by their ranges, and lists."""
        found = []
        for request in self.registry.log:
            kind = "list" if "chunksums" in request.path else request.path.split("/")[-2]
            if kind == "manifests":
                found.append(request.path.rpartition("/")[2])
            elif kind == "blobs":
                match = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("range", ""))
                found.append((int(match[1]), int(match[2]) + 1) if match else "all")
            else:
                found.append(kind)
        self.registry.log.clear()
        return found


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack
    OCIFileSystem.clear_instance_cache()


@pytest.fixture
def rig(stack, tmp_path):
    rig = Rig(stack, tmp_path)
    put_model(rig.registry.url, FILES)
    rig.registry.log.clear()
    return rig


@pytest.fixture
def listing(stack, tmp_path):
    """A registry with lists of the digests of chunks, of 100,000 bytes each."""
    rig = Rig(stack, tmp_path, chunksums=True, chunk_size=100_000)
    put_model(rig.registry.url, FILES)
    rig.registry.log.clear()
    return rig


# -- what is listed


def test_fsspec_knows_it_by_its_entry_point(rig, monkeypatch):
    monkeypatch.setenv("TRANSFERKIT_CACHE", str(rig.cache))
    assert isinstance(fsspec.filesystem("oci"), OCIFileSystem)
    with fsspec.open(f"{rig.base}/config.json") as file:
        assert FILES["config.json"] == file.read()
    with fsspec.open(f"transferkit{rig.base[3:]}/config.json") as file:
        assert FILES["config.json"] == file.read()
    with fsspec.open(f"{rig.base}/vae/deep/notes.txt", "r") as file:
        assert ["first line\n", "second line\n"] == list(file)


def test_an_artifact_is_a_folder(rig):
    fs, name = rig.fs(), rig.base.removeprefix("oci://")
    assert sorted(f"{name}/{path}" for path in FILES) == fs.find(rig.base)
    assert [f"{name}/{each}" for each in ("config.json", "empty.txt", "unet", "vae")] == fs.ls(rig.base, detail=False)
    assert [f"{name}/unet/config.json", f"{name}/unet/model.bin"] == fs.ls(f"{rig.base}/unet/", detail=False)
    assert [f"{name}/config.json"] == fs.ls(f"{rig.base}/config.json", detail=False)
    assert [f"{name}/config.json", f"{name}/unet/config.json"] == fs.glob(f"{rig.base}/**/config.json")
    walked = list(fs.walk(rig.base))
    assert (name, ["unet", "vae"], ["config.json", "empty.txt"]) == walked[0]
    assert (f"{name}/vae/deep", [], ["notes.txt"]) == walked[-1]
    assert sum(map(len, FILES.values())) == fs.du(rig.base)
    assert ["v1"] == rig.asked()


def test_what_is_told_of_a_file_and_of_a_folder(rig):
    fs, name = rig.fs(), rig.base.removeprefix("oci://")
    assert {
        "name": f"{name}/config.json",
        "size": 13,
        "type": "file",
        "digest": digest_of(FILES["config.json"]),
        "media_type": "application/octet-stream",
        "packing": "none",
    } == fs.info(f"{rig.base}/config.json")
    assert {"name": f"{name}/vae", "size": 0, "type": "directory"} == fs.info(f"{rig.base}/vae")
    assert {"name": name, "size": 0, "type": "directory"} == fs.info(rig.base)
    assert [True, False, True, False] == [
        fs.isfile(f"{rig.base}/empty.txt"),
        fs.isdir(f"{rig.base}/empty.txt"),
        fs.isdir(f"{rig.base}/vae/deep"),
        fs.exists(f"{rig.base}/vae/none"),
    ]
    assert digest_of(LARGE) == fs.ukey(f"{rig.base}/unet/model.bin")
    assert int(digest_of(LARGE)[7:], 16) == fs.checksum(f"{rig.base}/unet/model.bin")


def test_a_repository_is_a_folder_of_its_tags(rig):
    put_manifest(rig.registry.url, "team/model", "v2", manifest_of({"new.txt": FILES["empty.txt"]}))
    fs, repository = rig.fs(), f"{rig.host}/team/model"
    assert [f"{repository}:v1", f"{repository}:v2"] == fs.ls(f"oci://{repository}", detail=False)
    assert fs.isdir(repository)
    assert not fs.isdir(f"{rig.host}/team")
    assert [f"{repository}:v2/new.txt"] == fs.find(f"{repository}:v2")


def test_a_digest_stands_for_a_tag(rig):
    raw = manifest_of(FILES)
    base = f"oci://{rig.host}/team/model"
    fs = rig.fs()
    for name in (f"{base}@{digest_of(raw)}", f"{base}:v1@{digest_of(raw)}"):
        assert FILES["unet/config.json"] == fs.cat(f"{name}/unet/config.json")
    with pytest.raises(FileNotFoundError):
        fs.cat(f"{base}@{digest_of(b'another')}/config.json")


@pytest.mark.parametrize("format", ["modelpack", "oras", "docker"])
def test_what_a_push_has_made_is_read(rig, tmp_path, format):
    files = {"model.gguf": b"GGUF" + bytes(100), "LICENSE": b"free"}
    for path, data in files.items():
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / path).write_bytes(data)
    if format == "docker":
        (tmp_path / "folder" / "model.gguf").write_bytes(tiny_gguf())
        files["model.gguf"] = tiny_gguf()
    with tk.Registry(cache=tmp_path / "own") as registry:
        registry.push(f"{rig.host}/team/{format}:v1", folder=tmp_path / "folder", format=format)
    fs, base = rig.fs(), f"{rig.host}/team/{format}:v1"
    assert sorted(files.values()) == sorted(fs.cat(fs.find(base)).values())


def tiny_gguf() -> bytes:
    return b"GGUF" + (3).to_bytes(4, "little") + bytes(16)


def test_a_packed_layer_is_an_archive_that_other_file_systems_open(rig):
    """The manifest does not name what is in it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, data in {"models/a.txt": b"inside", "models/large.bin": LARGE}.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    plain, packed = buffer.getvalue(), gzip.compress(buffer.getvalue(), mtime=0)
    layer = "application/vnd.oci.image.layer.v1.tar"
    for data in (EMPTY, plain, packed):
        put_blob(rig.registry.url, "team/image", data)
    document = {
        "schemaVersion": 2,
        "config": described(EMPTY, "application/vnd.oci.image.config.v1+json"),
        "layers": [described(plain, layer), described(packed, f"{layer}+gzip")],
    }
    put_manifest(rig.registry.url, "team/image", "v1", json.dumps(document).encode())
    fs, base = rig.fs(), f"{rig.host}/team/image:v1"
    names = [f"sha256-{digest_of(plain)[7:]}.tar", f"sha256-{digest_of(packed)[7:]}.tar.gz"]
    assert sorted(names) == [name.rpartition("/")[2] for name in fs.ls(base, detail=False)]
    assert ["tar", "tar+gzip"] == [fs.info(f"{base}/{name}")["packing"] for name in names]
    options = {"cache": str(rig.cache), "block_size": 16 * KIB}
    for name in names:
        rig.asked()
        with fsspec.open(
            f"tar://models/a.txt::oci://{base}/{name}", oci=options, tar={"skip_instance_cache": True}
        ) as file:
            assert b"inside" == file.read()
    assert not fs.exists(f"{base}/models/a.txt")


def test_of_an_index_it_is_one_platform(rig):
    models = [Model([name], types=["application/x"], annotations=[{TITLE: "a.txt"}]) for name in (b"arm", b"amd")]
    for number, model in enumerate(models):
        model.put(rig.registry.url, "team/many", f"p{number}")
    raw = index_of((models[0], "linux/arm64"), (models[1], "linux/amd64"))
    put_manifest(rig.registry.url, "team/many", "v1", raw, "application/vnd.oci.image.index.v1+json")
    for platform, expected in (("linux/arm64", b"arm"), ("linux/amd64", b"amd")):
        assert expected == rig.fs(platform=platform).cat(f"{rig.host}/team/many:v1/a.txt")


TITLE = "org.opencontainers.image.title"


# -- which bytes are moved


def test_a_part_moves_its_own_bytes(rig):
    fs, path = rig.fs(), f"{rig.base}/unet/model.bin"
    fs.info(path)
    rig.asked()
    assert LARGE[UNIT : UNIT + 5000] == fs.cat_file(path, UNIT, UNIT + 5000)
    assert LARGE[-10:] == fs.cat_file(path, start=-10)
    assert LARGE[-10:] == fs.tail(path, 10)
    assert [(UNIT, UNIT + 5000), (3 * UNIT - 10, 3 * UNIT)] == [each for each in rig.asked() if each != "list"][:2]


def test_a_file_seeks_and_reads_blocks(rig):
    fs = rig.fs()
    with fs.open(f"{rig.base}/unet/model.bin", block_size=64 * KIB) as file:
        rig.asked()
        assert (LARGE[:100], 100) == (file.read(100), file.tell())
        assert 2 * UNIT == file.seek(2 * UNIT)
        assert LARGE[2 * UNIT : 2 * UNIT + 9] == file.read(9)
        file.seek(-5, os.SEEK_END)
        assert (LARGE[-5:], b"") == (file.read(), file.read())
        expected = [(0, 100 + 64 * KIB), (2 * UNIT, 2 * UNIT + 9 + 64 * KIB), (3 * UNIT - 5, 3 * UNIT)]
        assert expected == [each for each in rig.asked() if each != "list"]
    with pytest.raises(ValueError, match="closed"):
        file.read(1)


def test_ranges_come_in_few_requests(rig):
    fs, path = rig.fs(), f"{rig.base}/unet/model.bin"
    fs.is_verified(path)
    rig.asked()
    starts = [0, 1000, UNIT, UNIT + 500, 0]
    ends = [100, 1100, UNIT + 1000, UNIT + 700, 13]
    read = fs.cat_ranges([path] * 4 + [f"{rig.base}/config.json"], starts, ends)
    assert [LARGE[a:b] for a, b in zip(starts[:4], ends, strict=False)] + [FILES["config.json"]] == read
    assert [(0, 13), (0, 1100), (UNIT, UNIT + 1000)] == sorted(rig.asked())
    assert [LARGE[5:7], LARGE[5:7]] == fs.cat_ranges([path, path], 5, 7)
    missing, there = fs.cat_ranges([f"{rig.base}/none", path], [0, 0], [1, 1])
    assert (FileNotFoundError, LARGE[:1]) == (type(missing), there)
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges([f"{rig.base}/none"], [0], [1], on_error="raise")
    with pytest.raises(ValueError, match="for each path"):
        fs.cat_ranges([path], [0, 1], [1])
    with pytest.raises(TypeError):
        fs.cat_ranges(path, [0], [1])


def test_many_files_at_once(rig):
    fs, name = rig.fs(), rig.base.removeprefix("oci://")
    assert {f"{name}/{path}": data for path, data in FILES.items()} == fs.cat(rig.base, recursive=True)
    names = [f"{rig.base}/config.json", f"{rig.base}/none"]
    with pytest.raises(FileNotFoundError):
        fs.cat(names)
    assert [f"{name}/config.json"] == list(fs.cat(names, on_error="omit"))
    assert isinstance(fs.cat(names, on_error="return")[f"{name}/none"], FileNotFoundError)


def test_a_copy_on_disk_comes_in_one_step(rig, tmp_path):
    fs, seen = rig.fs(), []
    callback = SimpleNamespace(set_size=lambda size: seen.append(size), absolute_update=lambda done: seen.append(done))
    place = tmp_path / "new" / "model.bin"
    fs.get_file(f"{rig.base}/unet/model.bin", str(place), callback=callback)
    assert (LARGE, [3 * UNIT, 3 * UNIT]) == (place.read_bytes(), [seen[0], seen[-1]])
    rig.faults.set(FaultRule(corrupt(5), path="/blobs/"))
    place.write_bytes(b"what was there")
    with pytest.raises(tk.DigestMismatchError):
        fs.get_file(f"{rig.base}/unet/model.bin", str(place))
    assert (b"what was there", ["model.bin"]) == (place.read_bytes(), os.listdir(place.parent))
    rig.faults.set()
    fs.get(rig.base, str(tmp_path / "all"), recursive=True)
    assert FILES == {
        str(path.relative_to(tmp_path / "all")): path.read_bytes() for path in (tmp_path / "all").rglob("*.*")
    }
    buffer = io.BytesIO()
    fs.get_file(f"{rig.base}/config.json", buffer)
    assert FILES["config.json"] == buffer.getvalue()


def test_what_is_in_the_cache_is_read_there(rig):
    with tk.Registry(cache=rig.cache) as registry:
        manifest = registry.pull(rig.base)
    rig.asked()
    pinned = f"oci://{rig.host}/team/model@{manifest.digest}"
    fs = rig.fs()
    with fs.open(f"{pinned}/unet/model.bin", block_size=1000) as file:
        file.seek(UNIT)
        assert LARGE[UNIT : UNIT + 10] == file.read(10)
    assert FILES["config.json"] == fs.cat(f"{pinned}/config.json")
    assert fs.is_verified(f"{pinned}/unet/model.bin")
    assert [] == rig.asked()
    offline = rig.fs(offline=True)
    assert FILES["config.json"] == offline.cat(f"{rig.base}/config.json")
    assert [f"{rig.host}/team/model:v1"] == offline.ls(f"{rig.host}/team/model", detail=False)


def test_a_file_of_the_cache_that_is_lost_comes_from_the_registry(rig):
    with tk.Registry(cache=rig.cache) as registry:
        registry.pull(rig.base)
        path = registry.cache.path(digest_of(LARGE))
    fs = rig.fs()
    assert LARGE[:10] == fs.cat_file(f"{rig.base}/unet/model.bin", 0, 10)
    os.remove(path)
    assert LARGE[10:20] == fs.cat_file(f"{rig.base}/unet/model.bin", 10, 20)


def test_nothing_is_written_to_the_cache(rig):
    fs = rig.fs()
    fs.cat(rig.base, recursive=True)
    assert not rig.cache.exists()


def test_a_server_without_ranges_is_read(rig):
    rig.faults.set(FaultRule(ignore_range(), path="/blobs/"))
    fs = rig.fs()
    assert LARGE[UNIT : UNIT + 10] == fs.cat_file(f"{rig.base}/unet/model.bin", UNIT, UNIT + 10)
    assert LARGE == fs.cat_file(f"{rig.base}/unet/model.bin")


def test_a_server_without_ranges_sends_a_long_file_once(rig):
    rig.faults.set(FaultRule(ignore_range(), path="/blobs/"))
    fs = rig.fs(options=tk.TransferOptions(chunk_size=50_000))
    assert LARGE == fs.cat_file(f"{rig.base}/unet/model.bin")
    assert LARGE[5:-5] == fs.cat_file(f"{rig.base}/unet/model.bin", 5, -5)
    assert 3 == len([each for each in rig.asked() if isinstance(each, tuple)])


def test_a_long_file_comes_in_ranges_side_by_side(rig):
    fs = rig.fs(options=tk.TransferOptions(chunk_size=UNIT))
    assert LARGE == fs.cat_file(f"{rig.base}/unet/model.bin")
    expected = [(0, UNIT), (UNIT, 2 * UNIT), (2 * UNIT, 3 * UNIT)]
    assert expected == sorted(each for each in rig.asked() if isinstance(each, tuple))


# -- what is verified


def test_whole_files_are_held_to_their_digests(rig):
    rig.faults.set(FaultRule(corrupt(5), path="/blobs/"))
    fs, path = rig.fs(), f"{rig.base}/unet/model.bin"
    for read in (fs.cat_file, lambda path: fs.open(path).read(10), lambda path: fs.cat([path])):
        with pytest.raises(tk.DigestMismatchError):
            read(path)


def test_who_reads_to_the_end_in_order_is_told(rig):
    fs, path = rig.fs(), f"{rig.base}/unet/model.bin"
    with fs.open(path, block_size=100_000) as file:
        pieces = list(iter(lambda: file.read(50_000), b""))
    assert LARGE == b"".join(pieces)
    rig.faults.set(FaultRule(corrupt(5), path="/blobs/", times=1))
    with fs.open(path, block_size=100_000) as file:
        file.read(UNIT)
        file.seek(0)  # what was read twice is no other content
        file.read(1000)
        with pytest.raises(tk.DigestMismatchError):
            file.seek(UNIT), file.read()
    with fs.open(path, block_size=100_000) as file:
        file.seek(UNIT)
        assert LARGE[UNIT:] == file.read()  # nobody can tell of a part


def test_a_part_of_a_file_that_nobody_can_verify(rig):
    fs, path = rig.fs(require_verified=True), f"{rig.base}/unet/model.bin"
    assert (False, True) == (fs.is_verified(path), fs.is_verified(f"{rig.base}/config.json"))
    with pytest.raises(tk.VerificationError, match=r"nobody can verify a part of unet/model\.bin in"):
        fs.cat_file(path, 0, 10)
    assert LARGE == fs.cat_file(path)
    assert FILES["vae/deep/notes.txt"][:5] == fs.cat_file(f"{rig.base}/vae/deep/notes.txt", 0, 5)


def test_a_list_of_chunks_verifies_parts(listing):
    fs, path = listing.fs(require_verified=True), f"{listing.base}/unet/model.bin"
    assert fs.is_verified(path)
    listing.asked()
    assert LARGE[150_000:150_010] == fs.cat_file(path, 150_000, 150_010)
    assert [(100_000, 200_000)] == listing.asked()
    listing.faults.set(FaultRule(corrupt(5), path="/blobs/"))
    with pytest.raises(tk.DigestMismatchError):
        fs.cat_file(path, 150_000, 150_010)


def test_blocks_that_lie_in_one_chunk_come_once(listing):
    fs = listing.fs()
    with fs.open(f"{listing.base}/unet/model.bin", block_size=10_000) as file:
        fs.is_verified(f"{listing.base}/unet/model.bin")
        listing.asked()
        assert LARGE[:190_000] == b"".join(iter(lambda: file.read(min(5000, 190_000 - file.tell())), b""))
    assert [(0, 100_000), (100_000, 200_000)] == listing.asked()


# -- errors


def test_what_is_not_there_is_a_file_not_found(rig):
    fs = rig.fs()
    with pytest.raises(FileNotFoundError, match=r"it has config\.json, empty\.txt, unet/config\.json"):
        fs.open(f"{rig.base}/none")
    with pytest.raises(FileNotFoundError, match=r"has neither a tag nor a digest"):
        fs.open(f"oci://{rig.host}/team/model/config.json")
    with pytest.raises(FileNotFoundError) as caught:
        fs.ls(f"oci://{rig.host}/team/none:v1")
    assert isinstance(caught.value.__cause__, tk.ManifestNotFoundError)
    assert f"{rig.host}/team/none:v1" == caught.value.filename
    for path in (f"{rig.host}/team/model:not a tag/x", "oci://", rig.host):
        assert not fs.exists(path)
    os.remove(rig.registry.blob_path(digest_of(LARGE)))
    with pytest.raises(FileNotFoundError) as caught:
        fs.cat_file(f"{rig.base}/unet/model.bin")
    assert isinstance(caught.value.__cause__, tk.BlobNotFoundError)
    with pytest.raises(FileNotFoundError):
        fs.open(f"{rig.base}/unet/model.bin").read(1)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_a_permission_error(rig, status):
    rig.faults.set(FaultRule(respond(status), path="/manifests/"))
    fs = rig.fs()
    for ask in (fs.ls, fs.info, fs.exists, fs.find, lambda path: fs.open(f"{path}/config.json")):
        with pytest.raises(PermissionError) as caught:
            ask(rig.base)
        assert isinstance(caught.value.__cause__, tk.UnauthorizedError | tk.DeniedError)


def test_other_errors_stay_what_they_are(rig):
    rig.faults.set(FaultRule(respond(500), path="/manifests/"))
    with pytest.raises(tk.ServerError):
        rig.fs().exists(rig.base)


def test_a_folder_is_no_file(rig):
    fs = rig.fs()
    for path in (rig.base, f"{rig.base}/unet"):
        with pytest.raises(IsADirectoryError):
            fs.open(path)


def test_nothing_can_be_written(rig, tmp_path):
    fs, path = rig.fs(), f"{rig.base}/config.json"
    (tmp_path / "file").write_bytes(b"new")
    for write in (
        lambda: fs.open(path, "wb"),
        lambda: fs.pipe(path, b"new"),
        lambda: fs.rm(path),
        lambda: fs.mkdir(f"{rig.base}/new"),
        lambda: fs.makedirs(f"{rig.base}/new"),
        lambda: fs.touch(path),
        lambda: fs.put(str(tmp_path / "file"), path),
        lambda: fs.mv(path, f"{rig.base}/other"),
        lambda: fs.cp(path, f"{rig.base}/other"),
    ):
        with pytest.raises(OSError, match=r"Read-only file system; push with transferkit\.push"):
            write()
    assert FILES["config.json"] == fs.cat(path)


def test_what_is_no_option_is_refused():
    with pytest.raises(TypeError, match="oci:// has no option tokn"):
        OCIFileSystem(tokn="secret")
    with pytest.raises(TypeError, match="hosts has a mapping for each host"):
        OCIFileSystem(hosts={"h": tk.HostOptions()})


# -- options, and who shares what


def test_credentials_are_those_of_the_options(rig):
    def guard(application):
        def app(environ, start):
            if environ.get("HTTP_AUTHORIZATION") in ("Bearer good", "Basic bWU6c2VjcmV0"):
                return application(environ, start)
            start("401 Unauthorized", [("WWW-Authenticate", "Basic"), ("Content-Length", "0")])
            return [b""]

        return app

    with running_registry(rig.registry.store, middleware=guard) as guarded:
        base = f"oci://{host(guarded.url)}/team/model:v1/config.json"
        assert FILES["config.json"] == rig.fs(token="good").cat(base)
        assert FILES["config.json"] == rig.fs(auth=["me", "secret"]).cat(base)
        headers = {host(guarded.url): {"headers": {"Authorization": "Bearer good"}}}
        assert FILES["config.json"] == rig.fs(hosts=headers).cat(base)
        # One with other headers is another file system, though what they are is not shown.
        for options in ({}, {"hosts": {host(guarded.url): {"headers": {"Authorization": "Bearer bad"}}}}):
            with pytest.raises(PermissionError):
                rig.fs(**options).cat(base)


def test_a_tag_is_asked_for_again_after_a_while(rig):
    fs, path = rig.fs(listings_expiry_time=30), f"{rig.base}/config.json"
    now = [1000.0]
    fs._artifacts._clock = lambda: now[0]
    assert FILES["config.json"] == fs.cat(path)
    file = fs.open(path)
    put_model(rig.registry.url, {"config.json": b"new"})
    rig.asked()
    now[0] += 29
    assert FILES["config.json"] == fs.cat(path)
    assert "v1" not in rig.asked()
    now[0] += 1
    assert b"new" == fs.cat(path)
    assert FILES["config.json"] == file.read()  # it is that of the version that was opened
    put_model(rig.registry.url, {"config.json": b"newer"})
    assert 3 == fs.size(path)
    fs.ls(rig.base, refresh=True)
    assert 5 == fs.size(path)
    always = rig.fs(use_listings_cache=False)
    assert 5 == always.size(path)
    put_model(rig.registry.url, {"config.json": b"newest!"})
    assert 7 == always.size(path)
    fs.invalidate_cache(path)
    assert 7 == fs.size(path)
    put_model(rig.registry.url, {"config.json": b"and again"})
    fs.invalidate_cache()
    assert 9 == fs.size(path)


def test_artifacts_are_kept_in_bounds(rig, monkeypatch):
    monkeypatch.setattr("transferkit.filesystem.artifacts.MOST", 2)
    fs = rig.fs()
    for tag in ("v2", "v3"):
        put_manifest(rig.registry.url, "team/model", tag, manifest_of(FILES))
    rig.asked()
    for tag in ("v1", "v2", "v1", "v3", "v1", "v2"):
        fs.info(f"{rig.host}/team/model:{tag}")
    assert ["v1", "v2", "v3", "v2"] == rig.asked()


def test_threads_share_a_client_and_ask_for_a_manifest_once(rig):
    options = {"cache": str(rig.cache)}
    together = threading.Barrier(8)

    def read(number: int) -> bytes:
        together.wait(60)
        return fsspec.filesystem("oci", **options).cat_file(f"{rig.base}/unet/model.bin", number, number + 1000)

    with ThreadPoolExecutor(8) as pool:
        read_in_threads = list(pool.map(read, range(8)))
    assert [LARGE[number : number + 1000] for number in range(8)] == read_in_threads
    assert 1 == rig.asked().count("v1")


def test_it_pickles_with_its_settings(rig):
    fs = OCIFileSystem(cache=str(rig.cache), token="secret", listings_expiry_time=5)
    fs.cat(f"{rig.base}/config.json")
    for other in (pickle.loads(pickle.dumps(fs)), copy.copy(fs), OCIFileSystem.from_json(fs.to_json())):
        assert FILES["config.json"] == other.cat(f"{rig.base}/config.json")
        assert "secret" == other.storage_options["token"]
    assert "secret" not in fs.to_json(include_password=False)
    with fs.open(f"{rig.base}/config.json") as file:
        file.seek(2)
        with pickle.loads(pickle.dumps(file)) as other:
            assert FILES["config.json"][2:] == other.read()
    opened = pickle.loads(pickle.dumps(fsspec.open(f"{rig.base}/config.json", cache=str(rig.cache))))
    with opened as file:
        assert FILES["config.json"] == file.read()


def test_a_forked_child_reads(rig):
    fs = rig.fs()
    fs.cat(f"{rig.base}/config.json")
    held = fs._artifacts._slots[rig.base.removeprefix("oci://")].lock
    with held, fs._artifacts._lock:  # as a thread that asks at that moment has it
        child = os.fork()
        if not child:
            signal.alarm(60)
            os._exit(0 if fs.cat_file(f"{rig.base}/unet/model.bin", 0, 10) == LARGE[:10] else 1)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
