"""Pauses together, and fewer at once for a while; on an injected clock."""

from __future__ import annotations

import pytest

from transferkit.errors import CancelledError, RateLimitedError, ReadError, ServerError, TransportTimeout
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.throttle import Throttle


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def flows():
    return [WorkerFlow() for _ in range(64)]


@pytest.fixture
def throttle(clock, flows):
    return Throttle(flows, sleep=clock.sleep, clock=clock)


def busy(error: str = "busy") -> ServerError:
    return ServerError(error, status=503)


def test_calm_costs_nothing(throttle, clock, flows):
    for flow in flows:
        throttle.enter(flow)

    assert clock.slept == []
    assert 64 == throttle.limit(clock.now)


@pytest.mark.parametrize("error", [RateLimitedError("slow down", status=429), busy()])
def test_all_workers_wait_for_what_one_was_told(throttle, clock, flows, error):
    throttle.note(error, flows[0], 7.5)

    throttle.enter(flows[1])

    assert 107.5 <= clock.now < 107.6


def test_a_calm_of_days_is_no_number_too_large(throttle, clock, flows):
    throttle.note(TransportTimeout("slow"), flows[0], 1.0)
    assert 64 == throttle.limit(clock.now + 7 * 24 * 3600)


def test_a_longer_pause_stands(throttle, clock, flows):
    throttle.note(busy(), flows[0], 7.0)
    throttle.note(busy(), flows[1], 2.0)
    throttle.enter(flows[2])

    assert clock.now >= 107.0


def test_a_timeout_halves_and_does_not_pause(throttle, clock, flows):
    throttle.note(TransportTimeout("slow"), flows[0], 7.0)
    throttle.enter(flows[1])

    assert 32 == throttle.limit(clock.now)
    assert clock.now == 100.0


@pytest.mark.parametrize("error", [ReadError("cut"), ServerError("broken", status=500)])
def test_other_failures_change_nothing(throttle, clock, flows, error):
    throttle.note(error, flows[0], 7.0)
    throttle.enter(flows[1])

    assert (64, []) == (throttle.limit(clock.now), clock.slept)


def test_sixty_answers_of_one_moment_halve_once(throttle, clock, flows):
    for flow in flows:
        throttle.note(busy(), flow, 0.0)

    assert 32 == throttle.limit(clock.now)


def test_trouble_again_halves_again_but_never_below_one(throttle, clock, flows):
    limits = []
    for _ in range(9):
        throttle.note(busy(), flows[0], 0.0)
        limits.append(throttle.limit(clock.now))
        clock.now += 1.0

    assert limits[0] == 32
    assert limits[-1] == 1
    assert sorted(limits, reverse=True) == limits


def test_calm_brings_the_workers_back(throttle, clock, flows):
    throttle.note(busy(), flows[0], 3.0)

    assert [32, 32, 45, 64] == [throttle.limit(100.0 + after) for after in (0.0, 3.0, 5.5, 8.0)]


def test_no_more_than_the_limit_run_at_once(throttle, clock, flows):
    throttle.note(busy(), flows[0], 0.0)
    for flow in flows[:32]:
        throttle.enter(flow)
    assert clock.slept == []

    throttle.enter(flows[32])

    # It had to wait until the limit had risen by one: 32 * 2 ** (t / 5) >= 33.
    assert 0.2 <= clock.now - 100.0 <= 0.3


def test_a_place_that_is_given_back_is_taken(throttle, clock, flows):
    throttle.note(busy(), flows[0], 0.0)
    for flow in flows[:32]:
        throttle.enter(flow)
    flows[3].busy = False

    throttle.enter(flows[40])

    assert clock.slept == []


def test_a_cancelled_worker_does_not_wait(throttle, clock, flows):
    throttle.note(busy(), flows[0], 1000.0)
    flows[1].cut(CancelledError("stop"), final=True)

    with pytest.raises(CancelledError):
        throttle.enter(flows[1])
    assert clock.slept == []
