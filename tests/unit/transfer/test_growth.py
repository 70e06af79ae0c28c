"""How many workers: on a network that is a formula, and with workers that meet at barriers."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from transferkit.cancellation import Cancellation
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.growth import Growth
from transferkit.transfer.pool import Pool, Queue

LIMIT = 30.0  # seconds until a meeting that never happens fails the test
MB = 1_000_000


class Network:
    """Moves ``rate(workers)`` bytes a second, shared by those who have been at work for ``latency`` seconds."""

    def __init__(self, rate: Callable[[int], float], *, latency: float = 0.0, ceiling: int = 64) -> None:
        self.rate = rate
        self.latency = latency
        self.now = 100.0
        self.moved = [0] * ceiling
        self.used = 7.0
        self.busy = 0.9  # cores
        self.growth = Growth(ceiling, clock=lambda: self.now, cpu=lambda: self.used, cores=2)
        self.history = [self.growth.workers]
        self._since = [self.now if number < self.growth.workers else None for number in range(ceiling)]

    def go_on(self, seconds: float) -> int:
        """Let time pass, with looks as often as they are wanted; return how many workers there are then."""
        until = self.now + seconds
        while self.now < until:
            pause = self.growth.pause
            self.now += pause
            self.used += self.busy * pause
            began = self.now - self.latency
            working = [number for number, since in enumerate(self._since) if since is not None and since < began]
            for number in working:
                self.moved[number] += int(self.rate(len(working)) * pause / len(working))
            workers = self.growth.look(self.moved)
            for number, since in enumerate(self._since):
                self._since[number] = None if number >= workers else self.now if since is None else since
            if workers != self.history[-1]:
                self.history.append(workers)
        return self.history[-1]


@pytest.mark.parametrize(("ceiling", "first"), [(1, 1), (2, 2), (3, 2), (64, 2)])
def test_it_begins_with_two(ceiling: int, first: int) -> None:
    growth = Growth(ceiling)
    assert (growth.workers, growth.done) == (first, ceiling <= 2)


def test_a_link_that_two_workers_fill_gets_no_more_of_them() -> None:
    network = Network(lambda workers: 900 * MB)
    assert network.go_on(0.9) == 2
    assert network.history == [2, 4, 2]


def test_a_link_that_allows_so_much_a_connection_gets_as_many_as_fill_it() -> None:
    network = Network(lambda workers: min(40 * workers, 1280) * MB)
    network.go_on(1.4)
    assert network.history == [2, 4, 8, 16, 32, 64, 32]


@pytest.mark.parametrize(("gain", "workers"), [(1.10, 2), (1.20, 4)])
def test_twice_the_workers_must_bring_a_seventh_more(gain: float, workers: int) -> None:
    network = Network(lambda workers: 100 * MB if workers <= 2 else gain * 100 * MB)
    network.go_on(0.5)
    assert network.history[-2:] == [4, 2] if workers == 2 else network.history[:3] == [2, 4, 8]
    assert network.go_on(0.2) == workers


@pytest.mark.parametrize("ceiling", [10, 32])
def test_before_the_first_byte_there_are_more_at_each_look(ceiling: int) -> None:
    network = Network(lambda workers: 10 * MB, latency=0.1, ceiling=ceiling)
    network.busy = 0.1
    assert network.go_on(0.02) == ceiling
    assert network.history == [workers for workers in (2, 4, 8, 16, 32) if workers < ceiling] + [ceiling]


def test_more_than_32_begin_at_once_where_the_first_byte_takes_50_milliseconds() -> None:
    network = Network(lambda workers: 10 * MB, latency=0.1)
    network.busy = 0.1
    assert network.go_on(0.045) == 32
    assert network.go_on(0.01) == 64


def test_who_is_busy_before_the_first_byte_waits_for_no_network() -> None:
    network = Network(lambda workers: 10 * MB, latency=0.1)
    network.busy = 0.8
    assert network.go_on(0.09) == 2


@pytest.mark.parametrize(("change", "workers"), [(0.97, 64), (0.9, 2)])
def test_where_the_processor_idles_more_of_them_need_not_bring_more(change: float, workers: int) -> None:
    """A registry that is busy itself: more requests that wait there cost nothing here."""
    network = Network(lambda workers: 10 * MB * change ** (workers.bit_length() - 2))
    network.busy = 0.3
    assert network.go_on(0.9) == workers


def test_where_the_cores_are_full_nothing_is_tried() -> None:
    network = Network(lambda workers: 40 * workers * MB)
    network.busy = 1.5
    network.go_on(5.0)
    assert network.history == [2]
    network.busy = 1.3
    assert network.go_on(5.0) == 64


def test_where_all_fall_silent_there_are_more_as_well() -> None:
    silent = False
    network = Network(lambda workers: 0 if silent else 900 * MB)
    assert network.go_on(0.9) == 2
    silent, network.busy = True, 0.1
    assert network.go_on(0.2) == 64


def test_new_workers_are_judged_once_they_have_begun() -> None:
    """Half a second for name, connection and TLS: until then they bring nothing."""
    network = Network(lambda workers: 40 * workers * MB, latency=0.0)
    network.latency = 0.5
    network.now += 1.0  # the first two have begun long ago
    network.go_on(0.9)
    assert network.history == [2, 4, 8]


def test_new_workers_that_never_begin_are_judged_after_a_second() -> None:
    network = Network(lambda workers: 80 * MB)
    network.latency = 1000.0
    network.now += 2000.0
    network.go_on(1.1)
    assert network.history == [2, 4]
    network.go_on(0.3)
    assert network.history == [2, 4, 2]


def test_what_brought_nothing_is_tried_again_after_a_rest() -> None:
    busy = True
    network = Network(lambda workers: 100 * MB if busy else 40 * workers * MB)
    assert network.go_on(0.9) == 2
    busy = False
    assert network.go_on(2.0) == 64
    assert network.history == [2, 4, 2, 4, 8, 16, 32, 64]


# -- in the pool


class Endless:
    """One unit after the other, until ``enough`` says so."""

    def __init__(self, enough: Callable[[], bool]) -> None:
        self._enough = enough

    def take(self, worker: int) -> int | None:
        return None if self._enough() else 0

    def stop(self) -> None:
        self._enough = lambda: True

    def __bool__(self) -> bool:
        return not self._enough()


def run(work: Any, units: int, *, concurrency: int) -> None:
    pool: Pool[int] = Pool(work, Queue(range(units)), concurrency=concurrency, cancellation=Cancellation())
    pool.run(lambda: None, interval=0.01)


@pytest.mark.parametrize("concurrency", [1, 2, 5, 64])
def test_a_pool_whose_workers_all_wait_starts_the_others(concurrency: int) -> None:
    meeting = threading.Barrier(concurrency, timeout=LIMIT)  # nobody gets past it until all of them are here

    def work(unit: int, flow: WorkerFlow) -> None:
        meeting.wait()

    run(work, 2 * concurrency, concurrency=concurrency)


def test_a_pool_whose_units_are_all_taken_starts_nobody_more() -> None:
    names: set[str] = set()
    meeting = threading.Barrier(2, timeout=LIMIT)

    def work(unit: int, flow: WorkerFlow) -> None:
        names.add(threading.current_thread().name)
        meeting.wait()
        threading.Event().wait(0.05)  # ten looks

    run(work, 2, concurrency=64)
    assert len(names) == 2


def test_workers_that_are_too_many_end_with_their_units_and_begin_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script says 2, then 1, then 3: who is to end finishes its unit, and every unit is done once."""

    class Scripted(Growth):
        wanted = 2
        pause = 0.001  # type: ignore[assignment]

        def look(self, moved: Any) -> int:
            return Scripted.wanted

    monkeypatch.setattr("transferkit.transfer.pool.Growth", Scripted)
    done: list[tuple[int, int]] = []
    two, three = threading.Barrier(2, timeout=LIMIT), threading.Barrier(3, timeout=LIMIT)

    def work(unit: int, flow: WorkerFlow) -> None:
        if unit < 2:
            two.wait()
            Scripted.wanted = 1
            threading.Event().wait(0.1)  # a hundred looks
        elif unit == 20:
            Scripted.wanted = 3
            three.wait()
        elif unit > 20:
            three.wait()
        done.append((unit, flow.number))

    run(work, 23, concurrency=3)
    assert sorted(unit for unit, _ in done) == list(range(23))
    assert {number for unit, number in done if 2 <= unit < 20} == {0}
    assert {number for unit, number in done if unit >= 20} == {0, 1, 2}


def test_workers_that_have_ended_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script says 2 and 1 in turn, a hundred times: nothing is left of those that ended but the last few."""
    futures: list[weakref.ref[Future[Any]]] = []

    class Observed(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Any:
            future = super().submit(*args, **kwargs)
            futures.append(weakref.ref(future))
            return future

    class Wobbling(Growth):
        pause = 0.001  # type: ignore[assignment]

        def look(self, moved: Any) -> int:
            self.workers = 3 - self.workers
            return self.workers

    monkeypatch.setattr("transferkit.transfer.pool.Growth", Wobbling)
    alive = []

    def work(unit: int, flow: WorkerFlow) -> None:
        threading.Event().wait(0.002)
        alive.append(sum(future() is not None for future in futures))

    pool: Pool[int] = Pool(
        work, Endless(lambda: len(futures) > 100), concurrency=3, cancellation=Cancellation(), executor=Observed
    )
    pool.run(lambda: None, interval=0.01)
    assert len(futures) > 100
    assert max(alive) < 20
