"""Progress: what the callback is told, and what becomes of its mistakes."""

from __future__ import annotations

import logging

import pytest

import transferkit as tk
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.outcomes import Outcomes, ProgressCallback

LOGGER = logging.getLogger("tests.progress")


def progress(callback: ProgressCallback | None, *, present: int = 0) -> Outcomes:
    return Outcomes(tk.Trace(), LOGGER, progress=callback, total=100, present=present)


def test_the_cells_of_all_workers_are_summed_up() -> None:
    calls: list[tuple[int, int]] = []
    flows = [WorkerFlow(), WorkerFlow()]
    subject = progress(lambda *figures: calls.append(figures), present=5)
    flows[0].moved(10)
    flows[1].moved(20)
    subject.tick(flows)
    assert calls == [(35, 100)]


def test_nothing_is_said_while_nothing_changes() -> None:
    calls: list[tuple[int, int]] = []
    flow = WorkerFlow()
    subject = progress(lambda *figures: calls.append(figures))
    for count in (0, 0, 3, 0, 4):
        flow.moved(count)
        subject.tick([flow])
    assert calls == [(0, 100), (3, 100), (7, 100)]


def test_the_end_is_always_said() -> None:
    calls: list[tuple[int, int]] = []
    subject = progress(lambda *figures: calls.append(figures), present=100)
    subject.tick([], always=True)
    subject.tick([], always=True)
    subject.tick([])
    assert calls == [(100, 100), (100, 100)]


def test_what_is_taken_back_is_said_too() -> None:
    calls: list[tuple[int, int]] = []
    flow = WorkerFlow()
    subject = progress(lambda *figures: calls.append(figures))
    flow.counter.next_unit()
    flow.moved(50)
    subject.tick([flow])
    flow.counter.set_position(20)
    subject.tick([flow])
    assert calls == [(50, 100), (20, 100)]


def test_nobody_needs_to_listen() -> None:
    progress(None).tick([WorkerFlow()], always=True)


def test_an_error_of_the_callback_is_logged_once_and_it_is_called_again(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []

    def callback(completed: int, total: int) -> None:
        calls.append(completed)
        raise ZeroDivisionError("mine")

    flow = WorkerFlow()
    subject = progress(callback)
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            flow.moved(1)
            subject.tick([flow])
    assert calls == [1, 2, 3]
    [record] = caplog.records
    assert (record.name, record.levelname) == ("tests.progress", "WARNING")
    assert record.getMessage() == "the progress callback raised; the transfer goes on"
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interruption_of_the_callback_is_not_swallowed(kind: type[BaseException]) -> None:
    def callback(completed: int, total: int) -> None:
        raise kind

    with pytest.raises(kind):
        progress(callback).tick([], always=True)
