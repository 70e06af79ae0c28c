"""Requests to one registry: redirects, challenges, storage URLs that expire, refusals, and where uploads go."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.transport.rig import ANY, HELLO, MIB, client_of, connections, everything, send, zeros
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
from transferkit.testing import answer, informational, scripted_server, truncated
from transferkit.testing.scripted import RawRequest, ScriptedServer
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.client import Client
from transferkit.transport.hosts import Hosts

BEARER = {"WWW-Authenticate": 'Bearer realm="/token"'}


def moved(location: str, status: int = 307) -> bytes:
    return answer(status, b"moved", {"Location": location})


def get(server: ScriptedServer, method: str = "GET", url: str = "/x", **keywords: Any) -> tuple[str, bytes]:
    """Return the URL that answered in the end, and the body."""
    with client_of(server, **keywords) as client:
        with send(client, method, url, ok={200}, flow=WorkerFlow()) as found:
            return found.url, everything(found)


# -- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_redirect_is_followed(status: int, method: str) -> None:
    with scripted_server([moved("/there?a=%2F", status), HELLO]) as server:
        assert (f"{server.url}/there?a=%2F", b"hello" if method == "GET" else b"") == get(server, method)
        assert [(method, "/x"), (method, "/there?a=%2F")] == [(each.method, each.target) for each in server.requests]


def test_a_base_url_may_have_a_path() -> None:
    with scripted_server([HELLO]) as server, client_of(f"{server.url}/mirror/") as client:
        with send(client, "GET", "/v2/", ok={200}, flow=WorkerFlow()) as found:
            assert f"{server.url}/mirror/v2/" == found.url
        assert "/mirror/v2/" == server.requests[0].target


def test_ten_redirects_are_followed_and_no_more() -> None:
    with scripted_server([*[moved("/x")] * 10, HELLO]) as server:
        assert (f"{server.url}/x", b"hello") == get(server)
        assert [0] * 11 == connections(server)
    with scripted_server(lambda _: moved("/x")) as server:
        with pytest.raises(ProtocolError, match=f"more than 10 redirects, beginning at {server.url}"):
            get(server)
        assert 11 == len(server.requests)


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_would_turn_a_put_into_a_get_is_refused(status: int) -> None:
    with scripted_server([moved("/there", status)]) as server, client_of(server) as client:
        flow = WorkerFlow()
        with pytest.raises(ProtocolError, match=f"redirects a PUT with {status}"):
            send(client, "PUT", "/x", ok={201}, flow=flow, body=zeros(5, flow))


def test_a_body_is_sent_again_where_a_redirect_leads() -> None:
    with scripted_server([moved("/there"), answer(201)]) as server, client_of(server) as client:
        flow = WorkerFlow()
        send(client, "PUT", "/x", ok={201}, flow=flow, body=zeros(MIB, flow)).close()
        assert [MIB, MIB] == [len(each.body) for each in server.requests]
        assert MIB == flow.counter.progress


def test_a_redirect_that_is_asked_for_is_an_answer() -> None:
    with scripted_server([moved("/there")]) as server, client_of(server) as client:
        with send(client, "GET", "/x", ok={200, 307}, flow=WorkerFlow()) as found:
            assert (307, "/there") == (found.status, found.headers["location"])


@pytest.mark.parametrize(
    "location",
    ["ftp://127.0.0.1/x", "http://user@127.0.0.1/x", "http:///x", "http://[::1", "/a b", "http://127.0.0.1:0x/"],
)
def test_a_redirect_that_the_policy_refuses_is_not_followed(location: str) -> None:
    with scripted_server([moved(location)]) as server, pytest.raises(ProtocolError, match=r"refused|only http"):
        get(server)


@pytest.mark.parametrize("headers", [{}, {"Location": ""}])
def test_a_redirect_to_nowhere_is_a_refusal(headers: dict[str, str]) -> None:
    with scripted_server([answer(307, headers=headers)]) as server, pytest.raises(RegistryError, match="answered 307"):
        get(server)


# -- who sees credentials


def test_credentials_go_nowhere_else_and_not_back_after_a_detour() -> None:
    """CVE-2024-45336, of Go: who is not the registry does not choose what is asked with the user's credentials."""
    with scripted_server(lambda _: moved(f"{registry.url}/secret")) as elsewhere:
        with scripted_server([moved("/y"), moved(f"{elsewhere.url}/z"), HELLO]) as registry, Hosts(token="t") as hosts:
            with send(Client(registry.url, hosts), "GET", "/x", ok={200}, flow=WorkerFlow()) as found:
                assert b"hello" == everything(found)
            assert ["Bearer t", "Bearer t", None] == [r.headers.get("authorization") for r in registry.requests]
            assert [None] == [r.headers.get("authorization") for r in elsewhere.requests]


def test_a_challenge_after_a_detour_is_a_refusal() -> None:
    with scripted_server(lambda _: moved(f"{registry.url}/secret")) as elsewhere:
        script = [moved(f"{elsewhere.url}/z"), answer(401, headers=BEARER), HELLO]
        with scripted_server(script) as registry, Hosts(auth=("user", "password")) as hosts:
            with pytest.raises(UnauthorizedError):
                send(Client(registry.url, hosts), "GET", "/x", ok={200}, flow=WorkerFlow())
            assert ["/x", "/secret"] == [each.target for each in registry.requests]


def test_an_anonymous_request_has_no_credentials_on_the_registry_either() -> None:
    with scripted_server([HELLO, answer(401, headers=BEARER)]) as server, Hosts(token="t") as hosts:
        client = Client(server.url, hosts)
        send(client, "GET", f"{server.url}/signed", ok={200}, flow=WorkerFlow(), anonymous=True).finish()
        with pytest.raises(UnauthorizedError):
            send(client, "GET", f"{server.url}/signed", ok={200}, flow=WorkerFlow(), anonymous=True)
        assert [None, None] == [each.headers.get("authorization") for each in server.requests]


def test_an_absolute_url_on_another_host_has_no_credentials() -> None:
    with scripted_server([HELLO]) as other, Hosts(token="t") as hosts:
        send(Client("http://127.0.0.1:9", hosts), "GET", f"{other.url}/x", ok={200}, flow=WorkerFlow()).finish()
        assert "authorization" not in other.requests[0].headers


# -- challenges


def test_a_request_is_sent_twice_more_for_challenges_and_then_refused() -> None:
    tokens = iter("abcdef")

    def step(request: RawRequest) -> bytes:
        if request.target == "/token":
            return answer(200, b'{"token": "%s"}' % next(tokens).encode())
        return answer(401, b'{"errors":[{"code":"UNAUTHORIZED"}]}', BEARER)

    with scripted_server(step) as server, pytest.raises(UnauthorizedError, match="UNAUTHORIZED"):
        get(server)
    assert [None, None, "Bearer a", None, "Bearer b"] == [r.headers.get("authorization") for r in server.requests]


def test_challenges_and_redirects_come_in_any_order() -> None:
    def step(request: RawRequest) -> bytes:
        if request.target == "/token":
            return answer(200, b'{"token": "a"}')
        if request.headers.get("authorization") is None:
            return answer(401, headers=BEARER)
        return moved("/y") if request.target == "/x" else HELLO

    with scripted_server(step) as server:
        assert (f"{server.url}/y", b"hello") == get(server)
        assert ["/x", "/token", "/x", "/y"] == [each.target for each in server.requests]


def test_a_body_is_sent_again_after_a_challenge() -> None:
    def step(request: RawRequest) -> bytes:
        if request.target == "/token":
            return answer(200, b'{"token": "a"}')
        return answer(201) if request.headers.get("authorization") else answer(401, headers=BEARER)

    with scripted_server(step) as server, client_of(server) as client:
        flow = WorkerFlow()
        send(client, "PUT", "/x", ok={201}, flow=flow, body=zeros(MIB, flow)).close()
        assert [MIB, 0, MIB] == [len(each.body) for each in server.requests]
        assert MIB == flow.counter.progress


# -- storage URLs that expire


@pytest.mark.parametrize("status", [400, 401, 403])
def test_the_registry_is_asked_once_more_where_a_storage_url_has_expired(status: int) -> None:
    with scripted_server([answer(status, b"expired"), HELLO]) as storage:
        script = [moved(f"{storage.url}/1"), moved(f"{storage.url}/2")]
        with scripted_server(script) as registry, Hosts(token="t") as hosts:
            with send(Client(registry.url, hosts), "GET", "/x", ok={200}, flow=WorkerFlow()) as found:
                assert (f"{storage.url}/2", b"hello") == (found.url, everything(found))
            assert ["Bearer t", "Bearer t"] == [each.headers.get("authorization") for each in registry.requests]
            assert ["/1", "/2"] == [each.target for each in storage.requests]


def test_a_storage_that_goes_on_refusing_is_a_refusal() -> None:
    with scripted_server(lambda _: answer(403, b"no")) as storage:
        with scripted_server(lambda _: moved(f"{storage.url}/1")) as registry, pytest.raises(DeniedError, match="403"):
            get(registry)
        assert [2, 2] == [len(registry.requests), len(storage.requests)]


@pytest.mark.parametrize("status", [404, 410, 500, 503])
def test_other_refusals_of_a_storage_are_final(status: int) -> None:
    with scripted_server([answer(status)]) as storage:
        with scripted_server([moved(f"{storage.url}/1")]) as registry:
            with pytest.raises((RegistryError, NotFoundError), match=f"GET {storage.url}/1 answered {status}"):
                get(registry)


def test_a_storage_url_that_was_asked_for_itself_is_not_asked_for_again() -> None:
    """Who holds it knows whom to ask for another."""
    with scripted_server([answer(403)]) as storage, client_of("http://127.0.0.1:9") as client:
        with pytest.raises(DeniedError):
            send(client, "GET", f"{storage.url}/1?X-Signature=secret", ok={200}, flow=WorkerFlow(), anonymous=True)


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
        with pytest.raises(kind, match=r"v1: GET http://.*/x answered \d+ \(NAME: words\)") as caught:
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
        get(server)


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
    with scripted_server([said]) as server, pytest.raises(ServerError, match="answered 500"):
        get(server)


def test_a_connection_is_used_again_after_a_short_refusal() -> None:
    with scripted_server([answer(404, b"no"), HELLO]) as server, client_of(server) as client:
        with pytest.raises(NotFoundError):
            send(client, "GET", "/x", ok={200}, flow=WorkerFlow())
        send(client, "GET", "/x", ok={200}, flow=WorkerFlow()).finish()
        assert [0, 0] == connections(server)


# -- where an upload goes


@pytest.mark.parametrize(
    ("base", "location", "url"),
    [
        ("/v2/a/blobs/uploads/", "/upload/1?state=%2F", "http://127.0.0.1:5000/upload/1?state=%2F"),
        ("/v2/a/blobs/uploads/", "1", "http://127.0.0.1:5000/m/v2/a/blobs/uploads/1"),
        ("/v2/a/blobs/uploads/", "?x", "http://127.0.0.1:5000/m/v2/a/blobs/uploads/?x"),
        ("/v2/a/blobs/uploads/", "http://10.0.0.1/upload", "http://10.0.0.1/upload"),
        ("/v2/a/blobs/uploads/", "https://storage.example/upload", "https://storage.example/upload"),
        ("http://127.0.0.1:7000/u/1", "2", "http://127.0.0.1:7000/u/2"),
    ],
)
def test_the_location_of_an_upload_becomes_a_url(base: str, location: str, url: str) -> None:
    with client_of("http://127.0.0.1:5000/m") as client:
        assert url == client.locate(base, location)


@pytest.mark.parametrize(
    ("registry", "base", "location", "says"),
    [
        ("http://127.0.0.1", "/u", None, "no Location"),
        ("http://127.0.0.1", "/u", "", "no Location"),
        ("http://127.0.0.1", "http://127.0.0.1:7000/u", "http://127.0.0.1/v2/", "sends an upload back to"),
        ("https://registry.example", "/u", "http://registry.example/u", "from https to http"),
        ("https://registry.example", "/u", "https://10.0.0.1/u", "private address"),
        ("https://registry.example", "/u", "https://user:secret@storage.example/", "user name"),
    ],
)
def test_a_location_that_the_policy_refuses_is_an_error(
    registry: str, base: str, location: str | None, says: str
) -> None:
    with client_of(registry) as client, pytest.raises(ProtocolError, match=says) as caught:
        client.locate(base, location)
    assert "secret" not in str(caught.value)


def test_a_private_host_may_be_allowed() -> None:
    with client_of("https://registry.example", storage_hosts={"10.0.0.1"}) as client:
        assert "https://10.0.0.1/u" == client.resolve("https://registry.example/x", "https://10.0.0.1/u")


def test_a_client_is_named_by_its_origin() -> None:
    with client_of("https://Registry.Example:443/") as client:
        assert "<Client of https://registry.example>" == repr(client)


@pytest.mark.parametrize("before", [b"", informational(102)])
@pytest.mark.parametrize("ok", [{200}, ANY])
def test_an_answer_that_was_asked_for_is_returned_as_it_is(before: bytes, ok: Any) -> None:
    with scripted_server([before + HELLO]) as server, client_of(server) as client:
        with send(client, "GET", "/x", ok=ok, flow=WorkerFlow()) as found:
            assert (200, 5, server.url, f"{server.url}/x") == (found.status, found.length, found.origin, found.url)
