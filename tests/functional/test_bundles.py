"""Small blobs that are asked for together: servers that answer such requests in every wrong way, and right ones."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

import transferkit as tk
from tests.functional.bundle_faults import (
    FAULTS,
    an_old_version,
    an_old_version_that_stays,
    closes_after_three,
    turns_old,
)
from tests.functional.bundles import BLOBS, IMPATIENT, REPOSITORY, Blobs, Counting, Fault, download, plain, serve
from tests.functional.bundles import small as small
from transferkit.content.interfaces import Storer
from transferkit.retry import Retry
from transferkit.storage.directory import Directory
from transferkit.testing import running_registry
from transferkit.testing.scripted import RawRequest, Step
from transferkit.testing.wire import Close, Reset, answer
from transferkit.transfer.attempts import Attempts
from transferkit.transfer.bundles import Bundles
from transferkit.transfer.concurrency import Concurrency
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.outcomes import Outcomes
from transferkit.transfer.scheduler import Scheduler
from transferkit.transfer.watchdog import Speeds

HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_whatever_a_server_does_every_blob_is_right_and_asked_for_twice_at_most(
    fault: Fault, small: Any, tmp_path: Path, assert_exactly: Callable[..., None]
) -> None:
    folder, blobs = small
    seen = Blobs(folder, blobs)
    with serve(seen, fault) as server:
        report = tk.download(
            blobs,
            tmp_path / "to",
            base_url=server.url,
            repository=REPOSITORY,
            auth=("a", "b"),
            concurrency=1,  # the tenth request is one of a bundle then
            options=IMPATIENT,
        )

    assert_exactly(tmp_path / "to", blobs)
    assert report.blobs == BLOBS
    assert report.bytes >= sum(blob.size for blob in blobs)
    assert {digest: n for digest, n in seen.asked.items() if n > 2} == {}


@pytest.mark.parametrize("fault", [plain, an_old_version, an_old_version_that_stays, turns_old, closes_after_three])
def test_through_a_proxy_that_does_so_as_well(
    fault: Fault, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, assert_exactly: Callable[..., None]
) -> None:
    """It is asked for whole URLs; some speak HTTP/1.0, and one turns to that."""
    folder, blobs = small
    seen = Blobs(folder, blobs)
    for name in ("HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name.lower(), raising=False)
        monkeypatch.delenv(name, raising=False)
    with serve(seen, fault) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        download("http://registry.example", blobs, tmp_path / "to", options=IMPATIENT)

    assert_exactly(tmp_path / "to", blobs)
    assert {request.target.partition("/v2/")[0] for request in proxy.requests} == {"http://registry.example"}
    assert {digest: n for digest, n in seen.asked.items() if n > 2} == {}


def test_where_nothing_is_wrong_each_blob_is_asked_for_once(
    small: Any, tmp_path: Path, assert_exactly: Callable[..., None]
) -> None:
    folder, blobs = small
    seen = Blobs(folder, blobs)
    calls: list[tuple[int, int]] = []
    with serve(seen, plain) as server:
        report = tk.download(
            blobs,
            tmp_path / "to",
            base_url=server.url,
            repository=REPOSITORY,
            progress=lambda *sizes: calls.append(sizes),
        )

    assert_exactly(tmp_path / "to", blobs)
    assert set(seen.asked.values()) == {1}
    size = sum(blob.size for blob in blobs)
    assert (report.bytes, report.retried, calls[-1]) == (size, 0, (size, size))


def test_requests_go_out_together_once_the_server_has_answered_one(small: Any, tmp_path: Path) -> None:
    folder, blobs = small
    with Counting(Blobs(folder, blobs)) as server:
        download(server.url, blobs, tmp_path / "to")
    assert server.together[0] == 1
    assert max(server.together) == 8
    assert sum(server.together) == BLOBS


def test_a_session_with_hooks_sees_each_request_by_itself(small: Any, tmp_path: Path) -> None:
    folder, blobs = small
    seen: list[str] = []
    with Counting(Blobs(folder, blobs)) as server, requests.Session() as session:
        session.mount("http://", tk.PooledAdapter())
        session.hooks["response"].append(lambda response, **_: seen.append(response.url))
        download(server.url, blobs, tmp_path / "to", session=session)
    assert set(server.together) == {1}
    assert len(seen) == BLOBS


def test_what_is_there_is_not_asked_for(small: Any, tmp_path: Path) -> None:
    folder, blobs = small
    target = tmp_path / "to"
    target.mkdir()
    for blob in blobs[::2]:
        name = tk.digest_to_path(blob.digest)
        (target / name).write_bytes((folder / name).read_bytes())
    with Counting(Blobs(folder, blobs)) as server:
        report = download(server.url, blobs, target)
    assert sum(server.together) == BLOBS // 2
    assert report.skipped == BLOBS // 2


def test_a_server_that_refuses_for_now_is_left_alone_for_as_long_as_it_wants(
    small: Any, tmp_path: Path, assert_exactly: Callable[..., None]
) -> None:
    folder, blobs = small
    seen, refused = Blobs(folder, blobs), count()

    def fault(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
        if next(blobs.number) == 20 and not next(refused):
            return answer(429, b"slow down", headers={"Retry-After": "1"})
        return answer(200, data)

    waits: list[str] = []

    class Waits(tk.Trace):
        def healed(self, *_: Any) -> None:
            waits.append("healed")

    with serve(seen, fault) as server:
        report = download(server.url, blobs, tmp_path / "to", trace=Waits())

    assert_exactly(tmp_path / "to", blobs)
    assert (report.retried, report.seconds > 0.9) == (1, True)


def test_a_blob_that_is_not_what_its_digest_says_is_named(small: Any, tmp_path: Path) -> None:
    folder, blobs = small
    seen = Blobs(folder, blobs)
    wrong = blobs[20]
    seen.contents[wrong.digest] = bytes(reversed(seen.contents[wrong.digest][:-1])) + b"x"
    with serve(seen, plain) as server, pytest.raises(tk.IncompleteError) as caught:
        download(server.url, blobs, tmp_path / "to")
    assert list(caught.value.failures) == [wrong.digest]
    assert isinstance(caught.value.failures[wrong.digest], tk.DigestMismatchError)
    assert seen.asked[wrong.digest] == 2
    assert not (tmp_path / "to" / tk.digest_to_path(wrong.digest)).exists()


def test_our_own_registry_answers_what_comes_together(
    small: Any, tmp_path: Path, assert_exactly: Callable[..., None]
) -> None:
    folder, blobs = small
    with running_registry() as registry:
        tk.upload(blobs, folder, base_url=registry.url, repository=REPOSITORY)
        report = download(registry.url, blobs, tmp_path / "to")
        assert registry.log.count(method="GET") == BLOBS
    assert_exactly(tmp_path / "to", blobs)
    assert report.retried == 0


def test_a_folder_a_cache_and_a_layout_take_small_contents_as_a_whole(tmp_path: Path) -> None:
    stores = Directory(tmp_path / "folder"), tk.DiskCache(tmp_path / "cache"), tk.OCILayout(tmp_path / "layout")
    for number, store in enumerate(stores):
        assert isinstance(store, Storer)
        blob, flow = tk.Descriptor(HELLO, 5), WorkerFlow()
        with pytest.raises(tk.DigestMismatchError):
            store.store(blob, memoryview(b"hallo"), flow=flow)
        with pytest.raises(tk.SizeMismatchError):
            store.store(blob, memoryview(b"hello!"), flow=flow)
        assert (number, False) == (number, store.exists(blob, flow=flow))
        store.store(blob, memoryview(b"hello"), flow=flow)
        assert (number, True) == (number, store.exists(blob, flow=flow))
        store.close()
    names = {path.name for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size == 5}
    assert names == {tk.digest_to_path(HELLO), HELLO.removeprefix("sha256:")}


class Answering:
    """A source that has what it is asked for, and hears what more it is asked for."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.turns: list[int] = []
        self._contents = contents

    def pipeline(self, descriptors: Any, *, more: Callable[[], Any], flow: WorkerFlow) -> Any:
        def answers() -> Any:
            owed = deque(descriptors)
            self.turns.append(len(owed))
            while owed:
                content = self._contents[owed.popleft().digest]
                flow.moved(len(content))
                yield memoryview(content)
                if len(owed) <= len(descriptors) // 2 and (further := more()):
                    self.turns.append(len(further))
                    owed.extend(further)

        return answers()


@pytest.fixture
def bundled(tmp_path: Path) -> Callable[..., Any]:
    """Copy small contents in bundles, in this thread: return how many came with each request, and the scheduler."""

    def copy(contents: list[bytes], *, troubled: bool = False, there: int = 0) -> tuple[list[int], Scheduler]:
        named = {f"sha256:{hashlib.sha256(data).hexdigest()}": data for data in contents}
        blobs = [tk.Descriptor(digest, len(data)) for digest, data in named.items()]
        for blob in blobs[8 : 8 + there]:
            (tmp_path / tk.digest_to_path(blob.digest)).write_bytes(named[blob.digest])
        source, flow, scheduler = Answering(named), WorkerFlow(), Scheduler(blobs[1:])
        attempts = SimpleNamespace(level=1, are_free=not troubled, first=lambda attempt, flow: attempt(flow))
        outcomes = Outcomes(tk.Trace(), logging.getLogger("test"))
        bundles = Bundles(source, Directory(tmp_path), scheduler, attempts, outcomes, Speeds(), one=None)  # type: ignore[arg-type]
        bundle = bundles.take(blobs[0], flow)
        assert bundle is not None
        bundles.copy(bundle, flow)
        assert flow.counter.progress == sum(len(named[blob.digest]) for blob in blobs[: len(blobs) - scheduler.waiting])
        return source.turns, scheduler

    return copy


def some(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def test_a_worker_goes_on_with_a_bundle_while_it_comes_and_then_looks_what_else_there_is(bundled: Any) -> None:
    turns, scheduler = bundled(some(1000))
    assert (turns, scheduler.waiting) == ([8, *[4] * 14], 1000 - 64)


def test_it_takes_fewer_where_others_would_have_nothing_to_do(bundled: Any) -> None:
    turns, scheduler = bundled(some(20))
    assert (turns, scheduler.waiting) == ([8, 4, 4, 2, 1], 1)


def test_where_the_host_has_had_enough_no_more_is_asked_for(bundled: Any) -> None:
    turns, scheduler = bundled(some(100), troubled=True)
    assert (turns, scheduler.waiting) == ([8], 92)


def test_what_may_be_there_waits_until_the_buffer_is_free(bundled: Any) -> None:
    """It has to be hashed, and answers are in there."""
    turns, scheduler = bundled(some(1000), there=3)
    assert (turns, scheduler.waiting) == ([8], 1000 - 8)


def test_no_connection_is_taken_while_a_worker_waits_for_its_turn(tmp_path: Path) -> None:
    """As with ``body_concurrency``; a cancel may end that wait."""
    asked: list[object] = []
    source, flow = SimpleNamespace(pipeline=lambda *_, **__: asked.append(1)), WorkerFlow()
    scheduler, controller = Scheduler([]), Concurrency()
    outcomes = Outcomes(tk.Trace(), logging.getLogger("test"))
    attempts = Attempts(Retry(tk.RetryOptions()), controller, outcomes)
    ended: list[object] = []
    bundles = Bundles(
        source,
        Directory(tmp_path),
        scheduler,
        attempts,
        outcomes,
        Speeds(),
        one=lambda blob, _, error: ended.append((blob, error)),
    )
    enough = tk.CancelledError("enough")

    def start(units: int) -> None:
        raise enough

    flow.watch = SimpleNamespace(start=start, stop=lambda: None, has_body=False, spared=False, paused=False, body=0)
    one, two = (tk.Descriptor(f"sha256:{64 * digit}", 5) for digit in "ab")
    bundles.copy(deque((one, two)), flow)
    assert (asked, ended) == ([], [(one, enough), (two, None)])


def test_what_breaks_off_and_could_be_gone_on_with_is(make_blobs: Any, tmp_path: Path, assert_exactly: Any) -> None:
    """A blob from ``resume_threshold`` on is no small one: what is there counts once, and stays nowhere."""
    blobs = make_blobs(tmp_path / "from", [30_000 + number for number in range(30)])
    total, figures = sum(blob.size for blob in blobs), []
    options = tk.TransferOptions(resume_threshold=1000, retry=tk.RetryOptions(attempts=1, patience=0.0))

    def breaks_off(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
        return [answer(200, data)[:-10_000], Close()]

    def has_ranges(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
        start = int(request.headers.get("range", "bytes=0-")[6:].partition("-")[0])
        field = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        return answer(206, data[start:], field) if start else answer(200, data)

    with serve(Blobs(tmp_path / "from", blobs), breaks_off) as server:
        with pytest.raises(tk.IncompleteError):
            download(server.url, blobs[5:], tmp_path / "to", options=options)
    there = sum(blob.size - 10_000 for blob in blobs[5:])
    with serve(Blobs(tmp_path / "from", blobs), has_ranges) as server:
        report = download(
            server.url, blobs, tmp_path / "to", options=options, progress=lambda *pair: figures.append(pair)
        )
    assert total - there == report.bytes
    assert ((there, total), (total, total), (total, total)) == (figures[0], figures[-1], max(figures))
    assert ["verified"] == os.listdir(tmp_path / "to" / ".partial")
    assert_exactly(tmp_path / "to", blobs)


def test_what_is_larger_than_a_workers_buffer_is_asked_for_once(
    make_blobs: Any, tmp_path: Path, assert_exactly: Any
) -> None:
    """With a limit of the bandwidth it is a 50th of that."""
    blobs, options = make_blobs(tmp_path / "from", 30 * [45_000]), tk.TransferOptions(max_bandwidth=2_000_000)
    seen = Blobs(tmp_path / "from", blobs)
    with serve(seen, plain) as server:
        report = download(server.url, blobs, tmp_path / "to", options=options)
    assert (30 * 45_000, 0) == (report.bytes, report.retried)
    assert {1} == set(seen.asked.values())
    assert_exactly(tmp_path / "to", blobs)


def test_a_connection_that_breaks_in_a_bundle_is_a_retry_in_the_report(small: Any, tmp_path: Path) -> None:
    source, blobs = small

    def resets(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
        return [answer(200, data)[:-5], Reset()] if next(blobs.number) == 20 else answer(200, data)

    class Heard(tk.Trace):
        def retried(self, descriptor: tk.Descriptor, error: Exception, position: int, wait: float) -> None:
            heard.append((descriptor.digest, type(error)))

    heard: list[tuple[str, type]] = []
    with serve(Blobs(source, blobs), resets) as server:
        report = download(server.url, blobs, tmp_path / "to", options=IMPATIENT, trace=Heard())
    assert (1, [(blobs[20].digest, tk.ReadError)]) == (report.retried, heard)


@pytest.mark.parametrize("most", [0, 1])
def test_a_server_that_drops_what_comes_together_is_found_out_after_two_bundles(
    most: int, small: Any, tmp_path: Path, assert_exactly: Any
) -> None:
    source, blobs = small
    with Counting(Blobs(source, blobs), most=most) as server:
        report = download(server.url, blobs, tmp_path / "to", options=replace(IMPATIENT, stall_timeout=0.3))
    assert 2 * most == report.retried
    assert 2 == sum(number > 1 for number in server.together)
    assert_exactly(tmp_path / "to", blobs)
