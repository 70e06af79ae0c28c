"""The lanes held against each other: the same answers, the same results."""

from __future__ import annotations

import gzip
import os
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import pytest
import requests

from tests.unit.transport.rig import CHUNKED, HELLO, ask, client_of, everything, send
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.errors import ProtocolError, ReadError, RegistryError, TransferKitError, TransportTimeout
from transferkit.remote.repository import Repository
from transferkit.testing import (
    Close,
    Reset,
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
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.client import Client

Outcome = tuple[int, bytes] | type[TransferKitError]
GZIP = bytes.fromhex("1f8b0800000000000203cb48cdc9c9070086a6103605000000")  # of "hello"


LANES = ("fast", "seen", "proxy", "foreign")
"""The fast lane; a session that sees its requests; the fast lane through a proxy; an adapter that is not ours."""


PATIENT = 30.0  # seconds for an answer that comes, on a machine that is as busy as it likes
HASTY = 0.3  # for one that does not come


@contextmanager
def client_on(lane: str, url: str, timeout: float = PATIENT) -> Iterator[Client]:
    with ExitStack() as stack:
        session = None
        if lane == "proxy":
            stack.enter_context(mock.patch.dict(os.environ, {"HTTP_PROXY": url}))
            url = "http://registry.example"
        elif lane == "foreign":
            session = stack.enter_context(requests.Session())
        yield stack.enter_context(client_of(url, session=session, fast=lane != "seen", response_timeout=timeout))


def outcome(said: Any, lane: str, *, silent: bool = False) -> Outcome:
    timeout = HASTY if silent else PATIENT
    with (
        scripted_server([said() if callable(said) else said]) as server,
        client_on(lane, server.url, timeout) as client,
    ):
        try:
            return ask(client)
        except TransferKitError as error:
            return type(error)


SAME: dict[str, tuple[Any, Outcome]] = {
    "length": (HELLO, (200, b"hello")),
    "empty": (answer(200), (200, b"")),
    "long": (answer(200, b"x" * 1_000_000), (200, b"x" * 1_000_000)),
    "status without a reason": (HELLO.replace(b" OK", b""), (200, b"hello")),
    "error": (answer(404, b"{}"), (404, b"{}")),
    "unknown status": (answer(599, b"?"), (599, b"?")),
    "close": (answer(200, b"hello", {"Connection": "close"}), (200, b"hello")),
    "chunked": (chunked(b"he", b"llo", trailer=b"0\r\nX: y\r\n\r\n"), (200, b"hello")),
    "until close": (until_close(b"hello"), (200, b"hello")),
    "HTTP/1.0": ([HELLO.replace(b"1.1", b"1.0"), Close()], (200, b"hello")),
    "HTTP/1.0 until close": ([b"HTTP/1.0 200 OK\r\n\r\nhello", Close()], (200, b"hello")),
    "100": (informational(100) + HELLO, (200, b"hello")),
    "204": (answer(204), (204, b"")),
    "304": (answer(304, headers={"Content-Length": "5"}), (304, b"")),
    "length twice": (two_lengths(b"hello", 5), (200, b"hello")),
    "encoded": (answer(200, GZIP, {"Content-Encoding": "gzip"}), (200, GZIP)),
    "junk after": (HELLO + b"junk", (200, b"hello")),
    "obs-text": (answer(200, b"hello", {"X": "caf\xe9\x85"}), (200, b"hello")),
    "99 fields": (answer(200, b"hello", [("X", "y")] * 98), (200, b"hello")),
    "two lengths": (two_lengths(b"hello", 4), ProtocolError),
    "no number": (answer(200, b"hello", {"Content-Length": "five"}), ProtocolError),
    "negative": (answer(200, b"hello", {"Content-Length": "-5"}), ProtocolError),
    "bad status line": ([bad_status_line(), Close()], ProtocolError),
    "another protocol": ([b"SSH-2.0-OpenSSH_9.6\r\n", Close()], ProtocolError),
    "HTTP/2": (bad_status_line(b"HTTP/2 200 OK"), ProtocolError),
    "too many fields": (answer(200, b"hello", [("X", "y")] * 100), ProtocolError),
    "flood": (lambda: header_flood(2000), ProtocolError),
    "one long line": ([b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", Close()], ProtocolError),
    "cut short": (truncated(b"hel", 5), ReadError),
    "cut short to nothing": (truncated(b"", 5), ReadError),
    "reset": ([truncated(b"hel", 5)[0], Reset()], ReadError),
    "cut chunk": ([CHUNKED + b"5\r\nhel", Close()], ReadError),
    "cut between chunks": ([chunked(b"hello", trailer=b""), Close()], ReadError),
    "bad chunk": ([CHUNKED + b"x\r\nhello\r\n0\r\n\r\n", Close()], ReadError),
    "nothing": ([Close()], ReadError),
    "reset at once": ([Reset()], ReadError),
    "cut after a 100": ([informational(100), Close()], ReadError),
    "bad size of a chunk": ([CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n", Close()], ReadError),
    "another protocol that waits": ([b"SSH-2.0-OpenSSH_9.6\r\n", never()], ProtocolError),
    "silence": ([never()], TransportTimeout),
    "silence in the head": ([b"HTTP/1.1 200 OK\r\n", never()], TransportTimeout),
    "silence in the body": ([truncated(b"hel", 5)[0], never()], TransportTimeout),
    "silence in a chunk": ([CHUNKED + b"5\r\nhel", never()], TransportTimeout),
}


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("name", SAME)
def test_all_lanes_have_the_same_results(name: str, lane: str) -> None:
    said, expected = SAME[name]
    assert expected == outcome(said, lane, silent=expected is TransportTimeout)


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "x"])
def test_all_lanes_refuse_a_blob_that_is_encoded(encoding: str, lane: str) -> None:
    blob = Descriptor(Digest("sha256:" + 64 * "a"), len(GZIP))
    with scripted_server([answer(200, GZIP, {"Content-Encoding": encoding})]) as server:
        with client_on(lane, server.url) as it, Repository(it, "library/model").fetch(blob, flow=WorkerFlow()) as body:
            with pytest.raises(ProtocolError, match=f"Content-Encoding '{encoding}'"):
                body.readinto(memoryview(bytearray(1000)))


# What our reader does otherwise on purpose, as (answer, its outcome, a foreign adapter's). http.client takes heads that
# other readers would read in another way; what it makes of them is checked by size and digest alone.
DIFFERENT: dict[str, tuple[Any, Outcome, Outcome]] = {
    # http.client knows 100 alone, and takes any other for the answer
    "102": (informational(102) + HELLO, (200, b"hello"), RegistryError),
    "103": (informational(103) + HELLO, (200, b"hello"), RegistryError),
    "101": (answer(101) + HELLO, ProtocolError, RegistryError),
    "100 without end": (informational(100) * 17 + HELLO, ProtocolError, (200, b"hello")),
    # two lengths, or a length that another reader reads in another way
    "list of one length": (answer(200, b"hello", {"Content-Length": "5, 5"}), ProtocolError, (200, b"hello")),
    "length and chunked": (chunked(b"hello", headers={"Content-Length": "5"}), ProtocolError, (200, b"hello")),
    # codings that are not known, or not lawful there
    "identity": ([answer(200, b"hello", {"Transfer-Encoding": "identity"}), Close()], ProtocolError, (200, b"hello")),
    "gzip, chunked": (
        [answer(200, b"5\r\nhello\r\n0\r\n\r\n", {"Transfer-Encoding": "gzip, chunked"}), Close()],
        ProtocolError,
        (200, b"5\r\nhello\r\n0\r\n\r\n"),
    ),
    "chunked twice": (chunked(b"hello", headers={"transfer-encoding": "chunked"}), ProtocolError, (200, b"hello")),
    "chunked in HTTP/1.0": ([chunked(b"hello").replace(b"1.1", b"1.0"), Close()], ProtocolError, (200, b"hello")),
    # heads that are not well formed
    "line feeds alone": (b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", ProtocolError, (200, b"hello")),
    "folded": (answer(200, b"hello", {"X": "a\r\n b"}), ProtocolError, (200, b"hello")),
    "control character": (answer(200, b"hello", {"X": "a\0"}), ProtocolError, (200, b"hello")),
    "two blanks": (HELLO.replace(b"1 200", b"1  200"), ProtocolError, (200, b"hello")),
    "HTTP/1.2": (HELLO.replace(b"1.1", b"1.2"), ProtocolError, (200, b"hello")),
    "HTTP/0.9": ([HELLO.replace(b"1.1", b"0.9"), Close()], ProtocolError, (200, b"hello")),
    "over 64 KiB in all": (answer(200, b"hello", [("X", "y" * 1000)] * 90), ProtocolError, (200, b"hello")),
    # heads that end before their end
    "cut in the status line": ([b"HTT", Close()], ReadError, ProtocolError),
    # nothing that is HTTP, and then silence
    "page without a head": ([b"<html>", never()], ProtocolError, TransportTimeout),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_where_a_foreign_adapter_differs(name: str) -> None:
    said, ours, theirs = DIFFERENT[name]
    silent = theirs is TransportTimeout
    assert [ours, ours, theirs] == [outcome(said, lane, silent=silent) for lane in ("fast", "seen", "foreign")]


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX: y\r\n", b"HTTP/1.1 200 OK\r\nContent-Le"])
@pytest.mark.parametrize("lane", ["fast", "seen", "proxy"])
def test_a_head_that_is_cut_off_is_no_answer(head: bytes, lane: str) -> None:
    """Bare http.client, below a foreign adapter, takes the end of the connection for the end of the head."""
    assert ReadError == outcome([head, Close()], lane)


def test_a_redirect_with_a_bomb_costs_nothing() -> None:
    """A session would read, and decode, the body of a redirect before it gives it to us: 64 MiB from 64 KiB."""
    bomb = gzip.compress(b"0" * (64 * 1024 * 1024))
    redirect = answer(307, bomb, {"Content-Encoding": "gzip", "Location": "/there"})
    peaks = []
    for lane in ("fast", "seen", "foreign"):
        with scripted_server([redirect, HELLO]) as server, client_on(lane, server.url) as client:
            tracemalloc.start()
            with send(client, "GET", "/x", ok={200}, flow=WorkerFlow()) as found:
                assert b"hello" == everything(found)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert max(peaks) < 8 * 1024 * 1024
