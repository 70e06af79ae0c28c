"""Files by the names that others have chosen: whole or not at all, and never through a link or outside."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

import transferkit as tk
from tests.descriptors import open_descriptors
from tests.unit.storage.suite import DATA, FailingDisk, descriptor_of, store
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk
from transferkit.storage.tree import Tree
from transferkit.transfer.flow import WorkerFlow


@pytest.fixture
def blobs(tmp_path: Path) -> Directory:
    directory = Directory(tmp_path / "blobs")
    store(directory, DATA)
    return directory


def write(tree: Tree, title: str, blobs: Directory) -> str:
    flow = WorkerFlow()
    flow.counter.next_unit()
    with blobs.fetch(descriptor_of(DATA), flow=flow) as body:
        return tree.write(title, body, flow)


def test_a_file_is_written_where_its_title_says(tmp_path, blobs):
    tree = Tree(tmp_path / "out")
    assert f"{tmp_path}/out/deep/er/file" == write(tree, "deep/er/file", blobs)
    assert f"{tmp_path}/out/file" == write(tree, "file", blobs)
    assert f"{tmp_path}/out/file" == write(tree, "file", blobs)  # in the place of the old one
    assert DATA == (tmp_path / "out/deep/er/file").read_bytes() == (tmp_path / "out/file").read_bytes()
    assert [] == os.listdir(tmp_path / "out/.partial")
    umask = os.umask(0)
    os.umask(umask)
    assert 0o666 & ~umask == stat.S_IMODE((tmp_path / "out/file").stat().st_mode)


def test_the_top_may_be_a_link_of_the_users(tmp_path, blobs):
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to("real")
    write(Tree(tmp_path / "out"), "a/b", blobs)
    assert DATA == (tmp_path / "real/a/b").read_bytes()


@pytest.mark.parametrize("title", ["../x", "/etc/x", "a/../x", "", "C:\\x", "a//b", "CON", "a/b "])
def test_a_title_that_leads_elsewhere_is_refused_before_anything_is_made(tmp_path, blobs, title):
    with pytest.raises(tk.InvalidNameError):
        write(Tree(tmp_path / "out"), title, blobs)
    assert ["blobs"] == os.listdir(tmp_path)


@pytest.mark.parametrize("place", ["deep", "deep/er", ".partial"])
def test_cve_2026_50162_a_link_in_the_place_of_a_folder_is_not_followed(tmp_path, blobs, place):
    (tmp_path / "outside").mkdir()
    (tmp_path / "out" / place).parent.mkdir(parents=True)
    (tmp_path / "out" / place).symlink_to(tmp_path / "outside")
    with pytest.raises(tk.StorageError, match="writing"):
        write(Tree(tmp_path / "out"), "deep/er/file", blobs)
    assert [] == os.listdir(tmp_path / "outside")


def test_a_link_in_the_place_of_the_file_is_replaced(tmp_path, blobs):
    (tmp_path / "precious").write_bytes(b"keep me")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/file").symlink_to(tmp_path / "precious")
    write(Tree(tmp_path / "out"), "file", blobs)
    assert not (tmp_path / "out/file").is_symlink()
    assert b"keep me" == (tmp_path / "precious").read_bytes()


def test_a_file_or_folder_in_the_way_is_an_error(tmp_path, blobs):
    tree = Tree(tmp_path / "out")
    write(tree, "file", blobs)
    with pytest.raises(tk.StorageError, match="a part of the path is a file"):
        write(tree, "file/below", blobs)
    write(tree, "folder/below", blobs)
    with pytest.raises(tk.StorageError, match=r"writing .*/out/folder failed"):
        write(tree, "folder", blobs)


@pytest.mark.parametrize(
    "call", ["make_folder", "make_folder_in", "open_folder", "create", "pwrite", "close", "rename"]
)
def test_whatever_fails_no_part_of_a_file_is_left(tmp_path, blobs, call):
    tree = Tree(tmp_path / "out", FailingDisk(lambda name, _, __: name == call, errno.ENOSPC))
    before = open_descriptors()
    with pytest.raises(tk.OutOfSpaceError, match=r"writing .*/deep/file|no space left writing"):
        write(tree, "deep/file", blobs)
    assert before == open_descriptors()
    assert [] == [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_wrong_content_gets_no_name(tmp_path, blobs):
    path = Path(blobs.blob_path(descriptor_of(DATA).digest))
    path.write_bytes(bytes(len(DATA)))
    with pytest.raises(tk.SourceError, match="does not match"):
        write(Tree(tmp_path / "out"), "file", Directory(blobs.path))
    assert [".partial"] == os.listdir(tmp_path / "out")
    assert [] == os.listdir(tmp_path / "out/.partial")


def test_what_stands_in_the_way_is_told(tmp_path, blobs):
    tree = Tree(tmp_path / "out")
    write(tree, "file", blobs)
    (tmp_path / "out/link").symlink_to(tmp_path)
    with pytest.raises(tk.StorageError, match="a part of the path is a file"):
        tree.statuses(["file/below"])
    blocked: set[str] = set()
    assert {"file/a/b": None, "file/c": None} == tree.statuses(["file/a/b", "file/c"], blocked)
    assert {"file"} == blocked
    for call in (lambda: tree.statuses(["link/x"], blocked), lambda: write(tree, "link/x", blobs)):
        with pytest.raises(tk.StorageError, match="link is a symbolic link, which is not followed; remove it"):
            call()


def test_all_that_is_below_a_folder_is_listed_and_no_link_is_followed(tmp_path, blobs):
    tree = Tree(tmp_path / "out")
    write(tree, "deep/er/file", blobs)
    (tmp_path / "out/deep/link").symlink_to(tmp_path)
    assert ["deep/er/file", "deep/link"] == list(tree.below("deep"))


def test_a_file_takes_the_place_of_what_was_seen_and_of_nothing_else(tmp_path, blobs):
    tree, source = Tree(tmp_path / "out"), tmp_path / "source"
    source.write_bytes(b"1")
    tree.place("a/file", str(source), over=None)
    seen = tree.statuses(["a/file"])["a/file"]
    source.write_bytes(b"2")
    for over in (None, source.lstat()):
        with pytest.raises(tk.StorageError, match="somebody has put another file there meanwhile"):
            tree.place("a/file", str(source), over=over)
    assert b"1" == (tmp_path / "out/a/file").read_bytes()
    tree.place("a/file", str(source), over=seen)
    assert (b"2", False) == ((tmp_path / "out/a/file").read_bytes(), source.exists())


def test_a_folder_is_removed_with_folders_in_it_and_not_with_files(tmp_path, blobs):
    tree = Tree(tmp_path / "out")
    write(tree, "deep/er/file", blobs)
    with pytest.raises(tk.StorageError, match=r"removing .*/deep failed"):
        tree.remove("deep")
    tree.remove("deep/er/file")
    tree.remove("deep/er/file")
    tree.remove("deep")
    assert [".partial"] == sorted(set(os.listdir(tmp_path / "out")) - {"source"})


def test_folders_are_made_before_and_one_that_takes_no_file_is_an_error(tmp_path):
    tree = Tree(tmp_path / "out")
    tree.prepare(["a/b/c", "d"])
    assert (tmp_path / "out/a/b").is_dir()

    is_true = True

    class ReadOnly(Disk):
        def can_write(self, folder: int) -> bool:
            return False

        def create(self, path: str, folder: int | None = None) -> int:
            if is_true:
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
            return super().create(path, folder)

    with pytest.raises(tk.StorageError, match=r"writing to .* check the permissions"):
        Tree(tmp_path / "out", ReadOnly()).prepare(["d"])
    is_true = False  # some file systems say it all the same
    Tree(tmp_path / "out", ReadOnly()).prepare(["d"])
    assert [] == [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
