"""OCI image layouts, as folders and as tar files: what is in them, who may write to them, and what is in the way."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

import transferkit as tk
from tests.unit.storage.models import ReadOnlyDisk, index_of, manifest_of
from tests.unit.storage.suite import DATA, FailingDisk, descriptor_of, store
from transferkit.content.manifest import Index, Manifest
from transferkit.storage.disk import Disk
from transferkit.storage.layout import OCILayout, Tagged
from transferkit.transfer.flow import WorkerFlow

BLOB, CONFIG = descriptor_of(DATA), descriptor_of(b"{}")
MODEL = Manifest(manifest_of(b"{}", DATA))
KINDS = {"folder": "layout", "tar": "layout.tar"}


@pytest.fixture(params=KINDS)
def path(request, tmp_path: Path) -> Path:
    return tmp_path / KINDS[request.param]


def fill(path: Path, tag: str | None = "v1", **options) -> OCILayout:
    """Store the model in a layout, as a copy does it."""
    layout = OCILayout(path, **options)
    layout.prepare([BLOB, CONFIG])
    for data in (b"{}", DATA):
        store(layout, data)
    layout.add(MODEL) if tag is None else layout.tag(MODEL, tag)
    layout.close()
    return layout


def read(layout: OCILayout, offset: int = 0) -> bytes:
    with layout.fetch(BLOB, offset=offset, flow=WorkerFlow()) as body:
        data, buffer = b"", memoryview(bytearray(9_999))
        while count := body.readinto(buffer):
            data += bytes(buffer[:count])
        return data


def test_what_was_stored_is_there_for_others(path):
    fill(path)
    layout = OCILayout(path)
    assert ["v1"] == layout.tags()
    assert MODEL == layout.document("v1") == layout.document() == layout.document(MODEL.digest)
    assert MODEL == layout.load(MODEL.digest)
    assert (DATA, DATA[777:]) == (read(layout), read(layout, 777))
    assert layout.exists(BLOB, flow=WorkerFlow())
    assert not layout.exists(descriptor_of(b"other"), flow=WorkerFlow())
    layout.check_source(BLOB)
    with pytest.raises(tk.SourceError):
        layout.check_source(descriptor_of(b"other"))
    with pytest.raises(tk.SourceError):
        layout.fetch(descriptor_of(b"other"), flow=WorkerFlow())
    assert layout.ingest(BLOB, flow=WorkerFlow()) is None
    assert layout.knows(BLOB)
    assert Tagged(layout, "v1") == layout.at("v1")
    assert f"<OCILayout {path}>" == repr(layout)
    layout.close()


def test_the_folder_is_what_the_specification_says(tmp_path):
    """Source: OCI image specification v1.1, image-layout.md."""
    fill(tmp_path)
    found = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    blobs = {f"blobs/sha256/{digest[7:]}" for digest in (BLOB.digest, CONFIG.digest, MODEL.digest)}
    assert {"oci-layout", "index.json", *blobs} == found - {"blobs/.partial/verified"}
    assert {"imageLayoutVersion": "1.0.0"} == json.loads((tmp_path / "oci-layout").read_bytes())
    described = {
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "digest": MODEL.digest,
        "size": len(MODEL.raw),
        "annotations": {"org.opencontainers.image.ref.name": "v1"},
    }
    assert {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [described],
    } == json.loads((tmp_path / "index.json").read_bytes())


def test_a_tar_file_is_written_whole_and_the_same_as_the_packed_folder(tmp_path):
    fill(tmp_path / "a.tar")
    fill(tmp_path / "folder").pack(tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert {"a.tar", "b.tar", "folder"} == set(os.listdir(tmp_path))
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert ["oci-layout", "index.json"] == tar.getnames()[:2]


def test_what_comes_to_a_tar_file_is_added_to_what_is_there(tmp_path):
    fill(tmp_path / "x.tar")
    before = (tmp_path / "x.tar").read_bytes()
    layout, other = OCILayout(tmp_path / "x.tar"), Manifest(manifest_of(b"{}", b"other"))
    layout.prepare([CONFIG, descriptor_of(b"other")])
    store(layout, b"{}")
    assert not (tmp_path / "x.tar.partial/blobs/sha256" / CONFIG.digest[7:]).exists()
    store(layout, b"other")
    layout.tag(other, "v2")
    assert before == (tmp_path / "x.tar").read_bytes()
    layout.flush()
    assert ["v1", "v2"] == OCILayout(tmp_path / "x.tar").tags() == layout.tags()
    assert MODEL == OCILayout(tmp_path / "x.tar").document("v1")
    assert DATA == read(OCILayout(tmp_path / "x.tar"))
    assert ["x.tar"] == os.listdir(tmp_path)
    layout.flush()
    layout.close()


def test_what_was_begun_for_a_tar_file_is_continued(tmp_path):
    first = OCILayout(tmp_path / "x.tar")
    first.prepare([BLOB])
    store(first, DATA)
    first.close()
    assert not (tmp_path / "x.tar").exists()
    second = OCILayout(tmp_path / "x.tar")
    assert second.knows(BLOB)
    second.tag(MODEL, "v1")
    second.close()
    assert DATA == read(OCILayout(tmp_path / "x.tar"))


def test_wrong_bytes_in_a_tar_file_are_replaced(tmp_path):
    fill(tmp_path / "x.tar")
    raw = (tmp_path / "x.tar").read_bytes()
    (tmp_path / "x.tar").write_bytes(raw.replace(DATA[:500], bytes(500)))
    layout = OCILayout(tmp_path / "x.tar")
    with pytest.raises(tk.SourceError, match="does not match"):
        read(layout)
    assert not layout.exists(BLOB, flow=WorkerFlow())
    store(layout, DATA)
    layout.tag(MODEL, "v1")
    layout.close()
    assert raw == (tmp_path / "x.tar").read_bytes()


# -- names


def test_a_tag_moves_and_manifests_without_names_are_entered_once(path):
    fill(path)
    other = Index(index_of(MODEL.raw))
    layout = OCILayout(path)
    layout.tag(other, "v1")
    for _ in range(2):
        layout.add(MODEL)
    assert ["v1"] == layout.tags()
    assert other == layout.document("v1")
    assert MODEL == layout.document(MODEL.digest)
    layout.close()
    assert 2 == len(OCILayout(path)._entries())


def test_a_manifest_that_is_missing_or_wrong_is_not_found(tmp_path):
    layout = fill(tmp_path)
    for change in (lambda file: file.write_bytes(bytes(len(MODEL.raw))), Path.unlink):
        change(tmp_path / "blobs/sha256" / MODEL.digest[7:])
        with pytest.raises(tk.ManifestNotFoundError, match=f"{MODEL.digest.short} is not in"):
            layout.document("v1")
    with pytest.raises(tk.BlobNotFoundError):
        layout.read(MODEL.digest)


def test_what_refers_to_a_manifest_is_found(path):
    fill(path)
    layout = OCILayout(path)
    subject = {"mediaType": MODEL.media_type, "digest": MODEL.digest, "size": len(MODEL.raw)}
    signature = Manifest(json.dumps({"schemaVersion": 2, "layers": [], "subject": subject}).encode())
    for document in (signature, Manifest(b'{"layers": [], "subject": 7}'), Manifest(b'{"layers": []}')):
        layout.add(document)
    layout.put(b"not a manifest")
    layout.tag(signature, "signature")
    assert [signature.digest] == layout.referrers(MODEL.digest)
    layout.close()


TAGGER = """
import sys, transferkit as tk
layout = tk.OCILayout(sys.argv[1])
for number in range(20):
    layout.tag(tk.Manifest(b'{"layers": []}'), f"{sys.argv[2]}{number}")
layout.close()
"""


def test_nobodys_tag_is_lost_where_several_processes_and_threads_tag_at_once(tmp_path):
    command = [sys.executable, "-c", TAGGER, str(tmp_path)]
    processes = [subprocess.Popen([*command, name], stderr=subprocess.PIPE) for name in "ab"]
    layout = OCILayout(tmp_path)
    threads = [
        threading.Thread(target=lambda name=name: [layout.tag(MODEL, f"{name}{number}") for number in range(20)])
        for name in "cd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in processes:
        _, said = process.communicate(timeout=60)
        assert (0, b"") == (process.returncode, said)
    assert {f"{name}{number}" for name in "abcd" for number in range(20)} == set(layout.tags())
    assert {"verified"} >= set(os.listdir(tmp_path / "blobs/.partial"))


def test_who_tags_waits_for_another_process_that_tags(tmp_path):
    class Slow(Disk):
        def read_file(self, path, limit, folder=None):
            data = super().read_file(path, limit, folder)
            if path.endswith("index.json") and thread.ident is None:
                thread.start()
                thread.join(0.1)
                assert thread.is_alive()
            return data

    fill(tmp_path)
    thread = threading.Thread(target=OCILayout(tmp_path).tag, args=[MODEL, "theirs"])
    OCILayout(tmp_path, disk=Slow()).tag(MODEL, "ours")
    thread.join()
    assert {"v1", "ours", "theirs"} == set(OCILayout(tmp_path).tags())


def test_after_a_crash_at_any_call_of_tagging_the_old_or_the_new_index_is_there(tmp_path):
    disk = FailingDisk(lambda *_: False)
    fill(tmp_path / "count", "v1", disk=disk, durable=True)
    for crash in range(1, sum(disk.counts.values()) + 1):
        root = tmp_path / f"{crash}"
        fill(root, "v0")
        dead = FailingDisk(lambda _, __, count, crash=crash: count >= crash)
        try:
            fill(root, "v1", disk=dead, durable=True)
        except tk.StorageError:
            pass
        layout = OCILayout(root)
        assert layout.tags() in (["v0"], ["v0", "v1"])
        assert MODEL == layout.document("v0")
        assert ["v0", "v1"] == sorted(fill(root, "v1").tags())
        assert {"oci-layout", "index.json", "blobs"} == set(os.listdir(root))


# -- bounds, and what stands in the way


def test_an_index_over_4_mib_is_refused(path, tmp_path):
    raw = index_of(MODEL.raw) + b" " * (4 * 1024 * 1024)
    if path.suffix:
        with tarfile.open(path, "w") as tar:
            info = tarfile.TarInfo("index.json")
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    else:
        path.mkdir()
        (path / "index.json").write_bytes(raw)
    with pytest.raises(tk.InvalidManifestError, match=r"index\.json.* is longer than 4194304 bytes"):
        OCILayout(path).tags()


@pytest.mark.parametrize("name", ["index.json", "oci-layout", "blobs", "blobs/sha256", "blobs/.partial"])
def test_a_planted_link_leads_nowhere(tmp_path, name):
    outside, root = tmp_path / "outside", tmp_path / "layout"
    outside.mkdir()
    (outside / "index.json").write_bytes(index_of(MODEL.raw))
    place = root / name
    place.parent.mkdir(parents=True)
    place.symlink_to(outside / "index.json" if "." in name[1:6] or name == "oci-layout" else outside)
    with pytest.raises(tk.StorageError):
        fill(root)
    assert ["index.json"] == os.listdir(outside)
    assert index_of(MODEL.raw) == (outside / "index.json").read_bytes()


def test_a_planted_link_in_the_place_of_a_tar_files_folder_leads_nowhere(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "x.tar.partial").symlink_to("outside")
    with pytest.raises(tk.StorageError, match="symbolic link"):
        fill(tmp_path / "x.tar")
    assert [] == os.listdir(tmp_path / "outside")


def test_links_and_strange_files_are_not_packed(tmp_path):
    layout = fill(tmp_path / "layout")
    (tmp_path / "precious").write_bytes(b"keep me")
    blobs = tmp_path / "layout/blobs/sha256"
    (blobs / (64 * "a")).symlink_to(tmp_path / "precious")
    (blobs / "README").write_bytes(b"x")
    (blobs / (64 * "b")).mkdir()
    (tmp_path / "layout/secret").write_bytes(b"x")
    layout.pack(tmp_path / "x.tar")
    with tarfile.open(tmp_path / "x.tar") as tar:
        names = set(tar.getnames())
    digests = (BLOB.digest, CONFIG.digest, MODEL.digest)
    assert {"oci-layout", "index.json", *(f"blobs/sha256/{digest[7:]}" for digest in digests)} == names


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_in_a_tar_file_are_not_there(tmp_path, kind):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("index.json", f"blobs/sha256/{BLOB.digest[7:]}"):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    layout = OCILayout(tmp_path / "x.tar")
    assert [] == layout.tags()
    with pytest.raises(tk.SourceError):
        layout.fetch(BLOB, flow=WorkerFlow())


def test_a_layout_that_can_only_be_read_can_be_read(path):
    fill(path)
    layout = OCILayout(path, disk=ReadOnlyDisk())
    assert MODEL == layout.document("v1")
    assert DATA == read(layout)
    with pytest.raises(tk.StorageError, match="read-only"):
        layout.tag(MODEL, "v2")
    layout.close()


def test_a_layout_that_is_only_looked_at_is_not_made(path):
    with OCILayout(path) as layout:
        assert [] == layout.tags()
    assert not path.exists()
