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
from transferkit.transfer.flow import WorkerFlow

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


@pytest.mark.parametrize("blocks", [0, 1])
def test_what_takes_less_room_than_it_has_is_not_asked_for_again(tmp_path, blocks):
    """Where files are compressed, and where a file system says of all files that they take none."""

    class Compressed(Disk):
        def stat(self, path: str) -> SimpleNamespace:
            return SimpleNamespace(st_blocks=blocks, st_size=os.stat(path).st_size)

    there = target(tmp_path)
    ingest = there.ingest(BLOB, flow=WorkerFlow())
    ingest.write_at(0, memoryview(bytes(60_000)))
    ingest.record(0, 59_999)
    ingest.record_unverified(80_000, 80_000)
    ingest.keep()
    disk = Compressed()
    disk.free = lambda path: 40_000
    assert (39_999, 40_000) == target(tmp_path, disk).room_for([BLOB])


@pytest.mark.parametrize(("frsize", "bsize", "free"), [(0, 512, 5120), (512, 4096, 5120), (0, 0, MAX_SIZE)])
def test_a_file_system_that_does_not_know_the_size_of_its_fragments(tmp_path, monkeypatch, frsize, bsize, free):
    status = SimpleNamespace(f_bavail=10, f_frsize=frsize, f_bsize=bsize, f_blocks=20)
    monkeypatch.setattr(os, "statvfs", lambda path: status)
    assert free == Disk().free(str(tmp_path))
