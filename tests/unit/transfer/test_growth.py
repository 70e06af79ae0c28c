"""How many workers: on clocks that the test sets, and with workers that meet at barriers."""

from __future__ import annotations

import functools
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import pytest

from transferkit.cancellation import Cancellation
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.growth import Growth
from transferkit.transfer.pool import Pool, Queue

LIMIT = 30.0  # seconds until a meeting that never happens fails the test


class Times:
    """A wall clock and a processor clock that stand still until they are told to go on."""

    def __init__(self) -> None:
        self.now = 100.0
        self.used = 7.0

    def growth(self, ceiling: int) -> Growth:
        return Growth(ceiling, clock=lambda: self.now, cpu=lambda: self.used)

    def pass_by(self, seconds: float, *, busy: float) -> None:
        """Let time pass, of which the processor was busy for a share."""
        self.now += seconds
        self.used += seconds * busy


@pytest.fixture
def times() -> Times:
    return Times()


@pytest.mark.parametrize(("ceiling", "first"), [(1, 1), (15, 15), (16, 16), (17, 16), (64, 16), (1024, 16)])
def test_it_begins_with_sixteen_or_all(times: Times, ceiling: int, first: int) -> None:
    growth = times.growth(ceiling)
    assert (growth.workers, growth.done) == (first, ceiling <= 16)


def test_it_doubles_while_the_processor_idles_up_to_the_ceiling(times: Times) -> None:
    growth = times.growth(100)
    seen = []
    while not growth.done:
        times.pass_by(0.01, busy=0.69)
        seen.append(growth.look())
    assert seen == [32, 64, 100]
    times.pass_by(0.01, busy=0.0)
    assert growth.look() == growth.workers == 100


@pytest.mark.parametrize("busy", [0.71, 1.0, 1.8])
def test_it_stays_where_the_processor_is_busy(times: Times, busy: float) -> None:
    growth = times.growth(64)
    for _ in range(5):
        times.pass_by(0.01, busy=busy)
        assert growth.look() == 16
    assert not growth.done


def test_each_look_is_about_the_time_since_the_one_before(times: Times) -> None:
    growth = times.growth(64)
    times.pass_by(1.0, busy=1.0)
    assert growth.look() == 16
    times.pass_by(0.01, busy=0.1)  # together they would be busy still
    assert growth.look() == 32
    times.pass_by(0.01, busy=1.0)  # together they would be idle still
    assert growth.look() == 32


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_it_stays_where_no_time_has_passed(times: Times, seconds: float) -> None:
    growth = times.growth(64)
    times.now += seconds
    assert growth.look() == 16


# -- in the pool


def run(work: Any, units: int, *, concurrency: int, executor: Any = None) -> None:
    pool: Pool[int] = Pool(
        work, Queue(range(units)), concurrency=concurrency, cancellation=Cancellation(), executor=executor
    )
    pool.run(lambda: None, interval=0.01)


@pytest.mark.parametrize("concurrency", [5, 17, 64])
def test_a_pool_whose_workers_all_wait_starts_the_others(concurrency: int) -> None:
    meeting = threading.Barrier(concurrency, timeout=LIMIT)  # nobody gets past it until all of them are here

    def work(unit: int, flow: WorkerFlow) -> None:
        meeting.wait()

    run(work, 2 * concurrency, concurrency=concurrency)


def test_a_pool_that_keeps_the_processor_busy_stays_with_sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Event()
    count = 0

    def clock() -> float:
        """Both clocks: whatever passes, the processor was busy with it."""
        nonlocal count
        count += 1
        if count > 10:
            looked.set()
        return float(count)

    monkeypatch.setattr("transferkit.transfer.pool.Growth", functools.partial(Growth, clock=clock, cpu=clock))
    started: list[Future[Any]] = []

    class Counting(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
            future = super().submit(*args, **kwargs)
            started.append(future)
            return future

    def work(unit: int, flow: WorkerFlow) -> None:
        assert looked.wait(LIMIT)

    def executor(size: int) -> Executor:
        return Counting(size)

    run(work, 1000, concurrency=64, executor=executor)
    assert len(started) == 16


def test_a_pool_whose_units_are_all_taken_starts_nobody_more() -> None:
    names: set[str] = set()
    meeting = threading.Barrier(16, timeout=LIMIT)

    def work(unit: int, flow: WorkerFlow) -> None:
        names.add(threading.current_thread().name)
        meeting.wait()
        threading.Event().wait(0.05)  # five looks

    run(work, 16, concurrency=64)
    assert len(names) == 16
