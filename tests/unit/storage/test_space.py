"""The room that blobs will take: what lies there already needs none, and a disk that does not say has enough."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

import transferkit as tk
from tests.unit.storage.suite import FailingDisk
from transferkit.content.descriptor import MAX_SIZE, Descriptor
from transferkit.storage.disk import Disk
from transferkit.storage.space import Space

BLOB = Descriptor("sha256:" + 64 * "a", 100_000)
SMALL = Descriptor("sha256:" + 64 * "b", 1_000)


def space(folder, disk=None, *, free: int | None = None) -> Space:
    disk = disk or Disk()
    if free is not None:
        disk.free = lambda path: free
    return Space(folder=f"{folder}/d", partial=f"{folder}/p", resume_threshold=10_000, disk=disk)


def test_what_lies_there_already_needs_no_room(tmp_path):
    (tmp_path / "p").mkdir()
    for blob in (BLOB, SMALL):
        (tmp_path / "p" / blob.digest.file_name).write_bytes(bytes(4096))
    stored = os.stat(tmp_path / "p" / BLOB.digest.file_name).st_blocks * 512
    assert (101_000 - stored, 5) == space(tmp_path, free=5).room_for([BLOB, SMALL])


def test_what_does_not_fit_is_told_with_the_figures(tmp_path):
    space(tmp_path, free=100_000).check_room([BLOB])
    with pytest.raises(tk.OutOfSpaceError, match=r"1000 B left, and 100.0 kB are needed|left, and .* are needed"):
        space(tmp_path, free=1_000).check_room([BLOB])


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM, errno.ENOENT])
def test_a_file_system_that_does_not_say_has_room(tmp_path, code):
    there = space(tmp_path, FailingDisk(lambda name, *_: name == "free", code))
    assert (100_000, MAX_SIZE) == there.room_for([BLOB])
    there.check_room([BLOB])


def test_a_file_system_that_counts_nothing_has_room(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=0, f_frsize=4096, f_blocks=0))
    space(tmp_path).check_room([BLOB])


def test_a_disk_that_fails_is_an_error(tmp_path):
    with pytest.raises(tk.StorageError, match="free space"):
        space(tmp_path, FailingDisk(lambda name, *_: name == "free")).check_room([BLOB])
