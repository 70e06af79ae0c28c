"""The pooled adapter on a session that is used by hand, and the pool that both lanes share."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
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
    send,
)
from transferkit.errors import TransportTimeout
from transferkit.testing import Pause, answer, chunked, never, scripted_server
from transferkit.testing.scripted import RawRequest
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport import adapter as adapter_module
from transferkit.transport.response import StreamResponse

GZIP = bytes.fromhex("1f8b0800000000000203cb48cdc9c9070086a6103605000000")  # of "hello"


@pytest.fixture(params=[HTTPAdapter, tk.PooledAdapter])
def either(request: pytest.FixtureRequest) -> Iterator[requests.Session]:
    """A session with requests' own adapter, and one with ours: by hand they are the same."""
    with requests.Session() as session:
        session.mount("https://", request.param())
        session.mount("http://", request.param())
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
    with socket.socket() as bound, pytest.raises(requests.ConnectionError):  # bound: nobody else listens there
        bound.bind(("127.0.0.1", 0))
        either.get(f"http://127.0.0.1:{bound.getsockname()[1]}")
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
            assert isinstance(found, StreamResponse)
            assert b"hello" == everything(found)
        assert b"hello" == session.get(server.url).content
        assert (200, b"hello") == ask(client)
        assert [0] * 4 == connections(server)


@pytest.mark.parametrize("limit", [None, LIMIT])
def test_a_limit_of_the_fast_lane_does_not_hold_by_hand(
    serve: Serve, trust: None, session: requests.Session, limit: float | None
) -> None:
    late = [Pause(1.0), HELLO]
    with serve([HELLO, late]) as server, client_of(server, session=session, response_timeout=0.5) as client:
        ask(client)
        assert b"hello" == session.get(server.url, timeout=limit).content
        assert [0, 0] == connections(server)


def test_a_limit_of_by_hand_does_not_hold_in_the_fast_lane(
    serve: Serve, trust: None, session: requests.Session
) -> None:
    with serve([HELLO, [Pause(1.0), HELLO]]) as server, client_of(server, session=session) as client:
        session.get(server.url, timeout=0.5)
        assert (200, b"hello") == ask(client)
        assert [0, 0] == connections(server)


def test_the_fast_lane_has_its_limit_again_after_a_request_by_hand(
    serve: Serve, trust: None, session: requests.Session
) -> None:
    with serve([HELLO, HELLO, [never()]]) as server, client_of(server, session=session, response_timeout=0.5) as client:
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
