"""The lock on one blob: who comes second waits, and can be cancelled."""

from __future__ import annotations

import errno
import fcntl
import os
import threading

import pytest

import transferkit as tk
from transferkit.storage.disk import Disk
from transferkit.storage.lock import BlobLock, unheld
from transferkit.transfer.flow import WorkerFlow

NAME = f"sha256-{64 * 'a'}.lock"


def make(folder) -> BlobLock:
    return BlobLock(f"{folder}/{NAME}", Disk())


def is_free(folder) -> bool:
    with unheld(f"{folder}/{NAME}") as free:
        return free


def test_one_holds_it_at_a_time(tmp_path):
    first, second = make(tmp_path), make(tmp_path)
    first.acquire(WorkerFlow())
    assert not is_free(tmp_path)
    got = threading.Event()
    thread = threading.Thread(target=lambda: (second.acquire(WorkerFlow()), got.set()))
    thread.start()
    assert not got.wait(0.2)
    first.release()
    assert got.wait(10)
    thread.join()
    second.release()
    assert is_free(tmp_path)


def test_a_wait_can_be_cancelled(tmp_path):
    first, flow = make(tmp_path), WorkerFlow()
    first.acquire(WorkerFlow())
    flow.cut(tk.CancelledError("now"), final=True)
    with pytest.raises(tk.CancelledError, match="now"):
        make(tmp_path).acquire(flow)
    first.release()


def test_who_finds_it_free_keeps_it_so(tmp_path):
    """What is removed under it is not what a download has just begun to continue."""
    lock, waiting = make(tmp_path), make(tmp_path)
    lock.acquire(WorkerFlow())
    lock.release()
    assert os.path.exists(tmp_path / NAME)
    got = threading.Event()
    thread = threading.Thread(target=lambda: (waiting.acquire(WorkerFlow()), got.set()))
    with unheld(f"{tmp_path}/{NAME}") as free:
        assert free
        thread.start()
        assert not got.wait(0.2)
    assert got.wait(10)
    thread.join()
    waiting.release()


def test_a_lock_without_its_file_is_released_and_leaves_none(tmp_path):
    lock = make(tmp_path)
    lock.acquire(WorkerFlow())
    os.unlink(f"{tmp_path}/{NAME}")
    lock.release()
    lock.release()
    assert [] == os.listdir(tmp_path)
    assert is_free(tmp_path)


class Refusing:
    """A ``FileLock`` on a file system that answers with an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def acquire(self, **_: object) -> None:
        raise self.error

    def release(self) -> None:
        pass


REFUSED = [NotImplementedError(), *(OSError(code, os.strerror(code)) for code in (errno.ENOLCK, errno.EPERM, 524))]


@pytest.mark.parametrize("error", REFUSED, ids=repr)
def test_a_file_system_without_locks_is_gone_on_without(tmp_path, error):
    lock = make(tmp_path)
    lock._lock = Refusing(error)
    lock.acquire(WorkerFlow())
    assert not lock.is_held
    lock.release()


def test_a_lock_that_is_granted_to_everybody_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda fd, operation: None)
    lock = make(tmp_path)
    lock.acquire(WorkerFlow())
    assert not lock.is_held
    lock.release()


def test_a_lock_that_keeps_others_away_is_held_until_it_is_released(tmp_path):
    lock = make(tmp_path)
    lock.acquire(WorkerFlow())
    assert lock.is_held
    lock.release()
    assert not lock.is_held


def test_a_disk_that_fails_is_a_storage_error(tmp_path):
    lock = make(tmp_path)
    lock._lock = Refusing(OSError(errno.EIO, "Input/output error"))
    with pytest.raises(tk.StorageError, match=r"locking .* failed: Input/output error"):
        lock.acquire(WorkerFlow())


@pytest.mark.parametrize("plant", [os.mkdir, lambda path: os.symlink("elsewhere", path)])
def test_a_lock_that_cannot_be_opened_is_a_storage_error(tmp_path, plant):
    plant(tmp_path / NAME)
    with pytest.raises(tk.StorageError, match=r"locking .* failed"):
        make(tmp_path).acquire(WorkerFlow())
    assert [NAME] == os.listdir(tmp_path)
