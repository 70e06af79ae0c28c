"""Waits: one warning where one begins to be long, one line at INFO where it is over, however many workers wait."""

from __future__ import annotations

import logging

import pytest

from transferkit.errors import RateLimitedError, ReadError
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.waits import Waits

HOST = "https://registry.example.com"
LOGGER = logging.getLogger("transferkit.test")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Rig:
    """Waits for a host by three workers, with a clock that is set by hand; ``said`` is the log."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, logger="transferkit.test")
        self._caplog = caplog
        self._clock = Clock()
        self.flows = [WorkerFlow(number) for number in range(3)]
        self.waits = Waits(LOGGER, HOST, self._clock)
        self.waits.begin(self.flows)

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(record.levelname, record.getMessage()) for record in self._caplog.records]

    def pass_(self, seconds: float) -> None:
        """Let time pass, with a look four times a second, as the driver has it."""
        for _ in range(int(seconds * 4)):
            self._clock.now += 0.25
            self.waits.look()


@pytest.fixture
def rig(caplog: pytest.LogCaptureFixture) -> Rig:
    return Rig(caplog)


def nothing() -> None:
    pass


def test_a_silent_host_is_told_once_and_its_answer_once(rig: Rig) -> None:
    for flow in rig.flows:
        flow.attach(nothing)
    rig.pass_(4.75)
    assert [] == rig.said
    rig.pass_(60)
    assert [("WARNING", f"waiting for {HOST}: nothing has moved for 5 s")] == rig.said
    rig.flows[0].moved(1)
    rig.pass_(0.25)
    assert ("INFO", f"no longer waiting for {HOST}, after 65.0 s") == rig.said[-1]
    assert 2 == len(rig.said)


def test_who_is_on_no_connection_waits_for_no_host(rig: Rig) -> None:
    """The disk, or the lock of another process: the storage has words of its own for it."""
    rig.pass_(60)
    assert [] == rig.said


def test_who_waits_for_his_disk_or_his_share_waits_for_no_host(rig: Rig) -> None:
    rig.flows[0].attach(nothing)
    rig.flows[0].watch.paused = True
    rig.pass_(60)
    assert [] == rig.said


def test_while_one_moves_nobody_waits(rig: Rig) -> None:
    rig.flows[0].attach(nothing)
    for _ in range(20):
        rig.flows[1].moved(1)
        rig.pass_(4)
    assert [] == rig.said


def test_a_blob_that_is_there_already_is_news_though_no_traffic(rig: Rig) -> None:
    rig.flows[0].attach(nothing)
    for number in range(20):
        rig.flows[1].counter.set_position(number)
        rig.pass_(4)
    assert [] == rig.said


def test_the_first_retry_is_told_and_none_of_those_that_follow(rig: Rig) -> None:
    for _ in range(50):
        rig.waits.failed(ReadError("the connection broke"), 0.01)
    assert [("WARNING", f"waiting for {HOST}: trying again, after: the connection broke")] == rig.said
    rig.flows[0].moved(1)
    rig.pass_(1)
    assert ("INFO", f"no longer waiting for {HOST}, after 0.2 s") == rig.said[-1]
    rig.waits.failed(ReadError("the connection broke"), 0.01)
    assert 2 == len(rig.said)


def test_a_pause_that_a_host_asks_for_is_told_each_time_and_lasts_until_its_end(rig: Rig) -> None:
    for _ in range(2):
        for _ in range(3):
            rig.waits.failed(RateLimitedError("429: slow down"), 30.0)
        rig.flows[0].moved(1)  # what was on its way still comes
        rig.pass_(29)
        rig.flows[0].moved(1)
        rig.pass_(2)
        rig.flows[0].moved(1)
        rig.pass_(1)
    warning = "WARNING", f"waiting for {HOST}: trying again in 30 s, after: 429: slow down"
    assert [warning, "INFO", warning, "INFO"] == [said if said[0] == "WARNING" else said[0] for said in rig.said]
    assert f"no longer waiting for {HOST}, after 31.2 s" == rig.said[-1][1]


def test_retries_that_come_to_a_long_wait_are_told_again(rig: Rig) -> None:
    rig.waits.failed(ReadError("broken"), 0.01)
    rig.flows[0].moved(1)
    rig.pass_(1)
    rig.flows[0].attach(nothing)
    for _ in range(10):
        rig.waits.failed(ReadError("broken"), 0.5)
        rig.pass_(1)
    assert ["WARNING", "INFO", "WARNING"] == [level for level, _ in rig.said]


def test_the_end_of_the_work_ends_a_wait(rig: Rig) -> None:
    rig.waits.failed(ReadError("broken"), 0.01)
    rig.waits.end()
    rig.waits.end()
    assert ["WARNING", "INFO"] == [level for level, _ in rig.said]


def test_a_new_run_begins_with_patience(rig: Rig) -> None:
    rig.flows[0].attach(nothing)
    rig.pass_(4.5)
    rig.waits.begin([WorkerFlow()])
    rig.pass_(60)
    assert [] == rig.said
