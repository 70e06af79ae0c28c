"""Budgets that are shared, and the weight of JSON."""

from __future__ import annotations

import json
import threading

import pytest

from transferkit.content.budget import Budget, values_in


def test_no_more_is_taken_than_there_is_whoever_takes_it() -> None:
    budget, taken = Budget(1000), []

    def take() -> None:
        taken.extend(7 for _ in range(200) if budget.take(7))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 994 == sum(taken)
    assert (False, True, False) == (budget.take(7), budget.take(6), budget.take(1))
    assert (True, True, False) == (budget.take(-3), budget.take(3), budget.take(1))


@pytest.mark.parametrize("value", [1, [], [[], []], {"a": {"b": [1, 2, 3]}, "c": "x"}, [{}] * 10, "a"])
def test_the_values_of_json_are_counted(value: object) -> None:
    def count(value: object) -> int:
        inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        return 1 + sum(map(count, inner))

    assert count(value) <= values_in(json.dumps(value).encode()) <= 2 * count(value)
