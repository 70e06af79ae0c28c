"""What a session of the user's says holds in both lanes, and what is secret goes to the registry's own origin alone."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import requests
import trustme
from requests.auth import AuthBase, HTTPDigestAuth

from tests.unit.transport.rig import (
    HELLO,
    MIB,
    Seeing,
    TLSServer,
    ask,
    client_of,
    connections,
    everything,
    send,
    sockets,
    until,
    zeros,
)
from transferkit.errors import CertificateError, ProtocolError
from transferkit.testing import answer, chunked, scripted_server
from transferkit.testing.scripted import RawRequest, ScriptedServer
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.adapter import PooledAdapter
from transferkit.transport.response import Response, StreamResponse

BASIC = "Basic dXNlcjpwYXNzOndvcmQ="  # user, pass:word


@pytest.fixture(params=["fast lane", "ordinary lane", "foreign adapter"])
def session(request: pytest.FixtureRequest) -> Iterator[requests.Session]:
    """A session with our adapter; one that sees its requests besides; one with the adapter of requests."""
    with Seeing() if request.param == "ordinary lane" else requests.Session() as session:
        if request.param == "fast lane":
            session.mount("https://", PooledAdapter())
            session.mount("http://", PooledAdapter())
        yield session


def follow(session: requests.Session, server: ScriptedServer, path: str = "/here") -> tuple[type[Response], bytes]:
    """Ask a registry, and wherever it redirects."""
    with client_of(server, session=session) as client:
        with send(client, "GET", path, ok={200}, flow=WorkerFlow()) as found:
            return type(found), everything(found)


@contextmanager
def registry_and_storage(context: ssl.SSLContext | None = None) -> Iterator[tuple[ScriptedServer, ScriptedServer]]:
    """A registry, and a storage on another port that it redirects to."""
    with ExitStack() as stack:

        def start(*script: bytes) -> Any:
            return stack.enter_context(TLSServer(context, script) if context else scripted_server(script))

        storage = start(HELLO)
        yield start(answer(307, b"moved", {"Location": f"{storage.url}/blob"})), storage


def test_headers_go_to_the_registry_alone(session: requests.Session) -> None:
    session.headers.update({"X-Mine": "1", "User-Agent": "me/1", "Authorization": "Bearer abc"})
    with registry_and_storage() as (registry, storage):
        assert b"hello" == follow(session, registry)[1]
        names = ("x-mine", "user-agent", "authorization")
        assert ["1", "me/1", "Bearer abc"] == [registry.requests[0].headers.get(name) for name in names]
        sent = storage.requests[0].headers
        assert [None, None] == [sent.get(name) for name in ("x-mine", "authorization")]
        assert "me/1" != sent["user-agent"]


def test_a_host_of_the_session_takes_the_place_of_the_origins(session: requests.Session) -> None:
    session.headers["host"] = "virtual.example"
    with registry_and_storage() as (registry, storage):
        assert b"hello" == follow(session, registry)[1]
        own = storage.url.partition("//")[2]
        assert ["virtual.example", own] == [each.requests[0].headers["host"] for each in (registry, storage)]


def test_an_auth_that_names_the_host_does_not_name_it_twice(session: requests.Session) -> None:
    def sign(request: Any) -> Any:
        request.headers["Host"] = request.url.split("/")[2]
        return request

    session.auth = sign
    with scripted_server([HELLO]) as server:
        assert b"hello" == follow(session, server)[1]
        assert server.url.partition("//")[2] == server.requests[0].headers["host"]


def test_what_frames_a_request_and_what_a_proxy_hears_is_not_the_sessions_to_say(session: requests.Session) -> None:
    session.headers.update({"content-Length": "7", "Transfer-encoding": "chunked", "Proxy-Authorization": "Basic eA=="})
    with scripted_server([HELLO, HELLO]) as server, client_of(server, session=session) as client:
        flow = WorkerFlow()
        assert [(200, b"hello")] * 2 == [ask(client), ask(client, "PUT", flow=flow, body=zeros(3, flow))]
        names = ("content-length", "transfer-encoding", "proxy-authorization")
        told = [[each.headers.get(name) for name in names] for each in server.requests]
        assert [[None, None, None], ["3", None, None]] == told
    with scripted_server([HELLO]) as proxy:
        session.proxies["http://registry.example"] = proxy.url.replace("//", "//user:password@")
        with client_of("http://registry.example", session=session) as client:
            assert (200, b"hello") == ask(client)
        assert 1 == proxy.requests[0].headers["proxy-authorization"].count("Basic")


def test_a_pair_goes_to_the_registry_alone(session: requests.Session) -> None:
    session.auth = ("user", "pass:word")
    with registry_and_storage() as (registry, storage):
        assert b"hello" == follow(session, registry)[1]
        assert [BASIC, None] == [each.requests[0].headers.get("authorization") for each in (registry, storage)]


def test_cookies_go_to_the_registry_alone_and_where_their_path_says(session: requests.Session) -> None:
    session.cookies.set("a", "1")
    session.cookies.set("b", "2", path="/elsewhere")
    with registry_and_storage() as (registry, storage):
        assert b"hello" == follow(session, registry)[1]
        assert ["a=1", None] == [each.requests[0].headers.get("cookie") for each in (registry, storage)]


class Signature(AuthBase):
    """An ``auth`` that signs each request."""

    def __call__(self, request: Any) -> Any:
        request.headers["X-Signature"] = hashlib.sha256(f"{request.method} {request.url}".encode()).hexdigest()[:8]
        return request


def test_an_auth_that_is_no_pair_sees_each_request_to_the_registry(session: requests.Session) -> None:
    session.auth = Signature()
    with registry_and_storage() as (registry, storage):
        assert b"hello" == follow(session, registry)[1]
        expected = hashlib.sha256(f"GET {registry.url}/here".encode()).hexdigest()[:8]
        assert [expected, None] == [each.requests[0].headers.get("x-signature") for each in (registry, storage)]


def test_an_auth_may_answer_a_challenge_itself(session: requests.Session) -> None:
    """Digest asks a second time within ``Session.send``; the first response leaves no connection behind."""
    session.auth = HTTPDigestAuth("user", "password")

    def step(request: RawRequest) -> bytes:
        if request.headers.get("authorization", "").startswith('Digest username="user"'):
            return answer(201)
        return answer(401, b"who?", {"WWW-Authenticate": 'Digest realm="r", nonce="n", qop="auth"'})

    before = sockets()
    with scripted_server(step) as server, client_of(server, session=session) as client:
        flow = WorkerFlow()
        assert (201, b"") == ask(client, "PUT", flow=flow, body=zeros(MIB, flow))
        assert ["PUT", "PUT"] == [request.method for request in server.requests]
        assert MIB == len(server.requests[1].body)
        session.close()
        assert until(lambda: sockets() - before == 3)  # the server's own


@pytest.mark.parametrize("body", [answer(307, b"moved"), chunked(b"moved").replace(b"200 OK", b"307 Moved")])
def test_the_body_of_a_redirect_spoils_no_connection(session: requests.Session, body: bytes) -> None:
    """``Session.send`` would give a connection back whose response was not read."""
    moved = body.replace(b"\r\n", b"\r\nLocation: /there\r\n", 1)
    with scripted_server([moved, HELLO, HELLO]) as server, client_of(server, session=session) as client:
        with send(client, "GET", "/here", ok={200}, flow=WorkerFlow()) as found:
            assert b"hello" == everything(found)
        assert (200, b"hello") == ask(client)


def test_no_certificate_is_verified_where_the_session_says_so(
    session: requests.Session, server_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TLSServer(server_context, [HELLO]) as server:
        with pytest.raises(CertificateError):
            follow(session, server)
    session.verify = False
    with pytest.MonkeyPatch.context() as patch, registry_and_storage(server_context) as (registry, _):
        patch.setattr("warnings.warn", lambda *_, **__: None)  # of urllib3, below an adapter that is not ours
        assert b"hello" == follow(session, registry)[1]


def test_the_environment_does_not_count_where_the_session_says_so(
    session: requests.Session, server_context: ssl.SSLContext, trust: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    session.trust_env = False
    with scripted_server([HELLO]) as server:
        assert b"hello" == follow(session, server)[1]
    with TLSServer(server_context, [HELLO]) as server, pytest.raises(CertificateError):
        follow(session, server)


def test_a_proxy_of_the_session_is_used(session: requests.Session) -> None:
    with scripted_server([HELLO]) as proxy:
        session.proxies["http://registry.example"] = proxy.url
        with client_of("http://registry.example", session=session) as client:
            assert (200, b"hello") == ask(client)
        assert "http://registry.example/x" == proxy.requests[0].target


def test_a_client_certificate_goes_to_the_registry_alone(
    session: requests.Session, authority: trustme.CA, trust: None
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    with authority.issue_cert("me@example.org").private_key_and_cert_chain_pem.tempfile() as file:
        session.cert = file
        with registry_and_storage(context) as (registry, storage):
            assert b"hello" == follow(session, registry)[1]
            assert [["me@example.org"], [None]] == [registry.subjects, storage.subjects]  # type: ignore[attr-defined]


def test_a_client_certificate_that_cannot_be_read_is_named(trust: None) -> None:
    with requests.Session() as session, client_of("https://127.0.0.1:9", session=session) as client:
        session.mount("https://", PooledAdapter())
        session.cert = "/nowhere/me.pem"
        with pytest.raises(CertificateError, match=r"the client certificate /nowhere/me\.pem cannot be read: No such"):
            ask(client)


@pytest.mark.parametrize("ours", [True, False])
def test_an_adapter_for_a_part_of_the_registry_has_its_part(ours: bool) -> None:
    sent: list[str | None] = []

    class Adapter(PooledAdapter if ours else requests.adapters.HTTPAdapter):  # type: ignore[misc]  # one of two
        def send(self, request: requests.PreparedRequest, *args: Any, **keywords: Any) -> requests.Response:
            sent.append(request.path_url)
            return super().send(request, *args, **keywords)

    with scripted_server([HELLO] * 2) as server, requests.Session() as session:
        session.mount("http://", PooledAdapter())
        session.mount(f"{server.url}/part/", Adapter())
        with client_of(server, session=session) as client:
            assert (200, b"hello") == ask(client, path="/part/x")
            assert (200, b"hello") == ask(client, path="/x")
    assert ["/part/x"] == sent


def test_an_adapter_whose_send_is_replaced_sends_every_request() -> None:
    with scripted_server([HELLO] * 2) as server, requests.Session() as session:
        adapter: Any = PooledAdapter()
        session.mount("http://", adapter)
        assert StreamResponse is follow(session, server)[0]
        sent: list[Any] = []
        original = adapter.send

        def traced(request: Any, **keywords: Any) -> Any:
            sent.append(request.url)
            return original(request, **keywords)

        adapter.send = traced
        assert (StreamResponse, b"hello") == follow(session, server)
        assert [f"{server.url}/here"] == sent
        assert [0, 0] == connections(server)


def test_a_session_without_an_adapter_for_the_registry_is_an_error() -> None:
    with requests.Session() as session, client_of("http://registry.example", session=session) as client:
        session.adapters.clear()
        with pytest.raises(ProtocolError, match=r"No connection adapters were found for 'http://registry\.example/'"):
            ask(client)
