"""The fast lane: bodies that are sent, and responses that come before they are."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from tests.unit.transport.rig import (
    BIG,
    HELLO,
    LIMIT,
    MIB,
    Serve,
    Zeroed,
    Zeros,
    ask,
    both_kinds,
    client_of,
    connections,
    file_of_zeros,
    raw_server,
    send,
    take_head,
    zeros,
)
from transferkit.errors import ReadError, WriteError
from transferkit.testing import Reset, answer, informational, scripted_server
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.request import RequestBody


@both_kinds
@pytest.mark.parametrize("status", [401, 413, 500, 507])
def test_an_answer_may_come_before_the_body_is_sent(serve: Serve, status: int, body: Zeroed) -> None:
    with serve([answer(status, b"no"), HELLO], read_body=False) as server, client_of(server) as client:
        flow = WorkerFlow()
        assert (status, b"no") == ask(client, "PUT", flow=flow, body=body(BIG, flow))
        assert flow.watch.body == 0
        if serve is scripted_server:  # over TLS it is seen at the end only
            assert flow.counter.progress < BIG
        assert (200, b"hello") == ask(client)
        assert [0, 1] == connections(server)


@both_kinds
def test_a_connection_whose_request_was_broken_off_is_not_used_again(body: Zeroed) -> None:
    """The server waits for the rest of the body there: the next request would be taken for it."""
    heads: list[bytes] = []

    def talk(sock: socket.socket) -> None:
        heads.append(take_head(sock))
        sock.sendall(answer(401, b"no") if len(heads) == 1 else HELLO)
        while sock.recv(MIB):
            pass

    with raw_server(talk) as url, client_of(url) as client:
        flow = WorkerFlow()
        assert (401, b"no") == ask(client, "PUT", flow=flow, body=body(BIG, flow))
        assert (200, b"hello") == ask(client)
    assert [b"PUT", b"GET"] == [head.split()[0] for head in heads]


@both_kinds
@pytest.mark.parametrize("status", [401, 413])
def test_an_answer_before_a_hard_end_is_heard_or_the_connection_broke(serve: Serve, status: int, body: Zeroed) -> None:
    """The end overtakes the answer, or it does not: that is for TCP to say."""
    with serve([[answer(status, b"no"), Reset()], HELLO], read_body=False) as server, client_of(server) as client:
        flow = WorkerFlow()
        try:
            assert (status, b"no") == ask(client, "PUT", flow=flow, body=body(BIG, flow))
        except (ReadError, WriteError):
            pass
        assert (200, b"hello") == ask(client)
        assert [0, 1] == connections(server)


@both_kinds
def test_a_redirect_before_the_body_is_sent_gets_the_body_where_it_leads(serve: Serve, body: Zeroed) -> None:
    with serve([answer(201)]) as storage:
        redirect = answer(307, headers={"Location": f"{storage.url}/there"})
        with serve([redirect], read_body=False) as server, client_of(server) as client:
            flow = WorkerFlow()
            assert 201 == send(client, "PUT", "/here", ok={201}, flow=flow, body=body(BIG, flow)).status
            assert ("/there", BIG) == (storage.requests[0].target, len(storage.requests[0].body))
            assert BIG == flow.counter.progress


@both_kinds
@pytest.mark.parametrize("cut", [0, 8, 9, 20])
def test_an_interim_answer_does_not_end_the_body(body: Zeroed, cut: int) -> None:
    """Some servers send a 100 to who did not ask for one, and a 102 while they work; in pieces, too."""
    said = informational(100) + informational(102)
    bodies: list[int] = []

    def talk(sock: socket.socket) -> None:
        take_head(sock)
        sock.sendall(said[:cut])
        left = BIG
        while left:
            if left == BIG // 2:
                sock.sendall(said[cut:])
            left -= len(sock.recv(min(left, MIB), socket.MSG_WAITALL)) or left
        bodies.append(BIG - left)
        sock.sendall(answer(201))

    with raw_server(talk) as url, client_of(url) as client:
        flow = WorkerFlow()
        assert (201, b"") == ask(client, "PUT", flow=flow, body=body(BIG, flow))
    assert [BIG] == bodies
    assert BIG == flow.counter.progress


@pytest.mark.parametrize("cut", [0, 8, 25])
@pytest.mark.parametrize("later", [False, True])
def test_a_refusal_behind_an_interim_answer_is_heard_before_the_body_is_sent(cut: int, later: bool) -> None:
    """And not after the whole time limit, once there is no room for more of a body that nobody reads."""
    first, refusal = informational(100), answer(403, b"no")

    def talk(sock: socket.socket) -> None:
        take_head(sock)
        for piece in (first[:cut], first[cut:] + refusal) if later else (first + refusal,):
            sock.sendall(piece)
            time.sleep(0.05)
        ended.wait(LIMIT)

    ended = threading.Event()
    with raw_server(talk) as url, client_of(url) as client:
        flow = WorkerFlow()
        began = time.monotonic()
        assert (403, b"no") == ask(client, "PUT", flow=flow, body=file_of_zeros(BIG, flow))
        took = time.monotonic() - began
        ended.set()
    assert took < 5.0


def test_what_the_source_of_a_body_raises_is_raised_as_it_was(serve: Serve) -> None:
    class Broken(Zeros):
        def readinto(self, buffer: memoryview, /) -> int:
            raise OSError(5, "the disk is broken")

    with serve([HELLO, HELLO]) as server, client_of(server) as client:
        flow = WorkerFlow()
        with pytest.raises(OSError, match="the disk is broken"):
            ask(client, "PUT", flow=flow, body=RequestBody(5, lambda: Broken(5), flow))
        assert (200, b"hello") == ask(client)
        assert [0] == [request.number for request in server.requests if request.method == "GET"]


def test_a_source_that_ends_early_is_an_error(serve: Serve) -> None:
    with serve([HELLO]) as server, client_of(server) as client:
        flow = WorkerFlow()
        with pytest.raises(ReadError, match="2 bytes early"):
            ask(client, "PUT", flow=flow, body=RequestBody(5, lambda: Zeros(3), flow))


@pytest.mark.parametrize(("size", "together"), [(0, False), (1, True), (64 * 1024, True), (64 * 1024 + 1, False)])
def test_a_short_body_goes_together_with_its_head(monkeypatch: pytest.MonkeyPatch, size: int, together: bool) -> None:
    """One call, and as few packets as there can be: two of them wake a server twice."""
    sent: list[bytes] = []
    sendall = socket.socket.sendall

    def record(sock: socket.socket, data: bytes) -> None:
        sent.append(bytes(data))
        sendall(sock, data)

    monkeypatch.setattr(socket.socket, "sendall", record)
    with scripted_server([HELLO]) as server, client_of(server) as client:
        flow = WorkerFlow()
        assert (200, b"hello") == ask(client, "PUT", flow=flow, body=zeros(size, flow))
        assert flow.counter.progress == size
        assert [bytes(size)] == [request.body for request in server.requests]
    (first,) = (data for data in sent if data.startswith(b"PUT "))
    assert first.endswith(b"\r\n\r\n" + bytes(size if together else 0))


def test_a_short_body_in_pieces_is_watched_for_an_answer() -> None:
    """A limit on the bandwidth makes the pieces so small: the second one is not sent to who has said no."""
    answered = threading.Event()

    def talk(sock: socket.socket) -> None:
        take_head(sock)
        sock.sendall(answer(413, b"no"))
        answered.set()
        while sock.recv(MIB):
            pass

    with raw_server(talk) as url, client_of(url) as client:
        flow = WorkerFlow(buffer=4096)
        body = zeros(64 * 1024, flow)
        moved, pieces = flow.moved, []

        def wait(count: int) -> None:
            moved(count)
            pieces.append(count)
            assert answered.wait(LIMIT)

        flow.moved = wait  # type: ignore[method-assign]
        assert (413, b"no") == ask(client, "PUT", flow=flow, body=body)
    assert 0 < sum(pieces) < 64 * 1024
