"""A repository as a source: whole blobs, and what is left of them, over real sockets; and whose an error is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests

from tests.unit.remote.rig import BLOB, BLOB_PATH, DATA, DIGEST, OTHER, WHERE, Flow
from tests.unit.transport.rig import client_of, everything
from transferkit.errors import (
    BlobNotFoundError,
    CertificateError,
    ConnectError,
    DeniedError,
    DigestMismatchError,
    InvalidNameError,
    ProtocolError,
    RateLimitedError,
    ReadError,
    RegistryError,
    RetriesExhaustedError,
    ServerError,
    SizeMismatchError,
    TransferKitError,
    UnauthorizedError,
)
from transferkit.remote.repository import Repository
from transferkit.server import OCIRegistry, serving
from transferkit.testing import answer, chunked, scripted_server


def test_a_blob_comes_in_one_request(repository_of: Any, flow: Flow) -> None:
    with scripted_server([answer(200, DATA)]) as server:
        with repository_of(server.url, token="secret").fetch(BLOB, flow=flow) as body:
            assert (body.offset, body.length) == (0, 1024)
            assert everything(body) == DATA
        (request,) = server.requests
    assert (request.method, request.target) == ("GET", BLOB_PATH)
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["authorization"] == "Bearer secret"
    assert "range" not in request.headers
    assert flow.held == set()


def test_a_body_without_a_length_has_none(repository_of: Any, flow: Flow) -> None:
    with scripted_server([chunked(DATA)]) as server:
        with repository_of(server.url).fetch(BLOB, flow=flow) as body:
            assert (body.offset, body.length) == (0, None)
            assert everything(body) == DATA


def test_the_rest_of_a_blob_is_asked_for(repository_of: Any, flow: Flow) -> None:
    with scripted_server([answer(206, DATA[1000:], {"Content-Range": "bytes 1000-1023/1024"})]) as server:
        with repository_of(server.url).fetch(BLOB, offset=1000, flow=flow) as body:
            assert (body.offset, body.length) == (1000, 24)
            assert everything(body) == DATA[1000:]
        assert server.requests[0].headers["range"] == "bytes=1000-"


def test_a_server_without_ranges_begins_again(repository_of: Any, flow: Flow) -> None:
    with scripted_server([answer(200, DATA)]) as server:
        with repository_of(server.url).fetch(BLOB, offset=1000, flow=flow) as body:
            assert (body.offset, everything(body)) == (0, DATA)


@pytest.mark.parametrize(
    "reply",
    [
        *(answer(status) for status in (202, 300, 400, 401, 403, 404, 405, 413, 416, 501)),
        answer(206, DATA[1000:], {"Content-Range": "bytes 999-1023/1024"}),
        answer(206, DATA[1000:]),
    ],
)
def test_where_the_rest_is_not_to_be_had_everything_is_asked_for(repository_of: Any, flow: Flow, reply: bytes) -> None:
    with scripted_server([reply, answer(200, DATA)]) as server:
        with repository_of(server.url).fetch(BLOB, offset=1000, flow=flow) as body:
            assert (body.offset, everything(body)) == (0, DATA)
        assert [request.headers.get("range") for request in server.requests] == ["bytes=1000-", None]
    assert flow.held == set()


@pytest.mark.parametrize(
    ("offset", "reply", "error", "text"),
    [
        (0, answer(404), BlobNotFoundError, "responded with status 404"),
        (0, answer(403), DeniedError, "responded with status 403"),
        (0, answer(206, DATA, {"Content-Range": "bytes 0-1023/1024"}), RegistryError, "responded with status 206"),
        (0, answer(200, DATA[:9]), SizeMismatchError, "announces 9 bytes, expected 1024"),
        (0, answer(200, b"<p>", {"Content-Type": "text/html"}), SizeMismatchError, "a page of a proxy"),
        (0, chunked(b"<p>", headers={"Content-Type": "text/html"}), ProtocolError, "sent a page"),
        (0, answer(200, DATA[:9], {"Content-Encoding": "gzip"}), ProtocolError, "Content-Encoding 'gzip'"),
        (9, answer(404), BlobNotFoundError, "responded with status 404"),
        (9, answer(401), UnauthorizedError, "responded with status 401"),
    ],
)
def test_what_is_not_the_blob_is_refused(
    repository_of: Any, flow: Flow, offset: int, reply: bytes, error: type[TransferKitError], text: str
) -> None:
    with scripted_server(lambda _: reply) as server:
        with pytest.raises(error, match=text) as caught:
            repository_of(server.url).fetch(BLOB, offset=offset, flow=flow)
        assert len(server.requests) == 1 + (offset > 0)  # it may be the range that is refused
    assert not caught.value.retryable
    assert flow.held == set()


def test_a_blob_of_the_embedded_registry(tmp_path: Path, repository_of: Any, flow: Flow) -> None:
    with serving(OCIRegistry(tmp_path)) as url:
        assert requests.post(f"{url}/v2/{WHERE}/blobs/uploads/?digest={DIGEST}", data=DATA).status_code == 201
        repository = repository_of(url)
        with repository.fetch(BLOB, flow=flow) as body:
            assert everything(body) == DATA
        assert (repository.exists(BLOB, flow=flow), repository.exists(OTHER, flow=flow)) == (True, False)


def test_what_is_no_name_is_refused_before_any_request() -> None:
    with client_of("http://127.0.0.1:9") as client:
        with pytest.raises(InvalidNameError):
            Repository(client, "../model")
        assert repr(Repository(client, WHERE)) == f"<Repository {WHERE} at http://127.0.0.1:9>"


def caused(error: TransferKitError) -> RetriesExhaustedError:
    exhausted = RetriesExhaustedError("six attempts")
    exhausted.__cause__ = error
    return exhausted


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UnauthorizedError("x"), True),
        (CertificateError("x"), True),
        (ConnectError("the host is unknown", retryable=False), True),
        (ConnectError("refused"), False),
        (RateLimitedError("in an hour", retryable=False), True),
        (RateLimitedError("in a second"), False),
        (caused(ConnectError("refused")), True),
        (caused(ReadError("reset")), False),
        (DeniedError("x"), False),
        (ServerError("x"), False),
        (BlobNotFoundError("x"), False),
        (DigestMismatchError("x"), False),
    ],
)
def test_whether_an_error_would_be_the_same_for_every_content(error: TransferKitError, expected: bool) -> None:
    with client_of("http://127.0.0.1:9") as client:
        assert Repository(client, WHERE).concerns_all(error) is expected
