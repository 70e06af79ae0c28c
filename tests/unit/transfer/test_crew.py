"""What a worker has others do beside it: taken or taken back, counted, failed, and cut."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from transferkit.errors import CancelledError, ReadError, StorageError
from transferkit.transfer.crew import Job
from transferkit.transfer.flow import WorkerFlow


class Board:
    """Keeps the jobs until the test has somebody do them."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def offer(self, job: Job) -> None:
        self.jobs.append(job)

    def withdraw(self, job: Job) -> None:
        self.jobs.remove(job)

    def do_next(self, flow: WorkerFlow) -> threading.Thread:
        thread = threading.Thread(target=self.jobs.pop(0).run, args=(flow,))
        thread.start()
        return thread


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def flow(board: Board) -> WorkerFlow:
    made = WorkerFlow()
    made.board = board
    return made


def moving(count: int) -> Callable[[WorkerFlow], None]:
    return lambda flow: flow.moved(count)


def failing(error: Exception) -> Callable[[WorkerFlow], None]:
    def work(flow: WorkerFlow) -> None:
        flow.moved(7)
        raise error

    return work


def test_what_nobody_takes_is_taken_back_in_order(board: Board, flow: WorkerFlow) -> None:
    with flow.crew() as crew:
        crew.offer(moving(1), "one")
        crew.offer(moving(2), "two")
        assert (2, 2) == (crew.size, len(board.jobs))
        assert ("one", "two", None) == (crew.take_back(), crew.take_back(), crew.take_back())
        assert (0, []) == (crew.size, board.jobs)


def test_without_a_board_all_is_taken_back() -> None:
    with WorkerFlow().crew() as crew:
        crew.offer(moving(1), "one")
        assert "one" == crew.take_back()


def test_what_was_taken_back_is_done_by_nobody_else(board: Board, flow: WorkerFlow) -> None:
    other = WorkerFlow()
    with flow.crew() as crew:
        crew.offer(moving(5), "one")
        (job,) = board.jobs
        crew.take_back()
        job.run(other)
    assert 0 == other.counter.progress


def test_what_others_have_moved_is_counted_once_and_as_this_workers(board: Board, flow: WorkerFlow) -> None:
    other = WorkerFlow()
    flow.moved(100)
    with flow.crew() as crew:
        crew.offer(moving(40), "one")
        thread = board.do_next(other)
        crew.wait()
        thread.join()
        assert 140 == flow.counter.position == flow.counter.peak()
        assert 140 == flow.counter.progress + other.counter.progress
        flow.counter.set_position(0)  # as where the blob is given up
        assert 0 == flow.counter.progress + other.counter.progress
    assert 140 == flow.counter.traffic + other.counter.traffic


def test_a_failure_is_raised_where_it_is_waited_for_and_counts_nothing(board: Board, flow: WorkerFlow) -> None:
    other = WorkerFlow()
    with pytest.raises(ReadError, match="cut off"), flow.crew() as crew:
        crew.offer(failing(ReadError("cut off")), "one")
        board.do_next(other).join()
        crew.wait()
    assert 0 == other.counter.progress


def test_of_several_failures_the_final_one_is_raised(board: Board, flow: WorkerFlow) -> None:
    with pytest.raises(StorageError), flow.crew() as crew:
        for error in (ReadError("one"), StorageError("two"), ReadError("three")):
            crew.offer(failing(error), error)
            board.do_next(WorkerFlow()).join()
        crew.look()


def test_a_worker_that_waits_takes_no_place_at_the_host(board: Board, flow: WorkerFlow) -> None:
    flow.attempt = 3
    seen: list[int] = []

    def work(_: object) -> None:
        threading.Event().wait(0.05)
        seen.append(flow.attempt)

    with flow.crew() as crew:
        crew.offer(work, "one")
        board.do_next(WorkerFlow())
        crew.wait()
    assert ([0], 3) == (seen, flow.attempt)


def test_a_cut_wakes_who_waits(board: Board, flow: WorkerFlow) -> None:
    over = threading.Event()
    threading.Timer(0.02, lambda: (flow.cut(CancelledError("enough"), final=True), over.set())).start()
    with pytest.raises(CancelledError, match="enough"), flow.crew() as crew:
        crew.offer(lambda _: over.wait(10), "one")  # which ends when its own flow is cut, here
        board.do_next(WorkerFlow())
        crew.wait()


@pytest.mark.parametrize("error", [ReadError("again"), StorageError("no more")])
def test_on_the_way_out_the_others_end_or_are_cut(board: Board, flow: WorkerFlow, error: Exception) -> None:
    """Where the blob is tried again what they are at is of use."""
    other, begun, ended = WorkerFlow(), threading.Event(), []

    def work(given: WorkerFlow) -> None:
        begun.set()
        given.wait(0.1 if isinstance(error, ReadError) else 10)
        given.moved(9)
        ended.append(True)

    with pytest.raises(type(error)), flow.crew() as crew:
        crew.offer(work, "one")
        thread = board.do_next(other)
        begun.wait(10)
        crew.offer(work, "two")
        raise error
    thread.join()
    assert [] == board.jobs
    assert (([True], 9) if isinstance(error, ReadError) else ([], 0)) == (ended, flow.counter.position)
    other.next_attempt()
    other.check()  # the next unit of that worker is not cut


def test_what_fails_at_the_very_end_is_raised(board: Board, flow: WorkerFlow) -> None:
    with pytest.raises(ReadError), flow.crew() as crew:
        crew.offer(failing(ReadError("late")), "one")
        board.do_next(WorkerFlow()).join()


def test_a_worker_that_is_spared_has_others_who_are(board: Board, flow: WorkerFlow) -> None:
    other = WorkerFlow()
    flow.watch.spared = True
    with flow.crew() as crew:
        crew.offer(moving(1), "one")
        board.do_next(other).join()
        crew.wait()
    assert other.watch.spared
