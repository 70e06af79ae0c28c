"""What is here already, of many blobs: a ``stat`` for what the index has, and one listing for the others."""

from __future__ import annotations

import os

import pytest

from tests.unit.storage.suite import descriptor_of, store
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk
from transferkit.transfer.flow import WorkerFlow

CONTENTS = [bytes([number]) * 10 for number in range(40)]
BLOBS = [descriptor_of(content) for content in CONTENTS]


class CountingDisk(Disk):
    def __init__(self) -> None:
        self.asked: list[str] = []

    def stat(self, path, *arguments, **keywords):
        self.asked.append(os.path.basename(path))
        return os.stat(path, *arguments, **keywords)


@pytest.mark.parametrize("there", [False, True], ids=["no folder", "an empty one"])
def test_nothing_is_asked_of_a_folder_that_has_nothing(tmp_path, there):
    disk = CountingDisk()
    directory = Directory(tmp_path if there else tmp_path / "new", disk=disk)
    assert set() == directory.known(BLOBS)
    directory.prepare(BLOBS)
    assert [] == [name for name in disk.asked if name.startswith("sha256-")]


def test_what_was_verified_is_known_and_what_somebody_has_put_there_is_not(tmp_path):
    directory = Directory(tmp_path)
    for content in CONTENTS[:3]:
        store(directory, content)
    (tmp_path / BLOBS[3].digest.file_name).write_bytes(CONTENTS[3])
    directory.close()
    disk = CountingDisk()
    again = Directory(tmp_path, disk=disk)
    assert {blob.digest for blob in BLOBS[:3]} == again.known(BLOBS)
    assert sorted(blob.digest.file_name for blob in BLOBS[:3]) == sorted(disk.asked)
    disk.asked.clear()
    again.prepare(BLOBS[3:])
    assert [BLOBS[3].digest.file_name] == [name for name in disk.asked if name.startswith("sha256-")]


def test_of_a_folder_with_much_else_each_blob_is_asked_for(tmp_path):
    directory = Directory(tmp_path)
    store(directory, CONTENTS[0])
    directory.close()
    for number in range(4 * len(BLOBS)):
        (tmp_path / f"other-{number}").touch()
    disk = CountingDisk()
    again = Directory(tmp_path, disk=disk)
    assert {BLOBS[0].digest} == again.known(BLOBS)
    assert [BLOBS[0].digest.file_name] == disk.asked
    again.prepare(BLOBS)
    assert {blob.digest.file_name for blob in BLOBS} <= set(disk.asked)


def test_a_few_blobs_are_asked_for_without_a_listing(tmp_path, monkeypatch):
    directory = Directory(tmp_path)
    store(directory, CONTENTS[0])
    directory.close()
    (tmp_path / BLOBS[1].digest.file_name).write_bytes(CONTENTS[1])
    monkeypatch.setattr(os, "scandir", None)
    again = Directory(tmp_path)
    assert {BLOBS[0].digest} == again.known(BLOBS[:2])
    again.prepare(BLOBS[:2])


def test_what_was_missing_when_the_store_was_made_ready_is_seen_once_it_is_there(tmp_path):
    """However little later: a large blob is stored without a question, and who links it asks for it next."""
    directory = Directory(tmp_path)
    directory.prepare(BLOBS)
    (tmp_path / BLOBS[0].digest.file_name).write_bytes(CONTENTS[0])
    assert directory.exists(BLOBS[0], flow=WorkerFlow())
