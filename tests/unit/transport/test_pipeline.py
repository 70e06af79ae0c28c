"""Requests that are written together: what is yielded, what becomes of the connection, what is learnt of a server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from tests.unit.transport.rig import ask, client_of, pool_of, send
from transferkit.errors import (
    CancelledError,
    DigestMismatchError,
    OutOfSpaceError,
    RateLimitedError,
    ReadError,
    ServerError,
    StalledError,
    TransportTimeout,
)
from transferkit.testing import answer, scripted_server
from transferkit.testing.scripted import RawRequest, Step
from transferkit.testing.wire import Close, Pause, Reset
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport import pipeline
from transferkit.transport.client import Client
from transferkit.transport.connections import Pipelines, WakeableConnection
from transferkit.transport.pipeline import Wanted
from transferkit.transport.request import Request

BODIES = [b"", b"a", b"bb" * 500, b"c" * 40_000, b"d" * 65_535]
SIZES = [len(body) for body in BODIES]
CLOSE = {"Connection": "close"}


def wanted(sizes: list[int], start: int = 0) -> list[Wanted]:
    return [Wanted(f"/{number}", size, f"the {number}th") for number, size in enumerate(sizes, start)]


def asked(client: Client, sizes: list[int] = SIZES, flow: WorkerFlow | None = None) -> list[bytes] | None:
    """Return the contents of ``/0``, ``/1`` and so on, as far as they came; ``None``: nothing was asked."""
    request = Request(method="GET", url="/0", ok=(200,))
    contents = client.pipeline(request, wanted(sizes), tuple, flow or WorkerFlow())
    return None if contents is None else [content.tobytes() for content in contents]


def saying(change: Callable[[int, RawRequest], Step | None]) -> Callable[[RawRequest], Step]:
    """Return a script that answers ``/number`` with its body, but for what ``change`` says."""

    def say(request: RawRequest) -> Step:
        if request.target == "/x":
            return answer(200, b"hello")
        number = int(request.target[1:])
        return change(number, request) or answer(200, BODIES[number])

    return say


def test_contents_come_whole_and_in_order_on_a_connection_that_stays() -> None:
    with scripted_server(saying(lambda *_: None)) as server, client_of(server) as client:
        ask(client)
        flow = WorkerFlow()
        assert BODIES == asked(client, flow=flow)
        assert BODIES == asked(client, flow=flow)
        assert {0} == {each.connection for each in server.requests}
        assert ["/x", *(2 * ["/0", "/1", "/2", "/3", "/4"])] == [each.target for each in server.requests]
        assert 2 * sum(SIZES) == flow.counter.progress


def test_more_than_the_buffer_holds_comes_through_it() -> None:
    with scripted_server(saying(lambda *_: None)) as server, client_of(server) as client:
        ask(client)
        assert BODIES == asked(client, flow=WorkerFlow(buffer=70_000))


def test_nothing_is_asked_of_a_server_that_has_not_answered() -> None:
    with scripted_server(saying(lambda *_: None)) as server, client_of(server) as client:
        assert asked(client) is None
        assert [] == server.requests


@pytest.mark.parametrize(
    "first",
    [
        answer(200, b"hello", CLOSE),
        answer(404, b"no"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        [b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", Close()],
    ],
)
def test_nor_of_one_whose_answer_was_not_plain(first: Step) -> None:
    with scripted_server([first]) as server, client_of(server) as client:
        ask(client)
        assert asked(client) is None


ODD: dict[str, Step] = {
    "another length": answer(200, b"bbb"),
    "no length": [b"HTTP/1.1 200 OK\r\n\r\n" + BODIES[2], Close()],
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an encoding": answer(200, BODIES[2], {"Content-Encoding": "gzip"}),
    "a part": answer(206, BODIES[2]),
    "a redirect": answer(307, headers={"Location": "/there"}),
    "a challenge": answer(401, headers={"WWW-Authenticate": "Basic"}),
    "nothing there": answer(404),
    "an interim answer": b"HTTP/1.1 103 Early Hints\r\n\r\n" + answer(200, BODIES[2]),
    "no HTTP": [b"hello\r\n\r\n", Close()],
    "an endless head": [b"HTTP/1.1 200 OK\r\n" + 7000 * b"X-Field: text\r\n", Close()],
}
CUT: dict[str, Step] = {
    "a body that is cut": [answer(200, BODIES[2])[:-1], Close()],
    "no body": [answer(200, BODIES[2])[: -len(BODIES[2])], Close()],
    "a head that is cut": [answer(200, BODIES[2])[:20], Close()],
    "a body that is reset": [answer(200, BODIES[2])[:-1], Reset()],
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_an_answer_that_is_not_plain_ends_it_and_it_is_not_tried_again(odd: Step) -> None:
    script = saying(lambda number, _: odd if number == 2 else None)
    with scripted_server(script) as server, client_of(server) as client:
        ask(client)
        assert BODIES[:2] == asked(client)
        assert not pool_of(client).pipelines.are_taken
        assert 0 == len(pool_of(client).pool or ())
        assert asked(client) is None
        assert (200, b"hello") == ask(client)


@pytest.mark.parametrize("cut", CUT.values(), ids=CUT)
def test_an_answer_that_breaks_off_is_an_attempt_that_failed(cut: Step) -> None:
    script = saying(lambda number, _: cut if number == 2 else None)
    with scripted_server(script) as server, client_of(server) as client:
        ask(client)
        with pytest.raises(ReadError, match=f"the connection.*{server.url}|{server.url} closed the connection"):
            asked(client)
        assert not pool_of(client).pipelines.are_taken
        assert (200, b"hello") == ask(client)


def test_a_server_that_closes_without_a_word_gets_no_third_bundle() -> None:
    script = saying(lambda number, request: Close() if request.number else None)
    with scripted_server(script) as server, client_of(server) as client:
        for is_taken in (True, False):
            ask(client)
            assert [] == asked(client)
            assert is_taken == pool_of(client).pipelines.are_taken
        ask(client)
        assert asked(client) is None


def test_a_bundle_that_comes_is_between_two_that_do_not() -> None:
    state = [False]

    def odd(number: int, request: RawRequest) -> Step | None:
        return Close() if request.number and state[0] else None

    with scripted_server(saying(odd)) as server, client_of(server) as client:
        for state[0] in (True, False, True, False):
            ask(client)
            assert ([] if state[0] else BODIES) == asked(client)
        assert pool_of(client).pipelines.are_taken


@pytest.mark.parametrize("is_silent", [True, False])
def test_silence_counts_and_another_cut_does_not(is_silent: bool) -> None:
    error = StalledError("silent") if is_silent else CancelledError("enough")
    script = saying(lambda number, request: Pause() if request.number > 1 else None)
    with scripted_server(script) as server, client_of(server) as client:
        for _ in range(2):
            ask(client)
            flow = WorkerFlow()
            threading.Timer(0.1, lambda flow=flow: flow.cut(error, final=not is_silent)).start()
            with pytest.raises(type(error)):
                asked(client, flow=flow)
        assert is_silent != pool_of(client).pipelines.are_taken


def test_an_answer_that_does_not_come_in_time_is_an_error() -> None:
    script = saying(lambda number, request: Pause() if request.number > 1 else None)
    with scripted_server(script) as server, client_of(server, response_timeout=0.1) as client:
        ask(client)
        with pytest.raises(TransportTimeout, match="did not answer in time"):
            asked(client)


def test_a_head_that_is_longer_than_a_small_buffer_ends_it() -> None:
    long = answer(200, BODIES[2], {"X-Long": 5000 * "x"})
    script = saying(lambda number, _: long if number == 2 else None)
    with scripted_server(script) as server, client_of(server) as client:
        ask(client)
        assert BODIES[:2] == asked(client, flow=WorkerFlow(buffer=4096))
        assert not pool_of(client).pipelines.are_taken


@pytest.mark.parametrize(("status", "kind"), [(429, RateLimitedError), (503, ServerError)])
def test_a_server_that_has_enough_is_heard(status: int, kind: type) -> None:
    refusal = answer(status, b"not now", {"Retry-After": "7"})
    with scripted_server(saying(lambda number, _: refusal if number == 2 else None)) as server:
        with client_of(server) as client:
            ask(client)
            with pytest.raises(kind, match="the 2th") as caught:
                asked(client)
            assert (f"{server.url}/2", 7.0) == (caught.value.url, caught.value.retry_after)
            assert not pool_of(client).pipelines.are_taken


def test_a_token_that_has_ended_is_renewed_before_the_rest_is_asked_for_and_the_server_is_asked_on() -> None:
    tokens: list[str] = []

    def say(request: RawRequest) -> Step:
        if request.target.startswith("/token"):
            tokens.append(f"t{len(tokens)}")
            return answer(200, f'{{"token": "{tokens[-1]}"}}'.encode())
        if request.target == "/2" and len(tokens) < 2:
            tokens.append("old")
            return answer(401, b"it has ended", {"WWW-Authenticate": f'Bearer realm="{server.url}/token"'})
        return answer(200, b"hello" if request.target == "/x" else BODIES[int(request.target[1:])])

    with scripted_server(say) as server, client_of(server) as client:
        ask(client)
        assert BODIES[:2] == asked(client)
        assert pool_of(client).pipelines.are_taken
        assert (200, b"hello") == ask(client)
        assert 1 == server.requests[-1].connection  # what is still on its way on the other is nobody's
        assert ["old", "t1"] == tokens
        assert "Bearer t1" == server.requests[-1].headers["authorization"]
        assert BODIES == asked(client)


def test_bytes_behind_the_last_answer_end_the_connection() -> None:
    script = saying(lambda number, _: answer(200, BODIES[4]) + b"more" if number == 4 else None)
    with scripted_server(script) as server, client_of(server) as client:
        ask(client)
        assert BODIES == asked(client)
        assert 0 == len(pool_of(client).pool or ())


@pytest.mark.parametrize("error", [DigestMismatchError("another one"), OutOfSpaceError("full")])
def test_a_content_that_is_another_one_is_the_servers_and_a_full_disk_is_not(error: Exception) -> None:
    with scripted_server(saying(lambda *_: None)) as server, client_of(server) as client:
        ask(client)
        request = Request(method="GET", url="/0", ok=(200,))
        contents = client.pipeline(request, wanted(SIZES[:2]), tuple, WorkerFlow())
        assert contents is not None
        next(contents)
        is_wrong = isinstance(error, DigestMismatchError)
        if is_wrong:
            with pytest.raises(DigestMismatchError):
                contents.throw(error)
        contents.close()
        assert is_wrong != pool_of(client).pipelines.are_taken
        assert 0 == len(pool_of(client).pool or ())


def test_a_connection_that_was_closed_while_it_was_idle_says_nothing_of_the_server() -> None:
    closed = [[answer(200, b"hello"), Close()], answer(200, b"hello")]
    with scripted_server(lambda request: closed[request.connection]) as server, client_of(server) as client:
        ask(client)
        assert asked(client) in ([], None)
        assert pool_of(client).pipelines.are_taken


def test_a_last_answer_that_is_announced_is_taken() -> None:
    script = saying(lambda number, _: [answer(200, BODIES[2], CLOSE), Close()] if number == 2 else None)
    with scripted_server(script) as server, client_of(server) as client:
        ask(client)
        assert BODIES[:3] == asked(client)
        assert 0 == len(pool_of(client).pool or ())
        assert pool_of(client).pipelines.are_taken


def test_a_server_that_ends_connections_now_and_then_is_asked_on_and_one_that_always_does_is_not() -> None:
    seldom, often = Pipelines(), Pipelines()
    for _ in range(10):
        seldom.ended(996, 4, announced=True)
        often.ended(3, 5, announced=True)
    assert (True, False) == (seldom.are_taken, often.are_taken)
    seldom.ended(996, 1, announced=False)
    assert not seldom.are_taken


def test_a_cut_wakes_it_and_says_nothing_of_the_server() -> None:
    flow = WorkerFlow()

    def cut(number: int, _: RawRequest) -> Step | None:
        if number == 2:
            flow.cut(CancelledError("enough"), final=True)
            return Pause(30)
        return None

    with scripted_server(saying(cut)) as server, client_of(server) as client:
        ask(client)
        with pytest.raises(CancelledError):
            asked(client, flow=flow)
        assert pool_of(client).pipelines.are_taken
        assert 0 == len(pool_of(client).pool or ())


def test_after_a_stall_a_new_connection_is_asked_in_the_ordinary_way() -> None:
    with scripted_server(saying(lambda *_: None)) as server, client_of(server) as client:
        ask(client)
        flow = WorkerFlow()
        flow.cut(StalledError("silent"), final=False)
        flow.next_attempt()
        assert asked(client, flow=flow) is None


def test_targets_go_out_as_those_of_single_requests_do() -> None:
    with scripted_server(lambda request: answer(200, request.target.encode())) as server, client_of(server) as client:
        with send(client, "GET", "/x", ok=(200,), flow=WorkerFlow()) as found:
            found.peek(10)
        paths = ["/" + 3000 * "a", "/\u00fc b"]
        request = Request(method="GET", url=paths[0], ok=(200,))
        all_wanted = [Wanted(paths[0], 3001, ""), Wanted(paths[1], 11, "")]
        contents = client.pipeline(request, all_wanted, tuple, WorkerFlow())
        assert contents is not None
        assert [paths[0].encode(), b"/%C3%BC%20b"] == [content.tobytes() for content in contents]


# -- what is asked for while the first answers come


class Asking:
    """Asks for ``/0`` to ``/3``, and then for so many of the bodies as each of ``turns`` says, beginning anew."""

    def __init__(self, client: Client, *turns: int) -> None:
        self.came: list[bytes] = []
        self.times: list[int] = []
        """How many had come each time that it was asked for more."""
        self._turns = list(turns)
        request = Request(method="GET", url="/0", ok=(200,))
        self.flow = WorkerFlow()
        contents = client.pipeline(request, wanted(SIZES[:4]), self._more, self.flow)
        assert contents is not None
        for content in contents:
            self.came.append(content.tobytes())

    def _more(self) -> list[Wanted]:
        self.times.append(len(self.came))
        return wanted(SIZES[: self._turns.pop(0)]) if self._turns else []


def test_more_is_asked_for_when_half_is_still_to_come() -> None:
    with scripted_server(saying(lambda *_: None)) as server, client_of(server) as client:
        ask(client)
        asking = Asking(client, 2, 1)
        assert [*BODIES[:4], *BODIES[:2], *BODIES[:1]] == asking.came
        assert [2, 4, 5] == asking.times
        assert {0} == {each.connection for each in server.requests}
        assert 1 == len(pool_of(client).pool or ())


def test_the_server_is_asked_for_more_before_it_has_answered_what_it_has() -> None:
    """Else it would have nothing to do while those are taken in."""
    asked_for_more = threading.Event()

    def late(number: int, _: RawRequest) -> Step | None:
        # The fourth answer waits for that; the script itself sees the fifth request once it has sent the fourth.
        assert number != 3 or asked_for_more.wait(30)
        return None

    def more() -> list[Wanted]:
        if asked_for_more.is_set():
            return []
        asked_for_more.set()
        return wanted(SIZES[4:], 4)

    with scripted_server(saying(late)) as server, client_of(server) as client:
        ask(client)
        request = Request(method="GET", url="/0", ok=(200,))
        contents = client.pipeline(request, wanted(SIZES[:4]), more, WorkerFlow())
        assert contents is not None
        assert BODIES == [content.tobytes() for content in contents]


@pytest.mark.parametrize("said", [CLOSE, {}])
def test_of_a_server_that_takes_no_more_what_it_has_answered_is_read(said: dict[str, str]) -> None:
    last = answer(200, BODIES[3], said)
    with scripted_server(saying(lambda number, _: [last, Close()] if number == 3 else None)) as server:
        with client_of(server) as client:
            ask(client)
            asking = Asking(client, 2, 2)
            assert BODIES[:4] == asking.came
            # It is a server that ends connections without a word, or one that says so now and then.
            assert pool_of(client).pipelines.are_taken == bool(said)
            assert 0 == len(pool_of(client).pool or ())


def test_requests_that_can_not_be_sent_any_more_are_owed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_is_sent", lambda *_: False)
    with scripted_server(saying(lambda number, _: answer(200, BODIES[3], CLOSE) if number == 3 else None)) as server:
        with client_of(server) as client:
            ask(client)
            asking = Asking(client, 2, 2)
            assert (BODIES[:4], [2]) == (asking.came, asking.times)
            assert 2 == pool_of(client).pipelines.owed


def test_a_connection_that_takes_nothing_more_is_said_to_take_nothing() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        assert not pipeline._is_sent(SimpleNamespace(sock=ours), b"GET / HTTP/1.1\r\n\r\n")  # type: ignore[arg-type]


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="Linux alone can be told to acknowledge")
def test_what_has_come_is_acknowledged_before_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """nginx with ``tcp_nopush`` holds back the end of an answer until then: 40 ms where nobody says so."""
    calls: list[str] = []
    acknowledge, receive = WakeableConnection.acknowledge, pipeline._Answers._receive

    def acknowledged(connection: WakeableConnection) -> None:
        acknowledge(connection)
        calls.append(f"acknowledge {connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK)}")

    def received(answers: pipeline._Answers) -> int:
        calls.append("receive")
        return receive(answers)

    monkeypatch.setattr(WakeableConnection, "acknowledge", acknowledged)
    monkeypatch.setattr(pipeline._Answers, "_receive", received)
    with scripted_server(saying(lambda *_: None)) as server, client_of(server) as client:
        ask(client)
        assert BODIES == asked(client)
    assert ["receive", "acknowledge 1"] * (len(calls) // 2) == calls
    assert calls
