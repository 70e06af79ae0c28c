"""A registry that leads to another one, and errors that say whose credentials were refused, and where."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from tests.unit.transport.rig import HELLO, client_of, everything, send
from transferkit.errors import ProtocolError, UnauthorizedError
from transferkit.testing import RawRequest, answer, scripted_server
from transferkit.testing.scripted import ScriptedServer
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.client import Client
from transferkit.transport.hosts import Hosts

SCOPE = "repository:library/model:pull"
ABROAD = "repository:other/model:pull"


def get(client: Client, url: str = "/x", **keywords: Any) -> bytes:
    with send(client, "GET", url, ok={200}, scope=SCOPE, flow=WorkerFlow(), **keywords) as found:
        return everything(found)


@contextmanager
def leading(service: bytes | None = None, **keywords: Any) -> Iterator[tuple[Client, ScriptedServer, ScriptedServer]]:
    """A registry that leads to another one, as lscr.io does to ghcr.io, which wants an anonymous token."""

    def second(request: RawRequest) -> bytes:
        if request.target.startswith("/token"):
            return service or answer(200, b'{"token": "abroad"}')
        if request.headers.get("authorization") == "Bearer abroad":
            return HELLO
        challenge = f'Bearer realm="{abroad.url}/token",service="second",scope="{ABROAD}"'
        return answer(401, b"{}", {"WWW-Authenticate": challenge})

    with scripted_server(second) as abroad:
        lead = answer(307, b"", {"Location": f"{abroad.url}/v2/other/model/blobs/1"})
        with scripted_server(lambda _: lead) as first, Hosts(**keywords) as hosts:
            yield Client(first.url, hosts), first, abroad


@pytest.mark.parametrize("keywords", [{}, {"auth": ("alice", "secret")}, {"token": "mine"}], ids=repr)
def test_a_registry_abroad_is_asked_for_a_token_that_anybody_gets(keywords: dict[str, Any]) -> None:
    """go-containerregistry#2333: one dance, and nothing of the user's goes there."""
    with requests.Session() as session:
        session.headers["X-Key"] = "mine"
        session.auth = ("bob", "hidden")
        with leading(session=session, **keywords) as (client, _, abroad):
            assert [b"hello"] * 3 == [get(client) for _ in range(3)]
            asked = [(r.target.partition("?")[0], r.headers.get("authorization")) for r in abroad.requests]
            blob = "/v2/other/model/blobs/1"
            assert asked == [(blob, None), ("/token", None), *3 * [(blob, "Bearer abroad")]]
            assert "scope=repository%3Aother%2Fmodel%3Apull" in abroad.requests[1].target
            assert "library" not in abroad.requests[1].target
            assert not any("x-key" in request.headers for request in abroad.requests)
            # A part that is asked for at the place that was found.
            assert b"hello" == get(client, f"{abroad.url}{blob}")


@pytest.mark.parametrize("service", [answer(401), answer(403)])
def test_where_that_fails_the_error_names_the_second_host_and_why_nothing_was_sent(service: bytes) -> None:
    with (
        leading(service, auth=("alice", "secret")) as (client, first, abroad),
        pytest.raises(UnauthorizedError) as caught,
    ):
        get(client)
    host = first.url.removeprefix("http://")
    assert abroad.url in str(caught.value)
    assert f"{host} leads there, and credentials for it are not sent to another host" in str(caught.value)
    assert "pass auth=" not in str(caught.value)
    assert not any("authorization" in request.headers for request in abroad.requests)


def test_a_storage_that_wants_credentials_is_told_in_the_same_way() -> None:
    challenge = {"WWW-Authenticate": "Basic realm=x"}
    with scripted_server(lambda _: answer(401, b"", challenge)) as storage:
        lead = answer(307, b"", {"Location": f"{storage.url}/blob"})
        with scripted_server(lambda _: lead) as server, client_of(server) as client:
            with pytest.raises(UnauthorizedError, match="leads there, and credentials for it are not sent"):
                get(client)


def test_what_is_sent_is_never_begun_again_abroad() -> None:
    with leading() as (client, _, abroad):
        with pytest.raises(UnauthorizedError):
            send(client, "PUT", "/x", ok={201}, scope=SCOPE, flow=WorkerFlow())
        assert not [request for request in abroad.requests if request.target.startswith("/token")]


# -- whose credentials were refused


@pytest.mark.parametrize(
    ("keywords", "scheme", "text"),
    [
        ({}, "Basic", "check the name, log in"),
        ({"auth": ("alice", "wrong")}, "Basic", "it refused the user name and password of auth="),
        ({"auth": lambda host: ("alice", "wrong")}, "Basic", "it refused the user name and password of auth="),
        ({"token": "wrong"}, "Bearer", "it refused the token of token="),
        ({"get_token": lambda challenge: "wrong"}, "Bearer", "it refused the token that get_token= brought"),
        ({}, "Bearer", "a token for anybody is not enough; check the name, log in"),
        ({"auth": ("a", "b")}, "Bearer", "it refused the token that the user name and password of auth= brought"),
        ({"session": ("auth", ("alice", "wrong"))}, "Basic", "it refused the credentials of the session"),
        (
            {"session": ("headers", {"Authorization": "Bearer wrong"})},
            "Basic",
            "it refused the credentials of the session",
        ),
    ],
)
def test_a_401_says_whose_credentials_were_refused(keywords: dict[str, Any], scheme: str, text: str) -> None:
    def reply(request: RawRequest) -> bytes:
        if request.target.startswith("/token"):
            return answer(200, b'{"token": "issued"}')
        return answer(401, b"{}", {"WWW-Authenticate": f'{scheme} realm="{server.url}/token",service="s"'})

    with requests.Session() as session:
        if "session" in keywords:
            name, value = keywords["session"]
            setattr(session, name, value)
            keywords = {"session": session}
        with scripted_server(reply) as server, Hosts(**keywords) as hosts:
            with pytest.raises(UnauthorizedError) as caught:
                get(Client(server.url, hosts))
    assert str(caught.value).endswith(text) or f"; {text}" in str(caught.value)
    assert "wrong" not in str(caught.value)


def test_a_token_service_that_refuses_a_password_says_so() -> None:
    script = [answer(401, headers={"WWW-Authenticate": 'Bearer realm="/t"'}), answer(401)]
    with scripted_server(script) as server, Hosts(auth=("alice", "wrong")) as hosts:
        with pytest.raises(UnauthorizedError, match="it refused the user name and password of auth="):
            get(Client(server.url, hosts))


# -- which step was refused


@pytest.mark.parametrize("location", ["http://", "http:///x", "ftp://a/x"])
def test_a_url_that_may_not_be_followed_is_told_with_registry_and_step(location: str) -> None:
    replies = {"POST": answer(202, b"", {"Location": location}), "GET": answer(307, b"", {"Location": location})}
    with scripted_server(lambda request: replies[request.method]) as server, client_of(server) as client:
        begun = send(client, "POST", "/x", ok={202}, flow=WorkerFlow())
        with pytest.raises(ProtocolError) as caught:
            client.locate(begun, begun.headers["location"])
        assert str(caught.value).startswith(f"{server.url} says where an upload goes (Location): ")
        with pytest.raises(ProtocolError) as caught:
            get(client, subject="sha256:abc")
        assert str(caught.value).startswith(f"sha256:abc: {server.url} redirects it: ")
