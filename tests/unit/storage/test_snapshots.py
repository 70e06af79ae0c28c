"""Snapshots as folders of a store: no link is followed, and only what nobody needs is removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import transferkit as tk
from tests.unit.storage.models import HOUR, digest_of
from transferkit.storage.disk import Disk
from transferkit.storage.snapshots import Snapshots

DIGEST = digest_of(b"manifest")


@pytest.fixture
def snapshots(tmp_path: Path) -> Snapshots:
    return Snapshots(str(tmp_path / "c"), Disk())


def make(snapshots: Snapshots, name: str = "deep/file") -> Path:
    folder = snapshots.begin(DIGEST, is_alone=True)
    path = Path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"content")
    return Path(snapshots.publish(folder, DIGEST))


def test_it_is_found_once_it_is_published(snapshots):
    assert snapshots.find(DIGEST) is None
    folder = snapshots.begin(DIGEST, is_alone=True)
    assert snapshots.find(DIGEST) is None
    path = snapshots.publish(folder, DIGEST)
    assert path == snapshots.find(DIGEST) == snapshots.path_of(DIGEST)


def test_a_file_in_its_place_is_none(snapshots):
    os.makedirs(snapshots.path)
    Path(snapshots.path_of(DIGEST)).write_bytes(b"x")
    assert snapshots.find(DIGEST) is None
    with pytest.raises(tk.StorageError):
        make(snapshots)


@pytest.mark.parametrize("place", ["snapshots", "snapshots/.partial"])
def test_a_link_in_the_place_of_a_folder_is_not_followed(snapshots, tmp_path, place):
    (tmp_path / "outside").mkdir()
    (tmp_path / "c" / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "c" / place).symlink_to(tmp_path / "outside")
    with pytest.raises(tk.StorageError):
        snapshots.begin(DIGEST, is_alone=True)
    (tmp_path / "outside" / DIGEST.file_name).mkdir()
    assert [] == snapshots.find_garbage(set, -HOUR)
    with pytest.raises(tk.StorageError):
        snapshots.remove([], -HOUR)
    assert [DIGEST.file_name] == os.listdir(tmp_path / "outside")


def test_only_old_ones_that_nobody_keeps_are_garbage(snapshots):
    path = make(snapshots)
    os.makedirs(f"{snapshots.path}/foreign")
    assert [] == snapshots.find_garbage(set, HOUR)
    assert [] == snapshots.find_garbage(lambda: {DIGEST}, -HOUR)
    (entry,) = snapshots.find_garbage(set, -HOUR)
    assert (DIGEST, len(b"content"), str(path)) == (entry.digest, entry.size, entry.path)
    snapshots.remove([entry], -HOUR)
    assert [".partial", "foreign"] == sorted(os.listdir(snapshots.path))
    snapshots.remove([entry], -HOUR)  # somebody else has just done it


def test_nobody_is_asked_what_is_kept_where_there_is_nothing_old(snapshots):
    def kept():
        raise AssertionError("all manifests are read for nothing")

    make(snapshots)
    assert [] == snapshots.find_garbage(kept, HOUR)


def test_a_link_in_a_snapshot_is_removed_and_not_what_it_leads_to(snapshots, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_bytes(b"x")
    folder = snapshots.begin(DIGEST, is_alone=True)
    Path(folder, "link").symlink_to(tmp_path / "precious")
    again = snapshots.begin(DIGEST, is_alone=True)
    assert not os.path.exists(folder)
    assert os.path.isdir(again)
    assert ["file"] == os.listdir(tmp_path / "precious")


def test_what_another_one_fills_is_left_where_the_lock_is_not_ours(snapshots):
    first = snapshots.begin(DIGEST, is_alone=False)
    snapshots.begin(DIGEST, is_alone=False)
    assert os.path.isdir(first)


def test_one_whose_folder_was_left_writable_by_a_kill_is_made_read_only(snapshots):
    path = make(snapshots)
    path.chmod(0o755)
    assert str(path) == snapshots.find(DIGEST)
    assert 0 == path.stat().st_mode & 0o222


def test_who_waits_sees_a_file_grow(snapshots):
    folder = Path(snapshots.begin(DIGEST, is_alone=True), ".transferkit", ".partial")
    folder.mkdir(parents=True)
    file = folder / "file.0123456789abcdef"
    file.write_bytes(b"1")
    os.utime(file, ns=(1, 1))
    before = snapshots.growth()
    file.write_bytes(b"12")
    assert before != snapshots.growth()
