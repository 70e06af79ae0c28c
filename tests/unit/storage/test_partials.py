"""What interrupted downloads have left: found, and removed when asked for."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import transferkit as tk
from tests.unit.storage.suite import BLOB, DATA, HALF, fill, is_stored, store
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk
from transferkit.storage.partials import discard, partials
from transferkit.transfer.flow import WorkerFlow

NAME = BLOB.digest.file_name


def touch(folder: Path, *names: str) -> Path:
    """Make these files in the ``.partial`` of a folder, and return that."""
    (folder / ".partial").mkdir()
    for name in names:
        (folder / ".partial" / name).write_bytes(b"x")
    return folder / ".partial"


def test_partial_files_are_found_and_nothing_else(tmp_path):
    unfinished = touch(
        tmp_path, NAME, f"{NAME}.{16 * 'a'}", f"{NAME}.json", f"{NAME}.lock", f"{NAME}.{16 * 'a'}.json", "verified"
    )
    (unfinished / f"sha512-{128 * 'b'}").symlink_to("elsewhere")
    found = partials(tmp_path)
    assert {f"{unfinished}/{NAME}", f"{unfinished}/{NAME}.{16 * 'a'}"} == {partial.path for partial in found}
    assert {BLOB.digest} == {partial.digest for partial in found}


def test_without_a_folder_there_are_none(tmp_path):
    assert [] == partials(tmp_path / "nothing")


def test_all_that_belongs_to_a_partial_file_is_removed_and_its_lock_last(tmp_path, monkeypatch):
    """Who takes the lock anew must not find a file that is about to be removed."""
    unfinished = touch(
        tmp_path, NAME, f"{NAME}.json", f"{NAME}.lock", f"{NAME}.{16 * 'a'}", f"{NAME}.{16 * 'a'}.json", "verified"
    )
    removed: list[str] = []
    monkeypatch.setattr(Disk, "unlink", lambda path: (removed.append(os.path.basename(path)), os.unlink(path)))
    assert 2 == len(discard(tmp_path, older_than=0))
    assert ["verified"] == os.listdir(unfinished)
    assert removed.index(NAME) < removed.index(f"{NAME}.lock")
    assert removed.index(f"{NAME}.json") < removed.index(f"{NAME}.lock")


def test_what_is_young_or_not_asked_for_stays(tmp_path):
    unfinished = touch(tmp_path, NAME)
    assert [] == discard(tmp_path, older_than=60)
    assert [] == discard(tmp_path, ["sha256:" + 64 * "0"], older_than=0)
    assert [NAME] == os.listdir(unfinished)


def test_a_large_blob_that_runs_is_left_alone(tmp_path):
    directory = Directory(tmp_path, resume_threshold=1)
    ingest = directory.ingest(BLOB, flow=WorkerFlow())
    fill(ingest, DATA)
    assert [] == discard(tmp_path, older_than=0)
    ingest.commit(WorkerFlow())
    assert is_stored(tmp_path)


def test_a_small_blob_that_runs_begins_again(tmp_path):
    directory = Directory(tmp_path)
    ingest = directory.ingest(BLOB, flow=WorkerFlow())
    fill(ingest, DATA, HALF)
    assert 1 == len(discard(tmp_path, older_than=0))
    fill(ingest, DATA)
    with pytest.raises(tk.VerificationError, match="moved, removed or replaced") as caught:
        ingest.commit(WorkerFlow())
    assert caught.value.retryable
    store(directory, DATA)
    assert is_stored(tmp_path)


def test_a_file_that_cannot_be_removed_is_an_error(tmp_path, monkeypatch):
    touch(tmp_path, NAME)

    def failing(path: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    monkeypatch.setattr(Disk, "unlink", failing)
    with pytest.raises(tk.StorageError, match="removing"):
        discard(tmp_path, older_than=0)
