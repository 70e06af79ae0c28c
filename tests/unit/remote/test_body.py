"""Parts of a blob, over real sockets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests

from tests.unit.remote.rig import BLOB, BLOB_PATH, DATA, DIGEST, PART, WHERE, Flow, part, take, targets
from tests.unit.transport.rig import everything
from transferkit.content.chunk import Chunk
from transferkit.content.interfaces import ChunkLister, RangeFetcher
from transferkit.errors import (
    BlobNotFoundError,
    DeniedError,
    ProtocolError,
    ReadError,
    RegistryError,
    SizeMismatchError,
    TransferKitError,
)
from transferkit.server import OCIRegistry, serving
from transferkit.testing import Close, RawRequest, answer, chunked, scripted_server, until_close

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
        (answer(200, DATA[:200]), SizeMismatchError, "announces 200 bytes, expected 1024"),
        (answer(200, b"<p>", {"Content-Type": "text/html"}), SizeMismatchError, "a page of a proxy or of a login"),
        (chunked(b"<p>", headers={"Content-Type": "text/html"}), ProtocolError, "sent a page"),
        (answer(200, DATA[:9], {"Content-Encoding": "gzip"}), ProtocolError, "Content-Encoding 'gzip'"),
        (answer(404), BlobNotFoundError, "responded with status 404"),
        (answer(401), RegistryError, "responded with status 401"),
        (answer(413), RegistryError, "responded with status 413"),
    ],
)
def test_what_is_not_the_part_is_refused_for_good(
    repository_of: Any, flow: Flow, reply: bytes, error: type[TransferKitError], text: str
) -> None:
    # Where it may be the range that is refused, the blob is asked for without one, and that answer is told.
    with scripted_server(lambda _: reply) as server:
        with pytest.raises(error, match=text) as caught:
            repository_of(server.url).fetch_range(BLOB, PART, flow=flow)
        assert len(server.requests) == 2
    assert not caught.value.retryable
    assert flow.held == set()


# What says no more than that the range is not to be had: the bytes may be, as one stream.
NO_RANGE = [
    *(
        (answer(status), f"responded with status {status}")
        for status in (202, 204, 226, 300, 400, 401, 403, 404, 405, 413, 501, 505)
    ),
    (answer(416), r"refuses the bytes 100-299 of 1024 \(416\)"),
    (answer(416, b"", {"Content-Range": "bytes */1024"}), r"refuses the bytes 100-299 of 1024 \(416\)"),
    (answer(416, b"", {"Content-Range": "bytes */50"}), "has 50 bytes of it, expected 1024"),
    (answer(206, DATA[:200]), "206 without Content-Range"),
    (answer(206, DATA[:199], {"Content-Range": "bytes 100-299/1024"}), "announces 199 bytes, expected 200"),
    (answer(200, b"<p>", {"Content-Type": "text/html"}), "a page of a proxy or of a login"),
    (answer(206, DATA[:200], {"Content-Range": "bytes 0-199/1024"}), "sent 'bytes 0-199/1024'"),
    (answer(206, DATA[:200], {"Content-Range": "bytes 100-298/1024"}), "asked for bytes 100-299"),
    (answer(206, DATA[:200], {"Content-Range": "bytes 100-299/2048"}), "asked for bytes 100-299"),
]


@pytest.mark.parametrize("whole", [answer(200, DATA), chunked(DATA)], ids=["length", "chunked"])
@pytest.mark.parametrize(("reply", "_"), NO_RANGE)
def test_where_the_first_range_is_refused_everything_is_asked_for(
    repository_of: Any, flow: Flow, reply: bytes, _: str, whole: bytes
) -> None:
    with scripted_server([reply, whole]) as server:
        with repository_of(server.url).fetch_range(BLOB, PART, flow=flow) as body:
            assert (body.offset, body.length) == (0, 1024)
            assert everything(body) == DATA
        assert [request.headers.get("range") for request in server.requests] == ["bytes=100-299", None]
        assert targets(server) == [BLOB_PATH, BLOB_PATH]
    assert flow.held == set()


@pytest.mark.parametrize(("reply", "text"), NO_RANGE)
def test_a_range_that_is_refused_after_one_has_come_is_an_error(
    repository_of: Any, flow: Flow, reply: bytes, text: str
) -> None:
    with scripted_server([part, reply]) as server:
        repository = repository_of(server.url)
        take(repository)
        with pytest.raises((ProtocolError, RegistryError, BlobNotFoundError, SizeMismatchError), match=text):
            repository.fetch_range(BLOB, PART, flow=flow)
        assert len(server.requests) == 2
    assert flow.held == set()


@pytest.mark.parametrize("said", [{}, {"Content-Encoding": "gzip"}, {"Content-Encoding": ""}])
def test_the_right_bytes_are_taken_whatever_their_label_says(
    repository_of: Any, flow: Flow, said: dict[str, str]
) -> None:
    ranged = {**said, "Content-Range": "bytes 100-299/1024"}
    with scripted_server(
        [answer(200, DATA, said), chunked(DATA, headers=said), answer(206, DATA[100:300], ranged)]
    ) as s:
        repository = repository_of(s.url)
        for _ in range(2):
            with repository.fetch(BLOB, flow=flow) as body:
                assert everything(body) == DATA
        take(repository)
    assert flow.held == set()


def test_a_203_is_as_good_as_a_200(repository_of: Any, flow: Flow) -> None:
    with scripted_server(lambda _: answer(203, DATA)) as server:
        repository = repository_of(server.url)
        for body in (repository.fetch(BLOB, flow=flow), repository.fetch_range(BLOB, PART, flow=flow)):
            with body:
                assert (body.offset, everything(body)) == (0, DATA)
        assert len(server.requests) == 2


@pytest.mark.parametrize("wrong", [DATA[::-1], DATA[:-1], DATA[:-1] + b"x" + DATA])
def test_a_labelled_body_of_other_bytes_is_told_to_be_encoded(repository_of: Any, flow: Flow, wrong: bytes) -> None:
    with scripted_server([chunked(wrong, headers={"Content-Encoding": "gzip"})]) as server:
        with repository_of(server.url).fetch(BLOB, flow=flow) as body:
            with pytest.raises(ProtocolError, match="Content-Encoding 'gzip'"):
                everything(body)


@pytest.mark.parametrize("trouble", [answer(500), answer(503), answer(429), Close()], ids=["500", "503", "429", "cut"])
def test_a_range_that_keeps_failing_is_done_without(repository_of: Any, flow: Flow, trouble: Any) -> None:
    with scripted_server(lambda request: trouble if "range" in request.headers else answer(200, DATA)) as server:
        repository = repository_of(server.url)
        for _ in range(2):
            with pytest.raises((RegistryError, ReadError)) as caught:
                repository.fetch_range(BLOB, PART, flow=flow)
            assert caught.value.retryable
        with repository.fetch_range(BLOB, PART, flow=flow) as body:
            assert (body.offset, everything(body)) == (0, DATA)


def test_what_is_refused_without_a_range_too_is_told_as_it_is(repository_of: Any, flow: Flow) -> None:
    with scripted_server(lambda _: answer(403)) as server:
        with pytest.raises(DeniedError, match="responded with status 403") as caught:
            repository_of(server.url).fetch_range(BLOB, PART, flow=flow)
        assert len(server.requests) == 2
    assert not caught.value.retryable


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
