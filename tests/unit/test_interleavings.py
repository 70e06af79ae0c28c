"""What two threads do at once, in just the order that would do harm.

A hook within one step of the first thread lets a second one do all of its own, or come to where it waits for the first;
no test waits for a time. ``docs/threads.rst`` lists what threads share.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from transferkit.content.chunk import Ranges
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.errors import CancelledError, DeniedError, ReadError, TransferKitError
from transferkit.protocol.origin import Origin
from transferkit.remote.blob_url import BlobURL, Target
from transferkit.storage import group_sync
from transferkit.storage.cache import DiskCache
from transferkit.storage.disk import Disk
from transferkit.storage.group_sync import GroupSync
from transferkit.storage.index import VerifiedIndex
from transferkit.transfer.concurrency import Concurrency
from transferkit.transfer.crew import Crew
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.outcomes import under_way
from transferkit.transfer.pool import Pool
from transferkit.transfer.scheduler import Scheduler
from transferkit.transfer.watchdog import Speeds
from transferkit.transport.connections import Pipelines, WakeableConnection, WakeablePool
from transferkit.transport.credentials import StoredCredentials
from transferkit.transport.hosts import Hosts
from transferkit.transport.idle import IdleConnections

LIMIT = 30.0  # seconds until a meeting that never happens fails the test


class SeenLock:
    """A reentrant lock that tells when somebody waits for it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.is_waited_for = threading.Event()

    def acquire(self) -> bool:
        if not self._lock.acquire(blocking=False):
            self.is_waited_for.set()
            self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> SeenLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Meanwhile:
    """Threads that do something while another one is in the middle of a step, each once."""

    def __init__(self) -> None:
        self.lock = SeenLock()
        self._threads: list[threading.Thread] = []

    def do(self, work: Callable[[], object]) -> None:
        """Have another thread do it; return when it is done, or waits for ``lock``."""
        thread = threading.Thread(target=work)
        self._threads.append(thread)
        thread.start()
        deadline = time.monotonic() + LIMIT
        while thread.is_alive() and not self.lock.is_waited_for.is_set():
            assert time.monotonic() < deadline, "it waits for something else"
            time.sleep(0.001)

    def end(self) -> None:
        for thread in self._threads:
            thread.join(LIMIT)
            assert not thread.is_alive()


@pytest.fixture
def meanwhile() -> Iterator[Meanwhile]:
    found = Meanwhile()
    yield found
    found.end()


class Busy(deque[Any]):
    """A deque that another thread adds to while it is iterated over."""

    def __init__(self, values: Any, work: Callable[[], object]) -> None:
        super().__init__(values, maxlen=30)
        self.work: Callable[[], object] | None = work

    def __iter__(self) -> Iterator[Any]:
        for value in super().__iter__():
            yield value
            work, self.work = self.work, None
            if work is not None:
                work()


# -- the engine


def test_a_unit_that_ends_while_the_medians_are_looked_up_ends_no_transfer(meanwhile: Meanwhile) -> None:
    speeds = Speeds()
    speeds._lock = meanwhile.lock  # type: ignore[assignment]
    for _ in range(5):
        speeds.record(1_000_000, 1.0)
    speeds._rates = Busy(speeds._rates, lambda: meanwhile.do(lambda: speeds.record(1_000_000, 1.0)))
    assert 1_000_000 == speeds.median()
    meanwhile.end()
    speeds._times = Busy(speeds._times, lambda: meanwhile.do(lambda: speeds.record(1, 1.0)))
    assert 3.0 == speeds.late()  # three times as long as nine of ten took


def test_who_takes_the_last_unit_does_not_speak_against_who_found_nothing() -> None:
    scheduler = Scheduler(["last"])

    class Slow(deque[Any]):
        def popleft(self) -> Any:
            unit = super().popleft()
            assert scheduler.take(1) is None  # another worker, before the first one goes on
            return unit

    scheduler._wholes = Slow(scheduler._wholes)
    assert "last" == scheduler.take(0)
    assert scheduler.is_dry


def test_a_run_has_something_to_do_while_a_large_blob_is_about_to_be_begun() -> None:
    scheduler = Scheduler([])
    large: Any = object()

    class Active(list[Any]):
        def __len__(self) -> int:
            length = super().__len__()
            if not length:
                scheduler.opened(large)  # by the worker that begins it, before the one that asks looks on
            return length

    scheduler._opening = 1
    scheduler._active = Active()
    assert scheduler


def test_a_part_that_is_just_taken_is_still_counted(meanwhile: Meanwhile) -> None:
    flow, seen = WorkerFlow(), []
    crew = Crew(flow, None)
    crew._lock = meanwhile.lock  # type: ignore[assignment]

    class Waiting(list[Any]):
        def remove(self, job: Any) -> None:
            super().remove(job)
            meanwhile.do(lambda: seen.append(crew.size))

    crew._waiting = Waiting()
    crew.offer(lambda _: None, "a part")
    assert crew.begin(crew._waiting[0], WorkerFlow(1))
    meanwhile.end()
    assert [1] == seen


@pytest.mark.parametrize("first", [CancelledError("by the user"), DeniedError("for good")])
def test_of_two_ends_at_once_the_first_one_is_told(first: TransferKitError) -> None:
    flows = [WorkerFlow()]

    class Slow(Pool):
        is_slow = False

        def __getattribute__(self, name: str) -> Any:
            found = super().__getattribute__(name)
            if name in ("error", "_ends") and Slow.is_slow:
                Slow.is_slow = False
                self.stop(first)  # another thread, before the one that has looked goes on
            return found

    pool = Slow(lambda *_: None, Scheduler([]), flows, concurrency=Concurrency())
    Slow.is_slow = True
    pool.stop(ReadError("late"))
    assert first is pool.error
    with pytest.raises(CancelledError):
        flows[0].check()


def test_a_worker_that_has_gone_on_does_not_make_a_blob_larger_than_it_is() -> None:
    flow, size = WorkerFlow(), 10
    flow.unit = Descriptor(Digest.of(b""), size)
    flow.counter.next_unit()
    flow.counter.set_position(10 * size)  # of the next unit, which ``unit`` does not say yet
    assert [size] == list(under_way([flow]).values())


# -- what is known of a host


def test_no_answer_is_lost_where_two_bundles_end_at_once(meanwhile: Meanwhile) -> None:
    known = Pipelines()
    known._lock = meanwhile.lock  # type: ignore[assignment]

    class Slow(int):
        def __add__(self, other: int) -> int:
            known.answered = 0  # of the same value, for the other thread
            meanwhile.do(lambda: known.ended(8, 0, announced=False))
            return int(self) + other

    known.answered = Slow(0)
    known.ended(8, 0, announced=False)
    meanwhile.end()
    assert 16 == known.answered


def test_an_url_that_comes_while_an_error_is_cleaned_harms_nothing() -> None:
    with Hosts() as hosts:
        host = hosts.at(Origin.of("http://a.example"))
        host.signed = Busy(
            ["http://b.example/?X-Signature=abcdef123456"], lambda: host.signed.append("http://c.example/")
        )
        error = ReadError("abcdef123456 was refused")
        hosts.clean(error)
        assert "abcdef123456" not in str(error)


def test_a_connection_that_is_put_back_while_they_are_looked_at_harms_nothing() -> None:
    class Iterated(IdleConnections):
        def __iter__(self) -> Iterator[WakeableConnection]:
            for connection in super().__iter__():
                yield connection
                self.put(WakeableConnection("h"))

    pool = WakeablePool("h")
    pool.pool = Iterated(2)
    pool.pool.put(WakeableConnection("h"))
    assert not pool.is_private
    pool.close()


def test_of_two_versions_that_come_at_once_one_is_refused(meanwhile: Meanwhile) -> None:
    url, told = object.__new__(BlobURL), []
    url.pins, url._lock = True, meanwhile.lock  # type: ignore[assignment]

    class Slow(Target):
        __slots__ = ()

        def __getattribute__(self, name: str) -> Any:
            found = super().__getattribute__(name)
            if name == "etag" and found is None and not told:
                told.append("")
                meanwhile.do(lambda: told.append(str(url.check_version(self, '"two"'))))
            return found

    first = url.check_version(Slow("http://a.example", foreign=True), '"one"')
    meanwhile.end()
    assert ["False", "True"] == sorted([str(first), told[-1]])


@pytest.mark.parametrize("step", [1, 2])
def test_a_problem_that_two_workers_find_is_told_once(caplog: pytest.LogCaptureFixture, step: int) -> None:
    stored, looks = StoredCredentials({}), []

    class Problem(str):
        __slots__ = ()
        __eq__ = str.__eq__

        def __hash__(self) -> int:
            looks.append(self)
            if len(looks) == step:
                stored._warn("h", ["no entry"])  # another worker, before the first one looks it up or adds it
            return hash(str(self))

    with caplog.at_level(logging.WARNING, "transferkit"):
        for _ in range(2):
            stored._warn("h", [Problem("no entry")])
    assert 1 == len(caplog.records)


# -- what is in place


def test_a_sync_that_ends_before_the_one_before_has_said_so_harms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[str] = []
    sync = GroupSync(folders.append)

    class Slow(Future[None]):
        def set_result(self, result: None) -> None:
            super().set_result(result)
            if len(folders) == 1:
                sync("folder")  # another thread, before the one that has ended goes on

    monkeypatch.setattr(group_sync, "Future", Slow)
    sync("folder")
    assert ["folder", "folder"] == folders


def test_a_store_that_one_client_closes_stays_open_for_another(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    with cache.used():
        with cache.used():
            folder = cache.open_unfinished()
            cache.close()
            assert folder.fd is not None
        assert folder.fd is not None
        assert folder is cache.open_unfinished()
    assert folder.fd is None
    with cache.used():
        folder = cache.open_unfinished()
    assert folder.fd is not None  # nobody has closed it since
    DiskCache(tmp_path / "other", shared=[cache]).close()
    assert folder.fd is not None
    cache.close()
    assert folder.fd is None


def test_a_file_that_is_forgotten_while_its_entry_is_renewed_harms_nothing(tmp_path: Path) -> None:
    index, digest, status = VerifiedIndex(str(tmp_path), Disk(), keep=True), Digest.of(b""), tmp_path.stat()

    class Forgetful(dict[Any, Any]):
        def get(self, key: Any, default: Any = None) -> Any:
            found = super().get(key, default)
            self.pop(key, None)  # by another worker, before the one that has looked goes on
            return found

    index.add(digest, status, durable=True)
    index._rows = Forgetful(index._rows)
    index.renew(digest, status, status)
    assert index.knows(digest, status)


def test_who_looks_meanwhile_never_finds_more_bytes_than_there_are() -> None:
    seen: list[int] = []

    class Seen(Ranges):
        __slots__ = ("_total",)

        @property
        def total(self) -> int:  # type: ignore[override]
            return self._total

        @total.setter
        def total(self, total: int) -> None:
            seen.append(total)
            self._total = total

    ranges = Seen()
    ranges.add(0, 9)
    ranges.add(0, 9)
    assert [0, 10, 10] == seen
