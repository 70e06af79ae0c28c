"""The ordinary lane: sessions and adapters of the user's, and URLs that are not ASCII."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from tests.unit.transport.rig import (
    ANY,
    HELLO,
    MIB,
    Serve,
    ask,
    client_of,
    everything,
    send,
    zeros,
)
from transferkit.testing import answer, scripted_server
from transferkit.testing.scripted import RawRequest
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.adapter import PooledAdapter
from transferkit.transport.client import Client
from transferkit.transport.ordinary import SessionResponse
from transferkit.transport.response import Response, StreamResponse


def kind_of_answer(client: Client) -> tuple[type[Response], int, bytes]:
    with send(client, "GET", "/x", ok=ANY, flow=WorkerFlow()) as found:
        return type(found), found.status, everything(found)


def test_a_session_of_the_users_without_our_adapter_sends_itself(serve: Serve, trust: None) -> None:
    with serve([HELLO]) as server, requests.Session() as session, client_of(server, session=session) as client:
        assert (SessionResponse, 200, b"hello") == kind_of_answer(client)


def test_a_session_of_the_users_with_our_adapter_takes_the_fast_lane(serve: Serve, trust: None) -> None:
    with serve([HELLO]) as server, requests.Session() as session:
        session.mount(server.url, PooledAdapter())
        with client_of(server, session=session) as client:
            assert (StreamResponse, 200, b"hello") == kind_of_answer(client)


def test_an_adapter_of_the_users_sends_every_request(serve: Serve, trust: None) -> None:
    sent: list[str | None] = []

    class Adapter(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, *args: Any, **keywords: Any) -> requests.Response:
            sent.append(request.method)
            return super().send(request, *args, **keywords)

    with serve([HELLO, answer(201)]) as server, requests.Session() as session:
        session.mount(server.url, Adapter())
        with client_of(server, session=session) as client:
            assert (SessionResponse, 200, b"hello") == kind_of_answer(client)
            flow = WorkerFlow()
            assert (201, b"") == ask(client, "PUT", flow=flow, body=zeros(MIB, flow))
        assert MIB == len(server.requests[1].body)
    assert ["GET", "PUT"] == sent


def test_an_adapter_of_the_users_that_tries_again_sends_the_whole_body_again() -> None:
    retries = Retry(total=2, status_forcelist=[503], allowed_methods=None, backoff_factor=0)
    with scripted_server([answer(503), answer(201)]) as server, requests.Session() as session:
        session.mount(server.url, HTTPAdapter(max_retries=retries))
        with client_of(server, session=session) as client:
            flow = WorkerFlow()
            assert (201, b"") == ask(client, "PUT", flow=flow, body=zeros(MIB, flow))
            assert MIB == flow.counter.progress
        assert [MIB, MIB] == [len(request.body) for request in server.requests]


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/b\xf6b", "/b%F6b"),
        ("/b\xc3\xb6b", "/b%C3%B6b"),
        ("/a%C3%B6?b=\xe9&c", "/a%C3%B6?b=%E9&c"),
        ("http://127.0.0.1:{port}/\xc3\xbc", "/%C3%BC"),
    ],
)
def test_a_redirect_that_is_not_ascii_is_quoted_byte_for_byte(location: str, target: str, fast: bool) -> None:
    """UTF-8 or another encoding: the server that reads it made it."""

    def step(request: RawRequest) -> bytes:
        if request.target == "/x":
            return answer(307, headers={"Location": location.format(port=server.port)})
        return HELLO

    with scripted_server(step) as server, client_of(server, fast=fast) as client:
        with send(client, "GET", "/x", ok={200}, flow=WorkerFlow()) as found:
            assert b"hello" == everything(found)
        assert ["/x", target] == [request.target for request in server.requests]


@pytest.mark.parametrize("fast", [True, False])
def test_an_empty_request_says_that_it_is_empty(serve: Serve, fast: bool) -> None:
    """Some registries refuse a POST or a PUT without a length (411)."""
    with serve([answer(202)]) as server, client_of(server, fast=fast) as client:
        assert (202, b"") == ask(client, "POST", headers={"Content-Length": "0"})
        lengths = [text for name, text in server.requests[0].headers.items() if name.lower() == "content-length"]
        assert ["0"] == lengths
