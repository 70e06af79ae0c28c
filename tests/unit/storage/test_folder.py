"""``.partial`` is found by its descriptor: what its name leads to while a call runs is of no account."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

import transferkit as tk
from tests.descriptors import open_descriptors
from tests.unit.storage.suite import BLOB, DATA, HALF, fill, is_stored, store
from transferkit.storage import folder as module
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk
from transferkit.storage.folder import OpenFolder
from transferkit.transfer.flow import WorkerFlow

thresholds = pytest.mark.parametrize("threshold", [1, 2**40], ids=["large", "small"])


@pytest.fixture
def outside(tmp_path) -> Path:
    """A folder that nobody asked to have changed."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "verified").write_bytes(b"precious")
    return tmp_path / "outside"


def swap(folder: Path, outside: Path) -> None:
    """Put a link in the place of ``.partial``."""
    (folder / ".partial").rename(folder / "moved")
    (folder / ".partial").symlink_to(outside)


def assert_untouched(outside: Path) -> None:
    assert ["verified"] == os.listdir(outside)
    assert b"precious" == (outside / "verified").read_bytes()


@thresholds
@pytest.mark.parametrize("at", ["before the first byte", "in the middle", "before the commit"])
def test_a_link_in_its_place_leads_nowhere_while_a_blob_is_filled(tmp_path, outside, threshold, at):
    folder = tmp_path / "d"
    directory = Directory(folder, resume_threshold=threshold)
    ingest = directory.ingest(BLOB, flow=WorkerFlow())
    if at == "before the first byte":
        swap(folder, outside)
    fill(ingest, DATA, HALF)
    if at == "in the middle":
        swap(folder, outside)
    fill(ingest, DATA)
    if at == "before the commit":
        swap(folder, outside)
    ingest.commit(WorkerFlow())
    assert_untouched(outside)
    assert is_stored(folder)
    with pytest.raises(tk.StorageError, match="symbolic link"):
        directory.close()  # the index is not written through it
    assert_untouched(outside)


@thresholds
@pytest.mark.parametrize("end", ["keep", "abort", "restart"])
def test_no_other_way_to_end_follows_a_link_either(tmp_path, outside, threshold, end):
    folder = tmp_path / "d"
    ingest = Directory(folder, resume_threshold=threshold).ingest(BLOB, flow=WorkerFlow())
    fill(ingest, DATA, HALF)
    swap(folder, outside)
    for ending in ("", ".json", ".lock"):
        (outside / f"{BLOB.digest.file_name}{ending}").write_bytes(b"precious")
    before = {path.name: path.read_bytes() for path in outside.iterdir()}
    getattr(ingest, end)()
    ingest.keep()
    assert before == {path.name: path.read_bytes() for path in outside.iterdir()}


def test_between_two_large_blobs_a_link_is_found_out_and_refused(tmp_path, outside):
    folder = tmp_path / "d"
    directory = Directory(folder, resume_threshold=1)
    store(directory, b"something else")
    swap(folder, outside)
    with pytest.raises(tk.StorageError, match=r"\.partial is a symbolic link; remove it"):
        store(directory, DATA)
    assert_untouched(outside)


def test_of_small_blobs_the_next_goes_where_the_others_are(tmp_path, outside):
    """A look before each of them would cost two calls; the folder that is open is the one that was made."""
    folder = tmp_path / "d"
    directory = Directory(folder)
    store(directory, b"something else")
    swap(folder, outside)
    store(directory, DATA)
    assert_untouched(outside)
    assert is_stored(folder)


@thresholds
def test_a_link_that_was_there_before_is_refused_and_what_is_in_it_is_not_believed(tmp_path, outside, threshold):
    folder = tmp_path / "d"
    store(Directory(folder, resume_threshold=threshold), DATA)
    directory = Directory(folder)
    directory.exists(BLOB, flow=WorkerFlow())
    directory.close()
    assert Directory(folder).knows(BLOB)
    shutil.copy(folder / ".partial" / "verified", outside / "verified")
    shutil.rmtree(folder / ".partial")
    (folder / ".partial").symlink_to(outside)
    assert not Directory(folder).knows(BLOB)
    (folder / BLOB.digest.file_name).unlink()
    with pytest.raises(tk.StorageError, match="symbolic link"):
        Directory(folder).prepare([BLOB])
    assert not (folder / BLOB.digest.file_name).exists()


def test_a_link_that_takes_its_place_as_soon_as_it_is_made_is_refused(tmp_path, outside):
    class Raced(Disk):
        def make_folder(self, path: str) -> None:
            super().make_folder(path)
            os.rmdir(path)
            os.symlink(outside, path)

    mode = outside.stat().st_mode
    (tmp_path / "d").mkdir(mode=0o777)
    with pytest.raises(tk.StorageError, match="symbolic link"):
        store(Directory(tmp_path / "d", disk=Raced()), DATA)
    assert_untouched(outside)
    assert mode == outside.stat().st_mode


@thresholds
def test_a_folder_that_vanishes_again_and_again_is_made_again_and_nothing_stays_open(tmp_path, threshold):
    directory = Directory(tmp_path, resume_threshold=threshold)
    store(directory, b"0")
    before = len(open_descriptors())
    for number in range(1, 20):
        shutil.rmtree(tmp_path / ".partial")
        store(directory, b"%d" % number)
    assert before == len(open_descriptors())
    directory.close()
    assert before - 1 == len(open_descriptors())


@thresholds
def test_an_nfs_server_says_of_a_folder_that_vanished_that_it_is_stale(tmp_path, threshold):
    class Stale(Disk):
        said = 0

        def create(self, path: str, folder: int | None = None) -> int:
            if not self.said:
                self.said += 1
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return super().create(path, folder)

    disk = Stale()
    store(Directory(tmp_path, resume_threshold=threshold, disk=disk), DATA)
    assert (1, True) == (disk.said, is_stored(tmp_path))


@thresholds
def test_without_descriptors_of_folders_paths_serve(tmp_path, threshold, monkeypatch):
    monkeypatch.setattr(module, "_BY_DESCRIPTOR", False)
    directory = Directory(tmp_path, resume_threshold=threshold)
    ingest = directory.ingest(BLOB, flow=WorkerFlow())
    fill(ingest, DATA, HALF)
    ingest.keep()
    store(directory, DATA)
    directory.close()
    assert is_stored(tmp_path)
    assert Directory(tmp_path).knows(BLOB)
    assert ["verified"] == os.listdir(tmp_path / ".partial")


def test_without_descriptors_of_folders_a_link_is_refused_too(tmp_path, outside, monkeypatch):
    monkeypatch.setattr(module, "_BY_DESCRIPTOR", False)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / ".partial").symlink_to(outside)
    with pytest.raises(tk.StorageError, match="symbolic link"):
        store(Directory(tmp_path / "d"), DATA)
    assert_untouched(outside)


def test_a_folder_that_cannot_be_read_can_be_opened(tmp_path, monkeypatch):
    real = os.open

    def refuse(path, flags, *more, **keywords):
        if not flags & os.O_PATH:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, flags, *more, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        folder = OpenFolder(str(tmp_path), Disk())
    folder.replace("x", b"here")
    folder.close()
    assert b"here" == (tmp_path / "x").read_bytes()


def test_a_replacement_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    class Full(Disk):
        def pwrite(self, fd: int, data: memoryview, offset: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "x").write_bytes(b"old")
    with OpenFolder(str(tmp_path), Full()) as folder, pytest.raises(OSError, match="No space"):
        folder.replace("x", b"new")
    assert (["x"], b"old") == (os.listdir(tmp_path), (tmp_path / "x").read_bytes())
