"""The scripted server, seen from plain sockets and http.client."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import socket
import threading
import time

import pytest

from tests.descriptors import open_descriptors
from transferkit.testing import (
    Close,
    Pause,
    RawRequest,
    Reset,
    ScriptedServer,
    answer,
    bad_status_line,
    chunked,
    header_flood,
    informational,
    never,
    scripted_server,
    truncated,
    two_lengths,
    until_close,
)

PROMPT = 2.0  # seconds: it takes milliseconds, on an idle machine; every wait in the code is longer
GET = b"GET /v2/?a=%41 HTTP/1.1\r\nHost: x\r\nX-Many: 1\r\nx-many: 2\r\n\r\n"


def connect(server: ScriptedServer) -> socket.socket:
    return socket.create_connection((server.host, server.port), timeout=20)


def read(sock: socket.socket, size: int = 1 << 40) -> tuple[bytes, str]:
    data = b""
    try:
        while len(data) < size:
            block = sock.recv(min(size - len(data), 65536))
            if not block:
                return data, "end"
            data += block
    except ConnectionResetError:
        return data, "reset"
    except TimeoutError:
        return data, "silence"
    return data, "enough"


def fetch(server: ScriptedServer) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=20)
    try:
        connection.request("GET", "/")
        with connection.getresponse() as response:
            return response.status, response.read()
    finally:
        connection.close()


def test_steps_answer_requests_in_turn_whatever_the_connection() -> None:
    with scripted_server([answer(200, b"one"), answer(404), answer(200, b"three")]) as server:
        assert [(200, b"one"), (404, b""), (200, b"three")] == [fetch(server) for _ in range(3)]
        assert (500, b"the script has 3 steps, and this is request 4\n") == fetch(server)
        assert [(0, 0), (1, 0), (2, 0), (3, 0)] == [(r.connection, r.number) for r in server.requests]
        assert repr(server) == f"<ScriptedServer {server.url}: 4 requests>"


def test_a_request_is_seen_as_it_was_sent() -> None:
    with scripted_server(lambda request: answer(200, request.body)) as server, connect(server) as sock:
        sock.sendall(GET)
        assert (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "enough") == read(sock, 38)
        sock.sendall(b"PUT /x HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello")
        assert (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "enough") == read(sock, 43)
        sock.sendall(b"POST /y HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")
        assert (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "enough") == read(sock, 43)
        expected = [
            RawRequest(
                method="GET",
                target="/v2/?a=%41",
                headers={"host": "x", "x-many": "1, 2"},
                body=b"",
                connection=0,
                number=0,
            ),
            RawRequest(
                method="PUT", target="/x", headers={"content-length": "5"}, body=b"hello", connection=0, number=1
            ),
            RawRequest(
                method="POST",
                target="/y",
                headers={"transfer-encoding": "chunked"},
                body=b"hello",
                connection=0,
                number=2,
            ),
        ]
        assert expected == server.requests


def test_who_waits_for_100_continue_gets_it() -> None:
    with scripted_server([answer(201)]) as server, connect(server) as sock:
        sock.sendall(b"PUT / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert (b"HTTP/1.1 100 Continue\r\n\r\n", "enough") == read(sock, 25)
        sock.sendall(b"ok")
        assert read(sock, 20)[0] == b"HTTP/1.1 201 Created"
        assert server.requests[0].body == b"ok"


def test_a_body_may_stay_unread() -> None:
    with scripted_server([answer(413)], read_body=False) as server, connect(server) as sock:
        sock.sendall(b"PUT / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" + bytes(10))
        assert read(sock) == (b"HTTP/1.1 413 Request Entity Too Large\r\nContent-Length: 0\r\n\r\n", "end")
        assert server.requests[0].body == b""


def test_pieces_come_in_their_order() -> None:
    released = threading.Event()

    def script(request: RawRequest):
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
        released.wait(20)
        yield b"ab"
        yield Pause(0.1)
        yield b"cd"
        yield Close()
        raise AssertionError("nothing is asked for behind the end")

    with scripted_server(script) as server, connect(server) as sock:
        sock.sendall(GET)
        assert read(sock, 38)[1] == "enough"
        released.set()
        assert (b"ab", "enough") == read(sock, 2)
        begin = time.monotonic()
        assert (b"cd", "end") == read(sock)
        assert time.monotonic() - begin > 0.05


def test_a_reset_comes_behind_what_was_said() -> None:
    data = os.urandom(3_000_000)
    with scripted_server([[answer(200, data), Reset()]]) as server, connect(server) as sock:
        sock.sendall(GET)
        head, _ = read(sock, 44)
        assert head.endswith(b"\r\n\r\n")
        assert (data, "reset") == read(sock)


def test_never_answering() -> None:
    with scripted_server([never()]) as server, connect(server) as sock:
        sock.sendall(GET)
        sock.settimeout(0.1)
        assert (b"", "silence") == read(sock)
        assert len(server.requests) == 1
        begin = time.monotonic()
    assert time.monotonic() - begin < PROMPT


def test_an_informational_answer_comes_first() -> None:
    with scripted_server([informational(100) * 3 + answer(200, b"x")]) as server:
        assert (200, b"x") == fetch(server)
    with scripted_server([informational(103, {"Link": "<x>"}) + answer()]) as server, connect(server) as sock:
        sock.sendall(GET)
        assert read(sock, 45)[0] == b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1"[:45]


def test_bad_status_lines() -> None:
    with scripted_server([bad_status_line(), bad_status_line(b"")]) as server:
        for _ in range(2):
            with pytest.raises(http.client.BadStatusLine):
                fetch(server)


def test_a_flood_of_headers() -> None:
    with scripted_server(lambda request: header_flood(2500, size=40)) as server:
        with pytest.raises(http.client.HTTPException, match="got more than 100 headers"):
            fetch(server)
        with connect(server) as sock:
            sock.sendall(GET)
            size = 17 + 2500 * 40 + 21
            flood, _ = read(sock, size)
    lines = flood.split(b"\r\n")
    assert (2500 + 4, b"X-0002499: ", b"") == (len(lines), lines[2500][:11], lines[-1])


def test_framing_that_contradicts_itself() -> None:
    assert two_lengths(b"hello", 4).count(b"Content-Length: ") == 2
    with scripted_server([truncated(b"hel", 5), until_close(b"rest"), answer(200, b"ok") + b"junk"]) as server:
        with pytest.raises(http.client.IncompleteRead) as caught:
            fetch(server)
        assert caught.value.partial == b"hel"
        assert (200, b"rest") == fetch(server)
        with connect(server) as sock:
            sock.sendall(GET)
            assert (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokjunk", "enough") == read(sock, 44)


def test_chunked_answers_whole_and_without_their_end() -> None:
    endless = [chunked(b"hello", b"world", trailer=b""), Close()]
    with scripted_server([chunked(b"hello", b"world", status=206), endless]) as server:
        assert (206, b"helloworld") == fetch(server)
        with pytest.raises(http.client.IncompleteRead):
            fetch(server)


def test_an_answer_has_the_length_that_it_may_have() -> None:
    assert answer(204) == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert answer(304) == b"HTTP/1.1 304 Not Modified\r\n\r\n"
    assert answer(520, b"x", [("content-length", "9")]) == b"HTTP/1.1 520 Unofficial\r\ncontent-length: 9\r\n\r\nx"


def test_an_error_of_the_script_comes_out_of_the_with() -> None:
    with pytest.raises(LookupError, match="not in the script"):
        with scripted_server([lambda request: {}["not in the script"]]) as server, connect(server) as sock:
            sock.sendall(GET)
            assert read(sock) == (b"", "end")


@pytest.mark.parametrize("nonsense", [b"", b"\r\n\r\n", b"one two\r\n\r\n", b"x" * 300_000])
def test_what_is_no_request_ends_the_connection(nonsense: bytes) -> None:
    with scripted_server([answer()]) as server, connect(server) as sock:
        sock.sendall(nonsense)
        sock.shutdown(socket.SHUT_WR)
        assert read(sock)[0] == b""
        assert server.requests == []


def test_the_way_out_is_quick_and_leaves_nothing() -> None:
    threads, descriptors = threading.active_count(), len(open_descriptors())
    block = bytes(1_000_000)

    def script(request: RawRequest):
        # One that waits, and one that sends more than the system takes without a reader.
        return Pause() if request.target == "/pause" else itertools.repeat(block)

    words = [b"", b"GET /pause HTTP/1.1\r\n\r\n", b"GET /endless HTTP/1.1\r\n\r\n", b"PUT"]
    with contextlib.ExitStack() as stack:
        with scripted_server(script) as server:
            for number in range(20):
                stack.enter_context(connect(server)).sendall(words[number % 4])
            deadline = time.monotonic() + 20
            while len(server.requests) < 10 and time.monotonic() < deadline:
                time.sleep(0.005)
            begin = time.monotonic()
        assert time.monotonic() - begin < PROMPT
        assert threads == threading.active_count()
    assert len(open_descriptors()) <= descriptors


def test_the_way_out_waits_for_a_thread_at_its_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, is_last = threading.active_count(), threading.Event()
    with scripted_server([answer()]) as server:
        release = server._slots.release

        def slowly() -> None:
            if threading.current_thread().name == "transferkit-scripted":
                is_last.set()
                time.sleep(0.2)
            release()

        monkeypatch.setattr(server._slots, "release", slowly)
        with connect(server) as sock:
            sock.shutdown(socket.SHUT_WR)  # so it ends by itself
            assert is_last.wait(20)
    assert threads == threading.active_count()
