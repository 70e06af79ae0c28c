"""The pool: every unit once, a ceiling, and no thread left behind on any way out.

Workers meet at barriers and events, never at a time. An hour stands for "until somebody wakes it".
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import pytest

from transferkit.cancellation import Cancellation
from transferkit.errors import CancelledError, DeniedError, ReadError
from transferkit.transfer.concurrency import Concurrency
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.pool import Bell, Pool, wait_for
from transferkit.transfer.scheduler import Scheduler
from transferkit.transfer.threads import WORKERS, Threads

HOUR = 3600.0
INTERVAL = 0.001
LIMIT = 30.0  # seconds until a meeting that never happens fails the test


class Serial(Executor):
    """Runs what it is given at once, in the thread that gives it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@pytest.fixture(autouse=True)
def _no_thread_more_than_before() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() <= before


class Run:
    """A pool, and how it is run."""

    def __init__(
        self,
        work: Callable[[Any, WorkerFlow], None],
        units: Iterable[Any],
        *,
        concurrency: int = 4,
        cancellation: Cancellation | None = None,
        executor: Callable[[int], Executor] = WORKERS,
    ) -> None:
        units = list(units)
        self.flows = [WorkerFlow(number) for number in range(max(1, min(concurrency, len(units))))]
        self.units = Scheduler(units)
        self.pool: Pool = Pool(work, self.units, self.flows, concurrency=Concurrency())
        self.cancellation = cancellation or Cancellation()
        self.threads = Threads(len(self.flows), executor)
        self.stop = self.pool.stop

    def run(self, tick: Callable[[], None], *, interval: float) -> None:
        with self.threads:
            self.threads.run(self.pool, self.cancellation, tick, interval=interval)


def sleep(flow: WorkerFlow) -> None:
    """Sleep until somebody stops the run."""
    with pytest.raises(CancelledError):
        flow.wait(HOUR)


def nothing() -> None:
    """What a caller does who does not care how far it is."""


# -- work


@pytest.mark.parametrize("concurrency", [1, 3, 8, 1000])
def test_every_unit_is_done_once(concurrency: int) -> None:
    done: list[int] = []
    Run(lambda unit, flow: done.append(unit), range(500), concurrency=concurrency).run(nothing, interval=INTERVAL)
    assert sorted(done) == list(range(500))


def test_one_worker_does_the_units_in_order() -> None:
    done: list[int] = []
    Run(lambda unit, flow: done.append(unit), range(50), concurrency=1).run(nothing, interval=INTERVAL)
    assert done == list(range(50))


def test_as_many_as_allowed_work_at_once_and_no_more() -> None:
    meeting = threading.Barrier(4, timeout=LIMIT)
    lock = threading.Lock()
    active = 0
    most = 0

    def work(unit: int, flow: WorkerFlow) -> None:
        nonlocal active, most
        with lock:
            active += 1
            most = max(most, active)
        meeting.wait()  # only four at once get past here
        with lock:
            active -= 1

    Run(work, range(40), concurrency=4).run(nothing, interval=INTERVAL)
    assert most == 4


def test_each_worker_has_a_flow_of_its_own_and_begins_each_unit() -> None:
    meeting = threading.Barrier(3, timeout=LIMIT)
    seen: dict[int, set[int]] = {}

    def work(unit: int, flow: WorkerFlow) -> None:
        meeting.wait()
        assert flow.counter.peak() == 0
        flow.moved(10)
        seen.setdefault(threading.get_ident(), set()).add(id(flow))

    pool = Run(work, range(9), concurrency=3)
    pool.run(nothing, interval=INTERVAL)
    assert all(len(flows) == 1 for flows in seen.values())
    assert set().union(*seen.values()) == {id(flow) for flow in pool.flows}
    assert sum(flow.counter.progress for flow in pool.flows) == 90


def test_there_is_work_until_all_of_it_is_taken() -> None:
    pool = Run(lambda unit, flow: None, range(9))
    assert pool.units
    pool.run(nothing, interval=INTERVAL)
    assert not pool.units


def test_nothing_to_do_is_no_work_at_all() -> None:
    def never(*args: object) -> Any:
        raise AssertionError("nobody is needed")

    Run(never, []).run(never, interval=INTERVAL)


def test_the_caller_ticks_in_its_own_thread_while_work_goes_on() -> None:
    ticked = threading.Event()
    threads: set[int] = set()

    def tick() -> None:
        threads.add(threading.get_ident())
        ticked.set()

    Run(lambda unit, flow: _meet(ticked), [1]).run(tick, interval=INTERVAL)
    assert threads == {threading.get_ident()}


def test_an_interval_of_zero_ticks_too() -> None:
    ticked = threading.Event()
    Run(lambda unit, flow: _meet(ticked), [1]).run(ticked.set, interval=0.0)
    assert ticked.is_set()


def _meet(event: threading.Event) -> None:
    assert event.wait(LIMIT)


# -- executors


def test_a_serial_executor_runs_the_same_code_in_the_driver() -> None:
    threads: set[str] = set()
    done: list[int] = []

    def work(unit: int, flow: WorkerFlow) -> None:
        threads.add(threading.current_thread().name)
        done.append(unit)

    sizes: list[int] = []

    def executor(size: int) -> Executor:
        sizes.append(size)
        return Serial()

    Run(work, range(20), executor=executor).run(nothing, interval=INTERVAL)
    assert done == list(range(20))
    assert threads == {"transferkit-driver"}
    assert sizes == [4]


def test_a_serial_executor_stops_at_the_first_error() -> None:
    done: list[int] = []

    def work(unit: int, flow: WorkerFlow) -> None:
        if unit == 3:
            raise DeniedError("not you")
        done.append(unit)

    with pytest.raises(DeniedError, match="not you"):
        Run(work, range(20), executor=lambda size: Serial()).run(nothing, interval=INTERVAL)
    assert done == [0, 1, 2]


def test_where_there_is_no_thread_for_a_worker_the_driver_is_one() -> None:
    done: list[int] = []
    Run(lambda unit, flow: done.append(unit), range(20), executor=short_of(0)).run(nothing, interval=INTERVAL)
    assert done == list(range(20))


@pytest.mark.parametrize("starts", [0, 1, 2])
def test_an_executor_that_takes_nothing_more_is_done_without(starts: int) -> None:
    """As Python's own is, once the interpreter ends."""
    done: list[int] = []

    class Ending(ThreadPoolExecutor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            nonlocal starts
            starts -= 1
            if starts < 0:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            return super().submit(fn, *args, **kwargs)

    def work(unit: int, flow: WorkerFlow) -> None:
        threading.Event().wait(0.002)  # so that more workers are wanted
        done.append(unit)

    Run(work, range(100), concurrency=8, executor=Ending).run(nothing, interval=INTERVAL)
    assert sorted(done) == list(range(100))


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_where_the_system_has_no_more_threads_the_others_do_the_work(threads: int) -> None:
    done: list[int] = []
    executor = short_of(threads)

    def work(unit: int, flow: WorkerFlow) -> None:
        threading.Event().wait(0.002)  # so that more workers are wanted
        done.append(unit)

    Run(work, range(200), concurrency=64, executor=executor).run(nothing, interval=INTERVAL)
    assert sorted(done) == list(range(200))


def test_a_start_that_was_taken_although_it_was_refused_is_not_taken_again() -> None:
    """A thread that had nothing to do takes it before the executor says that it can start no other one."""
    taken = threading.Event()
    lock, at_work, done, twice = threading.Lock(), set[int](), list[int](), list[int]()

    class Refusing(ThreadPoolExecutor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            super().submit(fn, *args, **kwargs)
            assert taken.wait(LIMIT)
            raise RuntimeError("can't start new thread")

    def work(unit: int, flow: WorkerFlow) -> None:
        with lock:
            twice.extend({flow.number} & at_work)
            at_work.add(flow.number)
        taken.set()
        threading.Event().wait(0.005)
        done.append(unit)
        with lock:
            at_work.discard(flow.number)

    Run(work, range(40), concurrency=4, executor=Refusing).run(nothing, interval=INTERVAL)
    assert (sorted(done), twice) == (list(range(40)), [])


def short_of(threads: int) -> Callable[[int], Executor]:
    """Return what makes executors that can start so many threads; as Python's own does, they keep what they got."""

    class Short(ThreadPoolExecutor):
        def _adjust_thread_count(self) -> None:
            if len(self._threads) >= threads:
                raise RuntimeError("can't start new thread")
            super()._adjust_thread_count()  # type: ignore[misc]  # not in the stubs

    return Short


# -- errors


@pytest.mark.parametrize("error", [DeniedError("not you"), ZeroDivisionError("a defect"), SystemExit(3)])
def test_an_error_stops_the_rest_and_is_raised(error: BaseException) -> None:
    meeting = threading.Barrier(4, timeout=LIMIT)
    done: list[int] = []

    def work(unit: int, flow: WorkerFlow) -> None:
        meeting.wait()
        if unit == 0:
            raise error
        sleep(flow)
        flow.check()
        done.append(unit)

    pool = Run(work, range(100))
    with pytest.raises(type(error)) as caught:
        pool.run(nothing, interval=INTERVAL)
    assert caught.value is error
    assert done == []


def test_an_error_cuts_the_flows_of_the_others_wherever_they_are_blocked() -> None:
    meeting = threading.Barrier(3, timeout=LIMIT)
    heard: list[str] = []

    def work(unit: int, flow: WorkerFlow) -> None:
        woken = threading.Event()
        flow.attach(woken.set)
        meeting.wait()
        if unit == 0:
            raise DeniedError("not you")
        assert woken.wait(LIMIT)
        try:
            flow.check()
        except CancelledError as error:
            heard.append(str(error))
            raise

    with pytest.raises(DeniedError):
        Run(work, range(3)).run(nothing, interval=INTERVAL)
    assert heard == ["stopped: another blob failed for good"] * 2


def test_the_first_error_stands_whatever_the_others_raise_after() -> None:
    meeting = threading.Barrier(3, timeout=LIMIT)
    first = DeniedError("first")
    after: list[BaseException] = [ReadError("woken"), ZeroDivisionError("a defect on the way out")]

    def work(unit: int, flow: WorkerFlow) -> None:
        meeting.wait()
        if unit == 0:
            raise first
        sleep(flow)
        raise after[unit - 1]

    pool = Run(work, range(3))
    with pytest.raises(DeniedError) as caught:
        pool.run(nothing, interval=INTERVAL)
    assert caught.value is first


# -- the ways out


def test_cancelling_wakes_workers_that_sleep() -> None:
    cancellation = Cancellation()
    asleep = threading.Barrier(5, timeout=LIMIT)
    ended: list[int] = []

    def work(unit: int, flow: WorkerFlow) -> None:
        asleep.wait()
        sleep(flow)
        ended.append(unit)

    def tick() -> None:
        if not cancellation.cancelled:
            asleep.wait()
            cancellation.cancel("the window was closed")

    pool = Run(work, range(100), cancellation=cancellation)
    with pytest.raises(CancelledError, match=r"^the window was closed$"):
        pool.run(tick, interval=INTERVAL)
    assert len(ended) == 4


def test_cancelling_from_another_thread_wakes_the_caller_too() -> None:
    cancellation = Cancellation()
    working = threading.Event()

    def work(unit: int, flow: WorkerFlow) -> None:
        working.set()
        sleep(flow)
        flow.check()

    def cancel() -> None:
        working.wait(LIMIT)
        cancellation.cancel()

    pool = Run(work, [1], cancellation=cancellation)
    other = threading.Thread(target=cancel)
    other.start()
    with pytest.raises(CancelledError, match=r"^cancelled by the caller$"):
        pool.run(nothing, interval=HOUR)
    other.join()


@pytest.mark.parametrize("executor", [WORKERS, lambda size: Serial()])
def test_what_was_cancelled_before_does_no_work(executor: Callable[[int], Executor]) -> None:
    cancellation = Cancellation()
    cancellation.cancel("too late")
    done: list[int] = []
    pool = Run(lambda unit, flow: done.append(unit), range(9), cancellation=cancellation, executor=executor)
    with pytest.raises(CancelledError, match=r"^too late$"):
        pool.run(nothing, interval=INTERVAL)
    assert done == []


def test_a_cancellation_can_be_used_for_the_next_run_while_it_is_open() -> None:
    cancellation = Cancellation()
    done: list[int] = []
    for _ in range(2):
        Run(lambda unit, flow: done.append(unit), range(3), cancellation=cancellation).run(nothing, interval=INTERVAL)
    assert sorted(done) == [0, 0, 1, 1, 2, 2]


def test_cancelling_after_the_end_harms_nobody() -> None:
    cancellation = Cancellation()
    Run(lambda unit, flow: None, range(3), cancellation=cancellation).run(nothing, interval=INTERVAL)
    cancellation.cancel()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interruption_of_the_caller_propagates_after_all_workers_ended(kind: type[BaseException]) -> None:
    working = threading.Barrier(5, timeout=LIMIT)
    heard: list[str] = []

    def work(unit: int, flow: WorkerFlow) -> None:
        working.wait()
        try:
            flow.wait(HOUR)
        except CancelledError as error:
            heard.append(str(error))
            raise

    def tick() -> None:
        working.wait()
        raise kind

    pool = Run(work, range(100))
    with pytest.raises(kind):
        pool.run(tick, interval=INTERVAL)
    assert heard == [f"stopped by {kind.__name__}"] * 4


def test_a_second_interruption_leaves_no_worker_behind_either(monkeypatch: pytest.MonkeyPatch) -> None:
    working = threading.Event()
    ended: list[int] = []
    interrupted_once: list[int] = []
    interrupts = [KeyboardInterrupt("the third"), KeyboardInterrupt("the second")]

    def interrupted(bell: Bell, seconds: float) -> bool:
        if interrupted_once and interrupts:
            raise interrupts.pop()
        return wait_for(bell, seconds)

    def work(unit: int, flow: WorkerFlow) -> None:
        working.set()
        sleep(flow)
        ended.append(unit)

    def tick() -> None:
        _meet(working)
        interrupted_once.append(1)
        raise KeyboardInterrupt("the first")

    monkeypatch.setattr("transferkit.transfer.driver.wait_for", interrupted)
    pool = Run(work, [1])
    with pytest.raises(KeyboardInterrupt):
        pool.run(tick, interval=INTERVAL)
    assert (ended, interrupts) == ([1], [])


def test_sleeping_ends_at_once_after_a_stop() -> None:
    pool = Run(lambda unit, flow: None, [1])
    pool.stop(CancelledError("enough"))
    with pytest.raises(CancelledError, match="enough"):
        pool.flows[0].wait(HOUR)


def test_what_the_end_of_the_units_raises_is_raised_to_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def close() -> None:
        raise ZeroDivisionError("a defect")

    pool = Run(lambda unit, flow: None, [1])
    monkeypatch.setattr(pool.units, "close", close)
    with pytest.raises(ZeroDivisionError):
        pool.run(nothing, interval=INTERVAL)
