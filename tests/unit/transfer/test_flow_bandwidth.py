"""A limit on bytes a second: exact on an injected clock, shared by threads, fair."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from transferkit.transfer.flow import Bandwidth


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_rate_is_exact():
    clock = Clock()
    bandwidth = Bandwidth(1000.0, clock=clock)
    for count in (1, 999, 250, 750, 3000):
        clock.now += bandwidth.reserve(count)
    assert clock.now == pytest.approx(105.0)


def test_time_in_which_nothing_moved_is_not_saved_up():
    clock = Clock()
    bandwidth = Bandwidth(1000.0, clock=clock)
    clock.now += 60
    assert bandwidth.reserve(1000) == pytest.approx(1.0)


def test_who_is_slower_than_the_limit_does_not_wait():
    clock = Clock()
    bandwidth = Bandwidth(1000.0, clock=clock)
    waits: list[float] = []
    for _ in range(5):
        clock.now += 2
        waits.append(bandwidth.reserve(1000))
    assert [1.0] * 5 == pytest.approx(waits)


def test_workers_queue_in_the_order_in_which_they_come():
    bandwidth = Bandwidth(1000.0, clock=Clock())
    assert [0.1, 0.4, 0.5] == pytest.approx([bandwidth.reserve(count) for count in (100, 300, 100)])


def test_threads_share_one_rate_and_each_gets_its_part():
    rate, seconds = 1_000_000.0, 1.0
    began = time.monotonic()
    bandwidth = Bandwidth(rate)
    moved: Counter[int] = Counter()

    def work(number: int) -> None:
        while time.monotonic() - began < seconds:
            time.sleep(bandwidth.reserve(5000))
            moved[number] += 5000

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.monotonic() - began
    assert sum(moved.values()) <= rate * elapsed + 1
    assert min(moved.values()) * 3 > max(moved.values())
