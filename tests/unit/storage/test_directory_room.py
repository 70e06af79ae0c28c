"""The room that blobs will take: what lies there already needs none, and a disk that does not say has enough."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

import transferkit as tk
from tests.unit.storage.suite import FailingDisk
from transferkit.content.descriptor import MAX_SIZE, Descriptor
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk

BLOB = Descriptor("sha256:" + 64 * "a", 100_000)
SMALL = Descriptor("sha256:" + 64 * "b", 1_000)


def target(folder, disk=None, *, free: int | None = None) -> Directory:
    disk = disk or Disk()
    if free is not None:
        disk.free = lambda path: free
    return Directory(f"{folder}/d", resume_threshold=10_000, disk=disk)


def test_what_lies_there_already_needs_no_room(tmp_path):
    (tmp_path / "d" / ".partial").mkdir(parents=True)
    for blob in (BLOB, SMALL):
        (tmp_path / "d" / ".partial" / blob.digest.file_name).write_bytes(bytes(4096))
    stored = os.stat(tmp_path / "d" / ".partial" / BLOB.digest.file_name).st_blocks * 512
    assert (101_000 - stored, 5) == target(tmp_path, free=5).room_for([BLOB, SMALL])


def test_what_does_not_fit_is_told_with_the_figures(tmp_path):
    target(tmp_path, free=100_000).prepare([BLOB])
    with pytest.raises(tk.OutOfSpaceError, match=r"has 1000 B left, and 97\.7 KiB are needed"):
        target(tmp_path, free=1_000).prepare([BLOB])


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM, errno.ENOENT])
def test_a_file_system_that_does_not_say_has_room(tmp_path, code):
    there = target(tmp_path, FailingDisk(lambda name, *_: name == "free", code))
    assert (100_000, MAX_SIZE) == there.room_for([BLOB])
    there.prepare([BLOB])


def test_a_file_system_that_counts_nothing_has_room(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=0, f_frsize=4096, f_blocks=0))
    there = target(tmp_path)
    there.prepare([BLOB])
    assert (100_000, MAX_SIZE) == there.room_for([BLOB])


def test_a_disk_that_fails_is_an_error(tmp_path):
    with pytest.raises(tk.StorageError, match="free space"):
        target(tmp_path, FailingDisk(lambda name, *_: name == "free")).prepare([BLOB])
