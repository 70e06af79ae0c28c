"""The fast lane: bodies that come in chunks, without a length, or not to their end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.transport.rig import (
    ANY,
    CHUNKED,
    HELLO,
    Serve,
    ask,
    client_of,
    connections,
    everything,
    send,
)
from transferkit.content.descriptor import Descriptor
from transferkit.errors import ProtocolError, ReadError
from transferkit.remote.repository import Repository
from transferkit.testing import Close, Pause, Reset, answer, chunked, truncated, until_close
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.response import StreamResponse


@pytest.mark.parametrize("size", [1, 7, 64 * 1024])
@pytest.mark.parametrize(
    ("said", "content"),
    [
        (chunked(b"hello"), b"hello"),
        (chunked(b"he", b"l", b"lo"), b"hello"),
        (chunked(*[b"x" * 1000] * 50), b"x" * 50_000),
        (chunked(), b""),
        (CHUNKED + b"0005\r\nhello\r\n0\r\n\r\n", b"hello"),
        (CHUNKED + b"5;a=b;c\r\nhello\r\n00;d\r\n\r\n", b"hello"),
        (CHUNKED + b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2),
        (chunked(b"hello", trailer=b"0\r\nX-Digest: abc\r\nX-More: d\r\n\r\n"), b"hello"),
    ],
)
def test_a_chunked_body(serve: Serve, said: bytes, content: bytes, size: int) -> None:
    with (
        serve([said]) as server,
        client_of(server) as client,
        send(client, "GET", "/", ok=ANY, flow=WorkerFlow()) as it,
    ):
        assert isinstance(it, StreamResponse)
        assert it.length is None
        assert content == everything(it, size)


def test_a_chunked_body_may_be_split_anywhere(serve: Serve) -> None:
    said = chunked(b"hello", b" ", b"world!", trailer=b"0\r\nX: y\r\n\r\n")
    with serve([[said[:at], Pause(0.001), said[at:]] for at in range(1, len(said))]) as server:
        with client_of(server) as client:
            for _ in range(1, len(said)):
                assert (200, b"hello world!") == ask(client)


@pytest.mark.parametrize(
    "said",
    [
        CHUNKED + b"x\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"-5\r\n" + b"x" * 20_000,
        CHUNKED + b"5" * 70_000,
        CHUNKED + b"ffffffffffffffffffffff\r\nhello",
        CHUNKED,
        CHUNKED + b"5",
        CHUNKED + b"5\r\n",
        CHUNKED + b"5\r\nhel",
        CHUNKED + b"5\r\nhello",
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"5\r\nhello\r\n5\r\nhello\r\n",
    ],
)
@pytest.mark.parametrize("size", [10, 64 * 1024])
def test_chunks_that_are_malformed_or_cut_off_are_an_error(serve: Serve, said: bytes, size: int) -> None:
    with serve([[said, Close()]]) as server, client_of(server) as client:
        with (
            send(client, "GET", "/", ok=ANY, flow=WorkerFlow()) as it,
            pytest.raises(ReadError, match=r"cut off|broke|within a chunk"),
        ):
            everything(it, size)


@pytest.mark.parametrize(
    ("said", "content"),
    [
        (until_close(b"hello"), b"hello"),
        (until_close(b""), b""),
        (until_close(b"x" * 300_000), b"x" * 300_000),
        (until_close(b"hello", headers={"Connection": "close"}), b"hello"),
        ([b"HTTP/1.0 200 OK\r\n\r\nhello", Close()], b"hello"),
        ([b"HTTP/1.0 200 OK\r\n\r\nhe", Pause(0.01), b"llo", Close()], b"hello"),
    ],
)
def test_a_body_without_a_length_goes_to_the_end(serve: Serve, said: list[Any], content: bytes) -> None:
    with serve([said, HELLO]) as server, client_of(server) as client:
        assert (200, content) == ask(client)
        assert (200, b"hello") == ask(client)
        assert [0, 1] == connections(server)


@pytest.mark.parametrize("arrived", [b"", b"hel"])
@pytest.mark.parametrize("end", [Close(), Reset()])
def test_a_body_that_is_cut_off_is_an_error(serve: Serve, arrived: bytes, end: Any) -> None:
    with serve([[truncated(arrived, 5)[0], end], HELLO]) as server, client_of(server) as client:
        with send(client, "GET", "/", ok=ANY, flow=WorkerFlow()) as it:
            with pytest.raises(ReadError, match=r"before the end|broke"):
                everything(it)
        assert (200, b"hello") == ask(client)
        assert [0, 1] == connections(server)


@pytest.mark.parametrize("encoding", ["gzip", "br", "x"])
def test_a_blob_that_is_encoded_is_refused(serve: Serve, encoding: str) -> None:
    blob = Descriptor("sha256:" + 64 * "a", 5)
    with serve([answer(200, b"hello", {"Content-Encoding": encoding})] * 2) as server, client_of(server) as client:
        with Repository(client, "library/model").fetch(blob, flow=WorkerFlow()) as body:
            with pytest.raises(ProtocolError, match=f"Content-Encoding '{encoding}'"):
                everything(body)
