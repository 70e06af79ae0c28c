"""The lock on one blob: who comes second waits, is told so, can be cancelled, and does not wait for ever."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading

import pytest

import transferkit as tk
from transferkit.storage import lock as module
from transferkit.storage.disk import Disk
from transferkit.storage.folder import OpenFolder
from transferkit.storage.lock import BlobLock, brief_lock, is_idle, share
from transferkit.transfer.flow import WorkerFlow

NAME = f"sha256-{64 * 'a'}.lock"


class Waiting(WorkerFlow):
    """A flow, and a clock that moves while it waits; ``at`` says what happens at which second."""

    def __init__(self, **at) -> None:
        super().__init__()
        self.now = 1000.0
        self._at = {1000.0 + float(second): happens for second, happens in at.items()}

    def clock(self) -> float:
        return self.now

    def wait(self, seconds: float, why: str = "") -> None:
        self.check()
        assert 0 < seconds < 1
        self.now += seconds
        for second in [second for second in self._at if second <= self.now]:
            self._at.pop(second)()


def make(folder, flow: Waiting | None = None, disk: Disk | None = None) -> BlobLock:
    opened = OpenFolder(str(folder), disk or Disk())
    return BlobLock(opened, NAME, clock=flow.clock) if flow is not None else BlobLock(opened, NAME)


def still() -> int:
    return 0


def is_free(folder) -> bool:
    lock = make(folder)
    try:
        return lock.attempt()
    finally:
        lock.release()


def test_one_holds_it_at_a_time(tmp_path):
    first, second = make(tmp_path), make(tmp_path)
    assert first.attempt()
    assert not is_free(tmp_path)
    got = threading.Event()
    thread = threading.Thread(target=lambda: (second.acquire(WorkerFlow(), still), got.set()))
    thread.start()
    assert not got.wait(0.2)
    first.release()
    assert got.wait(10)
    thread.join()
    assert (True, False) == (second.is_held, second.is_others)
    second.release()
    assert is_free(tmp_path)


def test_a_wait_can_be_cancelled(tmp_path):
    first, flow = make(tmp_path), WorkerFlow()
    assert first.attempt()
    flow.cut(tk.CancelledError("now"), final=True)
    with pytest.raises(tk.CancelledError, match="now"):
        make(tmp_path).acquire(flow, still)
    first.release()


def test_a_long_wait_is_told_once_with_the_file_and_the_process_and_so_is_its_end(tmp_path, caplog):
    first = make(tmp_path)
    assert first.attempt()
    flow = Waiting(**{"60": first.release})
    second = make(tmp_path, flow)
    caplog.set_level(logging.INFO, "transferkit")
    second.acquire(flow, still)
    second.release()
    first.release()
    waiting, over = caplog.records
    assert ("transferkit.storage.lock", logging.WARNING) == (waiting.name, waiting.levelno)
    assert f"waiting for {tmp_path}/{NAME}" in waiting.message
    assert f"process {os.getpid()} on {os.uname().nodename}" in waiting.message
    assert ("transferkit.storage.lock", logging.INFO) == (over.name, over.levelno)
    assert f"the wait for {tmp_path}/{NAME} is over: 60 s" == over.message


def test_a_long_wait_that_is_cancelled_is_told_to_be_over(tmp_path, caplog):
    first = make(tmp_path)
    assert first.attempt()
    flow = Waiting(**{"7": lambda: flow.cut(tk.CancelledError("enough"), final=True)})
    caplog.set_level(logging.INFO, "transferkit")
    with pytest.raises(tk.CancelledError, match="enough"):
        make(tmp_path, flow).acquire(flow, still)
    first.release()
    assert [logging.WARNING, logging.INFO] == [record.levelno for record in caplog.records]
    assert "is over: 7 s" in caplog.records[1].message


@pytest.mark.parametrize("seconds", ["4.9", "0.1"])
def test_a_short_wait_is_not_told(tmp_path, caplog, seconds):
    first = make(tmp_path)
    assert first.attempt()
    flow = Waiting(**{seconds: first.release})
    caplog.set_level(logging.INFO, "transferkit")
    lock = make(tmp_path, flow)
    lock.acquire(flow, still)
    lock.release()
    assert [] == caplog.records


@pytest.mark.parametrize(
    "text", [b"", b"17", b"-1 host\n", b"1 ho\x1b[31mst\n", b"1 a\nb\n" * 99, b"\xff" * 400, b"x y z"]
)
def test_who_holds_it_is_only_told_where_the_file_says_it(tmp_path, caplog, text):
    first = make(tmp_path)
    assert first.attempt()
    (tmp_path / NAME).write_bytes(text)
    flow = Waiting(**{"6": first.release})
    lock = make(tmp_path, flow)
    lock.acquire(flow, still)
    lock.release()
    who = "process 1 on a" if text.startswith(b"1 a") else "another process"
    assert caplog.records[0].message.endswith(f"locked by {who}; this goes on when that ends, or is silent for 300 s")


def test_where_nothing_comes_any_more_its_holder_is_not_waited_for(tmp_path, caplog):
    first, sizes = make(tmp_path), [0]
    assert first.attempt()
    flow = Waiting(**{"200": lambda: sizes.append(7), "450": lambda: sizes.append(8)})
    second = make(tmp_path, flow)
    caplog.set_level(logging.INFO, "transferkit")
    second.acquire(flow, lambda: sizes[-1])
    assert (False, True) == (second.is_held, second.is_others)
    assert 750 <= flow.now - 1000 < 751
    assert "was given up" in caplog.records[-1].message
    second.remove()
    second.release()
    assert not is_free(tmp_path)  # it is the other's as before
    assert [NAME] == os.listdir(tmp_path)
    first.release()


def test_who_is_not_patient_waits_for_nobody(tmp_path):
    first = make(tmp_path)
    assert first.attempt()
    flow = Waiting()
    second = make(tmp_path, flow)
    second.acquire(flow, still, patient=False)
    assert (True, 1000.0) == (second.is_others, flow.now)
    first.release()


def test_a_lock_whose_file_was_removed_is_none(tmp_path):
    """Whoever comes next takes a file of the same name: two would have the lock."""
    waiting, remover, third = make(tmp_path), make(tmp_path), make(tmp_path)
    assert remover.attempt()
    assert not waiting.attempt()  # it has the file open that is removed now
    remover.remove()
    remover.release()
    assert third.attempt()
    assert not waiting.attempt()
    third.release()
    assert waiting.attempt()
    waiting.release()


def test_a_holder_whose_file_was_taken_away_keeps_nobody_waiting(tmp_path):
    lock, second = make(tmp_path), make(tmp_path)
    assert lock.attempt()
    assert not second.attempt()
    os.unlink(tmp_path / NAME)
    assert second.attempt()
    assert second.is_held
    lock.release()
    lock.release()
    second.release()


def test_a_lock_is_released_though_a_forked_child_has_it_open(tmp_path):
    lock = make(tmp_path)
    assert lock.attempt()
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    lock.release()
    try:
        assert is_free(tmp_path)
    finally:
        os.close(write)
        os.waitpid(pid, 0)


class Refusing(Disk):
    """A file system that answers with an error."""

    def __init__(self, code: int) -> None:
        self.code = code

    def lock(self, fd: int, operation: int) -> None:
        raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, 524])
def test_a_file_system_without_locks_is_gone_on_without(tmp_path, code):
    lock = make(tmp_path, disk=Refusing(code))
    lock.acquire(WorkerFlow(), still)
    assert (False, False) == (lock.is_held, lock.is_others)
    lock.remove()
    lock.release()
    assert [] == os.listdir(tmp_path)


def test_a_lock_that_is_granted_to_everybody_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda fd, operation: None)
    lock = make(tmp_path)
    lock.acquire(WorkerFlow(), still)
    assert not lock.is_held
    lock.release()


def test_where_inodes_are_made_up_the_lock_is_none_and_nobody_waits(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "is_named", lambda *_: False)
    lock = make(tmp_path)
    lock.acquire(WorkerFlow(), still)
    assert not lock.is_held
    lock.release()


def test_a_lock_that_keeps_others_away_is_held_until_it_is_released(tmp_path):
    lock = make(tmp_path)
    lock.acquire(WorkerFlow(), still)
    assert lock.is_held
    lock.release()
    assert not lock.is_held


def test_a_disk_that_fails_is_a_storage_error(tmp_path):
    lock = make(tmp_path, disk=Refusing(errno.EIO))
    with pytest.raises(tk.StorageError, match=r"locking .* failed: Input/output error"):
        lock.acquire(WorkerFlow(), still)
    lock.release()


@pytest.mark.parametrize("plant", [os.mkdir, lambda path: os.symlink("elsewhere", path)])
def test_a_lock_that_cannot_be_opened_is_a_storage_error(tmp_path, plant):
    plant(tmp_path / NAME)
    with pytest.raises(tk.StorageError, match=r"locking .* failed"):
        make(tmp_path).acquire(WorkerFlow(), still)
    assert [NAME] == os.listdir(tmp_path)


def test_a_folder_is_idle_unless_somebody_writes_in_it(tmp_path):
    mine, other = OpenFolder(str(tmp_path), Disk()), OpenFolder(str(tmp_path), Disk())
    assert is_idle(mine)
    share(other)
    share(mine)  # several may
    assert not is_idle(mine)
    other.close()
    assert not is_idle(mine)
    mine.close()
    assert is_idle(mine)


@pytest.mark.parametrize("locks", ["granted to all", "refused"])
def test_where_locks_tell_nothing_no_folder_is_known_to_be_idle(tmp_path, monkeypatch, locks):
    def flock(fd: int, operation: int) -> None:
        if locks == "refused":
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with OpenFolder(str(tmp_path), Disk()) as folder:
        share(folder)
        assert not is_idle(folder)


# -- locks that everybody holds for moments


def test_a_brief_lock_is_waited_for_and_leaves_nothing(tmp_path):
    folder, waits = OpenFolder(str(tmp_path), Disk()), []
    holder = BlobLock(folder, "gate")
    assert holder.attempt()

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            holder.remove()
            holder.release()

    with brief_lock(folder, "gate", sleep=sleep):
        assert not BlobLock(folder, "gate").attempt()
    assert 3 == len(waits)
    assert [] == os.listdir(tmp_path)


def test_a_brief_lock_that_is_held_for_long_is_done_without_and_left_alone(tmp_path, caplog):
    folder, now = OpenFolder(str(tmp_path), Disk()), [0.0]
    holder = BlobLock(folder, "gate")
    assert holder.attempt()
    with brief_lock(folder, "gate", sleep=lambda _: now.append(now[-1] + 10), clock=lambda: now[-1]):
        pass
    assert [0.0, 10.0, 20.0, 30.0] == now
    assert "not waited for any more" in caplog.text
    assert not BlobLock(folder, "gate").attempt()
    holder.release()


def test_a_brief_lock_in_a_folder_that_has_just_gone_is_done_without(tmp_path):
    (tmp_path / "gone").mkdir()
    folder = OpenFolder(str(tmp_path / "gone"), Disk())
    (tmp_path / "gone").rmdir()
    with brief_lock(folder, "gate"):
        pass
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(tk.StorageError, match="locking"), brief_lock(OpenFolder(str(tmp_path), Disk()), "link"):
        pass
