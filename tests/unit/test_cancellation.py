"""Cancellation: who is woken, how often, and from where."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

import pytest

from transferkit import cancellation as module
from transferkit.cancellation import Cancellation
from transferkit.errors import CancelledError


@pytest.fixture
def on_signal() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Set what SIGUSR1 does."""
    previous = signal.getsignal(signal.SIGUSR1)

    def handle(act: Callable[[], None]) -> None:
        signal.signal(signal.SIGUSR1, lambda number, frame: act())

    yield handle
    signal.signal(signal.SIGUSR1, previous)


def test_a_new_one_is_open() -> None:
    cancellation = Cancellation()
    assert (cancellation.cancelled, cancellation.reason) == (False, None)
    assert repr(cancellation) == "<Cancellation open>"


def test_cancelling_keeps_the_reason() -> None:
    cancellation = Cancellation()
    cancellation.cancel("the window was closed")
    assert (cancellation.cancelled, cancellation.reason) == (True, "the window was closed")
    assert repr(cancellation) == "<Cancellation cancelled: the window was closed>"
    error = cancellation.error()
    assert type(error) is CancelledError
    assert str(error) == "the window was closed"


def test_the_first_reason_stands() -> None:
    cancellation = Cancellation()
    cancellation.cancel("first")
    cancellation.cancel("second")
    assert cancellation.reason == "first"


def test_a_reason_need_not_be_given() -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    assert cancellation.reason == "cancelled by the caller"


@pytest.mark.parametrize("reason", ["", None])
def test_an_error_always_says_something(reason: str | None) -> None:
    cancellation = Cancellation()
    if reason is not None:
        cancellation.cancel(reason)
    assert str(cancellation.error()) == "cancelled"


def test_an_empty_reason_cancels() -> None:
    cancellation = Cancellation()
    cancellation.cancel("")
    assert cancellation.cancelled


def test_every_watcher_is_woken_once() -> None:
    cancellation = Cancellation()
    woken: list[str] = []
    with cancellation.watch(lambda: woken.append("a")), cancellation.watch(lambda: woken.append("b")):
        assert woken == []
        cancellation.cancel()
        cancellation.cancel()
        assert sorted(woken) == ["a", "b"]
    assert sorted(woken) == ["a", "b"]


def test_the_same_callable_may_watch_twice() -> None:
    cancellation = Cancellation()
    woken: list[int] = []

    def wake() -> None:
        woken.append(1)

    with cancellation.watch(wake):
        with cancellation.watch(wake):
            pass
        cancellation.cancel()
    assert woken == [1]


def test_one_who_comes_too_late_is_woken_at_once_and_once() -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    woken: list[int] = []
    with cancellation.watch(lambda: woken.append(1)):
        assert woken == [1]
        cancellation.cancel()
    assert woken == [1]


def test_nobody_is_woken_after_the_block() -> None:
    cancellation = Cancellation()
    woken: list[int] = []
    with cancellation.watch(lambda: woken.append(1)):
        pass
    cancellation.cancel()
    assert woken == []


def test_a_block_that_raises_stops_watching() -> None:
    cancellation = Cancellation()
    woken: list[int] = []
    with pytest.raises(ZeroDivisionError), cancellation.watch(lambda: woken.append(1)):
        raise ZeroDivisionError
    cancellation.cancel()
    assert woken == []


def test_another_thread_wakes_a_blocked_one() -> None:
    cancellation = Cancellation()
    awake = threading.Event()
    with cancellation.watch(awake.set):
        thread = threading.Thread(target=cancellation.cancel, args=("from elsewhere",))
        thread.start()
        assert awake.wait(30)
        thread.join()
    assert cancellation.reason == "from elsewhere"


def test_many_threads_cancel_and_the_watcher_is_woken_once() -> None:
    cancellation = Cancellation()
    woken: list[int] = []
    ready = threading.Barrier(8)

    def cancel(number: int) -> None:
        ready.wait(30)
        cancellation.cancel(f"thread {number}")

    threads = [threading.Thread(target=cancel, args=(n,)) for n in range(8)]
    with cancellation.watch(lambda: woken.append(1)):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert woken == [1]
    assert cancellation.reason in {f"thread {n}" for n in range(8)}


def test_a_watcher_may_cancel_again() -> None:
    cancellation = Cancellation()
    woken: list[int] = []

    def wake() -> None:
        woken.append(1)
        cancellation.cancel("again")

    with cancellation.watch(wake):
        cancellation.cancel("first")
    assert (woken, cancellation.reason) == ([1], "first")


def test_a_signal_handler_may_cancel_while_a_watcher_runs(on_signal: Callable[[Callable[[], None]], None]) -> None:
    cancellation = Cancellation()
    woken: list[str] = []
    on_signal(lambda: cancellation.cancel("by a signal"))

    def wake() -> None:
        signal.raise_signal(signal.SIGUSR1)
        woken.append("a")

    with cancellation.watch(wake), cancellation.watch(lambda: woken.append("b")):
        cancellation.cancel("by hand")
    assert sorted(woken) == ["a", "b"]
    assert cancellation.reason == "by hand"


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_signal_between_any_two_lines_wakes_the_watcher_once(
    on_signal: Callable[[Callable[[], None]], None], by_hand: bool
) -> None:
    for lines in range(100):
        cancellation = Cancellation()
        woken: list[int] = []
        on_signal(partial(cancellation.cancel, "by a signal"))
        watching = cancellation.watch(partial(woken.append, 1))
        with _Interrupt(lines) as interrupt:
            watching.__enter__()
            if by_hand:
                cancellation.cancel("by hand")
        watching.__exit__(None, None, None)
        if interrupt.line is None:
            break
        assert woken == [1], f"a signal at line {interrupt.line}"
    assert interrupt.line is None
    assert lines > 4


class _Interrupt:
    """Raises SIGUSR1 when the next line but ``count`` of the cancellation module is about to run."""

    def __init__(self, count: int) -> None:
        self._left = count
        self.line: int | None = None

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != module.__file__:
            return None
        if event == "line":
            if self._left == 0:
                self.line = frame.f_lineno
                signal.raise_signal(signal.SIGUSR1)
            self._left -= 1
        return self._trace

    def __enter__(self) -> _Interrupt:
        self._previous = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._previous)
