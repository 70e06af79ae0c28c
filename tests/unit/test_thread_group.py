from __future__ import annotations

import threading

import pytest

from transferkit.thread_group import ThreadGroup


def test_all_have_gone_when_it_returns_those_that_come_to_their_end_meanwhile_too() -> None:
    group, go, done = ThreadGroup("some"), threading.Event(), []
    before = threading.active_count()

    def work(number: int) -> None:
        assert go.wait(20)
        done.append(number)

    for number in range(50):
        group.start(work, number)
    assert before + 50 == threading.active_count()
    assert {("some", True)} == {(t.name, t.daemon) for t in threading.enumerate() if t.name == "some"}
    go.set()
    group.join()

    assert (sorted(done), before) == (list(range(50)), threading.active_count())


def test_those_that_have_ended_are_forgotten() -> None:
    group = ThreadGroup("some")
    for _ in range(100):
        group.start(int)
        group.join()

    assert 1 == len(group._threads)


def test_it_waits_no_longer_than_it_is_told() -> None:
    group, go = ThreadGroup("some"), threading.Event()
    group.start(go.wait, 20)

    group.join(0.001)

    assert 1 == sum(thread.name == "some" for thread in threading.enumerate())
    go.set()
    group.join()


def test_a_thread_that_the_system_does_not_have_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    group = ThreadGroup("some")
    monkeypatch.setattr(threading.Thread, "start", none)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        group.start(int)

    group.join()
