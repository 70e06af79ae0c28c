"""Parts of a blob and the list of their digests, over real sockets."""

from __future__ import annotations

import itertools
import logging
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.unit.transport.rig import everything
from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import ChunkLister, RangeFetcher
from transferkit.errors import (
    BlobNotFoundError,
    CancelledError,
    ConnectError,
    ProtocolError,
    ReadError,
    RegistryError,
    ServerError,
    SizeMismatchError,
    TransferKitError,
)
from transferkit.options import TransportOptions
from transferkit.protocol import chunksums
from transferkit.remote.repository import Repository
from transferkit.server import OCIRegistry, serving
from transferkit.testing import (
    Close,
    Pause,
    RawRequest,
    answer,
    chunked,
    never,
    scripted_server,
    truncated,
    until_close,
)
from transferkit.transfer.flow import BodyWatch, ByteCounter
from transferkit.transport.client import Client

WHERE = "library/model"
DATA = bytes(range(256)) * 4
# python3 -c 'import hashlib; print(hashlib.sha256(bytes(range(256)) * 4).hexdigest())'
DIGEST = "sha256:785b0751fc2c53dc14a4ce3d800e69ef9ce1009eb327ccf458afe09c242c26c9"
BLOB = Descriptor(DIGEST, len(DATA))
OTHER = Descriptor("sha256:" + 64 * "b", len(DATA))
BLOB_PATH = f"/v2/{WHERE}/blobs/{DIGEST}"
LIST_PATH = f"/v2/{WHERE}/chunksums/{DIGEST}"
PART = Chunk(100, 299)
A = "sha256:" + 64 * "a"
LIST = f"{A} 0-511\n{A} 512-1023\n".encode()
PAIRS = [(Chunk(0, 511), A), (Chunk(512, 1023), A)]


class Flow:
    """A flow that knows who could wake it."""

    fresh = False

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(4096))
        self.held: set[Any] = set()
        self.counter = ByteCounter()
        self.watch = BodyWatch()
        self._cut: TransferKitError | None = None

    def cut(self) -> None:
        self._cut = CancelledError("enough")
        for abort in list(self.held):
            abort()

    def check(self) -> None:
        if self._cut is not None:
            raise self._cut

    def attach(self, abort: Any) -> None:
        self.held.add(abort)
        self.check()

    def detach(self, abort: Any) -> None:
        self.held.discard(abort)

    def moved(self, count: int) -> None: ...
    def wait(self, seconds: float) -> None:
        time.sleep(seconds)
        self.check()


@pytest.fixture
def flow() -> Flow:
    return Flow()


@pytest.fixture
def repository_of() -> Iterator[Callable[..., Repository]]:
    clients: list[Client] = []

    def make(url: str, **arguments: Any) -> Repository:
        clients.append(Client(url, **arguments))
        return Repository(clients[-1], WHERE)

    yield make
    for client in clients:
        client.close()


def part(request: RawRequest, **headers: str) -> bytes:
    """Response as a server of DATA that honours ranges."""
    if "range" not in request.headers:
        return answer(200, DATA)
    start, end = map(int, request.headers["range"].removeprefix("bytes=").split("-"))
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return answer(206, DATA[start : end + 1], {"Content-Range": f"bytes {start}-{end}/{len(DATA)}", **named})


def take(repository: Repository, chunk: Chunk = PART, flow: Flow | None = None) -> bytes:
    flow = flow or Flow()
    with repository.fetch_range(BLOB, chunk, flow=flow) as body:
        data = everything(body)
        assert (body.offset, body.length) == (chunk.start, chunk.size)
    assert data == DATA[chunk.start : chunk.end + 1]
    assert flow.held == set()
    return data


def all_parts(repository: Repository, threads: int = 8) -> None:
    """Fetch a part in each of some threads, all at once."""
    start = threading.Barrier(threads)

    def one(number: int) -> None:
        start.wait()
        take(repository, Chunk(number * 10, number * 10 + 9))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(threads)))


def targets(server: Any) -> list[str]:
    return [request.target for request in server.requests]


# -- parts


def test_a_repository_has_both_powers(repository_of: Any) -> None:
    repository = repository_of("http://127.0.0.1:9")
    assert isinstance(repository, RangeFetcher)
    assert isinstance(repository, ChunkLister)


def test_a_part_is_asked_for_and_comes(repository_of: Any) -> None:
    with scripted_server(part) as server:
        take(repository_of(server.url))
        (request,) = server.requests
    assert (request.method, request.target) == ("GET", BLOB_PATH)
    assert request.headers["range"] == "bytes=100-299"
    assert request.headers["accept-encoding"] == "identity"


def test_the_embedded_registry_gives_parts_and_their_list(tmp_path: Path, repository_of: Any, flow: Flow) -> None:
    with serving(OCIRegistry(tmp_path, chunk_size=512)) as url:
        assert requests.post(f"{url}/v2/{WHERE}/blobs/uploads/?digest={DIGEST}", data=DATA).status_code == 201
        repository = repository_of(url)
        pairs = list(repository.chunksums(BLOB, flow=flow))
        for chunk, digest in pairs:
            hasher = digest.hasher()
            hasher.update(take(repository, chunk))
            assert digest.matches(hasher)
    assert [chunk for chunk, _ in pairs] == [Chunk(0, 511), Chunk(512, 1023)]


def test_a_server_without_ranges_sends_it_all(repository_of: Any, flow: Flow) -> None:
    replies = [answer(200, DATA), chunked(DATA), until_close(DATA)]
    with scripted_server(replies) as server:
        repository = repository_of(server.url)
        for _ in replies:
            with repository.fetch_range(BLOB, PART, flow=flow) as body:
                assert (body.offset, body.length) == (0, 1024)
                assert everything(body) == DATA


@pytest.mark.parametrize(
    ("reply", "error", "text"),
    [
        (answer(206, DATA[:200], {"Content-Range": "bytes 0-199/1024"}), ProtocolError, "sent 'bytes 0-199/1024'"),
        (answer(206, DATA[:200], {"Content-Range": "bytes 100-298/1024"}), ProtocolError, "asked for bytes 100-299"),
        (answer(206, DATA[:200], {"Content-Range": "bytes 100-299/2048"}), ProtocolError, "asked for bytes 100-299"),
        (answer(206, DATA[:200]), ProtocolError, "206 without Content-Range"),
        (
            answer(206, DATA[:199], {"Content-Range": "bytes 100-299/1024"}),
            SizeMismatchError,
            "announces 199 bytes, expected 200",
        ),
        (answer(200, DATA[:200]), SizeMismatchError, "announces 200 bytes, expected 1024"),
        (answer(200, b"<p>", {"Content-Type": "text/html"}), SizeMismatchError, "a page of a proxy or of a login"),
        (chunked(b"<p>", headers={"Content-Type": "text/html"}), ProtocolError, "sent a page"),
        (answer(200, DATA, {"Content-Encoding": "gzip"}), ProtocolError, "Content-Encoding 'gzip'"),
        (
            answer(206, DATA[:200], {"Content-Range": "bytes 100-299/1024", "Content-Encoding": "br"}),
            ProtocolError,
            "Content-Encoding 'br'",
        ),
        (answer(416), ProtocolError, r"refuses the bytes 100-299 of 1024 \(416\)"),
        (answer(416, b"", {"Content-Range": "bytes */1024"}), ProtocolError, r"\(416\)"),
        (answer(416, b"", {"Content-Range": "bytes */50"}), SizeMismatchError, "has 50 bytes of it, expected 1024"),
        (answer(404), BlobNotFoundError, "answered 404"),
        (answer(403), RegistryError, "answered 403"),
    ],
)
def test_what_is_not_the_part_is_refused_for_good(
    repository_of: Any, flow: Flow, reply: bytes, error: type[TransferKitError], text: str
) -> None:
    with scripted_server([reply]) as server:
        with pytest.raises(error, match=text) as caught:
            repository_of(server.url).fetch_range(BLOB, PART, flow=flow)
        assert len(server.requests) == 1
    assert not caught.value.retryable
    assert flow.held == set()


# -- versions


def test_a_strong_tag_is_pinned(repository_of: Any) -> None:
    with scripted_server(lambda request: part(request, ETag='"one"')) as server:
        repository = repository_of(server.url)
        for _ in range(3):
            take(repository)
    assert [request.headers.get("if-match") for request in server.requests] == [None, '"one"', '"one"']


@pytest.mark.parametrize("tag", ['W/"one"', "one", '"o ne"', '""', '"one", "two"', '"' + 2000 * "x" + '"'])
def test_a_weak_or_malformed_tag_is_not(repository_of: Any, tag: str) -> None:
    with scripted_server(lambda request: part(request, ETag=tag)) as server:
        repository = repository_of(server.url)
        take(repository)
        take(repository)
    assert [request.headers.get("if-match") for request in server.requests] == [None, None]


def test_another_version_is_an_error_worth_another_try_without_the_pin(repository_of: Any, flow: Flow) -> None:
    def reply(request: RawRequest) -> bytes:
        return answer(412) if "if-match" in request.headers else part(request, ETag='"one"')

    with scripted_server(reply) as server:
        repository = repository_of(server.url)
        take(repository)
        with pytest.raises(ProtocolError, match="has another version of it now") as caught:
            repository.fetch_range(BLOB, PART, flow=flow)
        assert caught.value.retryable
        take(repository)
        take(repository)
    assert [request.headers.get("if-match") for request in server.requests] == [None, '"one"', None, None]


def test_another_version_is_seen_where_the_server_does_not_look_at_if_match(repository_of: Any, flow: Flow) -> None:
    tags = iter(['"one"', '"two"', '"three"'])
    with scripted_server(lambda request: part(request, ETag=next(tags))) as server:
        repository = repository_of(server.url)
        take(repository)
        with pytest.raises(ProtocolError, match="has another version of it now") as caught:
            repository.fetch_range(BLOB, PART, flow=flow)
        take(repository)
    assert caught.value.retryable
    assert flow.held == set()


# -- storage behind a redirect


class Front:
    """A registry that redirects to a storage; ``good`` is the only signature that the storage takes."""

    def __init__(self, refusal: int = 403) -> None:
        self.good = 1
        self.given = 1
        self.refusal = refusal
        self.storage = scripted_server(self.store)
        self.registry = scripted_server(self.redirect)

    def redirect(self, request: RawRequest) -> bytes:
        return answer(307, b"", {"Location": f"{self.storage.url}/blob?X-Signature={self.given}"})

    def store(self, request: RawRequest) -> bytes:
        if request.target != f"/blob?X-Signature={self.good}":
            return answer(self.refusal, b"<Error>Request has expired</Error>")
        return part(request, ETag='"storage"')

    def __enter__(self) -> Front:
        self.storage.__enter__()
        self.registry.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.registry.__exit__(*error)
        self.storage.__exit__(*error)


def test_a_redirect_is_resolved_once_for_all_threads(repository_of: Any) -> None:
    with Front() as front:
        repository = repository_of(front.registry.url, token="secret")
        all_parts(repository)
        all_parts(repository)
        assert targets(front.registry) == [BLOB_PATH]
        assert targets(front.storage) == ["/blob?X-Signature=1"] * 16
        assert not any("authorization" in request.headers for request in front.storage.requests)
        pinned = [request.headers.get("if-match") for request in front.storage.requests]
        assert pinned == [None] + 15 * ['"storage"']


@pytest.mark.parametrize("refusal", [400, 401, 403])
def test_an_expired_url_is_resolved_again_once_for_all_threads(repository_of: Any, refusal: int) -> None:
    with Front(refusal) as front:
        repository = repository_of(front.registry.url)
        all_parts(repository)
        for signature in (2, 3):
            front.good = front.given = signature
            all_parts(repository)
        assert targets(front.registry) == [BLOB_PATH] * 3


def test_a_refusal_by_a_fresh_url_is_final(repository_of: Any, flow: Flow) -> None:
    with Front() as front:
        repository = repository_of(front.registry.url)
        take(repository)
        front.good = 99
        with pytest.raises(RegistryError, match=r"/blob answered 403") as caught:
            repository.fetch_range(BLOB, PART, flow=flow)
        # The part before, and the client's own two: it takes the first refusal behind a redirect for an old URL.
        assert len(front.registry.requests) == 3
    assert not caught.value.retryable
    assert "Signature" not in str(caught.value)
    assert flow.held == set()


def test_other_refusals_of_a_storage_do_not_ask_the_registry_again(repository_of: Any, flow: Flow) -> None:
    with Front(503) as front:
        repository = repository_of(front.registry.url)
        take(repository)
        front.good = 99
        with pytest.raises(ServerError, match="answered 503"):
            repository.fetch_range(BLOB, PART, flow=flow)
        assert len(front.registry.requests) == 1


def test_a_refusal_by_the_registry_itself_is_final(repository_of: Any, flow: Flow) -> None:
    with scripted_server([part, lambda _: answer(403)]) as server:
        repository = repository_of(server.url)
        take(repository)
        with pytest.raises(RegistryError, match="answered 403"):
            repository.fetch_range(BLOB, PART, flow=flow)
        assert len(server.requests) == 2


def test_a_storage_that_cannot_be_reached_any_more_is_left(repository_of: Any, flow: Flow) -> None:
    with Front() as front:
        repository = repository_of(front.registry.url)
        take(repository)
        repository.client._sessions._direct.close()
        gone = front.storage
        gone.__exit__(None, None, None)
        front.storage = scripted_server(front.store)
        front.storage.__enter__()
        with pytest.raises(ConnectError):
            repository.fetch_range(BLOB, PART, flow=flow)
        take(repository)
        assert len(front.registry.requests) == 2


def test_a_redirect_on_the_registry_itself_is_not_kept(repository_of: Any) -> None:
    def reply(request: RawRequest) -> bytes:
        return part(request) if request.target == "/storage" else answer(302, b"", {"Location": "/storage"})

    with scripted_server(reply) as server:
        repository = repository_of(server.url, token="secret")
        take(repository)
        take(repository)
    assert targets(server) == 2 * [BLOB_PATH, "/storage"]
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer secret"}


# -- waiting for the one who asks


def fetch_in_thread(pool: ThreadPoolExecutor, repository: Repository, flow: Flow) -> Any:
    return pool.submit(repository.fetch_range, BLOB, PART, flow=flow)


def test_those_who_waited_share_a_failure_and_those_who_come_later_ask_again(repository_of: Any) -> None:
    waiting = threading.Event()

    def reply(request: RawRequest) -> Any:
        waiting.wait(10)
        return answer(500)

    with scripted_server(reply) as server, ThreadPoolExecutor(8) as pool:
        repository = repository_of(server.url)
        futures = [fetch_in_thread(pool, repository, Flow()) for _ in range(8)]
        time.sleep(0.2)
        waiting.set()
        errors = [future.exception(10) for future in futures]
        assert [type(error) for error in errors] == [ServerError] * 8
        assert len({id(error) for error in errors}) == 8
        assert len(server.requests) == 1
        with pytest.raises(ServerError):
            take(repository)
        assert len(server.requests) == 2


def test_a_wait_ends_when_its_flow_is_cut(repository_of: Any) -> None:
    with scripted_server([never()]) as server, ThreadPoolExecutor(2) as pool:
        repository = repository_of(server.url)
        asking, waiting = Flow(), Flow()
        leader = fetch_in_thread(pool, repository, asking)
        while not server.requests:
            time.sleep(0.005)
        waiter = fetch_in_thread(pool, repository, waiting)
        time.sleep(0.05)
        waiting.cut()
        with pytest.raises(CancelledError):
            waiter.result(1)
        asking.cut()
        with pytest.raises(CancelledError):
            leader.result(1)


def test_when_the_one_who_asks_is_cut_another_asks(repository_of: Any) -> None:
    with scripted_server([never(), part]) as server, ThreadPoolExecutor(2) as pool:
        repository = repository_of(server.url)
        asking = Flow()
        leader = fetch_in_thread(pool, repository, asking)
        while not server.requests:
            time.sleep(0.005)
        waiter = pool.submit(take, repository)
        time.sleep(0.05)
        asking.cut()
        with pytest.raises(CancelledError):
            leader.result(1)
        waiter.result(5)


# -- lists


def test_a_list_is_read_pair_by_pair(repository_of: Any, flow: Flow) -> None:
    with scripted_server([answer(200, LIST)]) as server:
        repository = repository_of(server.url, token="secret")
        assert list(repository.chunksums(BLOB, flow=flow)) == PAIRS
        (request,) = server.requests
    assert (request.target, request.headers["authorization"]) == (LIST_PATH, "Bearer secret")
    assert flow.held == set()


def test_the_first_pair_comes_before_the_list_ends(repository_of: Any, flow: Flow) -> None:
    reply = [truncated(LIST[:-5], len(LIST))[0], Pause()]
    with scripted_server([reply]) as server:
        pairs = repository_of(server.url).chunksums(BLOB, flow=flow)
        assert server.requests == []
        assert next(pairs) == PAIRS[0]
        assert len(flow.held) == 1
        pairs.close()
    assert flow.held == set()


@pytest.mark.parametrize(
    "reply",
    [
        *(answer(status) for status in (400, 401, 403, 404, 405, 410, 501)),
        answer(404, b"<html>", {"Content-Type": "text/html"}),
        answer(200, LIST, {"Content-Type": "text/html; charset=utf-8"}),
        answer(200, b"<!DOCTYPE html><html><body>" + 9000 * b"welcome " + b"</body></html>"),
        answer(200, b'{"errors":[{"code":"UNSUPPORTED"}]}', {"Content-Type": "application/json"}),
        answer(200, bytes(300)),
        answer(200, bytes(3)),
        answer(200, b""),
        answer(200, b"\n\n"),
        chunked(b""),
        answer(302, b"", {"Location": "ftp://elsewhere/login"}),
    ],
)
def test_a_registry_without_lists_is_asked_once(
    repository_of: Any, flow: Flow, caplog: pytest.LogCaptureFixture, reply: bytes
) -> None:
    with scripted_server(lambda _: reply) as server, caplog.at_level(logging.DEBUG, "transferkit"):
        repository = repository_of(server.url)
        assert list(repository.chunksums(BLOB, flow=flow)) == []
        assert any("list of its chunks" in record.getMessage() for record in caplog.records)
        assert {record.levelno for record in caplog.records} == {logging.DEBUG}
        assert list(repository.chunksums(BLOB, flow=flow)) == []
        assert list(Repository(repository.client, "library/other").chunksums(OTHER, flow=flow)) == []
        assert targets(server) == [LIST_PATH]
    assert flow.held == set()


def test_many_threads_ask_once_whether_there_are_lists(repository_of: Any) -> None:
    def reply(request: RawRequest) -> Any:
        return [Pause(0.1), answer(404)]

    with scripted_server(reply) as server, ThreadPoolExecutor(8) as pool:
        repository = repository_of(server.url)
        found = pool.map(lambda _: list(repository.chunksums(BLOB, flow=Flow())), range(8))
        assert list(found) == [[]] * 8
        assert len(server.requests) == 1


def test_a_registry_with_lists_is_asked_for_each(repository_of: Any, flow: Flow) -> None:
    with scripted_server([answer(200, LIST), answer(404), answer(200, LIST)]) as server, ThreadPoolExecutor(1):
        repository = repository_of(server.url)
        found = [list(repository.chunksums(BLOB, flow=flow)) for _ in range(3)]
    assert found == [PAIRS, [], PAIRS]


def test_many_threads_read_their_lists_at_once(repository_of: Any) -> None:
    with scripted_server(lambda _: [Pause(0.05), answer(200, LIST)]) as server, ThreadPoolExecutor(8) as pool:
        repository = repository_of(server.url)
        found = pool.map(lambda _: list(repository.chunksums(BLOB, flow=Flow())), range(8))
        assert list(found) == [PAIRS] * 8
        assert len(server.requests) == 8


def test_a_host_of_ollama_is_always_asked(repository_of: Any, flow: Flow) -> None:
    with scripted_server([answer(404), answer(200, LIST)]) as server:
        options = TransportOptions(ollama_hosts=frozenset({f"127.0.0.1:{server.port}"}))
        repository = repository_of(server.url, options=options)
        assert list(repository.chunksums(BLOB, flow=flow)) == []
        assert list(repository.chunksums(BLOB, flow=flow)) == PAIRS


def test_trouble_says_nothing_about_lists(repository_of: Any, flow: Flow) -> None:
    with scripted_server([answer(500), truncated(b"", 50), answer(200, LIST)]) as server:
        repository = repository_of(server.url)
        for error in (ServerError, ReadError):
            with pytest.raises(error) as caught:
                list(repository.chunksums(BLOB, flow=flow))
            assert caught.value.retryable
        assert list(repository.chunksums(BLOB, flow=flow)) == PAIRS
    assert flow.held == set()


@pytest.mark.parametrize(
    "reply",
    [
        truncated(LIST[:120], len(LIST)),
        chunked(LIST[:120], trailer=b"") and [chunked(LIST[:120], trailer=b""), until_close(b"")[1]],
        answer(200, LIST[:120]),
        answer(200, LIST.partition(b"\n")[0] + b"\n"),
        until_close(LIST[:120]),
    ],
)
def test_a_list_cut_short_is_worth_another_try(repository_of: Any, flow: Flow, reply: Any) -> None:
    with scripted_server([reply, answer(200, LIST)]) as server:
        repository = repository_of(server.url)
        pairs = repository.chunksums(BLOB, flow=flow)
        assert next(pairs) == PAIRS[0]
        with pytest.raises(ReadError) as caught:
            next(pairs)
        assert caught.value.retryable
        assert list(repository.chunksums(BLOB, flow=flow)) == PAIRS
    assert flow.held == set()


def test_a_list_cut_within_its_first_line_is_worth_another_try(repository_of: Any, flow: Flow) -> None:
    with scripted_server([answer(200, LIST[:75]), answer(200, LIST)]) as server:
        repository = repository_of(server.url)
        with pytest.raises(ReadError, match="cut short"):
            list(repository.chunksums(BLOB, flow=flow))
        assert list(repository.chunksums(BLOB, flow=flow)) == PAIRS


@pytest.mark.parametrize(
    ("body", "good", "reason"),
    [
        (f"{A} 0-511\n{A} 600-1023\n", 1, "gap"),
        (f"{A} 0-511\n{A} 500-1023\n", 1, "overlaps"),
        (f"{A} 0-511\n{A} 0-511\n", 1, "twice"),
        (f"{A} 0-511\n{A} 512-2047\n", 1, "past the end"),
        (f"{A} 512-1023\n{A} 0-511\n", 0, "out of order"),
        (f"{A} zero\n", 0, "no range"),
        (f"{A} 0-511\nsha256:zz 512-1023\n", 1, "not a digest"),
        (f"{A} 0-511\n<html>\n", 1, "not a digest"),
    ],
)
def test_a_list_that_lies_is_refused(repository_of: Any, flow: Flow, body: str, good: int, reason: str) -> None:
    with scripted_server([answer(200, body.encode())]) as server:
        pairs = repository_of(server.url).chunksums(BLOB, flow=flow)
        assert list(itertools.islice(pairs, good)) == PAIRS[:good]
        with pytest.raises(ProtocolError, match=reason) as caught:
            next(pairs)
    assert not caught.value.retryable
    assert flow.held == set()


def test_a_list_without_end_is_refused_in_bounded_memory(
    repository_of: Any, flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunksums, "MAX_LINES", 50_000)

    def reply(_: RawRequest) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        for start in range(0, 10_000_000, 100):
            yield "".join(f"{A} {at}-{at}\n" for at in range(start, start + 100)).encode()

    with scripted_server(reply) as server:
        pairs = repository_of(server.url).chunksums(Descriptor(DIGEST, 2**40), flow=flow)
        next(pairs)
        tracemalloc.start()
        try:
            with pytest.raises(ProtocolError, match="more than 50000 lines"):
                for _ in pairs:
                    pass
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 2 * 1024 * 1024


# -- where the list says that the blob is


def test_a_blob_elsewhere_is_asked_for_there_without_credentials(repository_of: Any, flow: Flow) -> None:
    with scripted_server(part) as storage:
        location = {"Content-Location": f"{storage.url}/blob?X-Signature=%2F1"}
        with scripted_server([answer(200, LIST, location)]) as server:
            repository = repository_of(server.url, token="secret")
            assert list(repository.chunksums(BLOB, flow=flow)) == PAIRS
            take(repository)
        assert targets(storage) == ["/blob?X-Signature=%2F1"]
        assert "authorization" not in storage.requests[0].headers


def test_a_location_on_the_registry_is_asked_with_credentials(repository_of: Any, flow: Flow) -> None:
    def reply(request: RawRequest) -> bytes:
        if request.target == LIST_PATH:
            return answer(200, LIST, {"Content-Location": "../blobs/other?x=%2F"})
        return part(request)

    with scripted_server(reply) as server:
        repository = repository_of(server.url, token="secret")
        assert list(repository.chunksums(BLOB, flow=flow)) == PAIRS
        take(repository)
        take(repository)
    assert targets(server)[1:] == 2 * [f"/v2/{WHERE}/blobs/other?x=%2F"]
    assert server.requests[1].headers["authorization"] == "Bearer secret"


def test_a_location_that_has_expired_leads_back_to_the_registry(repository_of: Any, flow: Flow) -> None:
    with scripted_server(lambda _: answer(403)) as storage:

        def reply(request: RawRequest) -> bytes:
            if request.target == LIST_PATH:
                return answer(200, LIST, {"Content-Location": f"{storage.url}/blob"})
            return part(request)

        with scripted_server(reply) as server:
            repository = repository_of(server.url)
            for _ in range(2):  # the same location again is no news
                list(repository.chunksums(BLOB, flow=flow))
                take(repository)
            assert targets(server) == [LIST_PATH, BLOB_PATH, LIST_PATH, BLOB_PATH]
        assert targets(storage) == ["/blob"]


def test_who_is_not_the_registry_does_not_choose_what_is_asked_of_it(repository_of: Any, flow: Flow) -> None:
    secret = "/v2/private/model/blobs/secret"
    with scripted_server(lambda _: answer(200, LIST, {"Content-Location": f"{server.url}{secret}"})) as elsewhere:

        def reply(request: RawRequest) -> bytes:
            if request.target == LIST_PATH:
                return answer(307, b"", {"Location": f"{elsewhere.url}/list"})
            return part(request)

        with scripted_server(reply) as server:
            repository = repository_of(server.url, token="secret")
            assert list(repository.chunksums(BLOB, flow=flow)) == PAIRS
            take(repository)
            assert targets(server) == [LIST_PATH, BLOB_PATH]


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("file:///etc/passwd", "only http and https URLs are followed, not 'file'"),
        ("http://169.254.169.254/latest/meta-data", "sends us to the private address 169.254.169.254; refused"),
        ("http://[::1]:80/blob", r"sends us to the private address \[::1\]; refused"),
        ("//127.0.0.1:6379/", "sends us to the private address 127.0.0.1:6379; refused"),
        ("http://user:pw@storage.test/blob", "a URL with a user name in it is refused"),
    ],
)
def test_a_hostile_location_is_refused_with_the_reason(
    repository_of: Any, flow: Flow, location: str, reason: str
) -> None:
    # A name that only the proxy knows: the policy is another for registries on this machine.
    with scripted_server(lambda _: answer(200, LIST, {"Content-Location": location})) as proxy:
        with requests.Session() as session:
            session.trust_env = False
            session.proxies = {"http": proxy.url}
            pairs = repository_of("http://registry.test", session=session).chunksums(BLOB, flow=flow)
            with pytest.raises(ProtocolError, match=reason):
                next(pairs)
        assert targets(proxy) == [f"http://registry.test{LIST_PATH}"]
    assert flow.held == set()


def test_a_list_that_brings_no_line_has_a_limit(repository_of: Any, flow: Flow) -> None:
    first, rest = LIST.split(b"\n", 1)
    head = answer(200, LIST).removesuffix(LIST)
    drip = [piece for byte in rest[:60] for piece in (bytes([byte]), Pause(0.05))]
    options = TransportOptions(response_timeout=0.3)
    with scripted_server([[head + first + b"\n", *drip, Close()]]) as server:
        with pytest.raises(ReadError, match=r"no line of its list for 0\.3 s") as caught:
            list(repository_of(server.url, options=options).chunksums(BLOB, flow=flow))
    assert caught.value.retryable
