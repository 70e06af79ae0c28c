"""What a fork waits for, and what it does not."""

from __future__ import annotations

import os
import threading
import time

import pytest

from transferkit import forks
from transferkit.forks import cached, importing


class Found:
    times = 0

    @cached
    def value(self) -> int:
        """It is found out once."""
        self.times += 1
        return 7


def test_a_cached_value_is_found_out_once_and_may_be_set() -> None:
    found = Found()
    assert (7, 7, 1) == (found.value, found.value, found.times)
    assert "It is found out once." == Found.value.__doc__
    other = Found()
    other.value = 8
    assert (8, 0) == (other.value, other.times)


def fork_and_wait() -> int:
    child = os.fork()
    if not child:
        # The lock is free in the child: else this would wait for ever.
        os._exit(0 if importing.acquire(timeout=1) else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_waits_for_an_import_of_another_thread() -> None:
    begun, until = threading.Event(), []

    def slow() -> None:
        with importing:
            begun.set()
            time.sleep(0.1)
            until.append(time.monotonic())

    thread = threading.Thread(target=slow)
    thread.start()
    begun.wait(10)
    assert 0 == fork_and_wait()
    assert until
    thread.join()
    assert [] == forks._held


def test_who_forks_within_an_import_waits_for_nobody() -> None:
    with importing:
        assert 0 == fork_and_wait()


def test_a_parent_waits_no_longer_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transferkit.forks._LONGEST", 0.01)
    begun, ended = threading.Event(), threading.Event()

    def hold() -> None:
        with importing:
            begun.set()
            ended.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    begun.wait(10)
    forks._before()
    forks._after()
    ended.set()
    thread.join()
    assert importing.acquire(timeout=1)
    importing.release()
