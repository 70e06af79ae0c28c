"""The tree of machines, on a cluster that is a list of what it was asked for."""

from __future__ import annotations

import logging
from concurrent.futures import Future

import pytest

import transferkit as tk
from transferkit.cluster.dask import tree as trees
from transferkit.cluster.dask.mirroring import Copies
from transferkit.cluster.dask.pool import settled
from transferkit.cluster.dask.repository import Mirrored, RepositoryTask
from transferkit.cluster.inbox import Inbox
from transferkit.cluster.lines import ThreadLine
from transferkit.cluster.meter import Meter
from transferkit.cluster.piece import Done
from transferkit.report import Report

PLAN = tk.plan_download([tk.Blob(f"sha256:{64 * 'a'}", 10)], base_url="http://a.example", repository="a/b")


class Cluster:
    """Answers a call by what ``answer(task)`` yields: messages of that piece."""

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
    monkeypatch.setattr(trees, "listed", lambda _: {f"tcp://host{n}:1": {"host": f"host{n}"} for n in range(9)})


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


def test_a_cancel_lets_go_of_all():
    cancel = tk.Cancellation()
    cancel.cancel("enough")
    made = tree(lambda task: ())
    with pytest.raises(tk.CancelledError, match="enough"):
        made.run(cancel)
    assert ["all"] == made.cluster.cancelled


# -- repositories


def copies(answer, **more) -> Copies:
    cluster = Cluster(answer)

    def task(number):
        line = cluster.open("mirror")
        return RepositoryTask(number=number, source=f"a.example/{number}", target="b.example/b", tags=(), line=line)

    made = Copies(cluster, cluster.inbox, ["team/0", "team/1"], task, retries=1, logger=logging.getLogger("x"))
    made.cluster = cluster
    return made


def test_a_repository_that_fails_is_copied_again_elsewhere_and_named():
    def failing(task):
        worker = "tcp://one:1"
        yield "begun", worker
        yield "told", tk.Status(completed=1, total=2), ()
        failures = {"v1": tk.ServerError("no")} if task.number else {}
        yield "done", Mirrored(number=task.number, worker=worker, failures=failures)

    made, seen = copies(failing), []
    made.run(lambda *pair: seen.append(pair), tk.Trace(), tk.Cancellation())

    assert ["team/1:v1"] == [*made.failures]
    assert "no (tcp://one:1)" == str(made.failures["team/1:v1"])
    assert (1, ["tcp://two:1"]) == (made.again, made.cluster.asked[-1][1]["workers"])
    assert "1 tags were not copied, the others were: team/1:v1: no (tcp://one:1)" == str(made.error())
    assert (2, 4) == seen[-1]


def test_a_repository_that_was_lost_is_copied_again():
    answers = [[("done", tk.TransferKitError("4 workers died with it"))], [("done", Mirrored(number=0, worker="w"))]]
    made = copies(lambda task: answers.pop(0) if task.number == 0 else [("done", Mirrored(number=1, worker="w"))])
    made.run(None, tk.Trace(), tk.Cancellation())
    assert ({}, [1, 0]) == (made.failures, [*made.done])


def test_copies_end_with_a_cancel_and_with_a_fault():
    cancel = tk.Cancellation()
    cancel.cancel("enough")
    with pytest.raises(tk.CancelledError, match="enough"):
        copies(lambda task: ()).run(None, tk.Trace(), cancel)
    with pytest.raises(TypeError, match="ours"):
        copies(lambda task: [("done", TypeError("a fault of ours"))]).run(None, tk.Trace(), tk.Cancellation())


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
