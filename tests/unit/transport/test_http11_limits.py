"""The fast lane: time limits, and what wakes whoever is blocked."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from tests.unit.transport.rig import (
    ANY,
    BIG,
    CHUNKED,
    HELLO,
    LIMIT,
    Serve,
    Zeroed,
    ask,
    both_kinds,
    client_of,
    connections,
    everything,
    send,
)
from transferkit.errors import NotFoundError, StalledError, TransportTimeout
from transferkit.testing import Pause, informational, never, truncated
from transferkit.transfer.flow import WorkerFlow


@pytest.mark.parametrize(
    "said",
    [
        [never()],
        [b"HTTP/1.1 200 OK\r\n", never()],
        [informational(100), never()],
        [truncated(b"", 5)[0], never()],
        [truncated(b"hel", 5)[0], never()],
        [CHUNKED + b"5\r\nhel", never()],
        [b"HTTP/1.1 200 OK\r\n\r\nhel", never()],
    ],
)
def test_silence_has_a_limit(serve: Serve, said: list[Any]) -> None:
    with serve([said]) as server, client_of(server, response_timeout=0.1) as client:
        began = time.monotonic()
        with pytest.raises(TransportTimeout, match="did not answer in time"):
            ask(client)
        assert 0.09 <= time.monotonic() - began < 5


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    "said",
    [
        [byte for char in b"HTTP/1.1 200 OK" for byte in (bytes([char]), Pause(0.05))],
        [b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n", Pause(0.05)] * 20],
        [*[informational(102), Pause(0.05)] * 20],
    ],
)
def test_a_head_that_comes_bit_by_bit_has_a_limit(serve: Serve, said: list[Any], fast: bool) -> None:
    with serve([said]) as server, client_of(server, response_timeout=0.2, fast=fast) as client:
        with pytest.raises(TransportTimeout):
            ask(client)


@pytest.mark.parametrize("fast", [True, False])
def test_a_refusal_that_comes_bit_by_bit_has_a_limit_too(serve: Serve, fast: bool) -> None:
    said = [truncated(b"", 1000, status=404)[0], *[b"x", Pause(0.05)] * 100]
    with serve([said]) as server, client_of(server, response_timeout=0.2, fast=fast) as client:
        began = time.monotonic()
        with pytest.raises(NotFoundError):
            send(client, "GET", "/x", ok={200}, flow=WorkerFlow())
        assert time.monotonic() - began < 4


@both_kinds
def test_a_peer_that_takes_nothing_has_a_limit(serve: Serve, body: Zeroed) -> None:
    with serve([[never()]], read_body=False) as server, client_of(server, response_timeout=0.1) as client:
        flow = WorkerFlow()
        with pytest.raises(TransportTimeout, match="did not answer in time"):
            ask(client, "PUT", flow=flow, body=body(BIG, flow))


def test_each_request_has_its_own_limit(serve: Serve) -> None:
    with serve([HELLO, [never()], [Pause(0.3), HELLO]]) as server, client_of(server) as client:
        ask(client)
        began = time.monotonic()
        with pytest.raises(TransportTimeout):
            ask(client, timeout=0.1)
        assert time.monotonic() - began < LIMIT / 2
        assert (200, b"hello") == ask(client)


@pytest.mark.parametrize(
    "said",
    [[never()], [b"HTTP/1.1 200 OK\r\n", never()], [truncated(b"hel", 5)[0], never()], [CHUNKED + b"5\r\nh", never()]],
)
def test_a_cut_wakes_whoever_is_blocked_and_is_what_he_hears(serve: Serve, said: list[Any]) -> None:
    with serve([said, HELLO]) as server, client_of(server) as client:
        flow = WorkerFlow()
        timer = threading.Timer(0.05, lambda: flow.cut(StalledError("cut"), final=False))
        timer.start()
        with pytest.raises(StalledError, match="cut"):
            ask(client, flow=flow)
        timer.join()
        flow.next_attempt()
        assert (200, b"hello") == ask(client, flow=flow)
        assert [0, 1] == connections(server)


def test_a_flow_that_was_cut_sends_nothing(serve: Serve) -> None:
    with serve([HELLO]) as server, client_of(server) as client:
        flow = WorkerFlow()
        flow.cut(StalledError("cut"), final=True)
        with pytest.raises(StalledError, match="cut"):
            ask(client, flow=flow)
        assert [] == server.requests


def test_a_cut_after_the_end_does_not_touch_the_next_user_of_the_connection(serve: Serve) -> None:
    with serve([HELLO, [HELLO[:-2], Pause(0.05), HELLO[-2:]]]) as server, client_of(server) as client:
        first = WorkerFlow()
        ask(client, flow=first)
        with send(client, "GET", "/", ok=ANY, flow=WorkerFlow()) as second:
            first.cut(StalledError("cut"), final=True)
            assert b"hello" == everything(second)
        assert [0, 0] == connections(server)
