"""Tokens and passwords on an injected clock: who is asked, how often, and who sees what."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from tests.unit.transport.rig import HELLO, LIMIT, client_of, everything, send
from transferkit.errors import CancelledError, ProtocolError, TransportTimeout, UnauthorizedError
from transferkit.options import RetryOptions, TransportOptions
from transferkit.protocol.challenge import AuthChallenge
from transferkit.testing import Pause, answer, scripted_server
from transferkit.testing.scripted import RawRequest, ScriptedServer
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.client import Client
from transferkit.transport.hosts import Hosts

SCOPE = "repository:library/model:pull"
USER = ("user", "pass:word")
BASIC = "Basic dXNlcjpwYXNzOndvcmQ="


class Guard:
    """A registry that wants tokens, and its token service; tokens are numbered. ``valid`` says which one it takes."""

    def __init__(self, *, lifetime: float = 60.0, realm: str = "/token", scheme: str = "Bearer") -> None:
        self.lifetime = lifetime
        self.realm = realm
        self.scheme = scheme
        self.valid = 0
        self.asked: list[RawRequest] = []
        self.refused = 0
        self.now = 1000.0
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, request: RawRequest) -> bytes:
        if request.target.startswith("/token"):
            self.asked.append(request)
            assert self.gate.wait(LIMIT)
            self.valid = len(self.asked)
            return answer(200, json.dumps({"token": f"t{self.valid}", "expires_in": self.lifetime}).encode())
        if request.headers.get("authorization") in (f"Bearer t{self.valid}", BASIC if self.scheme == "Basic" else ""):
            return HELLO
        self.refused += 1
        return answer(401, b"{}", {"WWW-Authenticate": f'{self.scheme} realm="{self.realm}",service="s"'})

    def clock(self) -> float:
        return self.now


@contextmanager
def guarded(guard: Guard, **keywords: Any) -> Iterator[tuple[Client, ScriptedServer]]:
    with scripted_server(guard) as server, Hosts(clock=guard.clock, **keywords) as hosts:
        yield Client(server.url, hosts), server


def get(client: Client, scope: str = SCOPE, flow: WorkerFlow | None = None) -> bytes:
    with send(client, "GET", "/x", ok={200}, scope=scope, flow=flow or WorkerFlow()) as found:
        return everything(found)


# -- one token a scope


def test_the_first_request_shows_whether_a_token_is_wanted() -> None:
    guard = Guard()
    with guarded(guard) as (client, server):
        assert [b"hello"] * 3 == [get(client) for _ in range(3)]
        assert [None, None, "Bearer t1", "Bearer t1", "Bearer t1"] == [
            request.headers.get("authorization") for request in server.requests
        ]
        assert ["/token?service=s&scope=repository%3Alibrary%2Fmodel%3Apull"] == [each.target for each in guard.asked]


def test_each_scope_has_its_token() -> None:
    guard = Guard()
    with guarded(guard) as (client, _):
        get(client)
        guard.valid = -1  # a token is good for its own scope
        get(client, "repository:library/other:pull")
        assert 2 == len(guard.asked)


def test_one_thread_asks_while_the_others_wait() -> None:
    guard = Guard()
    guard.gate.clear()
    with guarded(guard) as (client, _), ThreadPoolExecutor(8, thread_name_prefix="transferkit-test") as pool:
        waiting = [pool.submit(get, client) for _ in range(8)]
        timer = threading.Timer(0.1, guard.gate.set)
        timer.start()
        assert [b"hello"] * 8 == [each.result(LIMIT) for each in waiting]
        assert 1 == len(guard.asked)
        timer.join()


def test_a_silent_token_service_costs_all_threads_one_time_limit() -> None:
    asked = []

    def silent(request: RawRequest) -> Any:
        if not request.target.startswith("/token"):
            return answer(401, headers={"WWW-Authenticate": 'Bearer realm="/token"'})
        asked.append(request)
        return [Pause()]

    with scripted_server(silent) as server, client_of(server, response_timeout=0.5) as client:
        with ThreadPoolExecutor(4, thread_name_prefix="transferkit-test") as pool:
            waiting = [pool.submit(get, client) for _ in range(4)]
            for each in waiting:
                with pytest.raises(TransportTimeout):
                    each.result(LIMIT)
    assert 1 == len(asked)


def test_a_cancel_wakes_who_waits_for_the_token_of_another() -> None:
    guard = Guard()
    guard.gate.clear()
    with guarded(guard) as (client, _), ThreadPoolExecutor(2, thread_name_prefix="transferkit-test") as pool:
        flow, first = WorkerFlow(), pool.submit(get, client)
        while not guard.asked:
            flow.wait(0.005)
        second = pool.submit(get, client, SCOPE, flow)
        flow.cut(CancelledError("now"), final=True)
        with pytest.raises(CancelledError, match="now"):
            second.result(LIMIT)
        guard.gate.set()
        assert b"hello" == first.result(LIMIT)


# -- renewal


def test_a_token_is_renewed_when_three_quarters_of_its_life_are_over() -> None:
    guard = Guard(lifetime=100.0)
    with guarded(guard) as (client, _):
        get(client)
        guard.now += 74.0
        get(client)
        assert 1 == len(guard.asked)
        guard.now += 1.0
        get(client)
        assert [2, 1] == [len(guard.asked), guard.refused]  # nothing was sent with the old one


def test_a_token_that_is_refused_early_is_renewed_once() -> None:
    guard = Guard()
    with guarded(guard) as (client, _):
        get(client)
        guard.valid = -1  # revoked
        assert b"hello" == get(client)
        assert [2, 2] == [len(guard.asked), guard.refused]


def test_a_token_service_whose_token_is_refused_is_not_asked_for_ever() -> None:
    def step(request: RawRequest) -> bytes:
        if request.target.startswith("/token"):
            return answer(200, b'{"token": "same"}')
        return answer(401, headers={"WWW-Authenticate": 'Bearer realm="/token"'})

    with scripted_server(step) as server, client_of(server) as client:
        with pytest.raises(UnauthorizedError, match="responded with status 401"):
            get(client)
        assert ["/x", "/token", "/x", "/token", "/x"] == [each.target.partition("?")[0] for each in server.requests]


# -- credentials


def test_credentials_are_asked_for_the_host_and_the_repository() -> None:
    asked: list[tuple[str, str]] = []

    class Vault:
        def for_(self, host: str, repository: str) -> tuple[str, str]:
            asked.append((host, repository))
            return USER

    with guarded(Guard(), auth=Vault()) as (client, server):
        scopes = [SCOPE, "repository:a/b:pull,push repository:library/model:pull", "registry:catalog:*", ""]
        for scope in scopes:
            get(client, scope)
        authority = f"127.0.0.1:{server.port}"
        assert [(authority, "library/model"), (authority, "a/b"), (authority, ""), (authority, "")] == asked


@pytest.mark.parametrize("auth", [USER, lambda host: USER])
def test_a_pair_or_a_function_goes_to_the_token_service_of_the_registrys_host(auth: Any) -> None:
    guard = Guard()
    with guarded(guard, auth=auth) as (client, server):
        assert b"hello" == get(client)
        assert [BASIC] == [each.headers.get("authorization") for each in guard.asked]
        assert [None, "Bearer t1"] == [
            each.headers.get("authorization") for each in server.requests if not each.target.startswith("/token")
        ]


def test_basic_is_sent_where_the_registry_asks_for_it() -> None:
    guard = Guard(scheme="Basic")
    with guarded(guard, auth=USER) as (client, server):
        assert [b"hello"] * 2 == [get(client), get(client)]
        assert [None, BASIC, BASIC] == [each.headers.get("authorization") for each in server.requests]


def test_a_password_that_is_refused_is_sent_once() -> None:
    guard = Guard(scheme="Basic")
    with guarded(guard, auth=("user", "wrong")) as (client, server):
        with pytest.raises(UnauthorizedError):
            get(client)
        assert 2 == len(server.requests)


def test_a_pair_that_the_token_service_refused_is_not_offered_again_within_a_minute() -> None:
    """Accounts are locked for a wrong password that comes again and again; another pair is offered at once."""
    now, pairs, asked = [1000.0], [("user", "wrong")], []

    def registry(request: RawRequest) -> bytes:
        if request.target.startswith("/token"):
            asked.append(request.headers["authorization"])
            return answer(401, b"{}")
        return answer(401, b"{}", {"WWW-Authenticate": 'Bearer realm="/token",service="s"'})

    with scripted_server(registry) as server:
        with Hosts(auth=lambda host: pairs[0], clock=lambda: now[0]) as hosts:
            for later, pair in ((0.0, "wrong"), (59.0, "wrong"), (59.0, "other"), (2.0, "other"), (60.0, "other")):
                now[0] += later
                pairs[0] = ("user", pair)
                with pytest.raises(UnauthorizedError, match="token service"):
                    get(Client(server.url, hosts))

    wrong, other = "Basic dXNlcjp3cm9uZw==", "Basic dXNlcjpvdGhlcg=="
    assert [wrong, other, other] == asked


def test_a_foreign_token_service_sees_no_password_unless_it_is_allowed() -> None:
    service = Guard()
    service.valid = 1
    with scripted_server(service) as other:
        realm = other.url.replace("127.0.0.1", "localhost") + "/token"
        with guarded(Guard(realm=realm), auth=USER) as (client, _):
            with pytest.raises(UnauthorizedError):
                get(client)
            assert [None] * 2 == [each.headers.get("authorization") for each in service.asked]
        options = TransportOptions(token_realms=frozenset({f"localhost:{other.port}"}))
        with guarded(Guard(realm=realm), auth=USER, options=options) as (client, _):
            with pytest.raises(UnauthorizedError):
                get(client)
            assert [BASIC] * 2 == [each.headers.get("authorization") for each in service.asked[2:]]


def test_a_callback_gets_the_challenge_and_its_token_is_used() -> None:
    challenges: list[AuthChallenge] = []

    def get_token(challenge: AuthChallenge) -> str:
        challenges.append(challenge)
        return "t0"

    with guarded(Guard(), get_token=get_token) as (client, _):
        assert [b"hello"] * 2 == [get(client), get(client)]
    assert [("bearer", "/token", "s")] == [(each.scheme, each.realm, each.service) for each in challenges]


def test_a_fixed_token_is_sent_first_and_its_refusal_is_final() -> None:
    guard = Guard()
    guard.valid = 7
    with guarded(guard, token="t7") as (client, server):
        assert b"hello" == get(client)
        guard.valid = 8
        with pytest.raises(UnauthorizedError):
            get(client)
        assert ["Bearer t7"] * 2 == [each.headers.get("authorization") for each in server.requests]
        assert [] == guard.asked


# -- what is not believed


@pytest.mark.parametrize("challenge", ["", "Negotiate", 'Bearer realm=""', "Basic"])
def test_a_challenge_that_cannot_be_answered_is_final(challenge: str) -> None:
    with scripted_server([answer(401, headers={"WWW-Authenticate": challenge})] * 2) as server:
        with client_of(server) as client, pytest.raises(UnauthorizedError, match="pass auth=, token= or get_token="):
            get(client)
        assert 1 == len(server.requests)


@pytest.mark.parametrize(("status", "retryable"), [(400, False), (401, False), (429, True), (503, True)])
def test_a_token_service_that_refuses_is_an_error_that_names_it(status: int, retryable: bool) -> None:
    with scripted_server([answer(401, headers={"WWW-Authenticate": 'Bearer realm="/t"'}), answer(status)]) as server:
        with client_of(server) as client, pytest.raises(UnauthorizedError, match=f"/?answered {status}") as caught:
            get(client)
        assert retryable is caught.value.retryable


@pytest.mark.parametrize(
    ("status", "asked_for", "wait", "retryable"),
    [(429, "7", 7.0, True), (503, "20", 20.0, True), (429, "21", 21.0, False), (429, "soon", None, True)],
)
@pytest.mark.parametrize("auth", [None, USER])
def test_a_token_service_says_when_to_come_back(
    status: int, asked_for: str, wait: float | None, retryable: bool, auth: Any
) -> None:
    said = [
        answer(401, headers={"WWW-Authenticate": 'Bearer realm="/t"'}),
        answer(status, headers={"Retry-After": asked_for}),
    ]
    with scripted_server(said) as server, Hosts(auth=auth) as hosts:
        client = Client(server.url, hosts, retry=RetryOptions(max_retry_after=20.0))
        with pytest.raises(UnauthorizedError) as caught:
            get(client)
    assert (wait, retryable) == (caught.value.retry_after, caught.value.retryable)
    assert ("come back in 21 s" in str(caught.value)) is not retryable


@pytest.mark.parametrize("body", [b"x" * 65_537, b'{"token": "abc"}' + b" " * 65_536])
def test_an_endless_token_is_not_read(body: bytes) -> None:
    script = [answer(401, headers={"WWW-Authenticate": 'Bearer realm="/t"'}), answer(200, body)]
    with scripted_server(script) as server, client_of(server) as client, pytest.raises(ProtocolError, match="65536"):
        get(client)
