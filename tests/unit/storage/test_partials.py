"""What interrupted downloads have left: found, and removed when asked for."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

import transferkit as tk
from tests.unit.storage.suite import BLOB, DATA, HALF, fill, is_stored, store
from transferkit.storage import partials as module
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk
from transferkit.storage.lock import BlobLock
from transferkit.storage.partials import UNTOUCHED, discard, partials
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
    unlink = Disk.unlink
    monkeypatch.setattr(Disk, "unlink", lambda disk, name, folder: (removed.append(name), unlink(disk, name, folder)))
    assert 2 == len(discard(tmp_path, older_than=0))
    assert ["verified"] == os.listdir(unfinished)
    assert removed.index(NAME) < removed.index(f"{NAME}.lock")
    assert removed.index(f"{NAME}.json") < removed.index(f"{NAME}.lock")


@pytest.mark.parametrize("name", [NAME, f"{NAME}.{16 * 'a'}"])
@pytest.mark.parametrize("endings", [[".json"], [".json.new"], [".json", ".json.new"]])
def test_a_state_without_its_file_is_removed_and_is_nothing_to_go_on_with(tmp_path, name, endings):
    """Its process was killed while it began, or just before its end."""
    unfinished = touch(tmp_path, *(name + ending for ending in endings), "verified")
    assert [] == partials(tmp_path)
    assert [] == discard(tmp_path, older_than=60)
    (removed,) = discard(tmp_path, older_than=0)
    assert (BLOB.digest, f"{unfinished}/{name}{endings[0]}") == (removed.digest, removed.path)
    assert ["verified"] == os.listdir(unfinished)


@pytest.mark.parametrize("threshold", [1, 2**40])
def test_a_download_that_has_just_begun_keeps_its_state(tmp_path, monkeypatch, threshold):
    """The state of a large blob is there before its file."""
    create, seen = Disk.create, []

    def begin(disk: Disk, path: str, folder: int | None = None) -> int:
        seen.append(discard(tmp_path, older_than=0))
        return create(disk, path, folder)

    monkeypatch.setattr(Disk, "create", begin)
    store(Directory(tmp_path, resume_threshold=threshold), DATA)
    assert is_stored(tmp_path)
    assert seen
    assert [[]] * len(seen) == seen


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


def test_a_small_blob_that_runs_is_left_alone(tmp_path):
    directory = Directory(tmp_path)
    ingest = directory.ingest(BLOB, flow=WorkerFlow())
    fill(ingest, DATA, HALF)
    assert [] == discard(tmp_path, older_than=0)
    fill(ingest, DATA)
    ingest.commit(WorkerFlow())
    assert is_stored(tmp_path)


def test_what_a_small_blob_has_left_that_was_killed_is_removed_once_nothing_runs(tmp_path):
    directory = Directory(tmp_path)
    ingest = directory.ingest(BLOB, flow=WorkerFlow())
    fill(ingest, DATA, HALF)
    os.close(ingest._fd)  # as kill -9 does
    assert [] == discard(tmp_path, older_than=0)
    directory.close()
    assert [BLOB.digest] == [partial.digest for partial in discard(tmp_path, older_than=0)]
    assert [] == os.listdir(tmp_path / ".partial")


def test_beside_a_download_only_small_files_that_are_old_are_removed(tmp_path):
    directory = Directory(tmp_path)
    ingest = directory.ingest(BLOB, flow=WorkerFlow())
    fill(ingest, DATA, HALF)
    unfinished = tmp_path / ".partial"
    for ending, age in (("a", UNTOUCHED - 60), ("b", UNTOUCHED + 60)):
        (unfinished / f"{NAME}.{16 * ending}").write_bytes(b"x")
        os.utime(unfinished / f"{NAME}.{16 * ending}", (time.time() - age,) * 2)
    assert [f"{unfinished}/{NAME}.{16 * 'b'}"] == [partial.path for partial in discard(tmp_path, older_than=0)]
    ingest.abort()


@pytest.mark.parametrize("locks", ["granted to all", "refused"])
@pytest.mark.parametrize("threshold", [1, 2**40])
def test_what_runs_is_left_alone_where_there_are_no_locks(tmp_path, monkeypatch, locks, threshold):
    def flock(fd: int, operation: int) -> None:
        if locks == "refused":
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    ingest = Directory(tmp_path, resume_threshold=threshold).ingest(BLOB, flow=WorkerFlow())
    fill(ingest, DATA, HALF)
    assert [] == discard(tmp_path, older_than=0)
    fill(ingest, DATA)
    ingest.commit(WorkerFlow())
    assert is_stored(tmp_path)


def kept(folder: Path) -> Path:
    """Leave the half of a large blob."""
    ingest = Directory(folder, resume_threshold=1).ingest(BLOB, flow=WorkerFlow())
    fill(ingest, DATA, HALF)
    ingest.keep()
    return folder / ".partial" / NAME


@pytest.mark.parametrize("at", ["the look", "the lock", "the first removal", "the last removal"])
def test_whenever_a_large_blob_is_begun_meanwhile_it_ends_right(tmp_path, monkeypatch, at):
    """Two have the lock, or one loses its file, where the order is another one."""
    kept(tmp_path)
    begun = []

    def begin() -> None:
        if not begun:
            thread = threading.Thread(target=lambda: store(Directory(tmp_path, resume_threshold=1), DATA))
            begun.append(thread)
            thread.start()
            thread.join(0.2)  # it has to wait where the lock is held

    real_is_idle, real_attempt, real_unlink = module.is_idle, BlobLock.attempt, Disk.unlink

    def look(folder):
        if at == "the look":
            begin()
        return real_is_idle(folder)

    def attempt(lock):
        got = real_attempt(lock)
        if at == "the lock" and threading.current_thread() is threading.main_thread():
            begin()
        return got

    def unlink(disk, name, folder=None):
        is_first = name == NAME
        if threading.current_thread() is threading.main_thread() and at == "the first removal" and is_first:
            begin()
        real_unlink(disk, name, folder)
        if threading.current_thread() is threading.main_thread() and at == "the last removal" and name.endswith("lock"):
            begin()

    monkeypatch.setattr(module, "is_idle", look)
    monkeypatch.setattr(BlobLock, "attempt", attempt)
    monkeypatch.setattr(Disk, "unlink", unlink)
    discard(tmp_path, older_than=0)
    begun[0].join()
    assert is_stored(tmp_path)
    assert {"verified"} >= set(os.listdir(tmp_path / ".partial"))


def test_what_became_young_before_the_lock_was_ours_stays(tmp_path, monkeypatch):
    partial = kept(tmp_path)
    os.utime(partial, (1, 1))
    real = BlobLock.attempt

    def attempt(lock):
        os.utime(partial)  # another download has gone on with it, and was stopped
        return real(lock)

    monkeypatch.setattr(BlobLock, "attempt", attempt)
    assert [] == discard(tmp_path, older_than=60)
    assert partial.exists()


def test_a_lock_that_somebody_waits_for_is_not_taken_by_two(tmp_path):
    """Who waits for a lock has its file open, which is removed: he must not take that for the lock."""
    kept(tmp_path)
    held = []
    errors: list[BaseException] = []

    class Counting(Directory):
        def _open_large(self, *arguments):
            ingest = super()._open_large(*arguments)
            if ingest is not None:
                held.append(1)
                if sum(held) > 1:
                    errors.append(AssertionError("two have it"))
            return ingest

    def work() -> None:
        try:
            for _ in range(10):
                ingest = Counting(tmp_path, resume_threshold=1).ingest(BLOB, flow=WorkerFlow())
                fill(ingest, DATA, HALF)
                held.append(-1)
                ingest.keep()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        discard(tmp_path, older_than=0)
    for thread in threads:
        thread.join()
    assert [] == errors


def test_a_file_that_cannot_be_removed_is_an_error(tmp_path, monkeypatch):
    touch(tmp_path, NAME)

    def failing(disk: Disk, path: str, folder: int | None = None) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    monkeypatch.setattr(Disk, "unlink", failing)
    with pytest.raises(tk.StorageError, match="removing"):
        discard(tmp_path, older_than=0)
