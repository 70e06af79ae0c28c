"""Small blobs that are asked for together: servers that answer such requests in every wrong way, and right ones."""

from __future__ import annotations

import hashlib
import logging
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

import transferkit as tk
from transferkit.content.interfaces import Storer
from transferkit.retry import Retry
from transferkit.storage.directory import Directory
from transferkit.testing import running_registry
from transferkit.testing.scripted import RawRequest, ScriptedServer, Step
from transferkit.testing.wire import Close, Pause, Reset, answer
from transferkit.transfer.attempts import Attempts
from transferkit.transfer.bundles import Bundles
from transferkit.transfer.concurrency import Concurrency
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.outcomes import Outcomes
from transferkit.transfer.scheduler import Scheduler

REPOSITORY = "library/model"
HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
IMPATIENT = tk.TransferOptions(retry=tk.RetryOptions(attempts=3, patience=0.0, max_wait=0.01), stall_timeout=1.0)
BLOBS = 60


class Blobs:
    """What a server has, and which blob was asked for how often."""

    def __init__(self, folder: Path, blobs: list[tk.Blob]) -> None:
        self.contents = {blob.digest: (folder / tk.digest_to_path(blob.digest)).read_bytes() for blob in blobs}
        self.order = [blob.digest for blob in blobs]
        self.asked: Counter[str] = Counter()
        self.number = count()

    def take(self, request: RawRequest) -> str:
        """Return the digest that a request names, and count it."""
        digest = request.target.rpartition("/")[2]
        self.asked[digest] += 1
        return digest


Fault = Callable[[Blobs, RawRequest, bytes], Step]


def plain(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    return answer(200, data)


def out_of_order(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    """The tenth answer is that of another request, of the same size."""
    return answer(200, bytes(reversed(data)) if next(blobs.number) == 10 else data)


def closes_after_each(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    return [answer(200, data, headers={"Connection": "close"}), Close()]


def closes_after_three(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    return [answer(200, data, headers={"Connection": "close"}), Close()] if request.number == 2 else answer(200, data)


def closes_after_three_without_a_word(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    return [answer(200, data), Close()] if request.number == 2 else answer(200, data)


def resets_in_the_middle(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    whole = answer(200, data)
    return [whole[: len(whole) - len(data) // 2], Reset()] if next(blobs.number) == 10 else whole


def closes_within_a_head(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    return [answer(200, data)[:20], Close()] if next(blobs.number) == 10 else answer(200, data)


def answers_too_early(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    """With the tenth answer comes one that nobody has asked for yet."""
    return answer(200, data) * (2 if next(blobs.number) == 10 else 1)


def refuses_the_tenth(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    return answer(404, b"no such thing") if next(blobs.number) == 10 else answer(200, data)


def wants_another_token(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    """Each word of the user's is good for so many requests, as with a token that ends in the middle of a bundle."""
    if next(blobs.number) in (10, 30):
        return answer(401, headers={"WWW-Authenticate": 'Basic realm="again"'})
    return answer(200, data)


def redirects_the_tenth(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    if next(blobs.number) == 10:
        return answer(307, headers={"Location": request.target + "?again"})
    return answer(200, data)


def sends_more(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    return answer(200, data + b"more") if next(blobs.number) == 10 else answer(200, data)


def sends_less(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    return answer(200, data[:-1]) if next(blobs.number) == 10 else answer(200, data)


def two_lengths(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    if next(blobs.number) == 10:
        return answer(200, data).replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n", 1)
    return answer(200, data)


def an_old_version(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    return [answer(200, data).replace(b"HTTP/1.1", b"HTTP/1.0", 1), Close()]


def turns_old(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    if next(blobs.number) == 10:
        return [answer(200, data).replace(b"HTTP/1.1", b"HTTP/1.0", 1), Close()]
    return answer(200, data)


def in_chunks(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    if next(blobs.number) == 10:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        return head + b"%x\r\n" % len(data) + data + b"\r\n0\r\n\r\n"
    return answer(200, data)


def falls_silent(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    return [answer(200, data)[:-5], Pause(30)] if next(blobs.number) == 10 else answer(200, data)


def interim(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    early = b"HTTP/1.1 103 Early Hints\r\n\r\n" if next(blobs.number) == 10 else b""
    return early + answer(200, data)


def has_enough(blobs: Blobs, request: RawRequest, data: bytes) -> Step:
    return answer(503, b"busy") if next(blobs.number) == 10 else answer(200, data)


FAULTS = [
    out_of_order,
    closes_after_each,
    closes_after_three,
    closes_after_three_without_a_word,
    resets_in_the_middle,
    closes_within_a_head,
    answers_too_early,
    refuses_the_tenth,
    wants_another_token,
    redirects_the_tenth,
    sends_more,
    sends_less,
    two_lengths,
    an_old_version,
    turns_old,
    in_chunks,
    falls_silent,
    interim,
    has_enough,
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tk.Blob]]:
    """A folder with small blobs, an empty one among them."""
    import hashlib

    folder, blobs = tmp_path_factory.mktemp("small"), []
    for number in range(BLOBS):
        data = b"" if number == 40 else bytes([number]) * (300 + 7 * number)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        (folder / tk.digest_to_path(digest)).write_bytes(data)
        blobs.append(tk.Blob(digest, len(data)))
    return folder, blobs


def serve(blobs: Blobs, fault: Fault) -> ScriptedServer:
    def say(request: RawRequest) -> Step:
        digest = blobs.take(request).partition("?")[0]
        return fault(blobs, request, blobs.contents[digest])

    return ScriptedServer(say)


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
    # A challenge and a redirect are answered by one more request of the ordinary way.
    most = 3 if fault in (wants_another_token, redirects_the_tenth) else 2
    assert {digest: n for digest, n in seen.asked.items() if n > most} == {}


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


class Counting:
    """A server on a socket that tells how many requests came with one ``recv``."""

    def __init__(self, blobs: Blobs) -> None:
        self.together: list[int] = []
        self._blobs = blobs
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Counting:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._answer, sock)

    def _answer(self, sock: socket.socket) -> None:
        with sock:
            while data := sock.recv(64 * 1024):
                lines = [line.split()[1].decode() for line in data.split(b"\r\n") if line.startswith(b"GET ")]
                self.together.append(len(lines))
                for target in lines:
                    sock.sendall(answer(200, self._blobs.contents[target.rpartition("/")[2]]))


def download(url: str, blobs: list[tk.Blob], folder: Path, **keywords: Any) -> tk.Report:
    return tk.download(blobs, folder, base_url=url, repository=REPOSITORY, concurrency=1, **keywords)


def test_requests_go_out_together_once_the_server_has_answered_one(small: Any, tmp_path: Path) -> None:
    folder, blobs = small
    with Counting(Blobs(folder, blobs)) as server:
        download(server.url, blobs, tmp_path / "to")
    assert server.together[0] == 1
    assert max(server.together) == 7  # those that were taken with the first one
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


def test_a_folder_and_a_cache_take_small_contents_as_a_whole(tmp_path: Path) -> None:
    for number, store in enumerate((Directory(tmp_path / "folder"), tk.DiskCache(tmp_path / "cache"))):
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
    assert names == {tk.digest_to_path(HELLO)}


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
        bundles = Bundles(source, Directory(tmp_path), scheduler, attempts, outcomes, one=None)  # type: ignore[arg-type]
        bundle = bundles.take(blobs[0])
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
        one=lambda blob, _, error: ended.append((blob, error)),
    )
    enough = tk.CancelledError("enough")

    def start() -> None:
        raise enough

    flow.watch = SimpleNamespace(start=start, stop=lambda: None, has_body=False, spared=False, paused=False, body=0)
    one, two = (tk.Descriptor(f"sha256:{64 * digit}", 5) for digit in "ab")
    bundles.copy(deque((one, two)), flow)
    assert (asked, ended) == ([], [(one, enough), (two, None)])
