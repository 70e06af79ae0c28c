"""Which heads of requests are refused, and with what; and that the ordinary ones are not."""

from __future__ import annotations

import pytest

from transferkit.server.heads import is_ready, refusal

GOOD = b"GET /v2/ HTTP/1.1\r\nHost: localhost:5000\r\n"


def status(head: bytes) -> str | None:
    refused = refusal(head)
    return refused[0][:3] if refused else None


@pytest.mark.parametrize(
    "head",
    [
        GOOD + b"\r\n",
        b"\r\n" + GOOD + b"\r\n",
        b"GET /v2/a%2fb/tags/list?n=5&x=%20;y HTTP/1.1\r\nhost:[::1]:5000\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        GOOD + b"Content-Length: 0\r\n\r\n",
        GOOD + b"Content-Length: \t 12 \r\n\r\n",
        GOOD + b"Transfer-Encoding: chunked\r\n\r\n",
        GOOD + b"TRANSFER-ENCODING:Chunked \r\n\r\n",
        GOOD + "X: t\u00e4g \u00fc\tb\r\n\r\n".encode(),
        GOOD + b"Accept: a\r\nAccept: b\r\nX:\r\n\r\n",
        GOOD + b"A: b\r\n" * 99 + b"\r\n",
    ],
)
def test_a_head_in_order_is_taken(head: bytes) -> None:
    assert refusal(head) is None


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 5\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5\r\ncontent-length: 5\r\n",
        b"Content-Length: 5, 5\r\n",
        b"Content-Length: -5\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 5 5\r\n",
        b"Content-Length: 0x5\r\n",
        b"Content-Length: 1_0\r\n",
        b"Content-Length: 5.0\r\n",
        b"Content-Length:\r\n",
        b"Content-Length: " + b"9" * 20 + b"\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked,\r\n",
        b"Transfer-Encoding:\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding\t: chunked\r\n",
        b"Content-Length : 5\r\n",
        b"Transfer-Encoding:\r\n chunked\r\n",
        b"Transfer-Encoding: chunked\r\n , identity\r\n",
        b"X: a\r\n b\r\n",
        b"X: a\r\n\tb\r\n",
        b" X: a\r\n",
        b"X: a\rb\r\n",
        b"X: a\nb: c\r\n",
        b"X: a\r\r\n",
        b"X: a\x00b\r\n",
        b"X: a\x7fb\r\n",
        b"X\x00: a\r\n",
        b"X\x0b: a\r\n",
        b"\xff: a\r\n",
        b": a\r\n",
        b"X\r\n",
        b"Host: x\r\n",
        b"Host: localhost:5000\r\n",
    ],
)
def test_fields_that_may_be_read_in_two_ways_are_a_bad_request(fields: bytes) -> None:
    assert status(GOOD + fields + b"\r\n") == "400"
    # Neither does it matter which of the fields comes first.
    assert status(b"GET /v2/ HTTP/1.1\r\n" + fields + b"Host: x\r\n\r\n") == "400"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"nonsense",
        b"GET /v2/",
        b"GET  /v2/ HTTP/1.1",
        b"GET /v2/  HTTP/1.1",
        b" GET /v2/ HTTP/1.1",
        b"GET /v2/ HTTP/1.1 ",
        b"GET\t/v2/ HTTP/1.1",
        b"GET /v2/ /x HTTP/1.1",
        b"GET /v2/\x00 HTTP/1.1",
        b"GET /v2/\r HTTP/1.1",
        b"GET /v2/\x7f HTTP/1.1",
        b"GET /v2/\xc3\xbc HTTP/1.1",
        b"GET /v2/% HTTP/1.1",
        b"GET /v2/%4 HTTP/1.1",
        b"GET /v2/%zz HTTP/1.1",
        b"GET /v2/?n=%+5 HTTP/1.1",
        b"GE(T /v2/ HTTP/1.1",
        b"GET /v2/ http/1.1",
        b"GET /v2/ HTTP/1",
        b"GET /v2/ HTTP/1.10",
        b"GET /v2/ HTTP/+1.1",
    ],
)
def test_a_request_line_that_is_none_is_a_bad_request(line: bytes) -> None:
    assert status(line + b"\r\nHost: x\r\n\r\n") == "400"


@pytest.mark.parametrize("host", [b"", b"Host: a b\r\n", b"Host: a/b\r\n", b"Host: u@h\r\n", b"Host: \xfc\r\n"])
def test_a_request_without_a_proper_host_is_a_bad_one(host: bytes) -> None:
    assert status(b"GET / HTTP/1.1\r\n" + host + b"\r\n") == "400"


@pytest.mark.parametrize("version", [b"0.9", b"2.0", b"9.9", b"1.2"])
def test_other_versions_are_told_so(version: bytes) -> None:
    assert status(b"GET / HTTP/%b\r\nHost: x\r\n\r\n" % version) == "505"


@pytest.mark.parametrize("coding", [b"gzip", b"gzip, chunked", b"identity", b"xchunked", b"chunked;q=1"])
def test_a_coding_that_is_not_known_is_told_so(coding: bytes) -> None:
    assert status(GOOD + b"Transfer-Encoding: %b\r\n\r\n" % coding) == "501"


def test_http_1_0_has_no_codings() -> None:
    assert status(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n") == "400"


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"GET /" + b"x" * 2**20, "414"),
        (GOOD + b"X: " + b"x" * 2**20 + b"\r\n\r\n", "431"),
        (GOOD + b"X: " + b"x" * 2**20, "431"),
        (GOOD + b"A:b\r\n" * 10_000 + b"\r\n", "431"),
        (GOOD + b"A: b\r\n" * 100 + b"\r\n", "431"),
    ],
)
def test_a_head_without_bounds_is_told_so(head: bytes, expected: str) -> None:
    assert status(head) == expected


@pytest.mark.parametrize(
    ("data", "ready"),
    [
        (b"", False),
        (b"GET / HT", False),
        (GOOD, False),
        (GOOD + b"\r", False),
        (GOOD + b"\r\n", True),
        (GOOD + b"\r\nbody\nof lines", True),
        (b"GET / HTTP/1.1\n", True),
        (b"x" * 65_537, True),
    ],
)
def test_a_head_is_waited_for_as_long_as_it_may_be_a_good_one(data: bytes, ready: bool) -> None:
    assert is_ready(data) is ready
