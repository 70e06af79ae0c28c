"""The least rate of a request's body, on an injected clock."""

from __future__ import annotations

import pytest

from transferkit.server.pace import Pace


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def wait(pace: Pace, clock: Clock, seconds: float, count: int) -> None:
    pace.begin()
    clock.now += seconds
    pace.end(count)


def test_a_silent_body_has_five_seconds() -> None:
    assert Pace(Clock()).begin() == 5.0


def test_a_byte_a_second_is_too_slow_after_five_seconds() -> None:
    clock = Clock()
    pace = Pace(clock)
    for _ in range(5):
        wait(pace, clock, 1.0, 1)
    assert pace.begin() == pytest.approx(5 / 240)
    clock.now += 1
    pace.end(1)
    with pytest.raises(TimeoutError, match="too slowly"):
        pace.begin()


def test_what_came_at_once_is_credit_for_a_pause() -> None:
    clock = Clock()
    pace = Pace(clock)
    wait(pace, clock, 0.0, 24_000)
    assert pace.begin() == 105.0


def test_300_bytes_a_second_are_enough_for_ever() -> None:
    clock = Clock()
    pace = Pace(clock)
    for _ in range(10_000):
        wait(pace, clock, 1.0, 300)
    assert pace.begin() > 5.0


def test_the_time_of_the_application_is_not_the_clients() -> None:
    clock = Clock()
    pace = Pace(clock)
    wait(pace, clock, 1.0, 0)
    clock.now += 3600
    assert pace.begin() == 4.0
