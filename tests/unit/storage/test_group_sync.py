"""Syncs that are shared: everybody's names were there when the sync began that he waited for."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from transferkit.storage.group_sync import GroupingDisk, GroupSync


class Folder:
    """A folder whose syncs take until they are let go; what was in it when one began is durable once that has ended."""

    def __init__(self) -> None:
        self.names: list[int] = []
        self.durable: set[int] = set()
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.error: Exception | None = None
        self.count = 0

    def sync(self, path: str) -> None:
        assert path == "/folder"
        seen = list(self.names)
        self.count += 1
        self.begun.release()
        assert self.go.acquire(timeout=10)
        if self.error is not None:
            raise self.error
        self.durable |= set(seen)


class Turns:
    """A lock that counts who has had it. Each caller takes it first of all, and has said then what he wants."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count = 0

    def __enter__(self) -> None:
        self._lock.acquire()
        self.count += 1

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def counted(folder: Folder) -> tuple[GroupSync, Turns]:
    sync, turns = GroupSync(folder.sync), Turns()
    sync._lock = turns  # type: ignore[assignment]
    return sync, turns


@pytest.fixture
def folder() -> Folder:
    return Folder()


def test_who_comes_while_one_runs_shares_the_next_with_the_others(folder: Folder) -> None:
    sync = GroupSync(folder.sync)
    arrived = threading.Barrier(8)

    def make(name: int, barrier: threading.Barrier | None = None) -> bool:
        folder.names.append(name)
        if barrier is not None:
            barrier.wait(10)
        sync("/folder")
        return name in folder.durable

    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(make, 0)
        assert folder.begun.acquire(timeout=10)
        others = [pool.submit(make, name, arrived) for name in range(1, 9)]
        # Some share the second, others come late and need a third: nine will do.
        for _ in range(9):
            folder.go.release()
        assert [True] * 9 == [future.result(10) for future in (first, *others)]
    assert 2 <= folder.count <= 9


def test_seven_that_wait_cost_one_sync(folder: Folder) -> None:
    sync, turns = counted(folder)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(sync, "/folder")
        assert folder.begun.acquire(timeout=10)
        before = turns.count
        others = [pool.submit(sync, "/folder") for _ in range(7)]
        while turns.count < before + 7:
            threading.Event().wait(0.001)
        folder.go.release(2)
        for future in (first, *others):
            future.result(10)
    assert 2 == folder.count


def test_an_error_is_told_to_all_who_share_it_and_to_nobody_later(folder: Folder) -> None:
    sync, turns = counted(folder)
    folder.error = OSError(5, "broken")
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(sync, "/folder")]
        assert folder.begun.acquire(timeout=10)
        before = turns.count
        futures += [pool.submit(sync, "/folder") for _ in range(2)]
        while turns.count < before + 2:
            threading.Event().wait(0.001)
        folder.go.release(2)
        assert [OSError] * 3 == [type(future.exception(10)) for future in futures]
    folder.error = None
    folder.go.release()
    sync("/folder")
    assert 3 == folder.count


def test_a_folder_of_its_own_waits_for_nobody(tmp_path) -> None:
    disk = GroupingDisk()
    disk.sync_folder(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        disk.sync_folder(str(tmp_path / "missing"))
    disk.sync_folder(str(tmp_path))
