"""The tree of machines, on a cluster that is a list of what it was asked for."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from dataclasses import replace

import pytest

import transferkit as tk
from transferkit.cluster.dask import tree as trees
from transferkit.cluster.dask.pool import DaskPool, settled
from transferkit.cluster.dask.repository import RepositoryCopy, RepositoryTask
from transferkit.cluster.inbox import Inbox
from transferkit.cluster.lines import ThreadLine
from transferkit.cluster.meter import Meter
from transferkit.cluster.piece import Done
from transferkit.cluster.report import rows_of
from transferkit.cluster.work import Work
from transferkit.report import Report

PLAN = tk.plan_download([tk.Blob(f"sha256:{64 * 'a'}", 10)], base_url="http://a.example", repository="a/b")


class Cluster:
    """Answers a call by what ``answer(task)`` yields: messages of that piece."""

    is_local = False
    submit, _allowed, _only = DaskPool.submit, DaskPool._allowed, None

    def __init__(self, answer) -> None:
        self.inbox, self.asked, self.cancelled, self.answer = Inbox(), [], [], answer
        self.cluster = {"tcp://one:1": {}, "tcp://two:1": {}}
        self.client = self

    def open(self, name):
        line = ThreadLine(self.inbox.put)
        line.topic = name
        return line

    def call(self, function, task, number, *, key, **more):
        self.asked.append((task, more))
        for kind, *rest in self.answer(task):
            if kind == "done":
                future = Future()
                (future.set_exception if isinstance(rest[0], BaseException) else future.set_result)(rest[0])
                rest = [future]
            self.inbox.put((kind, number, *rest))
        return number

    def check(self):
        """It is always there."""

    def cancel(self, futures=()):
        self.cancelled += [*futures] or ["all"]


def tree(answer, count: int = 3, **more) -> trees.Tree:
    cluster = Cluster(answer)
    meter = Meter([10] * count, 10 * count, logging.getLogger("transferkit"))
    common = {"plan": PLAN, "to": None, "cache": None, "concurrency": None, "settings": {}}
    names = [f"host{number}" for number in range(count)]
    keywords = {"width": 2, "meter": meter, "retries": 1, "patience": 0.0, **more}
    made = trees.Tree(cluster, cluster.inbox, names, common, **keywords)
    made.cluster = cluster
    return made


@pytest.fixture(autouse=True)
def _all_hosts_are_there(monkeypatch):
    monkeypatch.setattr(trees, "listed", lambda _: {f"tcp://host{n}:1": {"host": f"host{n}"} for n in range(3)})


def brings(task):
    worker, report = f"tcp://host{task.number}:1", Report(blobs=1, bytes=10)
    yield "begun", worker
    yield "told", tk.Status(completed=5, total=10, moved=5), ()
    if task.serves:
        yield "serving", f"http://host{task.number}"
    yield "received", worker, report, 1.0
    if not task.serves:
        yield "done", Done(number=task.number, worker=worker, report=report)
    yield ("over",)


def test_each_machine_asks_those_before_it():
    made = tree(brings)
    made.run(tk.Cancellation())

    assert [(), ("http://host0",), ("http://host0", "http://host1")] == [task.mirrors for task, _ in made.cluster.asked]
    assert [["host0"], ["host1"], ["host2"]] == [more["workers"] for _, more in made.cluster.asked]
    assert [0, 1, 2] == sorted(made.received)
    assert ({}, 0) == (made.failures, made.again)


def test_a_machine_that_fails_is_tried_again_and_named():
    def full(task):
        if task.number != 2:
            yield from brings(task)
            return
        yield "begun", "tcp://host2:1"
        yield "done", Done(number=2, worker="tcp://host2:1", error=tk.OutOfSpaceError("the disk is full"))

    made = tree(full)
    made.run(tk.Cancellation())
    error = made.error()

    assert (1, [2], 2) == (made.again, [*made.failures], sum(row.failed for row in made.rows))
    assert "1 of 3 machines have it not: host2: the disk is full" == str(error)
    assert {PLAN.blobs[0].digest} == error.failures.keys()


def test_a_task_that_was_lost_with_its_worker_is_counted_and_goes_on():
    def restarted(task):
        if task.number == 0:
            yield "begun", "tcp://host0:1"
        yield from brings(task)

    made = tree(restarted)
    made.run(tk.Cancellation())
    assert (1, 3) == (made.again, len(made.received))


def test_an_error_that_is_none_of_the_library_ends_all_of_it():
    def wrong(task):
        yield "done", TypeError("a fault of ours")

    made = tree(wrong)
    with pytest.raises(TypeError, match="a fault of ours"):
        made.run(tk.Cancellation())
    assert ["all"] == made.cluster.cancelled


def test_a_machine_without_workers_is_given_up(monkeypatch):
    monkeypatch.setattr(trees, "listed", lambda _: {"tcp://host0:1": {"host": "host0"}})

    def only_the_first(task):
        yield from brings(task) if task.number == 0 else ()

    made = tree(only_the_first, count=2, patience=0.3)
    made.run(tk.Cancellation())
    assert [1] == [*made.failures]
    assert "has had no worker" in str(made.error())
    assert 1 in made.cluster.cancelled


@pytest.mark.parametrize(("count", "asked"), [(2, ("http://host0",)), (1, ())])
def test_a_machine_that_joins_late_asks_who_serves_and_serves_nobody(count, asked):
    """Where there was one machine nobody serves, and the late one asks the registry."""

    def slow(task):
        yield from brings(task) if task.number != 0 or count == 1 else [*brings(task)][:-2]

    made = tree(slow, count=count)
    seen = []
    made._meter.listen(lambda *pair: seen.append(pair), tk.Trace())
    late = count

    def received_at_last(task):
        yield from slow(task)
        if task.number == late:
            made.cluster.inbox.put(("received", 0, "tcp://host0:1", Report(blobs=1, bytes=10), 1.0))

    made.cluster.answer = received_at_last
    made.run(tk.Cancellation())

    task = next(task for task, _ in made.cluster.asked if task.number == late)
    assert (asked, False) == (task.mirrors, task.serves)
    assert {*range(3)} == {*made.received}
    assert 30 == seen[-1][1]


def test_a_cancel_lets_go_of_all():
    cancel = tk.Cancellation()
    cancel.cancel("enough")
    made = tree(lambda task: ())
    with pytest.raises(tk.CancelledError, match="enough"):
        made.run(cancel)
    assert ["all"] == made.cluster.cancelled


# -- repositories


class Copied(tk.Trace):
    def __init__(self) -> None:
        self.statuses = []

    def status(self, status):
        self.statuses.append((status.completed, status.total))


def copies(answer) -> Work:
    cluster = Cluster(answer)

    def task(part, **more):
        return RepositoryTask(copy=part, line=cluster.open("mirror"), **more)

    parts = [RepositoryCopy(name=f"team/{n}", source=f"a.example/{n}", target="b.example/b") for n in range(2)]
    made = Work(cluster, cluster.inbox, parts, task, RepositoryCopy.reasons, total=None, retries=1)
    made.cluster = cluster
    return made


def copied(task, size: int = 0) -> Done:
    return Done(number=task.number, worker="tcp://one:1", size=size)


def test_a_repository_that_fails_is_copied_again_elsewhere_and_named():
    def failing(task):
        yield "begun", "tcp://one:1"
        yield "told", tk.Status(completed=1, total=2), ()
        error = tk.IncompleteError("1 tags were not copied", failures={"v1": tk.ServerError("no")})
        done = copied(task, size=7)
        yield "done", replace(done, error=error, report=Report(bytes=3)) if task.number else done

    made = copies(failing)
    done = made.run(None, tk.Trace(), None)

    assert [0] == [each.number for each in done]
    assert ["team/1:v1"] == [*made.failures]
    assert "no (tcp://one:1)" == str(made.failures["team/1:v1"])
    assert (1, ["tcp://two:1"]) == (made.again, made.cluster.asked[-1][1]["workers"])
    assert [(2, 6)] == [(row.failed, row.bytes) for row in rows_of(made.lost)]


def test_what_a_repository_has_is_known_exactly_when_it_is_done():
    """What it tells goes another way than its end, and may come later."""

    def late(task):
        yield "begun", "tcp://one:1"
        yield "told", tk.Status(completed=1, total=2), ()
        yield "done", copied(task, size=7)
        yield "told", tk.Status(completed=3, total=4), ()

    made, heard = copies(late), Copied()
    made.run(None, heard, None)
    made.end()
    assert (14, 14) == heard.statuses[-1]
    assert 0 not in [total for _, total in heard.statuses]


def test_a_repository_that_was_lost_is_copied_again():
    answers = [tk.TransferKitError("4 workers died with it"), Done(number=0, worker="w")]
    made = copies(lambda task: [("done", copied(task) if task.number else answers.pop(0))])
    done = made.run(None, tk.Trace(), None)
    assert ({}, {0, 1}) == (made.failures, {each.number for each in done})


def test_copies_end_with_a_cancel_and_with_a_fault():
    cancel = tk.Cancellation()
    cancel.cancel("enough")
    with pytest.raises(tk.CancelledError, match="enough"):
        copies(lambda task: ()).run(None, tk.Trace(), cancel)
    with pytest.raises(TypeError, match="ours"):
        copies(lambda task: [("done", TypeError("a fault of ours"))]).run(None, tk.Trace(), None)


def test_a_repository_that_cannot_be_listed_is_named_itself():
    part = RepositoryCopy(name="team/a", source="a.example/team/a", target="b.example/team/a")
    error = tk.UnauthorizedError("no")
    assert {"team/a": error} == part.reasons(error)


# -- what Dask says


class Ended:
    """A future of Dask's that is done."""

    def __init__(self, error=None, cancelled=False) -> None:
        self._error, self._cancelled = error, cancelled

    def cancelled(self):
        return self._cancelled

    def result(self):
        if self._error is not None:
            raise self._error
        return 5


def test_a_future_of_dask_is_one_of_the_standard_library():
    from distributed import KilledWorker
    from distributed.comm import CommClosedError

    class Last:
        address = "tcp://one:1"

    assert 5 == settled(Ended()).result()
    assert settled(Ended(cancelled=True)).cancelled()
    killed = settled(Ended(KilledWorker("key", Last(), 3))).exception()
    assert "4 workers died with it, tcp://one:1 as the last one" == str(killed)
    assert isinstance(settled(Ended(CommClosedError("gone"))).exception(), tk.TransferKitError)


def test_a_task_travels_as_bytes_which_a_scheduler_need_not_read():
    class Client:
        def submit(self, function, packed, **keywords):
            self.sent = function, packed
            return self

        def add_done_callback(self, callback):
            """It never ends."""

    client = Client()
    pool = object.__new__(DaskPool)
    pool.client, pool.resources, pool._lock, pool._futures = client, {}, threading.Lock(), {}
    assert client is pool.call(sum, [1, 2], 0, key="a")

    function, packed = client.sent
    assert bytes is type(packed)
    assert 3 == function(packed)
    assert "<locals>" in function.__qualname__  # else it would be imported by its name
