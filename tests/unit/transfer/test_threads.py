"""The threads of an operation: shared by its runs, and gone at its end, whatever interrupts it."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import pytest

from transferkit.cancellation import Cancellation
from transferkit.errors import CancelledError
from transferkit.transfer.concurrency import Concurrency
from transferkit.transfer.driver import Driver
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.pool import Pool
from transferkit.transfer.scheduler import Scheduler
from transferkit.transfer.threads import Threads

HOUR = 3600.0


@pytest.fixture(autouse=True)
def _no_thread_more_than_before() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() <= before


def pool_of(work: Callable[[Any, WorkerFlow], None], units: int, workers: int = 3) -> Pool:
    return Pool(
        work, Scheduler(range(units)), [WorkerFlow(number) for number in range(workers)], concurrency=Concurrency()
    )


def test_one_run_after_the_other_is_done_by_the_same_driver() -> None:
    drivers: set[threading.Thread] = set()
    done: list[int] = []

    def work(unit: int, flow: WorkerFlow) -> None:
        done.append(unit)
        drivers.update(thread for thread in threading.enumerate() if thread.name == "transferkit-driver")

    with Threads(3) as threads:
        for _ in range(5):
            threads.run(pool_of(work, 10), Cancellation())
    assert (50, 1) == (len(done), len(drivers))


def test_without_a_run_there_is_no_thread() -> None:
    with Threads(3):
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("transferkit")]


def test_a_run_that_nobody_waited_for_is_stopped_at_the_end() -> None:
    """What an interrupt leaves behind that came between two byte codes."""
    woken: list[str] = []

    def work(unit: int, flow: WorkerFlow) -> None:
        try:
            flow.wait(HOUR)
        except CancelledError as error:
            woken.append(str(error))
            raise

    threads = Threads(3)
    threads.run(pool_of(lambda unit, flow: None, 1), Cancellation())
    threads._pool = pool = pool_of(work, 2)
    threads._orders.put(pool)
    while not pool._running:
        time.sleep(0.001)
    threads.__exit__()
    assert ["stopped"] * len(woken) == woken
    assert pool.is_over


def test_a_driver_that_was_never_launched_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interrupt came before the new thread did anything; it does nothing any more."""
    launched: list[tuple[Any, Any]] = []
    monkeypatch.setattr("_thread.start_new_thread", lambda function, arguments: launched.append((function, arguments)))
    threads = Threads(3)
    with pytest.raises(KeyboardInterrupt), threads:
        threads.run(pool_of(lambda unit, flow: None, 1), Cancellation(), _interrupt, 0.01)
    ((function, arguments),) = launched
    function(*arguments)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("transferkit")]


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_where_there_is_no_thread_for_a_driver_its_starter_drives(monkeypatch: pytest.MonkeyPatch) -> None:
    real, done = threading.Thread.start, []

    def start(thread: threading.Thread) -> None:
        if thread.name == "transferkit-driver":
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    before = set(threading._active)  # type: ignore[attr-defined]  # where the thread that Python knows nothing of stays
    with Threads(3) as threads:
        threads.run(pool_of(lambda unit, flow: done.append(unit), 10), Cancellation())
    for ident in set(threading._active) - before:  # type: ignore[attr-defined]
        del threading._active[ident]  # type: ignore[attr-defined]
    assert list(range(10)) == sorted(done)


def test_where_there_is_no_thread_at_all_the_caller_drives(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("_thread.start_new_thread", refuse)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    done: list[int] = []
    with Threads(3) as threads:
        for _ in range(2):
            threads.run(pool_of(lambda unit, flow: done.append(unit), 10), Cancellation())
    assert done == 2 * list(range(10))


def test_where_the_interpreter_ends_before_there_was_an_executor_the_driver_works() -> None:
    code = """
import threading, time
from transferkit.cancellation import Cancellation
from transferkit.transfer.concurrency import Concurrency
from transferkit.transfer.driver import Driver
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.pool import Pool
from transferkit.transfer.scheduler import Scheduler
from transferkit.transfer.threads import Threads

def late():
    threading.main_thread().join()
    time.sleep(0.1)
    with Threads(3) as threads:
        pool = Pool(lambda unit, flow: print(unit), Scheduler(range(3)), [WorkerFlow(0)], concurrency=Concurrency())
        threads.run(pool, Cancellation())

threading.Thread(target=late).start()
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20.0, check=False)
    assert ("0\n1\n2\n", "") == (ran.stdout, ran.stderr)


def ours_alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("transferkit")]


@pytest.mark.parametrize("signals", [1, 2])
def test_an_interrupt_at_any_moment_ends_it_in_a_second_and_leaves_no_thread(signals: int) -> None:
    """100 times: an interrupt, or two within a millisecond, while an operation begins, runs or ends."""
    rng = random.Random(signals)
    armed = False

    def handler(number: int, frame: object) -> None:
        if armed:
            raise KeyboardInterrupt

    def shoot(delay: float) -> None:
        time.sleep(delay)
        for _ in range(signals):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(rng.random() / 1000)

    before = signal.signal(signal.SIGINT, handler)
    kept: list[object] = []
    gc.disable()  # what is raised in a destructor, and there is one in Python's own threads, is not heard of
    try:
        for _ in range(100):
            gun = threading.Thread(target=shoot, args=(rng.random() * 0.01,))
            began = time.monotonic()
            try:
                armed = True
                gun.start()
                with Threads(3) as threads:
                    kept.append(threads)
                    pool = pool_of(lambda unit, flow: flow.wait(rng.choice([0.0, 0.001, HOUR])), 20)
                    threads.run(pool, Cancellation(), interval=0.001)
            except (KeyboardInterrupt, CancelledError):
                pass
            finally:
                armed = False
            assert time.monotonic() - began < 1.0 + 0.1
            gun.join()
            while ours_alive() and time.monotonic() - began < 2.0:
                time.sleep(0.001)  # a driver that has said its last word is alive for a moment still
            assert [] == ours_alive()
    finally:
        gc.enable()
        signal.signal(signal.SIGINT, before)


# -- a driver that nobody tells anything


def test_a_driver_ends_by_itself_where_an_interrupt_has_cut_off_who_would_have_told_it() -> None:
    """The interrupt came on the way out of the call, before the first step of it: ``__exit__`` never ran."""
    threads = Threads(3)
    threads.run(pool_of(lambda unit, flow: None, 10), Cancellation())
    deadline = time.monotonic() + 10.0
    while ours_alive() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert [] == ours_alive()


def test_a_run_that_comes_after_its_driver_has_left_gets_another() -> None:
    done: list[int] = []
    with Threads(3) as threads:
        threads.run(pool_of(lambda unit, flow: done.append(unit), 5), Cancellation())
        while not threads._drivers[-1].has_left:
            time.sleep(0.005)
        threads.run(pool_of(lambda unit, flow: done.append(unit), 5), Cancellation())
        assert 2 == len(threads._drivers)
    assert 2 * [0, 1, 2, 3, 4] == sorted(done[:5]) + sorted(done[5:])


@pytest.mark.parametrize("is_taken", [True, False])
def test_an_order_that_comes_while_a_driver_leaves_is_driven_once(
    monkeypatch: pytest.MonkeyPatch, is_taken: bool
) -> None:
    """Either the one that leaves has seen it, or the next one does; there may be no thread for a next one."""
    monkeypatch.setattr("transferkit.transfer.driver.LINGER", 0.0)
    orders: SimpleQueue[Pool | None] = SimpleQueue()
    done: list[int] = []
    pool = pool_of(lambda unit, flow: done.append(unit), 5)
    leaving = Driver(orders, lambda: ThreadPoolExecutor(3))
    leaving.has_left = True
    if is_taken:
        orders.put(pool)
        leaving._drive()
        assert pool.is_over
    threads = Threads(3)
    threads._drivers.append(leaving)
    threads._orders = orders
    monkeypatch.setattr(Driver, "start", refuse)
    threads._start_driver(pool) if is_taken else threads.run(pool, Cancellation())
    assert list(range(5)) == sorted(done)


def refuse(*_: object) -> None:
    raise RuntimeError("can't start new thread")
