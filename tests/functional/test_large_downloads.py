"""Large blobs in chunks: parallel, verified, continued and healed, with the whole stack over loopback."""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

import transferkit as tk
from transferkit.server.oci import OCIRegistry
from transferkit.testing import (
    FaultRule,
    Faults,
    HTTPFaults,
    corrupt,
    delay,
    fault_proxy,
    hang_up,
    html_page,
    ignore_range,
    redirect,
    respond,
    set_header,
    shift_range,
    truncate,
)
from transferkit.testing.registry import running_registry

pytestmark = pytest.mark.lanes

REPOSITORY = "library/model"
KIB = 1024
MIB = 1024 * KIB
CHUNK = 256 * KIB
SIZE = 8 * MIB
CHUNKS = 32
IN_CHUNKS = {"chunk_threshold": MIB, "chunk_size": CHUNK, "resume_threshold": MIB, "progress_interval": 0.001}
OPTIONS = tk.TransferOptions(**IN_CHUNKS)
BRIEF = tk.TransferOptions(**IN_CHUNKS, retry=tk.RetryOptions(attempts=2, patience=0.0, max_wait=0.01))


class Served:
    """A registry with some blobs, behind faults that can be changed."""

    def __init__(self, registry, faults, blobs, source) -> None:
        self.url, self.log, self.store = registry.url, registry.log, registry.store
        self.faults = faults
        self.blobs = blobs
        self.source = source

    def ranges(self) -> list[tuple[int, int]]:
        """The ranges of blobs that were asked for, in the order of their answers."""
        found = (re.match(r"bytes=(\d+)-(\d+)\Z", r.headers.get("range", "")) for r in self.bodies())
        return [(int(match[1]), int(match[2])) for match in found if match]

    def bodies(self):
        return [request for request in self.log if request.method == "GET" and "/blobs/" in request.path]

    @property
    def sent(self) -> int:
        """Bytes of blobs that were given to the socket."""
        return sum(request.sent for request in self.bodies())

    @property
    def lists(self) -> int:
        return self.log.count("GET", "/chunksums/")

    def download(self, folder: Path, **keywords) -> tk.Report:
        keywords.setdefault("options", OPTIONS)
        return tk.download(
            self.blobs, folder, base_url=keywords.pop("url", self.url), repository=REPOSITORY, **keywords
        )


@pytest.fixture
def serve(make_blobs, tmp_path):
    """``serve(sizes, *rules, lists=..., ...)``: a registry with blobs of these sizes, as a context manager.

    ``lists`` is how many bytes the chunks of its chunksums lists have; ``None``: it has no such lists.
    """

    @contextmanager
    def run(sizes=(SIZE,), *rules, lists: int | None = None, threads: int = 24, blobs=None):
        store = tmp_path / "store"
        faults = HTTPFaults()

        def middleware(_app):
            return faults(OCIRegistry(store, chunksums=lists is not None, chunk_size=lists))

        with running_registry(store, threads=threads, middleware=middleware) as registry:
            blobs = make_blobs(tmp_path / "source", list(sizes)) if blobs is None else blobs
            tk.upload(blobs, tmp_path / "source", base_url=registry.url, repository=REPOSITORY)
            registry.log.clear()
            faults.set(*rules)
            yield Served(registry, faults, blobs, tmp_path / "source")

    return run


@pytest.fixture(params=[None, CHUNK], ids=["plain", "chunksums"])
def lists(request):
    return request.param


def blob_rule(action, **keywords) -> FaultRule:
    return FaultRule(action, method="GET", path="/blobs/", **keywords)


def of_range(start: int):
    """Match the requests for a chunk that begins at ``start``."""
    return lambda environ: environ.get("HTTP_RANGE", "").startswith(f"bytes={start}-")


def listing(change):
    """Send a chunksums list that ``change`` makes of the right one."""

    def action(app):
        def middle(environ, start_response):
            head = []

            def start(status, headers, exc_info=None):
                head[:] = [status, headers]
                return lambda block: None

            body = app(environ, start)
            text = b"".join(body)
            getattr(body, "close", lambda: None)()
            text = change(text)
            others = [(name, value) for name, value in head[1] if name.lower() != "content-length"]
            start_response(head[0], [*others, ("Content-Length", str(len(text)))])
            return [text]

        return middle

    return action


def list_rule(action, **keywords) -> FaultRule:
    return FaultRule(action, path="/chunksums/", **keywords)


def end(body) -> None:
    """Close the body of an answer, if it is one that wants it (PEP 3333): else the server would break off behind it."""
    if hasattr(body, "close"):
        body.close()


def dripping(block: int, seconds: float):
    """Send a body in small blocks, with a pause before each."""

    def action(app):
        def middle(environ, start_response):
            return drip(app(environ, start_response))

        def drip(body):
            try:
                for piece in body:
                    for start in range(0, len(piece), block):
                        time.sleep(seconds)
                        yield piece[start : start + block]
            finally:
                end(body)

        return middle

    return action


class Calls(list):
    """A progress callback that keeps what it is told."""

    def __call__(self, completed: int, total: int) -> None:
        self.append((completed, total))

    def assert_exact(self, total: int) -> None:
        assert {total} == {told for _, told in self}
        assert max(completed for completed, _ in self) <= total
        assert min(completed for completed, _ in self) >= 0
        assert self[-1] == (total, total)


class Events(tk.Trace):
    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []

    def started(self, descriptor):
        self.told.append(("started", None))

    def healed(self, descriptor, error, position):
        self.told.append(("healed", (type(error), position)))

    def failed(self, descriptor, error):
        self.told.append(("failed", type(error)))

    def done(self, descriptor):
        self.told.append(("done", None))

    def of(self, kind: str) -> list[object]:
        return [what for name, what in self.told if name == kind]


# -- chunks


def test_a_large_blob_takes_one_request_a_chunk(serve, lists, tmp_path, assert_exactly):
    calls, events = Calls(), Events()
    with serve(lists=lists) as served:
        report = served.download(tmp_path / "d", progress=calls, trace=events)

        assert [(n * CHUNK, (n + 1) * CHUNK - 1) for n in range(CHUNKS)] == sorted(served.ranges())
        assert {206} == {request.status for request in served.bodies()}
        assert CHUNKS + served.lists == len(served.log)
        assert 1 == served.lists
    assert (SIZE, 0, 0) == (report.bytes, report.retried, report.healed)
    assert [("started", None), ("done", None)] == events.told
    calls.assert_exact(SIZE)
    assert_exactly(tmp_path / "d", served.blobs)


def test_the_last_chunk_is_what_is_left(serve, lists, tmp_path, assert_exactly):
    with serve([2 * MIB + 12_345], lists=lists) as served:
        served.download(tmp_path / "d")

        assert (2 * MIB, 2 * MIB + 12_344) in served.ranges()
        assert 2 * MIB + 12_345 == served.sent
    assert_exactly(tmp_path / "d", served.blobs)


def test_chunks_are_fetched_at_the_same_time(serve, lists, tmp_path, assert_exactly):
    under_way, most = set(), []
    lock = threading.Lock()

    def counted(app):
        def middle(environ, start_response):
            with lock:
                under_way.add(id(environ))
                most.append(len(under_way))
            time.sleep(0.1)
            with lock:
                under_way.discard(id(environ))
            return app(environ, start_response)

        return middle

    with serve([4 * MIB], blob_rule(counted), lists=lists) as served:
        served.download(tmp_path / "d")

    assert max(most) >= 8
    assert_exactly(tmp_path / "d", served.blobs)


def test_a_large_blob_and_small_ones_share_the_workers(serve, lists, tmp_path, assert_exactly):
    calls = Calls()
    with serve([16 * MIB, *[4 * KIB + n for n in range(300)]], lists=lists) as served:
        served.download(tmp_path / "d", concurrency=8, progress=calls)

        kinds = ["chunk" if "range" in request.headers else "blob" for request in served.bodies()]
    assert {"chunk": 64, "blob": 300} == Counter(kinds)
    # Whatever the machine does meanwhile, neither kind waits until the other one is through.
    half = Counter(kinds[:180])
    assert half["chunk"] >= 6
    assert half["blob"] >= 30
    calls.assert_exact(16 * MIB + sum(4 * KIB + n for n in range(300)))
    assert_exactly(tmp_path / "d", served.blobs)


def test_many_large_blobs_on_few_workers(serve, lists, tmp_path, assert_exactly):
    calls = Calls()
    with serve([2 * MIB + n for n in range(6)], lists=lists) as served:
        served.download(tmp_path / "d", concurrency=2, progress=calls)

    calls.assert_exact(12 * MIB + 15)
    assert_exactly(tmp_path / "d", served.blobs)


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_list_of_more_chunks_than_are_held(serve, tmp_path, concurrency, assert_exactly):
    """Where every worker reads a list, they have to fetch chunks besides: nobody else would make room."""
    with serve([3 * MIB, 3 * MIB + 1], lists=8 * KIB) as served:
        served.download(tmp_path / "d", concurrency=concurrency)

        assert 384 + 385 == len(served.ranges())
    assert_exactly(tmp_path / "d", served.blobs)


def test_a_blob_up_to_the_threshold_is_one_request(serve, tmp_path, assert_exactly):
    with serve([MIB], lists=CHUNK) as served:
        served.download(tmp_path / "d")

        assert [None] == [request.headers.get("range") for request in served.log]
    assert_exactly(tmp_path / "d", served.blobs)


def test_a_blob_that_may_be_in_chunks_but_not_resumed_leaves_nothing_behind(serve, tmp_path, assert_exactly):
    """``resume_threshold`` above, and a server without ranges: what the chunks began with is not left lying there."""
    options = tk.TransferOptions(chunk_threshold=MIB, chunk_size=CHUNK)
    with serve([4 * MIB], blob_rule(ignore_range())) as served:
        served.download(tmp_path / "d", options=options)

    assert_exactly(tmp_path / "d", served.blobs)


# -- servers that do not keep to ranges


def test_a_server_without_ranges_is_read_as_one_stream(serve, tmp_path, assert_exactly):
    calls = Calls()
    with serve([SIZE], blob_rule(ignore_range())) as served:
        report = served.download(tmp_path / "d", progress=calls)

        # The answer to the first chunk tells; nobody else has asked by then.
        assert [200, 200] == [request.status for request in served.bodies()]
    assert SIZE == report.bytes
    calls.assert_exact(SIZE)
    assert_exactly(tmp_path / "d", served.blobs)


def test_a_server_that_ends_its_ranges_in_the_middle_is_read_as_one_stream(serve, lists, tmp_path, assert_exactly):
    calls = Calls()
    with serve([SIZE], blob_rule(ignore_range(), skip=10), lists=lists) as served:
        served.download(tmp_path / "d", progress=calls)

    calls.assert_exact(SIZE)
    assert_exactly(tmp_path / "d", served.blobs)


@pytest.mark.parametrize(
    "action",
    [
        shift_range(start=1),
        shift_range(total=1),
        set_header("Content-Range", "bytes 0-"),
        set_header("Content-Range", None),
    ],
    ids=["start", "total", "malformed", "missing"],
)
def test_a_wrong_content_range_is_refused(serve, tmp_path, action, contents):
    with serve([2 * MIB], blob_rule(action, where=of_range(MIB))) as served:
        with pytest.raises(tk.IncompleteError) as caught:
            served.download(tmp_path / "d", options=BRIEF)

    assert isinstance(caught.value.failures[served.blobs[0].digest], tk.ProtocolError)
    assert {} == contents(tmp_path / "d")


def test_a_short_206_is_continued_where_it_ended(serve, lists, tmp_path, assert_exactly):
    calls = Calls()
    short = blob_rule(truncate(100_000), where=of_range(MIB), times=1)
    with serve([4 * MIB], short, lists=lists) as served:
        report = served.download(tmp_path / "d", progress=calls)

        assert (MIB + 100_000, MIB + CHUNK - 1) in served.ranges()
    assert (4 * MIB, 1) == (report.bytes, report.retried)
    calls.assert_exact(4 * MIB)
    assert_exactly(tmp_path / "d", served.blobs)


def test_a_short_206_that_announces_itself_is_no_chunk(serve, tmp_path, assert_exactly):
    """206 with the asked ``Content-Range`` and fewer bytes: its length is not that of the range."""
    short = blob_rule(truncate(100_000, announce=False), where=of_range(MIB), times=1)
    with serve([4 * MIB], short) as served:
        try:
            served.download(tmp_path / "d")
        except tk.IncompleteError as error:
            (failure,) = error.failures.values()
            assert isinstance(failure, tk.ProtocolError | tk.SizeMismatchError)
            assert not (tmp_path / "d" / tk.digest_to_path(served.blobs[0].digest)).exists()
        else:
            assert_exactly(tmp_path / "d", served.blobs)


def test_hang_ups_in_the_middle_of_everything(serve, lists, tmp_path, assert_exactly):
    calls = Calls()
    rules = [
        blob_rule(hang_up(), where=of_range(0), times=1),
        blob_rule(truncate(50_000), where=of_range(5 * CHUNK), times=1),
        blob_rule(respond(503), where=of_range(7 * CHUNK), times=1),
        blob_rule(truncate(1), where=of_range(9 * CHUNK), times=1),
    ]
    with serve([4 * MIB], *rules, lists=lists) as served:
        report = served.download(tmp_path / "d", progress=calls)

    # At least: who waits for another to find the blob shares what became of it.
    assert report.retried >= 3
    assert report.bytes < 4 * MIB + 2 * CHUNK
    calls.assert_exact(4 * MIB)
    assert_exactly(tmp_path / "d", served.blobs)


def test_another_etag_in_the_middle_is_asked_again_and_found_right(serve, lists, tmp_path, assert_exactly):
    """A mirror with tags of its own: only the digest of the whole tells, and it is right."""
    other = blob_rule(set_header("ETag", '"another"'), where=of_range(MIB))
    first = blob_rule(set_header("ETag", '"one"'), where=lambda environ: not of_range(MIB)(environ))
    with serve([4 * MIB], first, other, lists=lists) as served:
        report = served.download(tmp_path / "d")

        pinned = {request.headers.get("if-match") for request in served.bodies()}
    assert report.retried >= 1
    assert pinned <= {None, '"one"', '"another"'}
    assert pinned - {None}
    assert_exactly(tmp_path / "d", served.blobs)


# -- verification


def test_a_corrupt_chunk_is_fetched_again_alone(serve, tmp_path, assert_exactly):
    calls = Calls()
    bad = blob_rule(corrupt(at=77), where=of_range(3 * CHUNK), times=1)
    with serve([SIZE], bad, lists=CHUNK) as served:
        report = served.download(tmp_path / "d", progress=calls)

        twice = [chunk for chunk, count in Counter(served.ranges()).items() if count > 1]
        assert [(3 * CHUNK, 4 * CHUNK - 1)] == twice
        assert (CHUNKS + 1, SIZE + CHUNK) == (len(served.bodies()), served.sent)
    assert (SIZE + CHUNK, 1) == (report.bytes, report.retried)
    calls.assert_exact(SIZE)
    assert_exactly(tmp_path / "d", served.blobs)


def test_a_chunk_that_is_always_wrong_fails_its_blob_alone(serve, tmp_path, contents):
    bad = blob_rule(corrupt(at=77), where=of_range(3 * CHUNK))
    with serve([2 * MIB, 1000], bad, lists=CHUNK) as served:
        with pytest.raises(tk.IncompleteError) as caught:
            served.download(tmp_path / "d")

        # Twice by the list, once more without it, and once more with the whole.
        asked = Counter(served.ranges())
        assert (4, 2) == (asked[3 * CHUNK, 4 * CHUNK - 1], asked[0, CHUNK - 1])
    large, small = served.blobs
    assert [large.digest] == list(caught.value.failures)
    assert isinstance(caught.value.failures[large.digest], tk.DigestMismatchError)
    assert {small.digest.replace(":", "-")} == set(contents(tmp_path / "d"))


def test_without_a_list_the_whole_is_fetched_once_more(serve, tmp_path, assert_exactly):
    calls = Calls()
    bad = blob_rule(corrupt(at=77), where=of_range(3 * CHUNK), times=1)
    with serve([4 * MIB], bad) as served:
        report = served.download(tmp_path / "d", progress=calls)

        assert {2} == set(Counter(served.ranges()).values())
        assert 8 * MIB == served.sent
    assert (8 * MIB, 1) == (report.bytes, report.retried)
    calls.assert_exact(4 * MIB)
    assert_exactly(tmp_path / "d", served.blobs)


def test_content_that_is_always_wrong_is_never_stored(serve, tmp_path, contents):
    events = Events()
    with serve([4 * MIB], blob_rule(corrupt(at=77), where=of_range(3 * CHUNK))) as served:
        with pytest.raises(tk.IncompleteError) as caught:
            served.download(tmp_path / "d", trace=events)

        assert 8 * MIB == served.sent
    (failure,) = caught.value.failures.values()
    assert isinstance(failure, tk.DigestMismatchError)
    assert [tk.DigestMismatchError] == events.of("failed")
    assert {} == contents(tmp_path / "d")
    assert {"verified"} >= {name for name in os.listdir(tmp_path / "d" / ".partial") if not name.endswith(".lock")}


def test_a_list_that_agrees_with_wrong_content_is_not_believed(serve, tmp_path, assert_exactly):
    """The store lies in one chunk and the list agrees with it; by plain ranges the right bytes come."""
    with serve([4 * MIB], lists=CHUNK) as served:
        lie = lying_about(served, 3)
        served.faults.set(list_rule(listing(lie)), blob_rule(corrupt(at=77), where=of_range(3 * CHUNK), times=1))
        calls = Calls()

        report = served.download(tmp_path / "d", progress=calls)

        assert {2} == set(Counter(served.ranges()).values())
        assert 1 == served.lists
    assert (8 * MIB, 1) == (report.bytes, report.retried)
    calls.assert_exact(4 * MIB)
    assert_exactly(tmp_path / "d", served.blobs)


def test_wrong_content_under_a_list_that_agrees_fails_after_plain_ranges(serve, tmp_path, contents):
    with serve([4 * MIB], lists=CHUNK) as served:
        lie = lying_about(served, 3)
        served.faults.set(list_rule(listing(lie)), blob_rule(corrupt(at=77), where=of_range(3 * CHUNK)))

        with pytest.raises(tk.IncompleteError) as caught:
            served.download(tmp_path / "d")

        assert 8 * MIB == served.sent
    (failure,) = caught.value.failures.values()
    assert isinstance(failure, tk.DigestMismatchError)
    assert {} == contents(tmp_path / "d")


@pytest.mark.parametrize("lies", [[3], range(16)], ids=["one", "all"])
def test_a_list_that_lies_about_right_content_is_left(serve, tmp_path, lies, assert_exactly, caplog):
    """The content is right, and the list says otherwise: the digest of the whole decides."""
    caplog.set_level("DEBUG", "transferkit")
    calls = Calls()
    with serve([4 * MIB], lists=CHUNK) as served:
        changes = [lying_about(served, number) for number in lies]

        def lie(text: bytes) -> bytes:
            for change in changes:
                text = change(text)
            return text

        served.faults.set(list_rule(listing(lie)))

        report = served.download(tmp_path / "d", concurrency=4, progress=calls)

        again = len(served.ranges()) - 16
        assert (4 * MIB + again * CHUNK, again) == (report.bytes, report.retried)
        assert 2 <= again <= 2 * (1 if len(lies) == 1 else 4)
        assert 1 == served.lists
    assert any("by plain ranges" in record.message for record in caplog.records)
    calls.assert_exact(4 * MIB)
    assert_exactly(tmp_path / "d", served.blobs)


def lying_about(served: Served, number: int):
    """Return what makes a list agree with a chunk whose byte 77 is flipped."""
    (blob,) = served.blobs
    whole = (served.source / tk.digest_to_path(blob.digest)).read_bytes()
    data = bytearray(whole[number * CHUNK : (number + 1) * CHUNK])
    data[77] ^= 1
    wrong = b"sha256:" + hashlib.sha256(data).hexdigest().encode()

    def change(text: bytes) -> bytes:
        lines = text.split(b"\n")
        lines[number] = wrong + b" " + lines[number].split()[1]
        return b"\n".join(lines)

    return change


# -- lists


def page_of_no_length(app):
    """A page of a login, as a proxy makes it while it is read."""

    def middle(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        yield b"<html>please log in</html>"

    return middle


@pytest.mark.parametrize("page", [html_page(200), page_of_no_length], ids=["length", "no length"])
@pytest.mark.parametrize("threshold", [MIB, 2**40], ids=["chunks", "one stream"])
def test_a_page_in_the_place_of_a_blob_takes_nothing_away(serve, tmp_path, page, threshold, assert_exactly):
    retry = tk.RetryOptions(attempts=2, patience=0.0)
    options = tk.TransferOptions(**{**IN_CHUNKS, "chunk_threshold": threshold}, retry=retry)
    cancel = tk.Cancellation()

    def half(completed: int, total: int) -> None:
        if completed > total / 2:
            cancel.cancel("half of it")

    with serve([SIZE], blob_rule(dripping(64 * 1024, 0.01))) as served:
        with pytest.raises(tk.CancelledError):
            served.download(tmp_path / "d", options=options, progress=half, cancel=cancel)
        left = tk.plan(served.blobs, tmp_path / "d", options=options).bytes
        assert left < SIZE

        served.faults.set(blob_rule(page))
        with pytest.raises(tk.IncompleteError, match="a page"):
            served.download(tmp_path / "d", options=options)
        assert left == tk.plan(served.blobs, tmp_path / "d", options=options).bytes

        served.faults.set()
        report = served.download(tmp_path / "d", options=options)
    assert left == report.bytes
    assert_exactly(tmp_path / "d", served.blobs)


@pytest.mark.parametrize(
    "action",
    [
        respond(404),
        respond(405),
        respond(501),
        respond(200, "", content_type="text/plain"),
        respond(200, "this is no list", content_type="text/plain"),
        html_page(200),
    ],
    ids=["404", "405", "501", "empty", "garbage", "html"],
)
def test_a_registry_without_lists_is_read_by_plain_ranges(serve, tmp_path, action, assert_exactly, caplog):
    caplog.set_level("DEBUG", "transferkit")
    with serve([2 * MIB, 2 * MIB + 1, 2 * MIB + 2], list_rule(action), lists=CHUNK) as served:
        served.download(tmp_path / "d")

        assert 1 == served.lists
        assert 8 + 9 + 9 == len(served.ranges())
    assert any("list of its chunks" in record.message for record in caplog.records)
    assert_exactly(tmp_path / "d", served.blobs)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_list_that_is_cut_short_costs_no_chunk_twice(serve, tmp_path, times, assert_exactly):
    calls = Calls()

    def cut(text: bytes) -> bytes:
        return text[: len(text) * 2 // 3]

    with serve([SIZE], list_rule(listing(cut), times=times), lists=CHUNK) as served:
        report = served.download(tmp_path / "d", progress=calls)

        assert min(times + 1, 3) == served.lists
        assert SIZE == served.sent
        assert CHUNKS == len(served.ranges())
    assert SIZE == report.bytes
    calls.assert_exact(SIZE)
    assert_exactly(tmp_path / "d", served.blobs)


def swap(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], lines[4], lines[3], *lines[5:]]


def shifted(line: bytes, by: int) -> bytes:
    digest, where = line.split()
    start, end = map(int, where.split(b"-"))
    return b"%s %d-%d" % (digest, start + by, end)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda lines: lines[:3] + lines[4:], "gap"),
        (lambda lines: [*lines[:3], shifted(lines[3], -1), *lines[4:]], "overlaps"),
        (swap, "out of order"),
        (lambda lines: [*lines[:4], lines[3], *lines[4:]], "there twice"),
        (lambda lines: [*lines[:-1], lines[-1].split(b"-")[0] + b"-99999999"], "past the end"),
        (lambda lines: [*lines, b"sha256:" + 64 * b"a" + b" 2097152-2097153"], "past the end"),
    ],
    ids=["gap", "overlap", "disorder", "twice", "past the end", "after the end"],
)
def test_a_list_that_lies_is_refused_with_the_reason(serve, tmp_path, change, reason, contents):
    def lie(text: bytes) -> bytes:
        return b"\n".join(change(text.splitlines())) + b"\n"

    with serve([2 * MIB], list_rule(listing(lie)), lists=CHUNK) as served:
        with pytest.raises(tk.IncompleteError, match=reason) as caught:
            served.download(tmp_path / "d")

    (failure,) = caught.value.failures.values()
    assert isinstance(failure, tk.ProtocolError)
    assert {} == contents(tmp_path / "d")


def test_chunks_are_fetched_while_the_list_still_comes(serve, tmp_path, assert_exactly):
    fetched = threading.Event()
    seen = []

    def slow_end(app):
        """Hold the second half of the list back until a chunk was asked for."""

        def middle(environ, start_response):
            body = list(app(environ, start_response))
            return halves(body)

        def halves(body):
            text = b"".join(body)
            yield text[: len(text) // 2]
            seen.append(fetched.wait(20))
            yield text[len(text) // 2 :]

        return middle

    def note(app):
        def middle(environ, start_response):
            fetched.set()
            return app(environ, start_response)

        return middle

    with serve([4 * MIB], list_rule(slow_end), blob_rule(note), lists=CHUNK) as served:
        served.download(tmp_path / "d")

    assert [True] == seen
    assert_exactly(tmp_path / "d", served.blobs)


# -- going on


def test_a_cancelled_download_sends_only_what_is_missing(serve, lists, tmp_path, assert_exactly):
    cancel = tk.Cancellation()

    def stop(completed: int, total: int) -> None:
        if completed > 3 * MIB:
            cancel.cancel("enough")

    calls = Calls()
    with serve([SIZE], blob_rule(dripping(16 * KIB, 0.002)), lists=lists) as served:
        with pytest.raises(tk.CancelledError, match="enough"):
            served.download(tmp_path / "d", concurrency=4, progress=stop, cancel=cancel)
        assert not (tmp_path / "d" / tk.digest_to_path(served.blobs[0].digest)).exists()
        time.sleep(0.2)  # what the server has yet to write down
        first = served.sent
        served.log.clear()
        served.faults.set()

        report = served.download(tmp_path / "d", concurrency=4, progress=calls)

        assert 0 < served.sent < SIZE - 2 * MIB
        assert first + served.sent <= SIZE + 4 * (256 + 32) * KIB
        assert report.bytes == served.sent
    calls.assert_exact(SIZE)
    assert calls[1][0] >= 2 * MIB  # what is there is told before the first byte comes
    assert_exactly(tmp_path / "d", served.blobs)


CHILD = """
import resource, sys, transferkit as tk
url, digest, size, folder, concurrency = sys.argv[1:]
options = tk.TransferOptions(chunk_threshold=2**20, chunk_size=2**18, resume_threshold=2**20)
tk.download([tk.Blob(digest, int(size))], folder, base_url=url, repository="library/model",
            concurrency=int(concurrency), options=options)
"""


def child(served: Served, folder: Path, concurrency: int = 4) -> subprocess.Popen:
    (blob,) = served.blobs
    command = [sys.executable, "-c", CHILD, served.url, blob.digest, str(blob.size), str(folder), str(concurrency)]
    return subprocess.Popen(command)


def wait_until(condition, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_after_kill_9_only_what_is_missing_is_sent(serve, lists, tmp_path, assert_exactly):
    folder = tmp_path / "d"
    with serve([SIZE], blob_rule(dripping(16 * KIB, 0.002)), lists=lists) as served:
        name = tk.digest_to_path(served.blobs[0].digest)
        state = folder / ".partial" / f"{name}.json"
        process = child(served, folder)
        wait_until(lambda: state.exists() and state.read_bytes().count(b"\n") > 10)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (folder / name).exists()
        wait_until(lambda: served.sent > 10 * 64 * KIB)
        time.sleep(0.2)
        first = served.sent
        served.log.clear()
        served.faults.set()

        report = served.download(folder, concurrency=4)

        assert served.sent < SIZE
        assert first + served.sent <= SIZE + 4 * (256 + 32) * KIB
        assert report.bytes == served.sent
    assert_exactly(folder, served.blobs)


def test_two_processes_at_once_fetch_one_body(serve, lists, tmp_path, assert_exactly):
    folder = tmp_path / "d"
    with serve([SIZE], lists=lists) as served:
        children = [child(served, folder) for _ in range(2)]

        assert [0, 0] == [process.wait(timeout=60) for process in children]

        assert SIZE == served.sent
    assert_exactly(folder, served.blobs)


def test_two_calls_in_one_process_fetch_one_body(serve, lists, tmp_path, assert_exactly):
    with serve([SIZE], lists=lists) as served:
        reports: list[tk.Report] = []
        threads = [
            threading.Thread(target=lambda: reports.append(served.download(tmp_path / "d", concurrency=4)))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        assert SIZE == served.sent
    assert [0, 1] == sorted(report.skipped for report in reports)
    assert_exactly(tmp_path / "d", served.blobs)


# -- healing


def test_a_slow_connection_among_fast_ones_is_replaced(serve, lists, tmp_path, monkeypatch, assert_exactly):
    """The window is made shorter: the judgement itself is tested on an injected clock."""
    monkeypatch.setattr("transferkit.transfer.watchdog.WINDOW", 0.5)
    events, calls = Events(), Calls()

    def choose(connection: int) -> Faults:
        return Faults(bandwidth=50_000 if connection == 1 else 50_000_000)

    with serve([16 * MIB], lists=lists) as served:
        with fault_proxy(served.url, choose) as proxy:
            report = served.download(tmp_path / "d", url=proxy.url, concurrency=4, trace=events, progress=calls)

            connections = proxy.connections
    ((error, position),) = events.of("healed")
    assert error is tk.SlowError
    assert 0 <= position < 16 * MIB
    assert (1, 1) == (report.healed, report.retried)
    assert "client closed" == connections[1].ended
    assert connections[1].down < MIB
    assert report.bytes - 16 * MIB < 64 * KIB
    # Heads of answers come on top, about 400 bytes for each of the 64 chunks and the list.
    assert sum(connection.down for connection in connections) < 16 * MIB + 64 * KIB + 70 * KIB
    calls.assert_exact(16 * MIB)
    assert_exactly(tmp_path / "d", served.blobs)


def test_a_silent_connection_is_replaced(serve, lists, tmp_path, assert_exactly):
    events = Events()
    options = tk.TransferOptions(**IN_CHUNKS, stall_timeout=0.5)

    def choose(connection: int) -> Faults:
        # The others take a second, so that this one gets its chunk.
        return Faults(silent_after=100_000) if connection == 1 else Faults(bandwidth=4_000_000)

    with serve([SIZE], lists=lists) as served:
        with fault_proxy(served.url, choose) as proxy:
            report = served.download(tmp_path / "d", url=proxy.url, concurrency=4, trace=events, options=options)

    ((error, _),) = events.of("healed")
    assert error is tk.StalledError
    assert 1 == report.healed
    assert report.bytes - SIZE < 64 * KIB
    assert_exactly(tmp_path / "d", served.blobs)


def test_nobody_is_cut_where_all_are_slow(serve, tmp_path, monkeypatch, assert_exactly):
    monkeypatch.setattr("transferkit.transfer.watchdog.WINDOW", 0.2)
    with serve([2 * MIB]) as served:
        with fault_proxy(served.url, Faults(bandwidth=400_000)) as proxy:
            report = served.download(tmp_path / "d", url=proxy.url, concurrency=4)

    assert (0, 0) == (report.healed, report.retried)
    assert_exactly(tmp_path / "d", served.blobs)


# -- storage behind a redirect


@pytest.mark.parametrize("status", [400, 401, 403])
def test_an_expired_storage_url_is_resolved_again_once_for_all(serve, tmp_path, status, assert_exactly):
    signatures: list[int] = []
    uses: Counter[str] = Counter()
    lock = threading.Lock()

    def sign(environ) -> str:
        with lock:
            signatures.append(len(signatures))
            return f"{storage.url}{environ['PATH_INFO']}?signature={signatures[-1]}"

    def expired(environ) -> bool:
        with lock:
            uses[environ["QUERY_STRING"]] += 1
            return environ["QUERY_STRING"] == "signature=0" and uses["signature=0"] > 8

    with serve([SIZE], lists=None) as served:
        guarded = HTTPFaults(FaultRule(respond(status), method="GET", path="/blobs/", where=expired))
        with running_registry(served.store, middleware=guarded) as storage:
            served.faults.set(blob_rule(redirect(sign)))

            report = served.download(tmp_path / "d", concurrency=8)

            assert [0, 1] == signatures
            assert 2 == len(served.bodies())
            refused = sum(request.status == status for request in storage.log)
            assert 1 <= refused <= 8
            assert {None} == {request.headers.get("authorization") for request in storage.log}
            assert SIZE == sum(request.sent for request in storage.log if request.status == 206)
    assert (SIZE, 0) == (report.bytes, report.retried)
    assert_exactly(tmp_path / "d", served.blobs)


# -- limits


MEMORY = """
import re, sys, transferkit as tk
url, digest, size, folder = sys.argv[1:]
options = tk.TransferOptions(chunk_size=2 * 1024 * 1024)
blobs = [tk.Blob(digest, int(size))]
tk.download(blobs, folder, base_url=url, repository="library/model", concurrency=64, options=options)
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


def huge(folder: Path, size: int) -> tk.Blob:
    """Write a file that differs from MiB to MiB."""
    folder.mkdir()
    digest = hashlib.sha256()
    block = random.Random(1).randbytes(MIB - 8)
    with open(folder / "new", "wb") as file:
        for number in range(size // MIB):
            for part in (number.to_bytes(8, "big"), block):
                digest.update(part)
                file.write(part)
    (folder / "new").rename(folder / f"sha256-{digest.hexdigest()}")
    return tk.Blob(f"sha256:{digest.hexdigest()}", size)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_under_90_mb(serve, lists, tmp_path):
    with serve([], lists=lists and 2 * MIB, threads=66, blobs=[huge(tmp_path / "source", 128 * MIB)]) as served:
        (blob,) = served.blobs
        command = [sys.executable, "-c", MEMORY, served.url, blob.digest, str(blob.size), str(tmp_path / "d")]
        output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=110).stdout

        assert 64 == len(served.ranges())
    assert int(output) < 90_000


def test_max_bandwidth_is_kept_by_all_chunks_together(serve, tmp_path, assert_exactly):
    options = tk.TransferOptions(**IN_CHUNKS, max_bandwidth=4_000_000)
    with serve([4 * MIB]) as served:
        began = time.monotonic()
        served.download(tmp_path / "d", options=options)
        seconds = time.monotonic() - began

    assert 4 * MIB / seconds < 4_000_000 * 1.1
    assert seconds < 2 * 4 * MIB / 4_000_000 + 5
    assert_exactly(tmp_path / "d", served.blobs)


def test_no_more_bodies_move_at_once_than_allowed(serve, lists, tmp_path, monkeypatch, assert_exactly):
    from transferkit.transfer.flow import BodyWatch

    lock = threading.Lock()
    moving: set[BodyWatch] = set()
    most = 0
    start, stop = BodyWatch.start, BodyWatch.stop

    def start_body(watch: BodyWatch, units: int = 1) -> None:
        nonlocal most
        start(watch, units)
        with lock:
            moving.add(watch)
            most = max(most, len(moving))

    def stop_body(watch: BodyWatch) -> None:
        with lock:
            moving.discard(watch)
        stop(watch)

    options = tk.TransferOptions(**IN_CHUNKS, body_concurrency=3)
    sizes = [4 * MIB, *[50_000 + n for n in range(20)]]
    with serve(sizes, blob_rule(dripping(64 * KIB, 0.005)), lists=lists) as served:
        monkeypatch.setattr(BodyWatch, "start", start_body)
        monkeypatch.setattr(BodyWatch, "stop", stop_body)
        served.download(tmp_path / "d", options=options, concurrency=16)

    assert 2 <= most <= 3
    assert_exactly(tmp_path / "d", served.blobs)


def test_cancellation_wakes_sixteen_chunks_at_once(serve, lists, tmp_path):
    release = threading.Event()
    waiting = threading.Semaphore(0)

    def held(app):
        """Send the first block of a body, and then nothing."""

        def middle(environ, start_response):
            return hold(app(environ, start_response))

        def hold(body):
            try:
                for block in body:
                    yield block[: 16 * KIB]
                    waiting.release()
                    release.wait(30)
                    return
            finally:
                end(body)

        return middle

    cancel = tk.Cancellation()
    when: list[float] = []

    def stop() -> None:
        for _ in range(16):
            waiting.acquire(timeout=30)
        time.sleep(0.1)
        when.append(time.monotonic())
        cancel.cancel("now")

    before = open_files()
    try:
        with serve([SIZE], lists=lists) as served:
            served.faults.set(blob_rule(held, skip=1))
            stopper = threading.Thread(target=stop)
            stopper.start()
            with pytest.raises(tk.CancelledError, match="now"):
                served.download(tmp_path / "d", concurrency=16, cancel=cancel)
            seconds = time.monotonic() - when[0]
            stopper.join()
            release.set()
        assert seconds < 1.0
    finally:
        release.set()
    wait_until(lambda: open_files() <= before, 10)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_late_head_is_no_reason_to_cut(serve, tmp_path, assert_exactly):
    """Where nobody has shown that it can be quicker: else see ``test_tail.py``."""
    options = tk.TransferOptions(**IN_CHUNKS, stall_timeout=0.3)
    with serve([2 * MIB], blob_rule(delay(0.8), where=of_range(0), times=1)) as served:
        report = served.download(tmp_path / "d", options=options)

    assert 0 == report.retried
    assert_exactly(tmp_path / "d", served.blobs)
