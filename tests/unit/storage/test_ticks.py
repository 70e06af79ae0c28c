"""Times that tell of a change, and those that do not."""

from __future__ import annotations

import pytest

from transferkit.storage.ticks import is_settled, settle


@pytest.mark.parametrize(
    ("when", "now", "expected"),
    [
        (1_000_000_001, 1.015, False),
        (1_000_000_001, 1.025, True),
        (1_000_000_000, 2.5, False),  # a whole second: this file system may count those, or two of them
        (1_000_000_000, 3.1, True),
        (9_000_000_001, 1.0, False),  # another machine's clock
    ],
)
def test_a_time_is_settled_when_a_change_would_give_another_one(when, now, expected):
    assert expected is is_settled(when, now)


def test_a_tick_is_waited_for_and_a_long_one_is_not():
    slept: list[float] = []

    def clock() -> float:
        return 1.0 + sum(slept)

    settle([500_000_001, 1_000_000_001], clock, slept.append)
    assert 0.02 < sum(slept) < 0.03
    slept.clear()
    settle([1_000_000_000], clock, slept.append)
    assert sum(slept) < 0.03
    settle([], clock, slept.append)
