"""The pooled adapter on a session that is used by hand, and the pool that both lanes share."""

from __future__ import annotations

import pickle
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import trustme
from requests.adapters import HTTPAdapter
from urllib3.exceptions import InsecureRequestWarning
from urllib3.util import Retry

import transferkit as tk
from tests.unit.transport.rig import (
    HELLO,
    LIMIT,
    Serve,
    TLSServer,
    ask,
    client_of,
    connections,
    everything,
    raw_server,
    send,
    sockets,
    take_head,
    until,
)
from transferkit.errors import TransportTimeout
from transferkit.testing import Pause, answer, chunked, never, scripted_server
from transferkit.testing.scripted import RawRequest
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport import adapter as adapter_module
from transferkit.transport.framing import SizedResponse

GZIP = bytes.fromhex("1f8b0800000000000203cb48cdc9c9070086a6103605000000")  # of "hello"


@pytest.fixture(params=[HTTPAdapter, tk.PooledAdapter])
def either(request: pytest.FixtureRequest) -> Iterator[requests.Session]:
    """A session with requests' own adapter, and one with ours: by hand they are the same."""
    with requests.Session() as session:
        session.mount("https://", request.param())
        session.mount("http://", request.param())
        yield session


@pytest.fixture
def session() -> Iterator[requests.Session]:
    """A session of the user's with one pooled adapter."""
    with requests.Session() as session:
        adapter = tk.PooledAdapter()
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        yield session


# -- by hand it behaves as HTTPAdapter does


def test_what_is_asked_for_by_hand_comes(either: requests.Session, serve: Serve) -> None:
    script = [
        answer(200, b'{"a": 1}', {"Content-Type": "application/json"}),
        chunked(b"he", b"llo"),
        answer(200, GZIP, {"Content-Encoding": "gzip"}),
        answer(404, b"no"),
        answer(204),
    ]
    with serve(script) as server:
        assert {"a": 1} == either.get(server.url, params={"q": "x y"}).json()
        assert [b"he", b"llo"] == list(either.get(server.url, stream=True).iter_content(None))
        assert "hello" == either.get(server.url).text
        assert (404, "no") == ((refused := either.get(server.url)).status_code, refused.text)
        assert {} == either.head(server.url).headers
        assert "/?q=x+y" == server.requests[0].target
        assert [0] * 5 == connections(server)


def test_bodies_are_sent_by_hand(either: requests.Session, serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"x" * 100_000)
    with serve([answer(201)] * 4) as server:
        either.post(server.url, data=b"hello")
        either.put(server.url, json={"a": 1})
        with path.open("rb") as file:
            either.put(server.url, data=file)
        either.patch(server.url, data=iter([b"he", b"llo"]))
        assert [b"hello", b'{"a": 1}', b"x" * 100_000, b"hello"] == [request.body for request in server.requests]
        assert "chunked" == server.requests[3].headers["transfer-encoding"]


def test_redirects_are_followed_by_hand(either: requests.Session, serve: Serve) -> None:
    def step(request: RawRequest) -> bytes:
        return HELLO if request.target == "/there" else answer(302, b"moved", {"Location": "/there"})

    with serve(step) as server:
        response = either.post(f"{server.url}/here", data=b"x")
        assert (b"hello", [302]) == (response.content, [each.status_code for each in response.history])
        assert ["POST", "GET"] == [request.method for request in server.requests]
        assert [0, 0] == connections(server)


def test_what_fails_by_hand_is_an_error_of_requests(
    either: requests.Session, server_context: ssl.SSLContext, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(requests.ConnectionError):
        either.get(f"http://127.0.0.1:{port}")
    with scripted_server([[never()]]) as server, pytest.raises(requests.ReadTimeout):
        either.get(server.url, timeout=0.05)
    with TLSServer(server_context, [HELLO]) as server:
        with pytest.raises(requests.exceptions.SSLError):
            either.get(server.url)
        with pytest.raises(OSError, match="CA") as caught:
            either.get(server.url, verify=str(tmp_path / "missing.pem"))
        assert not isinstance(caught.value, tk.TransferKitError)
        with pytest.warns(InsecureRequestWarning):
            assert b"hello" == either.get(server.url, verify=False).content


def test_another_adapter_of_the_session_tries_again_and_ours_does_not(session: requests.Session) -> None:
    with scripted_server([answer(503), HELLO]) as one, scripted_server([answer(503), HELLO]) as other:
        session.mount(one.url, HTTPAdapter(max_retries=Retry(total=2, status_forcelist=[503], backoff_factor=0)))
        assert [200, 503] == [session.get(server.url).status_code for server in (one, other)]


# -- one pool


def test_both_lanes_use_the_same_connections(serve: Serve, trust: None, session: requests.Session) -> None:
    with serve([HELLO] * 4) as server, client_of(server, session=session) as client:
        assert b"hello" == session.get(server.url).content
        with send(client, "GET", "/x", ok={200}, flow=WorkerFlow()) as found:
            assert isinstance(found, SizedResponse)
            assert b"hello" == everything(found)
        assert b"hello" == session.get(server.url).content
        assert (200, b"hello") == ask(client)
        assert [0] * 4 == connections(server)


@pytest.mark.parametrize("limit", [None, LIMIT])
def test_a_limit_of_the_fast_lane_does_not_hold_by_hand(
    serve: Serve, trust: None, session: requests.Session, limit: float | None
) -> None:
    late = [Pause(0.3), HELLO]
    with serve([HELLO, late]) as server, client_of(server, session=session, response_timeout=0.1) as client:
        ask(client)
        assert b"hello" == session.get(server.url, timeout=limit).content
        assert [0, 0] == connections(server)


def test_a_limit_of_by_hand_does_not_hold_in_the_fast_lane(
    serve: Serve, trust: None, session: requests.Session
) -> None:
    with serve([HELLO, [Pause(0.3), HELLO]]) as server, client_of(server, session=session) as client:
        session.get(server.url, timeout=0.1)
        assert (200, b"hello") == ask(client)
        assert [0, 0] == connections(server)


def test_the_fast_lane_has_its_limit_again_after_a_request_by_hand(
    serve: Serve, trust: None, session: requests.Session
) -> None:
    with serve([HELLO, HELLO, [never()]]) as server, client_of(server, session=session, response_timeout=0.1) as client:
        ask(client)
        session.get(server.url, timeout=LIMIT)
        with pytest.raises(TransportTimeout):
            ask(client)
        assert [0, 0, 0] == connections(server)


def test_connections_that_the_fast_lane_has_seen_die_are_not_used_by_hand(
    serve: Serve, trust: None, session: requests.Session
) -> None:
    with serve([answer(200, b"a", {"Connection": "close"}), HELLO]) as server:
        with client_of(server, session=session) as client:
            ask(client)
            assert b"hello" == session.get(server.url).content
        assert [0, 1] == connections(server)


# -- idle connections


LISTENING = 3  # sockets of a server that has no connection


def test_a_registry_that_redirects_to_ever_other_hosts_leaves_few_connections(session: requests.Session) -> None:
    def step(request: RawRequest) -> bytes:
        host = request.target.removeprefix("/from/")
        return HELLO if host == request.target else answer(307, headers={"Location": f"http://{host}:{server.port}/b"})

    before = sockets() + LISTENING
    with scripted_server(step, host="0.0.0.0") as server:
        with client_of(f"http://127.0.0.1:{server.port}", session=session) as client:
            for number in range(2, 202):
                with send(client, "GET", f"/from/127.0.0.{number}", ok={200}, flow=WorkerFlow()) as found:
                    assert b"hello" == everything(found)
        assert until(lambda: sockets() - before <= 2 * 128)  # each has two ends
        session.close()
        assert until(lambda: sockets() == before)


def test_the_oldest_of_more_than_128_idle_connections_are_closed(session: requests.Session) -> None:
    before = sockets() + LISTENING
    with scripted_server(lambda _: HELLO, host="0.0.0.0") as server:
        for number in range(1, 4):
            with client_of(f"http://127.0.0.{number}:{server.port}", session=session) as client:
                several = [send(client, "GET", "/", ok={200}, flow=WorkerFlow()) for _ in range(60)]
                assert [b"hello"] * 60 == [everything(each) for each in several]
        assert until(lambda: sockets() - before == 2 * 128)
        session.get(f"http://127.0.0.1:{server.port}")
        assert 179 == max(connections(server))  # of the first host, too, some are left
        session.get(f"http://127.0.0.4:{server.port}")
        assert until(lambda: sockets() - before == 2 * 128)


@pytest.mark.parametrize("fast", [True, False])
def test_a_connection_that_is_idle_for_90_seconds_is_closed_while_others_are_used(
    session: requests.Session, monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    now = 1000.0
    monkeypatch.setattr("transferkit.transport.connections.time", SimpleNamespace(monotonic=lambda: now))
    ended = threading.Event()

    def talk(sock: socket.socket) -> None:
        take_head(sock)
        sock.sendall(HELLO)
        assert not sock.recv(1)
        ended.set()

    def get(url: str) -> None:
        if fast:
            with client_of(url, session=session) as client:
                assert (200, b"hello") == ask(client)
        else:
            assert b"hello" == session.get(url).content

    with raw_server(talk) as url, scripted_server([HELLO] * 2) as other:
        get(url)
        now += 89
        get(other.url)
        assert not ended.wait(0.05)
        now += 31
        get(other.url)
        assert ended.wait(LIMIT)
        assert [0, 0] == connections(other)


def test_an_origin_keeps_as_many_idle_connections_as_it_is_told() -> None:
    before = sockets()
    with scripted_server([HELLO] * 5) as server, requests.Session() as session:
        session.mount("http://", tk.PooledAdapter(connections=2))
        with client_of(server, session=session) as client:
            several = [send(client, "GET", "/", ok={200}, flow=WorkerFlow()) for _ in range(5)]
            for each in several:
                everything(each)
            assert until(lambda: sockets() - before == LISTENING + 2 * 2)


# -- certificates


def test_a_bundle_is_read_once_for_all_connections_of_both_lanes(
    server_context: ssl.SSLContext,
    authority: trustme.CA,
    tmp_path: Path,
    session: requests.Session,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # by hand they win over the session's own
        monkeypatch.delenv(name, raising=False)
    session.verify = str(tmp_path / "ca.pem")
    authority.cert_pem.write_to_path(session.verify)
    with TLSServer(server_context, [HELLO]) as one, TLSServer(server_context, [HELLO] * 2) as other:
        with client_of(one, session=session) as client:
            assert (200, b"hello") == ask(client)
        (tmp_path / "ca.pem").unlink()
        with client_of(other, session=session) as client:
            assert (200, b"hello") == ask(client)
            assert b"hello" == session.get(other.url).content


def test_threads_that_begin_together_make_one_context(
    server_context: ssl.SSLContext, trust: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ssl.SSLContext] = []
    make = adapter_module.create_urllib3_context

    def counting(**settings: Any) -> ssl.SSLContext:
        time.sleep(0.05)  # as long as it takes to read a large bundle, so that the others come meanwhile
        made.append(make(**settings))
        return made[-1]

    monkeypatch.setattr(adapter_module, "create_urllib3_context", counting)
    with TLSServer(server_context, [HELLO] * 8) as server, client_of(server) as client:
        with ThreadPoolExecutor(8, thread_name_prefix="transferkit-test") as pool:
            assert [(200, b"hello")] * 8 == list(pool.map(lambda _: ask(client), range(8)))
    assert 1 == len(made)


# -- its life


@pytest.mark.parametrize("in_flight", [False, True])
def test_an_adapter_that_is_closed_leaves_no_socket_and_can_be_used_again(in_flight: bool) -> None:
    before = sockets()
    with scripted_server([HELLO] * 3) as server, requests.Session() as session:
        session.mount("http://", tk.PooledAdapter())
        with client_of(server, session=session) as client:
            found = send(client, "GET", "/", ok={200}, flow=WorkerFlow())
            if in_flight:
                session.close()
            assert b"hello" == everything(found)
            session.close()
            assert until(lambda: sockets() - before == LISTENING)
            assert (200, b"hello") == ask(client)
        assert b"hello" == session.get(server.url).content
        session.close()
        assert until(lambda: sockets() - before == LISTENING)


def test_a_session_with_the_adapter_can_be_pickled(serve: Serve, trust: None) -> None:
    with serve([HELLO] * 2) as server, requests.Session() as first:
        first.mount(server.url, tk.PooledAdapter(connections=7))
        with pickle.loads(pickle.dumps(first)) as session:
            assert b"hello" == session.get(server.url).content
            with client_of(server, session=session) as client:
                assert (200, b"hello") == ask(client)
            assert [0, 0] == connections(server)
            assert 7 == session.get_adapter(server.url)._pool_maxsize
