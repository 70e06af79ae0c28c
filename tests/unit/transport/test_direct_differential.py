"""The direct way held against the ordinary one: the same answers, the same results."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from tests.unit.transport.rig import CHUNKED, DIRECT_ALONE, HELLO, Serve, ask, client_of
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.errors import ConnectError, ProtocolError, ReadError, RegistryError, TransferKitError, TransportTimeout
from transferkit.options import TransportOptions
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

pytestmark = DIRECT_ALONE

Outcome = tuple[int, bytes] | type[TransferKitError]
GZIP = bytes.fromhex("1f8b0800000000000203cb48cdc9c9070086a6103605000000")  # of "hello"


def outcome(serve: Serve, method: str, said: Any, *, direct: bool) -> Outcome:
    with serve([said() if callable(said) else said]) as server:
        with client_of(server, direct=direct, response_timeout=0.3) as client:
            try:
                return ask(client, method)
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


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("name", SAME)
def test_both_ways_have_the_same_results(serve: Serve, name: str, direct: bool) -> None:
    said, expected = SAME[name]
    assert expected == outcome(serve, "GET", said, direct=direct)


# urllib3 takes a proxy that ends the connection without an answer for one that cannot be reached. Both are tried again.
BY_PROXY: dict[str, Outcome] = dict.fromkeys(("nothing", "reset at once", "cut after a 100"), ConnectError)


@pytest.mark.parametrize("way", ["proxy", "session", "adapter"])
@pytest.mark.parametrize("name", SAME)
def test_what_the_user_sets_has_the_same_results(name: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said, expected = SAME[name]
    with scripted_server([said() if callable(said) else said]) as server, requests.Session() as session:
        url = server.url
        if way == "proxy":
            monkeypatch.setenv("HTTP_PROXY", url)
            url, expected = "http://registry.example", BY_PROXY.get(name, expected)
        elif way == "adapter":
            session.mount(url, HTTPAdapter(pool_block=True))
        options = TransportOptions(response_timeout=0.3)
        with Client(url, options=options, session=None if way == "proxy" else session) as client:
            found: Outcome
            try:
                found = ask(client)
            except TransferKitError as error:
                found = type(error)
    assert expected == found


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "x"])
def test_both_ways_refuse_a_blob_that_is_encoded(serve: Serve, encoding: str, direct: bool) -> None:
    blob = Descriptor(Digest("sha256:" + 64 * "a"), len(GZIP))
    with serve([answer(200, GZIP, {"Content-Encoding": encoding})]) as server, client_of(server, direct=direct) as it:
        with pytest.raises(ProtocolError, match=f"Content-Encoding '{encoding}'"):
            Repository(it, "library/model").fetch(blob, flow=WorkerFlow())


# What our reader does otherwise on purpose, as (answer, the direct way's outcome, the ordinary one's). http.client
# takes heads that other readers would read in another way; what it makes of them is checked by size and digest alone.
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
def test_where_the_two_ways_differ_on_purpose(name: str) -> None:
    said, directly, ordinarily = DIFFERENT[name]
    assert (directly, ordinarily) == (
        outcome(scripted_server, "GET", said, direct=True),
        outcome(scripted_server, "GET", said, direct=False),
    )


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX: y\r\n", b"HTTP/1.1 200 OK\r\nContent-Le"])
@pytest.mark.parametrize("direct", [True, False])
def test_a_head_that_is_cut_off_is_no_answer(head: bytes, direct: bool) -> None:
    """Bare http.client, under a session of the user's, takes the end of the connection for the end of the head."""
    assert ReadError == outcome(scripted_server, "GET", [head, Close()], direct=direct)
