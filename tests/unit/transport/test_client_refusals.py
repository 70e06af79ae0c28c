"""Refusals as exceptions, and where uploads go."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import requests

from tests.unit.transport.rig import ANY, HELLO, client_of, connections, fetched, send
from transferkit.errors import (
    BlobNotFoundError,
    DeniedError,
    ManifestNotFoundError,
    NotFoundError,
    ProtocolError,
    RateLimitedError,
    RegistryError,
    ServerError,
    UnauthorizedError,
)
from transferkit.options import RetryOptions
from transferkit.protocol.origin import Origin
from transferkit.testing import answer, informational, scripted_server, truncated
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.client import Client
from transferkit.transport.hosts import Hosts

# -- refusals


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (400, RegistryError, False),
        (401, UnauthorizedError, False),
        (403, DeniedError, False),
        (404, ManifestNotFoundError, False),
        (408, RegistryError, True),
        (429, RateLimitedError, True),
        (500, ServerError, True),
        (501, ServerError, False),
        (503, ServerError, True),
    ],
)
def test_a_refusal_is_an_exception_that_says_what_was_asked_for(
    status: int, kind: type[Exception], retryable: bool
) -> None:
    body = b'{"errors":[{"code":"NAME","message":"words"}]}'
    with scripted_server([answer(status, body)]) as server, client_of(server) as client:
        with pytest.raises(
            kind, match=r"v1: GET http://.*/x: registry responded with status \d+: code NAME: words"
        ) as caught:
            send(
                client,
                "GET",
                "/x?secret=1",
                ok={200},
                flow=WorkerFlow(),
                subject="v1",
                missing=ManifestNotFoundError,
            )
        assert type(caught.value) is kind
        assert retryable is caught.value.retryable  # type: ignore[attr-defined]
        assert "secret" not in str(caught.value)


def test_a_manifest_of_blobs_that_are_not_there_says_so() -> None:
    body = b'{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","detail":"sha256:abc"}]}'
    with scripted_server([answer(400, body)]) as server, pytest.raises(BlobNotFoundError, match="sha256:abc"):
        fetched(server)


@pytest.mark.parametrize(("seconds", "retryable"), [("7", True), ("20", True), ("21", False)])
def test_a_wait_that_is_too_long_is_final(seconds: str, retryable: bool) -> None:
    with scripted_server([answer(429, headers={"Retry-After": seconds})]) as server, Hosts() as hosts:
        client = Client(server.url, hosts, retry=RetryOptions(max_retry_after=20.0))
        with pytest.raises(RateLimitedError) as caught:
            send(client, "GET", "/x", ok={200}, flow=WorkerFlow())
        assert (float(seconds), retryable) == (caught.value.retry_after, caught.value.retryable)


def test_a_date_to_come_back_at_is_held_against_the_injected_clock() -> None:
    headers = {"Retry-After": "Thu, 01 Jan 1970 00:01:00 GMT"}
    with scripted_server([answer(503, headers=headers)]) as server, Hosts() as hosts:
        client = Client(server.url, hosts, wall_clock=lambda: 18.0)
        with pytest.raises(ServerError) as caught:
            send(client, "GET", "/x", ok={200}, flow=WorkerFlow())
        assert 42.0 == caught.value.retry_after


@pytest.mark.parametrize(
    "said", [truncated(b"hel", 5, status=500), answer(500, b"\xff" * 100_000), answer(500, b"<html>")]
)
def test_a_refusal_is_one_whatever_its_body_is(said: Any) -> None:
    with scripted_server([said]) as server, pytest.raises(ServerError, match="responded with status 500"):
        fetched(server)


class _Unfit(requests.adapters.HTTPAdapter):
    """An adapter whose bodies have more bytes than were asked for."""

    def send(self, *args: Any, **keywords: Any) -> requests.Response:
        response = super().send(*args, **keywords)
        response.raw.read1 = lambda size: bytes(size + 1)
        return response


def test_a_refusal_is_one_where_an_adapter_cannot_read_its_body() -> None:
    with scripted_server([answer(429, b"later")]) as server, requests.Session() as session:
        session.mount("http://", _Unfit())
        with client_of(server, session=session) as client, pytest.raises(RateLimitedError):
            send(client, "GET", "/x", ok={200}, flow=WorkerFlow())


def test_a_connection_is_used_again_after_a_short_refusal() -> None:
    with scripted_server([answer(404, b"no"), HELLO]) as server, client_of(server) as client:
        with pytest.raises(NotFoundError):
            send(client, "GET", "/x", ok={200}, flow=WorkerFlow())
        send(client, "GET", "/x", ok={200}, flow=WorkerFlow()).finish()
        assert [0, 0] == connections(server)


# -- where an upload goes


def response_at(url: str, *, trusted: bool = True) -> Any:
    return SimpleNamespace(url=url, trusted=trusted)


@pytest.mark.parametrize(
    ("base", "location", "url"),
    [
        (
            "http://127.0.0.1:5000/m/v2/a/blobs/uploads/",
            "/upload/1?state=%2F",
            "http://127.0.0.1:5000/upload/1?state=%2F",
        ),
        ("http://127.0.0.1:5000/m/v2/a/blobs/uploads/", "1", "http://127.0.0.1:5000/m/v2/a/blobs/uploads/1"),
        ("http://127.0.0.1:5000/m/v2/a/blobs/uploads/", "?x", "http://127.0.0.1:5000/m/v2/a/blobs/uploads/?x"),
        ("http://127.0.0.1:5000/m/v2/a/blobs/uploads/", "http://10.0.0.1/upload", "http://10.0.0.1/upload"),
        (
            "http://127.0.0.1:5000/m/v2/a/blobs/uploads/",
            "https://storage.example/upload",
            "https://storage.example/upload",
        ),
        ("http://127.0.0.1:7000/u/1", "2", "http://127.0.0.1:7000/u/2"),
    ],
)
def test_the_location_of_an_upload_becomes_a_url(base: str, location: str, url: str) -> None:
    with client_of("http://127.0.0.1:5000/m") as client:
        assert url == client.locate(response_at(base), location)


@pytest.mark.parametrize(
    ("registry", "base", "location", "says"),
    [
        ("http://127.0.0.1", "http://127.0.0.1/u", None, "no Location"),
        ("http://127.0.0.1", "http://127.0.0.1/u", "", "no Location"),
        (
            "http://127.0.0.1",
            "http://127.0.0.1:7000/u",
            "http://127.0.0.1/v2/",
            "elsewhere is sent back to http://127.0.0.1;",
        ),
        ("https://registry.example", "https://registry.example/u", "http://registry.example/u", "from https to http"),
        ("https://registry.example", "https://registry.example/u", "https://10.0.0.1/u", "private address"),
        ("https://registry.example", "https://registry.example/u", "https://user:secret@storage.example/", "user name"),
    ],
)
def test_a_location_that_the_policy_refuses_is_an_error(
    registry: str, base: str, location: str | None, says: str
) -> None:
    with client_of(registry) as client, pytest.raises(ProtocolError, match=says) as caught:
        client.locate(response_at(base, trusted=Origin.of(base) == client.origin), location)
    assert "secret" not in str(caught.value)


def test_a_private_host_may_be_allowed() -> None:
    with client_of("https://registry.example", storage_hosts={"10.0.0.1"}) as client:
        assert "https://10.0.0.1/u" == client.resolve(response_at("https://registry.example/x"), "https://10.0.0.1/u")


def test_a_client_is_named_by_its_origin() -> None:
    with client_of("https://Registry.Example:443/") as client:
        assert "<Client of https://registry.example>" == repr(client)


@pytest.mark.parametrize("before", [b"", informational(102)])
@pytest.mark.parametrize("ok", [{200}, ANY])
def test_an_answer_that_was_asked_for_is_returned_as_it_is(before: bytes, ok: Any) -> None:
    with scripted_server([before + HELLO]) as server, client_of(server) as client:
        with send(client, "GET", "/x", ok=ok, flow=WorkerFlow()) as found:
            assert (200, 5, server.url, f"{server.url}/x") == (found.status, found.length, found.origin, found.url)
