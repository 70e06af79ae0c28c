"""The flow of one worker: its counters, and how it is cut."""

from __future__ import annotations

import math
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transferkit.errors import CancelledError, SlowError, StalledError, TransferKitError
from transferkit.options import TransferOptions
from transferkit.transfer.flow import WorkerFlow, worker_flows


def figures(flow: WorkerFlow) -> tuple[int, int, int]:
    return flow.counter.progress, flow.counter.peak(), flow.counter.traffic


# -- counting


def test_a_new_flow_has_moved_nothing() -> None:
    assert figures(WorkerFlow()) == (0, 0, 0)


def test_what_is_moved_is_counted() -> None:
    flow = WorkerFlow()
    flow.counter.next_unit()
    flow.moved(100)
    flow.moved(50)
    assert figures(flow) == (150, 150, 150)


def test_settling_where_it_is_changes_nothing() -> None:
    flow = WorkerFlow()
    flow.counter.next_unit()
    flow.moved(100)
    flow.counter.set_position(100)
    assert figures(flow) == (100, 100, 100)


def test_what_is_taken_back_was_traffic_all_the_same() -> None:
    flow = WorkerFlow()
    flow.counter.next_unit()
    flow.moved(100)
    flow.counter.set_position(40)
    assert figures(flow) == (40, 100, 100)
    flow.moved(60)
    assert figures(flow) == (100, 100, 160)


def test_what_was_there_already_is_progress_and_no_traffic() -> None:
    flow = WorkerFlow()
    flow.counter.next_unit()
    flow.counter.set_position(70)
    assert figures(flow) == (70, 70, 0)
    flow.moved(30)
    assert figures(flow) == (100, 100, 30)


def test_a_unit_that_failed_leaves_its_traffic_alone() -> None:
    flow = WorkerFlow()
    flow.counter.next_unit()
    flow.counter.set_position(50)
    flow.moved(20)
    flow.counter.set_position(0)
    assert figures(flow) == (0, 70, 20)


def test_each_unit_begins_at_zero_and_the_totals_go_on() -> None:
    flow = WorkerFlow()
    flow.counter.next_unit()
    flow.moved(100)
    flow.counter.next_unit()
    assert figures(flow) == (100, 0, 100)
    flow.moved(10)
    flow.counter.set_position(4)
    assert figures(flow) == (104, 10, 110)
    flow.counter.next_unit()
    flow.counter.set_position(8)
    assert figures(flow) == (112, 8, 110)


def test_the_peak_outlives_an_attempt() -> None:
    flow = WorkerFlow()
    flow.counter.next_unit()
    flow.moved(100)
    flow.counter.set_position(0)
    flow.next_attempt()
    flow.moved(60)
    assert flow.counter.peak() == 100
    flow.moved(60)
    assert flow.counter.peak() == 120


OPERATIONS = st.lists(
    st.tuples(st.just("moved"), st.integers(0, 1000))
    | st.tuples(st.just("settle"), st.integers(0, 1000))
    | st.tuples(st.just("begin"), st.just(0)),
    max_size=30,
)


@given(OPERATIONS)
@settings(deadline=None, max_examples=100)
def test_traffic_is_just_what_was_moved_and_progress_is_where_it_was_settled(operations: list[tuple[str, int]]) -> None:
    flow = WorkerFlow()
    flow.counter.next_unit()
    done = position = peak = traffic = 0
    for name, number in operations:
        if name == "begin":
            flow.counter.next_unit()
            done, position, peak = done + position, 0, 0
        elif name == "moved":
            flow.moved(number)
            position, traffic = position + number, traffic + number
        else:
            flow.counter.set_position(number)
            position = number
        peak = max(peak, position)
        assert figures(flow) == (done + position, peak, traffic)


def test_the_buffer_is_made_once_and_can_be_written() -> None:
    flow = WorkerFlow()
    buffer = flow.buffer
    assert buffer is flow.buffer
    assert buffer.nbytes == 524_288
    buffer[:5] = b"hello"


# -- cutting


def test_a_flow_that_is_not_cut_lets_everything_pass() -> None:
    flow = WorkerFlow()
    flow.check()
    flow.attach(flow.check)
    flow.detach(flow.check)
    flow.moved(1)


@pytest.mark.parametrize("final", [False, True])
def test_a_cut_is_raised_by_all_that_follows(final: bool) -> None:
    flow = WorkerFlow()
    flow.moved(5)
    error = StalledError("silent")
    flow.cut(error, final=final)
    for act in (flow.check, lambda: flow.moved(1), lambda: flow.attach(lambda: None)):
        with pytest.raises(StalledError) as caught:
            act()
        assert caught.value is error
    assert flow.counter.progress == 5


def test_settling_and_detaching_never_raise() -> None:
    flow = WorkerFlow()
    flow.counter.next_unit()
    flow.moved(5)
    flow.cut(CancelledError(), final=True)
    flow.counter.set_position(3)
    flow.detach(lambda: None)
    assert flow.counter.progress == 3


@pytest.mark.parametrize("final", [False, True])
def test_a_cut_wakes_every_attached_abort_once(final: bool) -> None:
    flow = WorkerFlow()
    woken: list[str] = []

    def first() -> None:
        woken.append("first")

    def second() -> None:
        woken.append("second")

    flow.attach(first)
    flow.attach(second)
    flow.attach(first)
    flow.cut(StalledError(), final=final)
    assert woken == ["first", "second"]


def test_what_is_detached_is_not_woken() -> None:
    flow = WorkerFlow()
    woken: list[str] = []

    def first() -> None:
        woken.append("first")

    def second() -> None:
        woken.append("second")

    flow.attach(first)
    flow.attach(second)
    flow.detach(first)
    flow.detach(first)
    flow.cut(StalledError(), final=False)
    assert woken == ["second"]


def test_a_bound_method_is_detached_by_its_name() -> None:
    class Connection:
        woken = 0

        def abort(self) -> None:
            self.woken += 1

    flow = WorkerFlow()
    connection, other = Connection(), Connection()
    flow.attach(connection.abort)
    flow.attach(other.abort)
    flow.detach(connection.abort)
    flow.cut(StalledError(), final=False)
    assert (connection.woken, other.woken) == (0, 1)


def test_an_abort_may_detach_itself_and_others() -> None:
    flow = WorkerFlow()
    woken: list[int] = []

    def abort() -> None:
        woken.append(1)
        flow.detach(abort)

    flow.attach(abort)
    flow.cut(StalledError(), final=False)
    flow.cut(SlowError(), final=False)
    assert woken == [1]


def test_once_detached_an_abort_is_not_running_in_another_thread_either() -> None:
    flow = WorkerFlow()
    running, go_on = threading.Event(), threading.Event()
    done: list[str] = []

    def abort() -> None:
        running.set()
        go_on.wait(30)
        done.append("aborted")

    def detach() -> None:
        flow.detach(abort)
        done.append("detached")

    flow.attach(abort)
    cutter = threading.Thread(target=flow.cut, args=(StalledError(),), kwargs={"final": False})
    worker = threading.Thread(target=detach)
    cutter.start()
    assert running.wait(30)
    worker.start()
    go_on.set()
    cutter.join()
    worker.join()
    assert done == ["aborted", "detached"]


def test_attaching_after_a_cut_raises_and_the_abort_can_still_be_detached() -> None:
    flow = WorkerFlow()
    woken: list[int] = []

    def abort() -> None:
        woken.append(1)

    flow.cut(StalledError(), final=False)
    with pytest.raises(StalledError):
        flow.attach(abort)
    flow.detach(abort)
    flow.cut(CancelledError(), final=True)
    assert woken == []


def test_a_new_attempt_forgets_a_cut() -> None:
    flow = WorkerFlow()
    flow.cut(StalledError(), final=False)
    flow.next_attempt()
    flow.check()
    flow.moved(1)


def test_a_new_attempt_does_not_forget_a_final_cut() -> None:
    flow = WorkerFlow()
    flow.cut(StalledError(), final=False)
    flow.cut(CancelledError("enough"), final=True)
    flow.next_attempt()
    flow.counter.next_unit()
    with pytest.raises(CancelledError, match="enough"):
        flow.check()


def test_the_first_final_cut_stands() -> None:
    flow = WorkerFlow()
    woken: list[int] = []
    flow.attach(lambda: woken.append(1))
    flow.cut(CancelledError("first"), final=True)
    flow.cut(CancelledError("second"), final=True)
    flow.cut(StalledError("late"), final=False)
    with pytest.raises(CancelledError, match="first"):
        flow.check()
    assert woken == [1]


# -- bodies


def test_each_body_has_a_number_of_its_own_and_none_is_zero() -> None:
    flow = WorkerFlow()
    assert flow.watch.body == 0
    numbers = []
    for _ in range(3):
        flow.watch.start()
        numbers.append(flow.watch.body)
        flow.watch.stop()
        assert flow.watch.body == 0
    flow.watch.stop()
    assert numbers == [1, 2, 3]


def test_a_new_attempt_has_no_body_yet() -> None:
    flow = WorkerFlow()
    flow.watch.start()
    flow.next_attempt()
    assert flow.watch.body == 0
    flow.watch.start()
    assert flow.watch.body == 2


def test_the_body_that_is_meant_is_cut_until_the_next_attempt() -> None:
    flow = WorkerFlow()
    woken: list[int] = []
    flow.watch.start()
    flow.attach(lambda: woken.append(1))
    flow.cut_body(1, StalledError("silent"))
    assert woken == [1]
    with pytest.raises(StalledError, match="silent"):
        flow.moved(1)
    flow.next_attempt()
    flow.check()


def test_another_body_than_the_one_that_is_meant_is_left_alone() -> None:
    flow = WorkerFlow()
    flow.watch.start()
    flow.watch.stop()
    flow.cut_body(1, StalledError("too late"))
    flow.watch.start()
    flow.cut_body(1, StalledError("too late"))
    flow.check()


def test_the_last_of_several_passing_cuts_stands() -> None:
    flow = WorkerFlow()
    flow.cut(StalledError(), final=False)
    flow.cut(SlowError(), final=False)
    with pytest.raises(SlowError):
        flow.check()


@pytest.mark.parametrize(
    ("workers", "limit", "size"),
    [
        (1, None, 524_288),
        (64, None, 524_288),
        (65, None, 516_222),
        (1024, None, 32_768),
        (8, 20e6, 400_000),
        (8, 1e9, 524_288),
        (8, 1000.0, 4096),
    ],
)
def test_all_buffers_together_take_32_mib_at_most(workers: int, limit: float | None, size: int) -> None:
    flows = worker_flows(workers, TransferOptions(max_bandwidth=limit))
    assert (len(flows), len(flows[0].buffer)) == (workers, size)


def test_limits_without_an_end_are_no_defect() -> None:
    (flow,) = worker_flows(1, TransferOptions(max_bandwidth=math.inf))
    flow.moved(1000)
    threading.Timer(0.05, lambda: flow.cut(CancelledError("enough"), final=True)).start()
    with pytest.raises(CancelledError):
        flow.wait(1e11)


def test_a_cut_of_a_body_that_ends_meanwhile_is_not_met_by_the_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = WorkerFlow()
    flow.watch.start()
    next_attempt = threading.Thread(target=flow.next_attempt)
    cut = flow.cut

    def slow(error: TransferKitError, *, final: bool) -> None:
        next_attempt.start()
        next_attempt.join(0.1)
        cut(error, final=final)

    monkeypatch.setattr(flow, "cut", slow)
    flow.cut_body(flow.watch.body, StalledError("silent"))
    next_attempt.join()
    flow.check()
