"""The registry's directory: what is synced before a method returns, and what a killed process leaves."""

from __future__ import annotations

import os
import threading
import time
import uuid
from pathlib import Path

import pytest

import transferkit as tk
from tests.unit.storage.suite import FailingDisk
from transferkit.content.digest import Digest
from transferkit.server.store import Store

HELLO = Digest("sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")
OTHER = Digest("sha256:" + 64 * "a")
TYPE = "application/vnd.oci.image.manifest.v1+json"


class Journal(FailingDisk):
    """A disk that writes down what changes it, with the last part of each path."""

    def __init__(self) -> None:
        super().__init__(lambda *_: False)
        self.calls: list[str] = []
        for name in ("fsync", "rename", "sync_folder", "unlink", "create"):
            setattr(self, name, self._noted(name, getattr(self, name)))

    def _noted(self, name, real):
        def call(*arguments, **keywords):
            paths = [str(argument).rpartition("/")[2] for argument in arguments if isinstance(argument, str)]
            self.calls.append(f"{name} {paths[-1]}" if paths and name != "create" else name)
            return real(*arguments, **keywords)

        return call

    def taken(self) -> list[str]:
        calls, self.calls = self.calls, []
        return calls


@pytest.fixture
def disk() -> Journal:
    return Journal()


def test_a_blob_is_durable_before_it_is_linked_and_its_link_before_anybody_hears_of_it(
    tmp_path: Path, disk: Journal
) -> None:
    repository = Store(tmp_path, disk=disk).repository("a")
    repository.link_blob(OTHER)  # makes the folders
    writer = repository.store.writer(repository.upload(str(uuid.uuid4())))
    writer.create()
    writer.append([b"hello"])
    disk.taken()

    writer.commit(HELLO)
    repository.link_blob(HELLO)

    assert ["fsync", f"rename {HELLO.file_name}", "sync_folder blobs", "create", "sync_folder _blobs"] == disk.taken()


def test_new_folders_are_durable_too(tmp_path: Path, disk: Journal) -> None:
    store = Store(tmp_path, disk=disk)
    disk.taken()
    store.repository("library/model").link_blob(HELLO)
    synced = [call for call in disk.taken() if call.startswith("sync_folder")]
    assert {"sync_folder repositories", "sync_folder library", "sync_folder model"} <= set(synced)
    assert synced[-1] == "sync_folder _blobs"


def test_a_manifest_is_durable_and_then_its_tags(tmp_path: Path, disk: Journal) -> None:
    repository = Store(tmp_path, disk=disk).repository("a")
    for _ in range(2):  # the second time there are all folders
        disk.taken()
        repository.put_manifest(HELLO, TYPE, b"hello", tags=["v1"], subject=OTHER)
    assert disk.taken() == [
        *("create", "fsync", f"rename {HELLO.file_name}", "sync_folder blobs"),
        *("create", f"sync_folder {OTHER.file_name}"),
        *("create", "fsync", f"rename {HELLO.file_name}", "sync_folder _manifests"),
        *("create", "fsync", "rename v1", "sync_folder _tags"),
    ]
    assert repository.manifest("v1") == (HELLO, TYPE, b"hello")


def test_what_was_removed_stays_removed(tmp_path: Path, disk: Journal) -> None:
    repository = Store(tmp_path, disk=disk).repository("a")
    repository.link_blob(HELLO)
    disk.taken()
    assert [True, False] == [repository.unlink_blob(HELLO), repository.unlink_blob(HELLO)]
    assert disk.taken() == [f"unlink {HELLO.file_name}", "sync_folder _blobs", f"unlink {HELLO.file_name}"]


def test_nothing_is_synced_where_that_is_not_wanted(tmp_path: Path, disk: Journal) -> None:
    repository = Store(tmp_path, durable=False, disk=disk).repository("a")
    repository.put_manifest(HELLO, TYPE, b"hello", tags=["v1"], subject=OTHER)
    repository.link_blob(HELLO)
    repository.unlink_blob(HELLO)
    assert [] == [call for call in disk.taken() if "sync" in call]


def test_a_disk_that_fails_leaves_the_old_tag(tmp_path: Path) -> None:
    Store(tmp_path).repository("a").put_manifest(HELLO, TYPE, b"hello", tags=["v1"])
    disk = FailingDisk(lambda name, *_: name == "fsync")
    with pytest.raises(tk.StorageError, match="writing"):
        Store(tmp_path, disk=disk).repository("a").put_manifest(OTHER, TYPE, b"other", tags=["v1"])
    assert Store(tmp_path).repository("a").manifest("v1") == (HELLO, TYPE, b"hello")


def test_a_new_process_removes_small_files_without_a_name_and_keeps_uploads(tmp_path: Path) -> None:
    store = Store(tmp_path)
    upload = store.repository("a").upload(str(uuid.UUID(int=1)))
    store.writer(upload).create()
    left = tmp_path / "uploads" / f"sha256-{64 * '0'}.{16 * 'a'}"
    left.write_bytes(b"half")

    assert [upload] == Store(tmp_path).upload_names()
    assert left.exists()  # another process may be writing it
    os.utime(left, (0, time.time() - 3700))
    assert [upload] == Store(tmp_path).upload_names()
    assert [upload] == os.listdir(tmp_path / "uploads")


def test_a_store_that_is_read_only_makes_nothing(tmp_path: Path) -> None:
    repository = Store(tmp_path / "none", read_only=True).repository("a")
    assert (False, None, []) == (repository.has_blob(HELLO), repository.manifest("v1"), repository.tags())
    assert [] == os.listdir(tmp_path)


def test_a_link_in_the_place_of_a_tag_is_not_followed(tmp_path: Path) -> None:
    repository = Store(tmp_path).repository("a")
    repository.put_manifest(HELLO, TYPE, b"hello", tags=["v1"])
    (tmp_path / "secret").write_text(HELLO)
    (tmp_path / "repositories/a/_tags/v2").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic"):
        repository.manifest("v2")


def test_a_relative_path_is_that_of_the_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    repository = Store("store").repository("a")
    monkeypatch.chdir("/")
    repository.put_manifest(HELLO, TYPE, b"hello", tags=["v1"])
    assert (tmp_path / "store/repositories/a/_tags/v1").read_text() == HELLO


def test_a_manifest_that_is_removed_while_it_is_tagged_anew_leaves_no_tag_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, durable=False)
    repository, write, removers = store.repository("a"), store.write, list[threading.Thread]()

    def write_slowly(path: str, data: bytes) -> None:
        write(path, data)
        if "_manifests" in path and not removers:
            removers.append(threading.Thread(target=repository.remove_manifest, args=(HELLO,)))
            removers[0].start()
            removers[0].join(0.2)

    monkeypatch.setattr(store, "write", write_slowly)
    repository.put_manifest(HELLO, TYPE, b"hello", tags=["v1"])
    removers[0].join()

    assert ([], None) == (repository.tags(), repository.manifest("v1"))
