"""Whether the files of a snapshot are as they were made."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.storage.models import digest_of
from tests.unit.storage.suite import FailingDisk
from transferkit.storage.disk import Disk
from transferkit.storage.snapshot_files import SnapshotFiles
from transferkit.transfer.flow import WorkerFlow

DIGEST = digest_of(b"manifest")
FILES = {"a": digest_of(b"one"), "deep/b": digest_of(b"two")}


def files(tmp_path: Path, disk: Disk | None = None, knows: Any = lambda digest, status: False) -> SnapshotFiles:
    return SnapshotFiles(
        f"{tmp_path}/blobs", disk or Disk(), durable=False, knows=knows, clock=lambda: time.time() + 60.0
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "snapshot"
    (path / "deep").mkdir(parents=True)
    (path / "a").write_bytes(b"one")
    (path / "deep" / "b").write_bytes(b"two")
    files(tmp_path).remember(DIGEST, str(path), FILES)
    return path


def edit(folder: Path) -> None:
    before = (folder / "a").stat()
    (folder / "a").write_bytes(b"ONE")
    os.utime(folder / "a", ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_look_is_a_stat_a_file(tmp_path, folder):
    disk = FailingDisk(lambda *_: False)
    assert files(tmp_path, disk).are_right(DIGEST, str(folder))
    assert (2, 0) == (disk.counts["lstat"], disk.counts["preadv"])


@pytest.mark.parametrize(
    "change",
    [
        edit,
        lambda folder: (folder / "a").unlink(),
        lambda folder: (folder / "deep").rename(folder / "other"),
        lambda folder: ((folder / "a").unlink(), (folder / "a").symlink_to("deep/b")),
        lambda folder: ((folder / "deep").rename(folder / "x"), (folder / "deep").symlink_to("x")),
    ],
)
def test_a_file_that_is_missing_or_changed_is_found_out(tmp_path, folder, change):
    change(folder)
    assert not files(tmp_path).are_right(DIGEST, str(folder))
    assert not files(tmp_path).examine(DIGEST, str(folder), WorkerFlow())


def test_another_name_costs_one_hash_or_none_where_the_store_knows(tmp_path, folder):
    os.link(folder / "a", tmp_path / "mine")
    assert not files(tmp_path).are_right(DIGEST, str(folder))
    assert files(tmp_path, knows=lambda digest, _: digest == FILES["a"]).are_right(DIGEST, str(folder))
    assert files(tmp_path).examine(DIGEST, str(folder), WorkerFlow())
    assert files(tmp_path).are_right(DIGEST, str(folder))


def test_of_what_nothing_is_known_nobody_says_that_it_is_right(tmp_path, folder):
    files(tmp_path).forget(DIGEST)
    assert not files(tmp_path).are_right(DIGEST, str(folder))
    assert not files(tmp_path).examine(DIGEST, str(folder), WorkerFlow())
