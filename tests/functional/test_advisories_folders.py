"""Advisories on what is unpacked: nothing of a layer leads out of the folder, and nothing of it fills the disk."""

from __future__ import annotations

import os
import tarfile

import pytest

import transferkit as tk
from tests.functional.folders import WHERE, change, contents, image_of, model_of, name_in, tar_of
from tests.functional.models import client

MIB = 1024 * 1024


@pytest.mark.parametrize(
    "name", ["models/../../outside", "models/..", "models/a\\..\\..\\x", "models/C:x", "models//x"]
)
def test_cve_2024_45436_a_member_that_leads_out_of_the_folder_is_refused(registry, tmp_path, name):
    image_of(tar_of({"models/good": b"1", name: b"2"}, zipped=True)).put(registry.url, WHERE)
    with client(tmp_path / "c") as registries, pytest.raises(tk.InvalidNameError):
        registries.pull(name_in(registry), to=tmp_path / "out")
    assert {"c", "out"} == set(os.listdir(tmp_path))
    assert {} == contents(tmp_path / "out")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["../../outside", "/etc", "."])
def test_cve_2026_50163_a_link_in_a_layer_leads_nowhere(registry, tmp_path, kind, target):
    """Also not as a step of a chain: what lies behind it becomes a folder of its own."""
    (tmp_path / "outside").mkdir()
    link = tarfile.TarInfo()
    link.type, link.linkname = kind, target
    again = tarfile.TarInfo()
    again.type, again.linkname = tarfile.SYMTYPE, "models/link"
    layer = tar_of({"models/link": link, "models/chain": again, "models/chain/x": b"1", "models/link/file": b"2"})
    image_of(layer, zipped=False).put(registry.url, WHERE)
    with client(tmp_path / "c") as registries:
        registries.pull(name_in(registry), to=tmp_path / "out", cache=None)
    assert {"chain/x": b"1", "link/file": b"2"} == contents(tmp_path / "out")
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
    assert [] == os.listdir(tmp_path / "outside")


def test_cve_2026_50162_a_link_that_is_planted_in_a_folder_between_two_pulls_leads_nowhere(registry, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a").write_bytes(b"mine")
    with client(tmp_path / "c") as registries:
        model_of({"deep/a": b"1"}).put(registry.url, WHERE)
        registries.pull(name_in(registry), to=tmp_path / "out")
        os.rename(tmp_path / "out" / "deep", tmp_path / "out" / "old")
        (tmp_path / "out" / "deep").symlink_to(tmp_path / "outside")
        model_of({"deep/a": b"2", "b": b"3"}).put(registry.url, WHERE)
        for overwrite in (False, True):
            with pytest.raises(tk.StorageError):
                registries.pull(name_in(registry), to=tmp_path / "out", overwrite=overwrite)
    assert b"mine" == (tmp_path / "outside" / "a").read_bytes()


def test_cve_2024_12886_what_unpacks_to_too_much_is_refused(registry, tmp_path):
    image_of(tar_of({"models/a": bytes(66 * MIB)}, zipped=True)).put(registry.url, WHERE)
    with client(tmp_path / "c") as registries, pytest.raises(tk.InvalidModelError, match="unpacks to more than"):
        registries.pull(name_in(registry), to=tmp_path / "out", cache=None)
    assert {} == contents(tmp_path / "out")
    options = tk.TransferOptions(unpack_ratio=2000)
    with client(tmp_path / "c", options=options) as registries:
        assert ("a",) == registries.pull(name_in(registry), to=tmp_path / "out", cache=None).written


def test_ggcr_2227_what_is_harmless_is_unpacked(registry, tmp_path):
    """Names with dots, a ``./`` before them, and members that are outside of what is meant."""
    files = {"./models/..a": b"1", "models/a..b": b"2", "../elsewhere": b"4", "/etc/x": b"5"}
    image_of(tar_of(files, zipped=True)).put(registry.url, WHERE)
    with client(tmp_path / "c") as registries:
        registries.pull(name_in(registry), to=tmp_path / "out")
        change(tmp_path / "out" / "..a", b"1")
        assert () == registries.pull(name_in(registry), to=tmp_path / "out").written
    assert {"..a": b"1", "a..b": b"2"} == contents(tmp_path / "out")
