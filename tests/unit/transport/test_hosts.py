"""What is known of a host belongs to the process, and every client of the same ``Hosts`` knows it."""

from __future__ import annotations

import requests

from tests.unit.transport.rig import HELLO, ask, connections, send, sockets, until
from transferkit.options import TransportOptions
from transferkit.protocol.origin import Origin
from transferkit.testing import answer, scripted_server
from transferkit.testing.scripted import RawRequest
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.adapter import PooledAdapter
from transferkit.transport.client import Client
from transferkit.transport.hosts import Hosts


def test_clients_of_one_registry_share_what_was_found_out() -> None:
    with Hosts() as hosts:
        one, same, other = (Client(f"https://{name}", hosts) for name in ("a.example", "a.example:443", "b.example"))
        assert one.host.has_chunksums is None
        one.host.has_chunksums = False
        assert [False, False, None] == [client.host.has_chunksums for client in (one, same, other)]


def test_clients_share_tokens_and_connections() -> None:
    def step(request: RawRequest) -> bytes:
        if request.target.startswith("/token"):
            return answer(200, b'{"token": "abc"}')
        if request.headers.get("authorization") == "Bearer abc":
            return HELLO
        return answer(401, headers={"WWW-Authenticate": 'Bearer realm="/token"'})

    with scripted_server(step) as server, Hosts() as hosts:
        for _ in range(2):
            with send(Client(server.url, hosts), "GET", "/x", ok={200}, scope="s", flow=WorkerFlow()) as found:
                assert b"hello" == found.read(5)
        assert ["/x", "/token?scope=s", "/x", "/x"] == [request.target for request in server.requests]
        assert [0, 0, 0, 0] == connections(server)


def test_what_every_request_says_comes_from_the_options() -> None:
    with Hosts(options=TransportOptions(user_agent="me/1")) as hosts:
        assert {"User-Agent": "me/1", "Accept": "*/*", "Accept-Encoding": "identity"} == hosts.at(
            Origin.of("http://a.example")
        ).exchange.headers


def test_a_session_of_its_own_is_closed_and_one_of_the_users_stays_open() -> None:
    before = sockets() + 3  # the server's own
    with scripted_server([HELLO] * 3) as server, requests.Session() as session:
        with Hosts() as hosts:
            assert (200, b"hello") == ask(Client(server.url, hosts))
        assert until(lambda: sockets() == before)
        session.mount("http://", PooledAdapter())
        with Hosts(session) as hosts:
            assert (200, b"hello") == ask(Client(server.url, hosts))
        assert b"hello" == session.get(server.url).content
        assert [0, 1, 1] == connections(server)


def test_a_host_is_one_for_each_origin_and_tells_no_secret() -> None:
    with Hosts(auth=("user", "secret"), token="secret") as hosts:
        host = hosts.at(Origin.of("https://registry.example:443/x"))
        assert "secret" not in repr(host)
        assert host is hosts.at(Origin("https", "registry.example", 443))
