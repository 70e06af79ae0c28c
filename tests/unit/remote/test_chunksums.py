"""The list of the digests of a blob's parts, over real sockets."""

from __future__ import annotations

import itertools
import logging
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.unit.remote.rig import BLOB, BLOB_PATH, DIGEST, LIST_PATH, OTHER, WHERE, Flow, part, take, targets
from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.errors import ProtocolError, ReadError, ServerError, TransportTimeout
from transferkit.options import TransportOptions
from transferkit.protocol import chunksums
from transferkit.remote.repository import Repository
from transferkit.testing import Close, Pause, RawRequest, answer, chunked, scripted_server, truncated, until_close

A = "sha256:" + 64 * "a"
LIST = f"{A} 0-511\n{A} 512-1023\n".encode()
PAIRS = [(Chunk(0, 511), A), (Chunk(512, 1023), A)]


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


@pytest.mark.parametrize("is_foreign", [False, True])
@pytest.mark.parametrize(
    "begun", [b"5;", b"%x\r\n%s\r\n5;" % (len(LIST) // 2, LIST[: len(LIST) // 2])], ids=["first", "later"]
)
def test_the_framing_of_a_list_has_a_limit_too(repository_of: Any, flow: Flow, is_foreign: bool, begun: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    options = TransportOptions(response_timeout=0.3)
    with requests.Session() as session, scripted_server([[head + begun, *[b"x", Pause(0.05)] * 60]]) as server:
        repository = repository_of(server.url, session=session if is_foreign else None, options=options)
        began = time.monotonic()
        with pytest.raises(TransportTimeout, match=r"within 0\.3 s"):
            list(repository.chunksums(BLOB, flow=flow))
        assert time.monotonic() - began < 2
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
