"""The head of an answer: what it says, what is refused, and that ``http.client`` reads the same in the same bytes."""

from __future__ import annotations

import http.client
import io
from typing import Any

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from transferkit.errors import ProtocolError
from transferkit.protocol.head import MAX_FIELDS, MAX_HEAD, Head, read_head

OK = b"HTTP/1.1 200 OK\r\n"


def head(*fields: bytes, start: bytes = OK) -> bytes:
    return start + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


# -- what it says


def test_a_head_is_status_version_and_fields() -> None:
    data = head(b"Content-Length: 5", b'ETag:\t"a:b" ', b"X-Empty:", b"x-EMPTY-too: \t ", b"Server: caf\xe9\x85")
    assert read_head(data) == Head(
        200,
        1,
        {"content-length": "5", "etag": '"a:b"', "x-empty": "", "x-empty-too": "", "server": "caf\xe9\x85"},
    )


def test_a_field_that_came_twice_is_joined_in_order() -> None:
    assert read_head(head(b"Via: a", b"X: b", b"VIA: c", b"via:")).fields == {"via": "a, c, ", "x": "b"}


@pytest.mark.parametrize(
    ("line", "status", "minor"),
    [
        (b"HTTP/1.1 200 OK", 200, 1),
        (b"HTTP/1.0 200 OK", 200, 0),
        (b"HTTP/1.1 200", 200, 1),
        (b"HTTP/1.1 200 ", 200, 1),
        (b"HTTP/1.1 999 What \t ever 100%", 999, 1),
        (b"HTTP/1.1 100 Continue", 100, 1),
        (b"HTTP/1.1 404 Nicht gefunden, \xfcbrigens", 404, 1),
    ],
)
def test_a_status_line(line: bytes, status: int, minor: int) -> None:
    assert read_head(line + b"\r\n\r\n") == Head(status, minor, {})


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"HTTP/1.1",
        b"HTTP/1.1 OK 200",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 099 OK",
        b"HTTP/1.1 +20 OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1\t200 OK",
        b" HTTP/1.1 200 OK",
        b"HTTP/1.1 200\tOK",
        b"HTTP/1.1 200OK",
        b"HTTP/1.1 \xb2\xb2\xb2 OK",
        b"HTTP/1.2 200 OK",
        b"HTTP/2 200 OK",
        b"HTTP/0.9 200 OK",
        b"HTTP/11 200 OK",
        b"http/1.1 200 OK",
        b"ICY 200 OK",
        b"SSH-2.0-OpenSSH_9.6",
        b"HTTP/1.1 200 O\0K",
        b"HTTP/1.1 200 O\x7fK",
        b"HTTP/1.1 200 O\rK",
        b"HTTP/1.1 200 O\nK",
        b"HTTP/1.1 200 OK\r",
    ],
)
def test_a_status_line_that_is_none_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError, match="not HTTP/1"):
        read_head(line + b"\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize(
    "field",
    [
        b"Content-Length : 5",
        b" Content-Length: 5",
        b"Content-Length\t: 5",
        b"Content-Length",
        b": 5",
        b"X(y): 5",
        b"X\xe9: 5",
        b"X\0: 5",
        b"X: a\0b",
        b"X: a\x0bb",
        b"X: a\x0cb",
        b"X: a\x1cb",
        b"X: a\x7fb",
        b"X: a\rb",
        b"X: a\nb",
        b"X: a\r\n folded",
        b"X: a\r\n\tfolded",
        b"X: a\nContent-Length: 6",
        b"X: a\r\r",
    ],
)
def test_a_field_that_two_readers_may_read_in_two_ways_is_refused(field: bytes) -> None:
    with pytest.raises(ProtocolError, match="not HTTP/1"):
        read_head(head(b"A: b", field, b"C: d"))


@pytest.mark.parametrize("data", [b"", b"\r\n\r\n", OK, OK + b"\r", OK + b"\n", head() + b"x", b"x" + head()])
def test_nothing_but_one_whole_head_is_read(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="not HTTP/1"):
        read_head(data)


def test_the_refusal_shows_no_more_than_the_beginning() -> None:
    with pytest.raises(ProtocolError) as caught:
        read_head(b"x" * 1000)
    assert str(caught.value) == f"the server's answer is not HTTP/1: b'{'x' * 60}'"


def test_a_head_has_a_bound() -> None:
    start = b"HTTP/1.1 200 "
    assert read_head(start + b"x" * (MAX_HEAD - len(start) - 4) + b"\r\n\r\n").status == 200
    with pytest.raises(ProtocolError, match="longer than 65536 bytes"):
        read_head(start + b"x" * (MAX_HEAD - len(start) - 3) + b"\r\n\r\n")


def test_the_number_of_fields_has_a_bound() -> None:
    assert len(read_head(head(*[b"X-%d: y" % n for n in range(99)])).fields) == 99
    with pytest.raises(ProtocolError, match="100 header fields; 99 are the limit"):
        read_head(head(*[b"X: y"] * (MAX_FIELDS + 1)))


# -- framing


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ([], None),
        ([b"Content-Length: 0"], 0),
        ([b"content-length:\t 0005 \t"], 5),
        ([b"Content-Length: 9999999999999999999"], 9999999999999999999),
        ([b"Content-Length: 5", b"Content-Length:  5 "], 5),
        ([b"Content-Length: 5", b"X: y", b"CONTENT-LENGTH: 5", b"Content-Length: 5"], 5),
    ],
)
def test_a_length(fields: list[bytes], length: int | None) -> None:
    read = read_head(head(*fields))
    assert read.length == length
    assert read.chunked is False


@pytest.mark.parametrize(
    "fields",
    [
        [b"Content-Length:"],
        [b"Content-Length: five"],
        [b"Content-Length: -5"],
        [b"Content-Length: +5"],
        [b"Content-Length: 5_0"],
        [b"Content-Length: 0x5"],
        [b"Content-Length: 5 5"],
        [b"Content-Length: 5\xa0"],
        [b"Content-Length: \xb2"],
        [b"Content-Length: 10000000000000000000"],
        [b"Content-Length: 5, 5"],
        [b"Content-Length: 5,6"],
        [b"Content-Length: 5", b"Content-Length: 6"],
        [b"Content-Length: 5", b"Content-Length: 05"],
        [b"Content-Length: 5", b"Content-Length:"],
        [b"Content-Length: 5", b"Content-Length: 6", b"Content-Length: 6"],
    ],
)
def test_a_length_that_is_none_or_two_is_refused(fields: list[bytes]) -> None:
    read = read_head(head(*fields))
    with pytest.raises(ProtocolError, match="Content-Length"):
        _ = read.length


@pytest.mark.parametrize("field", [b"Transfer-Encoding: chunked", b"TRANSFER-ENCODING:\tChunkED"])
def test_a_chunked_body(field: bytes) -> None:
    read = read_head(head(field))
    assert read.chunked is True
    assert read.length is None


@pytest.mark.parametrize(
    "fields",
    [
        [b"Transfer-Encoding: gzip, chunked"],
        [b"Transfer-Encoding: chunked, chunked"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: identity"],
        [b"Transfer-Encoding:"],
        [b"Transfer-Encoding: chunked;q=1"],
        [b"Transfer-Encoding: chunked\xa0"],
        [b"Transfer-Encoding: \x85chunked"],
        [b"Transfer-Encoding: xchunked"],
        [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
        [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
    ],
)
def test_another_coding_or_one_beside_a_length_is_refused(fields: list[bytes]) -> None:
    read = read_head(head(*fields))
    with pytest.raises(ProtocolError, match="Transfer-Encoding"):
        _ = read.chunked


@pytest.mark.parametrize(
    "field", [b"Transfer-Encoding: chunked ", b"transfer-ENCODING:chunked\t", b"Transfer-Encoding: "]
)
def test_a_coding_with_blanks_at_its_end_is_refused(field: bytes) -> None:
    with pytest.raises(ProtocolError, match="Transfer-Encoding with blanks"):
        read_head(head(b"A: b", field, b"C: d"))


def test_a_chunked_body_of_http_1_0_is_refused() -> None:
    read = read_head(head(b"Transfer-Encoding: chunked", start=b"HTTP/1.0 200 OK\r\n"))
    with pytest.raises(ProtocolError, match="only chunked is known"):
        _ = read.chunked


@pytest.mark.parametrize(
    ("version", "fields", "keeps"),
    [
        (b"1.1", [], True),
        (b"1.1", [b"Connection: keep-alive"], True),
        (b"1.1", [b"Connection: close"], False),
        (b"1.1", [b"Connection: upgrade, Close"], False),
        (b"1.1", [b"Connection: upgrade", b"connection:CLOSE"], False),
        (b"1.1", [b"Connection: closed"], False),
        (b"1.0", [], False),
        (b"1.0", [b"Connection: keep-alive"], False),
    ],
)
def test_which_connections_may_be_used_again(version: bytes, fields: list[bytes], keeps: bool) -> None:
    assert read_head(head(*fields, start=b"HTTP/%b 200 OK\r\n" % version)).keeps_alive is keeps


# -- the same as http.client

TAIL = b"5\r\nhello\r\n0\r\n\r\nthe rest"


class Replay:
    """As much of a socket as ``HTTPResponse`` wants."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def theirs(data: bytes) -> Any:
    sock: Any = Replay(data)
    response = http.client.HTTPResponse(sock, method="GET")
    response.begin()
    return response


def check_same(data: bytes) -> bool:
    """What our reader takes, http.client reads alike: status, fields, framing, and where the head ends."""
    try:
        ours = read_head(data)
        chunked, length, keeps_alive = ours.chunked, ours.length, ours.keeps_alive
    except ProtocolError:
        return False
    if ours.status == 100:  # http.client reads on, to the next head: it has to be where we think it is
        after = theirs(data + head(b"X-Next: 1"))
        assert [("X-Next", "1")] == after.getheaders()
        return True
    response = theirs(data + TAIL)
    assert (ours.status, ours.minor) == (response.status, response.version - 10)
    fields: dict[str, list[str]] = {}
    for name, value in response.getheaders():
        fields.setdefault(name.lower(), []).append(value.strip(" \t"))
    # What is said twice and is the same has been said once: our reader keeps one, http.client uses the first.
    fields.update({name: values[:1] for name, values in fields.items() if name == "content-length"})
    assert ours.fields == {name: ", ".join(values) for name, values in fields.items()}
    assert response.fp.read() == TAIL
    if ours.status < 200 or ours.status in (204, 304):
        # Without a body, whatever the fields say. http.client would read chunks behind a 204 that announces them: that
        # is not lawful, and the transport does not ask it there.
        assert response.length == 0
        return True
    assert response.chunked is chunked
    assert response.length == length
    if chunked or length is not None:
        # Ours may close where http.client would not, never the other way round.
        assert not (keeps_alive and response.will_close)
    else:
        assert response.will_close
    return True


NASTY = [b"\r", b"\n", b"\r\n", b"\n\r", b"\0", b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e", b"\x7f", b":"]
NASTY += [b"\r\n ", b"\r\n\t", b"\r\n\r\n", b"\n\n", b"\nX: y\n"]
LAWFUL = [
    b" ",
    b"\t",
    b"\x80",
    b"\x85",
    b"\xa0",
    b"\xff",
    b",",
    b";",
    b"From ",
    b"=?utf-8?q?a?=",
    b"\r\nX: y",
    b"close",
]
NAMES = [b"X", b"x", b"Content-Type", b"content-type", b"Connection", b"connection", b"Keep-Alive", b"Proxy-Connection"]
NAMES += [b"From", b"Subject", b"Content-Encoding", b"Content-Transfer-Encoding", b"MIME-Version", b"!#$%&'*+.^_`|~"]
VALUES = [
    b"close",
    b"keep-alive",
    b"keep-alive, Close",
    b"not-close",
    b"upgrade",
    b"timeout=5",
    b"a:b",
    b"chunked",
    b"",
]
VALUES += [
    b"multipart/mixed",
    b"multipart/mixed; boundary=x",
    b"message/rfc822",
    b"text/plain; charset=\xff",
    b"base64",
]
LENGTHS = [
    b"5",
    b"5",
    b"5",
    b"0",
    b"6",
    b"05",
    b"9" * 19,
    b"9" * 20,
    b"",
    b"+5",
    b"-5",
    b"5_0",
    b"5, 5",
    b"5,6",
    b"5\xa0",
]
CODINGS = [b"chunked", b"Chunked", b"gzip, chunked", b"chunked, gzip", b"identity", b"", b"chunked;a=b", b"\x85chunked"]
SPELLED_LENGTH = [b"Content-Length", b"content-length", b"CONTENT-LENGTH", b"Content_Length", b"Content-Length "]
SPELLED_CODING = [b"Transfer-Encoding", b"transfer-encoding", b"TRANSFER-ENCODING", b"Transfer_Encoding"]
blanks = st.sampled_from([b"", b" ", b"\t", b"  ", b" \t "])
texts = st.binary(max_size=20).map(lambda data: bytes(byte for byte in data if byte >= 0x20 and byte != 0x7F))


def lines(names: list[bytes], values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.tuples(st.sampled_from(names), st.just(b":"), blanks, values, blanks).map(b"".join)


harmless = lines(NAMES, st.sampled_from(VALUES) | texts)
length_lines = lines(SPELLED_LENGTH, st.sampled_from(LENGTHS))
coding_lines = lines(SPELLED_CODING, st.sampled_from(CODINGS))
framing = st.one_of(
    length_lines.map(lambda line: [line]),
    st.sampled_from([[b"Content-Length: 5"], [b"Transfer-Encoding: chunked"]]),
    length_lines.map(lambda line: [line, line]),
    st.lists(length_lines, min_size=2, max_size=3),
    coding_lines.map(lambda line: [line]),
    st.lists(length_lines | coding_lines, min_size=2, max_size=3),
)
status_lines = st.one_of(
    st.just(b"HTTP/1.1 200 OK"),
    st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 206", b"HTTP/1.1 307 "]),
    st.sampled_from(
        [b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 -", b"HTTP/1.1 100 Continue", b"HTTP/1.1 103 Early Hints"]
    ),
    st.sampled_from([b"HTTP/1.1 999 \x85OK\xa0", b"HTTP/1.1 200 " + b"long " * 1700, b"HTTP/1.1 200 " + b"x" * 66_000]),
    st.sampled_from(
        [b"HTTP/1.2 200 OK", b"HTTP/1.10 200 OK", b"HTTP/1.1 099 OK", b"HTTP/1.1 +20 OK", b"HTTP/1.1\x85200 OK"]
    ),
    texts.map(lambda text: b"HTTP/1.1 200 " + text),
)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """A plausible head; in half of them a few bytes are replaced, put in or taken out."""
    fields = draw(st.lists(harmless, max_size=4))
    at = draw(st.integers(0, len(fields)))
    fields[at:at] = draw(framing)
    many = {0: 90, 1: 97, 2: 98, 3: 99}.get(draw(st.integers(0, 19)), 0)
    data = head(*fields, *[b"X-Many: 1"] * many, start=draw(status_lines) + b"\r\n")
    for _ in range(max(0, draw(st.integers(-2, 2)))):
        at = draw(st.integers(0, min(len(data), 300)))
        piece = draw(st.sampled_from(LAWFUL) | st.sampled_from(LAWFUL + NASTY) | st.binary(max_size=2))
        data = data[:at] + piece + data[at + draw(st.integers(0, 2)) :]
    return data


@settings(max_examples=600, deadline=None)
@given(heads())
@example(head(b"Content-Length: 5", b"Content-Length: 5"))
@example(head(b"Content-Length: 5, 5"))
@example(head(b"Transfer-Encoding: chunked "))
@example(head(b"Transfer-Encoding: chunked\xa0"))
@example(head(b"Connection: not-close", b"Content-Length: 5"))
@example(head(b"Connection: x", b"Connection: keep-alive", b"Content-Length: 5", start=b"HTTP/1.0 200 OK\r\n"))
@example(head(*[b"X: y"] * 100))
@example(head(*[b"X: y"] * 99))
@example(b"HTTP/1.1 200 " + b"x" * 65_536 + b"\r\n\r\n")
@example(head(b"X: " + b"y" * 8177, b"Content-Length: 5"))
@example(head(b"Transfer-Encoding: chunked", start=b"HTTP/1.1 100 Continue\r\n"))
@example(head(b"Content-Length: 5", start=b"HTTP/1.1 204 No Content\r\n"))
def test_http_client_reads_the_same_in_a_damaged_head(data: bytes) -> None:
    event("taken" if check_same(data) else "refused")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", OK, OK + b"X: ", OK + b"Content-Length: 5\r\n"]), st.booleans())
def test_http_client_reads_the_same_in_any_bytes(data: bytes, start: bytes, ends: bool) -> None:
    event("taken" if check_same(start + data + (b"\r\n\r\n" if ends else b"")) else "refused")


@pytest.mark.parametrize("size", [8185, 8186, 8187, 8188, 8189, 8190, 8191, 8192, 8193, 16_384, 65_000])
def test_http_client_reads_the_same_in_a_long_head(size: int) -> None:
    """It reads heads in blocks of 8 KiB; no line end may be lost between them."""
    start = head(b"X: ")
    assert check_same(head(b"X: " + b"y" * (size - len(start)), b"Content-Length: 5", b"ETag: 1"))
