"""Plans on executors: threads and processes, what becomes of those that die, and how all of them end."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import transferkit as tk
from transferkit.cluster.piece import Done, run_task
from transferkit.testing import running_registry
from transferkit.testing.registry import RequestLog

pytestmark = pytest.mark.xdist_group("processes")  # some of them share two

MIB = 1024 * 1024
SIZES = [3 * MIB, 2 * MIB, *range(1000, 1060)]
# What is larger comes in ranges, and goes on from where it was; 3 MB/s a piece leave time to interrupt it.
CHUNKS = tk.TransferOptions(chunk_threshold=MIB, chunk_size=MIB // 4)
SLOWLY = {"options": replace(CHUNKS, max_bandwidth=3e6)}


@dataclass(frozen=True)
class Shelf:
    url: str
    log: RequestLog
    blobs: list[tk.Blob]
    plan: tk.TransferPlan


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A registry with some blobs, and their plan."""
    folder, rng, blobs = tmp_path_factory.mktemp("shelf"), random.Random(17), []
    for size in SIZES:
        content = rng.randbytes(size)
        name = hashlib.sha256(content).hexdigest()
        (folder / f"sha256-{name}").write_bytes(content)
        blobs.append(tk.Blob(f"sha256:{name}", size))
    with running_registry() as registry:
        tk.upload(blobs, folder, base_url=registry.url, repository="library/model")
        plan = tk.plan_download(blobs, base_url=registry.url, repository="library/model")
        yield Shelf(registry.url, registry.log, blobs, plan)


@pytest.fixture
def asked(shelf):
    """What the registry was asked for since the test began."""
    shelf.log.clear()
    return shelf.log


@pytest.fixture(scope="module")
def pair():
    """Two processes that were spawned."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


class Heard(tk.Trace):
    def __init__(self) -> None:
        self.ended: list[str] = []
        self.threads: set[int] = set()
        self.last = tk.Status()

    def done(self, descriptor):
        self.ended.append(descriptor.digest)
        self.threads.add(threading.get_ident())

    def status(self, status):
        self.last = status


def test_threads_run_the_pieces_and_all_of_it_is_told_here(shelf, asked, tmp_path, assert_exactly):
    heard, seen = Heard(), []
    with ThreadPoolExecutor(3) as executor:
        report = tk.run_plan(
            shelf.plan, executor, to=tmp_path / "to", trace=heard, progress=lambda *pair: seen.append(pair)
        )

    assert_exactly(tmp_path / "to", shelf.blobs)
    total = sum(SIZES)
    assert (len(SIZES), total, 12, 0) == (report.blobs, report.bytes, report.pieces, report.again)
    assert total == sum(row.bytes for row in report.workers)
    assert len(SIZES) == sum(row.blobs for row in report.workers)
    assert sorted(blob.digest for blob in shelf.blobs) == sorted(heard.ended)
    assert {threading.get_ident()} == heard.threads
    assert (total, total) == seen[-1]
    assert (total, total, total) == (heard.last.completed, heard.last.total, heard.last.moved)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_spawned_processes_run_the_pieces(shelf, pair, asked, tmp_path, assert_exactly):
    heard, seen = Heard(), []
    report = tk.run_plan(shelf.plan, pair, to=tmp_path / "to", trace=heard, progress=lambda *pair: seen.append(pair))

    assert_exactly(tmp_path / "to", shelf.blobs)
    assert sorted(blob.digest for blob in shelf.blobs) == sorted(heard.ended)
    assert {threading.get_ident()} == heard.threads
    assert (sum(SIZES), sum(SIZES)) == seen[-1]
    assert {f"process {os.getpid()}"}.isdisjoint(row.name for row in report.workers)
    assert sum(SIZES) == sum(row.bytes for row in report.workers)

    asked.clear()
    again = tk.run_plan(shelf.plan, pair, to=tmp_path / "to")
    assert (0, len(SIZES), 0) == (again.bytes, again.skipped, len(asked))


@pytest.mark.full  # those that are killed are forked ones, too
def test_forked_processes_run_the_pieces(shelf, tmp_path, assert_exactly):
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as executor:
        report = tk.run_plan(shelf.plan, executor, to=tmp_path / "to")

    assert_exactly(tmp_path / "to", shelf.blobs)
    assert sum(SIZES) == report.bytes


class Killing(tk.Trace):
    """Kills the first process that has moved some of a large blob, as often as it is told to."""

    def __init__(self, executor, times: int) -> None:
        self._executor, self._times = executor, times
        self.killed: list[int] = []

    def status(self, status):
        large = sum(position for blob, position in status.blobs if blob.size > MIB)
        if len(self.killed) < self._times and large > MIB // 2:
            pid = next(pid for pid in self._executor._processes if pid not in self.killed)
            self.killed.append(pid)
            os.kill(pid, signal.SIGKILL)


def test_what_a_killed_process_had_begun_is_gone_on_with(shelf, asked, tmp_path, assert_exactly):
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as executor:
        killing = Killing(executor, 1)
        report = tk.run_plan(shelf.plan, executor, to=tmp_path / "to", trace=killing, settings=SLOWLY)

    assert_exactly(tmp_path / "to", shelf.blobs)
    assert 1 == len(killing.killed)
    assert 1 <= report.again
    assert 1 <= sum(row.failed for row in report.workers)
    # Chunks that were whole before the kill are not asked for again.
    large = {blob.digest for blob in shelf.blobs if blob.size > MIB}
    sent = sum(each.sent for each in asked if each.path.rpartition("/")[2] in large)
    assert sent < 2 * 5 * MIB


def test_a_piece_that_kills_every_process_is_given_up_and_named(shelf, tmp_path, monkeypatch):
    run = tk.TransferPlan.run

    def deadly(plan, *arguments, **keywords):
        if any(blob.size > MIB for blob in plan.blobs):
            os.kill(os.getpid(), signal.SIGKILL)
        return run(plan, *arguments, **keywords)

    monkeypatch.setattr(tk.TransferPlan, "run", deadly)
    small = [blob for blob in shelf.blobs if blob.size < MIB]
    plan = tk.plan_download([*small, shelf.blobs[0]], base_url=shelf.url, repository="library/model")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as executor:
        with pytest.raises(tk.IncompleteError) as caught:
            tk.run_plan(plan, executor, to=tmp_path / "to", pieces=3, retries=1)

    assert [shelf.blobs[0].digest] == [*caught.value.failures]
    assert "the process has died (process " in str(caught.value)


class Elsewhere:
    """Fails a piece for the first thread that has it."""

    def __init__(self, error: tk.TransferKitError) -> None:
        self.error, self.seen = error, dict[int, int]()

    def __call__(self, task):
        self.seen[task.number] = self.seen.get(task.number, 0) + 1
        if self.seen[task.number] == 1:
            return Done(number=task.number, worker="machine 7", error=self.error)
        return run_task(task)


def test_a_piece_that_fails_is_run_again(shelf, tmp_path, monkeypatch, assert_exactly):
    failing = Elsewhere(tk.OutOfSpaceError("the disk is full"))
    monkeypatch.setattr("transferkit.cluster.pools.run_task", failing)
    with ThreadPoolExecutor(2) as executor:
        report = tk.run_plan(shelf.plan, executor, to=tmp_path / "to", pieces=4)

    assert_exactly(tmp_path / "to", shelf.blobs)
    assert {2} == set(failing.seen.values())
    assert (4, 4) == (report.again, next(row.failed for row in report.workers if row.name == "machine 7"))
    assert "machine 7" in repr(report)
    assert "<td" in report._repr_html_()


def test_failures_come_together_and_name_the_worker_and_the_blob(shelf, asked, tmp_path):
    missing = [tk.Blob(f"sha256:{digit * 64}", 100) for digit in "ab"]
    plan = tk.plan_download([*shelf.blobs, *missing], base_url=shelf.url, repository="library/model")
    with ThreadPoolExecutor(2, thread_name_prefix="worker") as executor:
        with pytest.raises(tk.IncompleteError) as caught:
            tk.run_plan(plan, executor, to=tmp_path / "to", pieces=4, retries=3)

    assert {blob.digest for blob in missing} == caught.value.failures.keys()
    for digest, error in caught.value.failures.items():
        assert isinstance(error, tk.BlobNotFoundError)
        assert "(worker_" in str(error), digest
    assert f"2 of {len(SIZES) + 2} blobs failed, the others are in place" in str(caught.value)
    assert sum(1 for each in asked if each.status == 404) < 6  # it would be the same elsewhere
    assert caught.value.failures.keys() == pickle.loads(pickle.dumps(caught.value)).failures.keys()


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_a_cancel_ends_all_pieces_and_the_next_run_goes_on(shelf, pair, asked, tmp_path, kind, assert_exactly, caplog):
    """Within two seconds: what takes longer is no longer waited for, and the log says so."""
    cancel, to = tk.Cancellation(), tmp_path / "to"

    def progress(completed, total):
        if completed > MIB:
            cancel.cancel("enough")

    with ThreadPoolExecutor(2) as threads:
        executor = threads if kind == "threads" else pair
        with pytest.raises(tk.CancelledError, match="enough"):
            tk.run_plan(shelf.plan, executor, to=to, progress=progress, cancel=cancel, settings=SLOWLY)
        assert "have not ended" not in caplog.text
        assert [0, 0] == [executor.submit(left_to_do).result(timeout=5) for _ in range(2)]
        names = {blob.digest.replace(":", "-") for blob in shelf.blobs}
        assert {path.name for path in to.iterdir()} - {".partial"} <= names
        tk.run_plan(shelf.plan, executor, to=to, settings={"options": CHUNKS})
    assert_exactly(to, shelf.blobs)


def left_to_do() -> int:
    """Return how many threads of transfers are left where this runs: whoever runs it is idle."""
    return sum(1 for thread in threading.enumerate() if thread.name.startswith("transferkit_"))


CALLER = """
import sys, transferkit as tk

def main():
    plan = tk.TransferPlan.from_json(sys.stdin.read())
    options = tk.TransferOptions(chunk_threshold=2**20, chunk_size=2**18, max_bandwidth=2e6)
    tell = lambda completed, total: print(completed, flush=True)
    tk.run_plan(plan, to=sys.argv[1], processes=2, settings={"options": options}, progress=tell)

if __name__ == "__main__":
    main()
"""


@pytest.mark.full  # a cancel always runs, and is the same from there
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGKILL, -signal.SIGKILL)])
def test_whatever_ends_the_caller_ends_its_processes(shelf, tmp_path, number, code, assert_exactly):
    script = tmp_path / "caller.py"
    script.write_text(CALLER)
    caller = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "to")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(tk.__file__).parents[1])},
    )
    assert caller.stdin is not None
    assert caller.stdout is not None
    caller.stdin.write(shelf.plan.to_json())
    caller.stdin.close()
    while int(caller.stdout.readline()) < MIB:
        pass
    children = children_of(caller.pid)
    assert len(children) >= 2
    os.kill(caller.pid, number)
    assert code == caller.wait(timeout=30)
    caller.stdout.close()
    caller.stderr.close()
    deadline = time.monotonic() + 20
    while any(map(is_running, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [] == [pid for pid in children if is_running(pid)]

    names = {blob.digest.replace(":", "-") for blob in shelf.blobs}
    assert {path.name for path in (tmp_path / "to").iterdir()} - {".partial"} <= names
    with ThreadPoolExecutor(2) as executor:
        tk.run_plan(shelf.plan, executor, to=tmp_path / "to", settings={"options": CHUNKS})
    assert_exactly(tmp_path / "to", shelf.blobs)


def children_of(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_is_no_plan_to_be_run_is_refused(shelf):
    piece = shelf.plan.split(pieces=2)[0]
    with pytest.raises(ValueError, match="a piece of one"):
        tk.run_plan(piece, to="nowhere")
    with pytest.raises(TypeError, match="a TransferPlan, not dict"):
        tk.run_plan({}, to="nowhere")
    with pytest.raises(ValueError, match="retries"):
        tk.run_plan(shelf.plan, to="nowhere", retries=-1)


def test_a_model_comes_into_a_cache_and_gets_its_name_last(shelf, pair, tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"w" * 1000)
    name = f"{shelf.url.removeprefix('http://')}/team/model:v1"
    with tk.Registry(cache=tmp_path / "first") as registry:
        pushed = registry.push(name, files=[tmp_path / "weights.bin"])
        plan = registry.plan_pull(name)
    tk.run_plan(plan, pair, cache=tmp_path / "cache", pieces=2)

    with tk.Registry(cache=tmp_path / "cache", offline=True) as registry:
        assert pushed.digest == registry.resolve_local(name).digest
        assert b"w" * 1000 == registry.cache.read(pushed.layers[0].digest)


def test_a_download_by_several_processes_is_the_same(shelf, tmp_path, assert_exactly):
    where = {"base_url": shelf.url, "repository": "library/model"}
    report = tk.download(shelf.blobs, tmp_path / "to", processes=2, concurrency=8, **where)

    assert_exactly(tmp_path / "to", shelf.blobs)
    assert (len(SIZES), sum(SIZES)) == (report.blobs, report.bytes)
    assert {blob.digest: str(tmp_path / "to" / blob.digest.replace(":", "-")) for blob in shelf.blobs} == report.paths
    assert isinstance(report, tk.ClusterReport)


def test_what_a_download_by_processes_cannot_take_is_refused(shelf, tmp_path):
    import requests

    where = {"base_url": shelf.url, "repository": "library/model"}
    with pytest.raises(ValueError, match="at least 1, not 0"):
        tk.download(shelf.blobs, tmp_path, processes=0, **where)
    with requests.Session() as session, pytest.raises(TypeError, match="a session stays in its process"):
        tk.download(shelf.blobs, tmp_path, processes=2, session=session, **where)
    assert [] == [*tmp_path.iterdir()]


def test_what_is_no_error_of_the_library_comes_out_as_it_is(shelf, tmp_path):
    with ThreadPoolExecutor(2) as executor, pytest.raises(TypeError, match="told where the blobs go"):
        tk.run_plan(shelf.plan, executor)


def test_processes_that_never_begin_are_an_error_that_says_what_may_be_wrong(shelf, tmp_path):
    executor = ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("fork"), initializer=os._exit, initargs=(1,)
    )
    with executor, pytest.raises(tk.TransferKitError, match="__main__"):
        tk.run_plan(shelf.plan, executor, to=tmp_path / "to")


class Broken(Executor):
    """An executor that has broken for good, and is none of processes."""

    def submit(self, function, *arguments, **keywords):
        raise BrokenExecutor("it is over")


def test_an_executor_that_breaks_and_cannot_be_made_again_is_an_error(shelf, tmp_path):
    with pytest.raises(tk.TransferKitError, match="Broken is broken"):
        tk.run_plan(shelf.plan, Broken(), to=tmp_path / "to")


@pytest.mark.parametrize("is_long", [False, True])
def test_whoever_has_not_the_key_of_a_line_is_not_heard(shelf, tmp_path, monkeypatch, is_long):
    """Also where the temporary folder has a path that is too long for a socket."""
    from multiprocessing import AuthenticationError, connection
    from multiprocessing.connection import Client

    from transferkit.cluster.exchange import PipeExchange
    from transferkit.cluster.lines import PipeEnd

    if is_long:
        monkeypatch.setattr(connection, "arbitrary_address", lambda family: str(tmp_path / ("x" * 200)))
    heard = []
    exchange = PipeExchange(heard.append)
    address = exchange._listener.address
    try:
        with pytest.raises((AuthenticationError, EOFError)):
            Client(address, authkey=b"guessed")
        stranger = PipeEnd(7, address, b"guessed as well")  # its piece runs without a line
        stranger.tell(tk.Status(completed=1), ())
        stranger.close()
        friend = PipeEnd(8, address, exchange._key)
        friend.close()
    finally:
        exchange.close()
    assert [("begun", 8, f"process {os.getpid()}")] == heard
    assert is_long == isinstance(address, tuple)
    assert "guessed" not in repr(exchange.line)
    assert exchange._key.hex() not in repr(exchange.line)


def test_a_line_waits_for_a_thread_that_the_system_does_not_have(monkeypatch):
    from transferkit.cluster.exchange import PipeExchange
    from transferkit.cluster.lines import PipeEnd
    from transferkit.thread_group import ThreadGroup

    start, refusals, heard = ThreadGroup.start, [1, 2, 3], []

    def begin(group, *arguments):
        if refusals:
            raise RuntimeError(f"can't start new thread {refusals.pop()}")
        start(group, *arguments)

    monkeypatch.setattr(ThreadGroup, "start", begin)
    exchange = PipeExchange(heard.append)
    try:
        for number in (7, 8):
            PipeEnd(number, exchange._listener.address, exchange._key).close()
        assert [("begun", number, f"process {os.getpid()}") for number in (7, 8)] == heard
        refusals.extend(range(1000))
        PipeEnd(9, exchange._listener.address, exchange._key)
    finally:
        exchange.close()
    assert 2 == len(heard)


def test_an_interrupt_of_the_caller_ends_the_pieces(shelf, tmp_path):
    def interrupted(completed, total):
        raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as executor:
        with pytest.raises(KeyboardInterrupt):
            tk.run_plan(shelf.plan, executor, to=tmp_path / "to", progress=interrupted, settings=SLOWLY)
        assert [0, 0] == [executor.submit(left_to_do).result(timeout=5) for _ in range(2)]


def test_what_a_callback_or_a_trace_raises_harms_nothing(shelf, tmp_path, assert_exactly, caplog):
    class Wrong(tk.Trace):
        def done(self, descriptor):
            raise ValueError("a fault of whoever listens")

    def wrong(completed, total):
        raise ValueError("another one")

    with ThreadPoolExecutor(2) as executor:
        tk.run_plan(shelf.plan, executor, to=tmp_path / "to", progress=wrong, trace=Wrong())

    assert_exactly(tmp_path / "to", shelf.blobs)
    assert 1 == sum("the progress callback raised" in each.message for each in caplog.records)
    assert any("the trace raised" in each.message for each in caplog.records)
