"""Advisories about stores of models and image layouts; docs/threat-model.rst has a row for each."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

import transferkit as tk
from tests.unit.storage.models import digest_of, index_of, manifest_of
from transferkit.names import Name

RAW = manifest_of(b"{}", b"weights")


def plant(place: Path, target: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


@pytest.mark.parametrize("place", ["blobs", "manifests", "manifests/h.example", "manifests/h.example/n/m"])
def test_cve_2026_50162_a_link_among_the_folders_of_a_cache_is_refused(tmp_path, place):
    (tmp_path / "outside").mkdir()
    plant(tmp_path / "models" / place, tmp_path / "outside")
    with pytest.raises(tk.StorageError, match="symbolic link"):
        tk.DiskCache(tmp_path / "models").link("h.example/n/m:t", RAW)
    assert [] == os.listdir(tmp_path / "outside")


@pytest.mark.parametrize("place", ["blobs/" + digest_of(RAW).file_name, "manifests/h.example/n/m/t"])
def test_cve_2026_50162_a_link_at_a_blob_or_manifest_of_a_cache_is_replaced(tmp_path, place):
    (tmp_path / "precious").write_bytes(b"keep me")
    plant(tmp_path / "models" / place, tmp_path / "precious")
    cache = tk.DiskCache(tmp_path / "models")
    cache.link("h.example/n/m:t", RAW)
    assert RAW == cache.manifest("h.example/n/m:t") == (tmp_path / "models" / place).read_bytes()
    assert b"keep me" == (tmp_path / "precious").read_bytes()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE], ids=["symbolic", "hard"])
def test_cve_2026_50163_a_link_in_an_archive_leads_nowhere(tmp_path, kind):
    """GHSA-m37j-52j7-pjw7: neither does a chain of them. Nothing is unpacked, and links are nothing."""
    secret = tmp_path / "secret"
    secret.write_bytes(RAW)
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, target in [("index.json", "second"), ("second", str(secret)), (digest_of(RAW).hex, str(secret))]:
            info = tarfile.TarInfo(name if name != digest_of(RAW).hex else f"blobs/sha256/{name}")
            info.type, info.linkname = kind, target
            tar.addfile(info)
    layout = tk.OCILayout(tmp_path / "x.tar")
    assert [] == layout.tags()
    with pytest.raises(tk.BlobNotFoundError):
        layout.read(digest_of(RAW))


@pytest.mark.parametrize("name", ["index.json", "oci-layout", "manifest"])
def test_cve_2023_25153_files_of_a_layout_that_are_far_too_large_are_refused_unread(tmp_path, name):
    """As a folder with sparse files of 64 GiB, and as a tar file that speaks of as many."""
    path = f"blobs/sha256/{digest_of(RAW).hex}" if name == "manifest" else name
    contents = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": index_of(RAW), path: b""}
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for file, data in contents.items():
            (tmp_path / "folder" / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "folder" / file).write_bytes(data)
            info = tarfile.TarInfo(file)
            info.size = len(data)
            if file == path:
                os.truncate(tmp_path / "folder" / file, 64 * 1024**3)
                continue
            tar.addfile(info, io.BytesIO(data))
    with (tmp_path / "x.tar").open("r+b") as raw:
        header = tarfile.TarInfo(path)
        header.size = 64 * 1024**3
        raw.seek(sum(512 + -(-len(data) // 512) * 512 for file, data in contents.items() if file != path))
        raw.write(header.tobuf(tarfile.GNU_FORMAT))
        raw.truncate(65 * 1024**3)
    for layout in (tk.OCILayout(tmp_path / "folder"), tk.OCILayout(tmp_path / "x.tar")):
        with pytest.raises((tk.InvalidManifestError, tk.ManifestNotFoundError)):
            layout.document()


@pytest.mark.parametrize("name", [Name("..", "..", "etc", "x"), Name("h", "n", "m", "../../../../x"), "../../x:y"])
def test_cve_2021_41131_a_name_is_never_a_path_that_leads_out_of_a_cache(tmp_path, name):
    with pytest.raises(tk.InvalidNameError):
        tk.DiskCache(tmp_path / "models").link(name, RAW)
    with pytest.raises(tk.InvalidNameError):
        tk.DiskCache(tmp_path / "models").unlink(name)
    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize(
    "digest", ["sha256:../../../../etc/passwd", "sha256-" + 64 * "a", "../x", "sha256:" + "a" * 63]
)
def test_cve_2024_37032_what_is_no_digest_is_no_file_of_a_cache(tmp_path, digest):
    cache = tk.DiskCache(tmp_path / "models")
    for call in (cache.path, cache.get, lambda text: cache.put(b"x", text), lambda text: cache.link("a", text)):
        with pytest.raises(tk.InvalidDigestError):
            call(digest)
    assert [] == os.listdir(tmp_path)
