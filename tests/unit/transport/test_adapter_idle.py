"""The idle connections of the pooled adapter: how many there are, for how long, and that none is left at the end."""

from __future__ import annotations

import os
import pickle
import socket
import threading
from types import SimpleNamespace

import pytest
import requests

import transferkit as tk
from tests.unit.transport.rig import (
    HELLO,
    LIMIT,
    Serve,
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
from transferkit.testing import answer, scripted_server
from transferkit.testing.scripted import RawRequest
from transferkit.transfer.flow import WorkerFlow

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
    for module in ("connections", "idle"):
        monkeypatch.setattr(f"transferkit.transport.{module}.time", SimpleNamespace(monotonic=lambda: now))
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


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_has_connections_of_its_own_and_leaves_those_of_its_parent_alone(serve: Serve) -> None:
    with serve([HELLO] * 4) as server, client_of(server) as client:
        ask(client)
        child = os.fork()
        if not child:
            status = 1
            try:
                asked = [ask(client), ask(client, "POST")]
                status = int(asked != [(200, b"hello")] * 2)
            finally:
                os._exit(status)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert (200, b"hello") == ask(client)
        assert [0, 1, 1, 0] == connections(server)
