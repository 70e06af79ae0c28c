"""The names of a store: races between processes, and what stands in the way."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

import transferkit as tk
from tests.unit.storage.suite import FailingDisk
from transferkit.names import Name
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk
from transferkit.storage.links import Links

NAME = Name("h.example", "n", "m", "t")


class Store:
    """Links, and the folder in which their files are made."""

    def __init__(self, root: Path, disk: Disk | None = None) -> None:
        self.links = Links(str(root), disk or Disk())
        self.blobs = Directory(root / "blobs", disk=disk)

    def write(self, name: Name, raw: bytes, *, durable: bool = False) -> None:
        self.links.write(name, raw, self.blobs.open_unfinished, durable=durable)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_namespaces_of_several_parts_are_folders(store, tmp_path):
    store.write(Name.parse("ghcr.io/org/team/model:v1"), b"1")
    store.write(Name.parse("localhost:5000/model:v1"), b"2")
    assert b"1" == (tmp_path / "manifests/ghcr.io/org/team/model/v1").read_bytes()
    assert b"2" == (tmp_path / "manifests/localhost:5000/model/v1").read_bytes()
    assert ["ghcr.io/org/team/model:v1", "localhost:5000/model:v1"] == [str(name) for name in store.links.names()]
    assert b"1" == store.links.read(Name.parse("GHCR.io/org/TEAM/model:V1"))


def test_a_name_that_another_one_is_a_folder_of_is_refused(store):
    store.write(Name("h.example", "a", "b", "t"), b"1")
    with pytest.raises(tk.StorageError, match="a part of the path is a file"):
        store.write(Name("h.example", "a/b", "t", "x"), b"2")
    store.write(Name("h.example", "c/d", "e", "t"), b"3")
    with pytest.raises(tk.StorageError, match=r"writing .*/c/d/e failed"):
        store.write(Name("h.example", "c", "d", "e"), b"4")
    assert b"1" == store.links.read(Name("h.example", "a", "b", "t"))


def test_a_host_that_is_too_long_for_a_folder_is_an_error_of_the_disk(store):
    with pytest.raises(tk.StorageError, match="File name too long"):
        store.write(Name("h" * 300, "n", "m", "t"), b"1")


def test_a_name_is_replaced_whole(store):
    store.write(NAME, b"1" * 1000)
    store.write(NAME, b"2")
    assert b"2" == store.links.read(NAME)


def test_writers_and_removers_do_not_disturb_each_other(tmp_path):
    """A folder may be removed, as it is empty, while somebody is about to write into it."""
    errors: list[BaseException] = []

    def work(number: int) -> None:
        store = Store(tmp_path)
        try:
            for _ in range(60):
                store.write(NAME, b"%d" % number)
                store.links.remove(NAME, durable=False)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == errors
    assert [] == Store(tmp_path).links.names()
    assert [] == os.listdir(tmp_path / "blobs/.partial")


def test_a_folder_that_is_always_removed_is_an_error_in_the_end(tmp_path):
    class Removing(Disk):
        def rename(self, source, target, folder=None, *, into=None):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    with pytest.raises(tk.StorageError, match="No such file"):
        Store(tmp_path, Removing()).write(NAME, b"1")
    assert [] == os.listdir(tmp_path / "blobs/.partial")


def test_what_disappears_while_it_is_read_is_not_found(tmp_path):
    Store(tmp_path).write(NAME, b"1")

    class Removing(Disk):
        def read_file(self, path, limit, folder=None):
            os.unlink(path, dir_fd=folder)
            return super().read_file(path, limit, folder)

    links = Store(tmp_path, Removing()).links
    with pytest.raises(tk.ManifestNotFoundError):
        links.read(NAME)
    Store(tmp_path).write(NAME, b"1")
    assert [] == list(links.contents())
    assert not links.remove(NAME, durable=True)


@pytest.mark.parametrize("call", ["open_folder", "read_file"])
def test_a_manifest_that_cannot_be_read_is_an_error_and_not_missing(tmp_path, call):
    Store(tmp_path).write(NAME, b"1")
    with pytest.raises(tk.StorageError, match="Input/output error"):
        Store(tmp_path, FailingDisk(lambda name, _, __: name == call)).links.read(NAME)


@pytest.mark.parametrize("durable", [True, False])
def test_names_are_made_and_removed_durably_if_wanted(tmp_path, durable):
    disk = FailingDisk(lambda *_: False)
    store = Store(tmp_path, disk)
    store.write(NAME, b"1", durable=durable)
    assert ((1, 5) if durable else (0, 0)) == (disk.counts["fsync"], disk.counts["sync_folder"])
    before = disk.counts["sync_folder"]
    store.links.remove(NAME, durable=durable)
    assert int(durable) == disk.counts["sync_folder"] - before


def test_folders_that_others_use_stay(store, tmp_path):
    store.write(NAME, b"1")
    store.write(Name("h.example", "n", "other", "t"), b"2")
    store.links.remove(NAME, durable=False)
    assert ["other"] == os.listdir(tmp_path / "manifests/h.example/n")


def test_a_folder_that_cannot_be_listed_hides_its_own_names_only(store, tmp_path, monkeypatch):
    store.write(NAME, b"1")
    store.write(Name("other.example", "n", "m", "t"), b"2")
    scandir = os.scandir

    def refuse(path):
        if path.endswith("h.example"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert ["other.example"] == [name.host for name in store.links.names()]
    assert b"2" == store.links.read(Name("other.example", "n", "m", "t"))
    for call in (
        lambda: list(store.links.contents()),
        lambda: store.links.read(NAME),
        lambda: store.links.remove(NAME, durable=False),
    ):
        with pytest.raises(tk.StorageError, match=r"h.example failed: .*check the permissions"):
            call()


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_names_that_cannot_be_read_are_not_none(store, monkeypatch, code):
    store.write(NAME, b"1")

    def refuse(path):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "scandir", refuse)
    for call in (store.links.names, lambda: store.links.read(NAME), lambda: store.links.linked_at(NAME)):
        with pytest.raises(tk.StorageError, match=f"reading .*/manifests failed: .*{os.strerror(code)}"):
            call()
