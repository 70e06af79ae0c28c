"""Requests to one registry: redirects, challenges, storage URLs that expire, refusals, and where uploads go."""

from __future__ import annotations

import pytest

from tests.unit.transport.rig import HELLO, MIB, client_of, connections, everything, fetched, send, zeros
from transferkit.errors import (
    DeniedError,
    NotFoundError,
    ProtocolError,
    RegistryError,
    UnauthorizedError,
)
from transferkit.testing import answer, scripted_server
from transferkit.testing.scripted import RawRequest
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.client import Client
from transferkit.transport.hosts import Hosts

BEARER = {"WWW-Authenticate": 'Bearer realm="/token"'}


def moved(location: str, status: int = 307) -> bytes:
    return answer(status, b"moved", {"Location": location})


# -- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_redirect_is_followed(status: int, method: str) -> None:
    with scripted_server([moved("/there?a=%2F", status), HELLO]) as server:
        assert (f"{server.url}/there?a=%2F", b"hello" if method == "GET" else b"") == fetched(server, method)
        assert [(method, "/x"), (method, "/there?a=%2F")] == [(each.method, each.target) for each in server.requests]


def test_a_base_url_may_have_a_path() -> None:
    with scripted_server([HELLO]) as server, client_of(f"{server.url}/mirror/") as client:
        with send(client, "GET", "/v2/", ok={200}, flow=WorkerFlow()) as found:
            assert f"{server.url}/mirror/v2/" == found.url
        assert "/mirror/v2/" == server.requests[0].target


def test_ten_redirects_are_followed_and_no_more() -> None:
    with scripted_server([*[moved("/x")] * 10, HELLO]) as server:
        assert (f"{server.url}/x", b"hello") == fetched(server)
        assert [0] * 11 == connections(server)
    with scripted_server(lambda _: moved("/x")) as server:
        with pytest.raises(ProtocolError, match=f"more than 10 redirects, beginning at {server.url}"):
            fetched(server)
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
        fetched(server)


@pytest.mark.parametrize("headers", [{}, {"Location": ""}])
def test_a_redirect_to_nowhere_is_a_refusal(headers: dict[str, str]) -> None:
    with (
        scripted_server([answer(307, headers=headers)]) as server,
        pytest.raises(RegistryError, match="responded with status 307"),
    ):
        fetched(server)


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
        fetched(server)
    assert [None, None, "Bearer a", None, "Bearer b"] == [r.headers.get("authorization") for r in server.requests]


def test_challenges_and_redirects_come_in_any_order() -> None:
    def step(request: RawRequest) -> bytes:
        if request.target == "/token":
            return answer(200, b'{"token": "a"}')
        if request.headers.get("authorization") is None:
            return answer(401, headers=BEARER)
        return moved("/y") if request.target == "/x" else HELLO

    with scripted_server(step) as server:
        assert (f"{server.url}/y", b"hello") == fetched(server)
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
            fetched(registry)
        assert [2, 2] == [len(registry.requests), len(storage.requests)]


@pytest.mark.parametrize("status", [404, 410, 500, 503])
def test_other_refusals_of_a_storage_are_final(status: int) -> None:
    with scripted_server([answer(status)]) as storage:
        with scripted_server([moved(f"{storage.url}/1")]) as registry:
            with pytest.raises(
                (RegistryError, NotFoundError), match=f"GET {storage.url}/1: registry responded with status {status}"
            ):
                fetched(registry)


def test_a_storage_url_that_was_asked_for_itself_is_not_asked_for_again() -> None:
    """Who holds it knows whom to ask for another."""
    with scripted_server([answer(403)]) as storage, client_of("http://127.0.0.1:9") as client:
        with pytest.raises(DeniedError):
            send(client, "GET", f"{storage.url}/1?X-Signature=secret", ok={200}, flow=WorkerFlow(), anonymous=True)
