"""The rules of an upload: session URLs, what a Range says, and what Ollama's registries add."""

from __future__ import annotations

import pytest

from transferkit.content.digest import Digest
from transferkit.errors import ProtocolError
from transferkit.protocol.origin import Origin
from transferkit.protocol.upload import (
    SMALLEST_PART,
    PartRules,
    announced,
    commit_url,
    is_ollama,
    received,
    signed_headers,
    smallest_part,
)

DIGEST = "sha256:" + 64 * "a"


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("https://r/v2/a/blobs/uploads/1", f"https://r/v2/a/blobs/uploads/1?digest={DIGEST}"),
        ("https://r/v2/a/blobs/uploads/1?", f"https://r/v2/a/blobs/uploads/1?digest={DIGEST}"),
        ("https://r/u?_state=x%3D", f"https://r/u?_state=x%3D&digest={DIGEST}"),
        ("https://r/u?a=1&b=%2F+%20&c", f"https://r/u?a=1&b=%2F+%20&c&digest={DIGEST}"),
        ("https://r/u?_state=a+b/c==", f"https://r/u?_state=a+b/c==&digest={DIGEST}"),
        ("http://r:5000/u#part", f"http://r:5000/u?digest={DIGEST}"),
        ("http://[::1]:5000/u%2F1", f"http://[::1]:5000/u%2F1?digest={DIGEST}"),
    ],
)
def test_the_digest_is_added_and_the_query_kept_byte_for_byte(location: str, expected: str) -> None:
    assert commit_url(location, Digest(DIGEST)) == expected


def test_an_etag_comes_after_the_digest() -> None:
    assert commit_url("https://r/u?a=b", Digest(DIGEST), etag="0f-2") == f"https://r/u?a=b&digest={DIGEST}&etag=0f-2"


@pytest.mark.parametrize(
    ("value", "sent", "expected"),
    [
        ("0-9", 10, 10),
        ("bytes=0-9", 10, 10),
        (" 0-9 ", 10, 10),
        ("0-4", 10, 5),
        ("0-19", 10, 20),
        ("0-0", 0, 0),  # an empty session
        ("0-0", 10, 0),
        ("0-0", 1, 1),  # one byte was sent, and one is there
        ("bytes=0-0", 1, 1),
        ("0-999999999999999999", 10, 10**18),
        (None, 10, None),
        ("", 10, None),
        ("0-", 10, None),
        ("-9", 10, None),
        ("1-9", 10, None),  # without its first byte, nothing that could be gone on with
        ("0--1", 10, None),
        ("0-9/10", 10, None),
        ("bytes 0-9", 10, None),
        ("0-9\n", 10, 10),  # a blank at the end, as to HTTP
        ("0-9,20-29", 10, None),
        ("0-٣", 10, None),
        ("0-9999999999999999999", 10, None),
    ],
)
def test_a_range_says_how_much_is_there(value: str | None, sent: int, expected: int | None) -> None:
    assert received(value, sent=sent) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [("5242880", 5242880), (" 1 ", 1), (None, 0), ("", 0), ("-1", 0), ("5e6", 0), ("٣", 0), ("9" * 30, 0)],
)
def test_the_smallest_part_is_a_number_or_not_said(value: str | None, expected: int) -> None:
    assert smallest_part(value) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("registry.ollama.ai", True),
        ("ollama.com", True),
        ("ollama.ai", True),
        ("a.b.ollama.com", True),
        ("notollama.com", False),
        ("ollama.com.example", False),
        ("registry.example", False),
        ("mirror.example", True),
    ],
)
def test_who_speaks_ollamas_dialect(host: str, expected: bool) -> None:
    assert is_ollama(Origin("https", host, 443), frozenset({"mirror.example", "registry.example:444"})) is expected


def test_a_port_is_part_of_a_name_that_has_one() -> None:
    hosts = frozenset({"127.0.0.1:5000"})
    assert is_ollama(Origin("http", "127.0.0.1", 5000), hosts)
    assert not is_ollama(Origin("http", "127.0.0.1", 5001), hosts)


def test_signed_headers_are_repeated_and_secrets_are_not() -> None:
    headers = {
        "content-length": "0",
        "x-signed-header-x-amz-acl": "private",
        "x-signed-header-content-type": "application/x-model",
        "x-signed-header-authorization": "Bearer stolen",
        "x-signed-header-proxy-authorization": "Basic x",
        "x-signed-header-cookie": "a=b",
        "x-signed-header-host": "elsewhere",
        "x-signed-header-content-length": "5",
        "x-signed-header-transfer-encoding": "chunked",
        "x-direct-upload-url": "https://storage/x",
    }
    assert {"X-Amz-Acl": "private", "Content-Type": "application/x-model"} == signed_headers(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-signed-header-a": "b\r\nAuthorization: Bearer x"},
        {"x-signed-header-a": "b\nc"},
        {"x-signed-header-a": "b\x00"},
        {"x-signed-header-a": "\x7f"},
        {"x-signed-header-": "b"},
        {"x-signed-header-a b": "c"},
        {"x-signed-header-a:b": "c"},
        {"x-signed-header-a\r\nb": "c"},
        {"x-signed-header-ä": "c"},
    ],
)
def test_a_signed_header_that_is_none_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ProtocolError, match="malformed header field"):
        signed_headers(headers)


@pytest.mark.parametrize("said", [DIGEST, "sha512:" + 128 * "a"])
def test_a_digest_that_is_announced_is_one(said: str) -> None:
    assert announced({"docker-content-digest": said}) == said


@pytest.mark.parametrize("said", ["", "x", "md5:abc", f'"{DIGEST}"', DIGEST.upper(), "sha256+b64:abc"])
def test_what_is_of_no_algorithm_of_ours_announces_none(said: str) -> None:
    assert announced({"docker-content-digest": said}) is None
    assert announced({}) is None


@pytest.mark.parametrize("said", ["sha256", "sha256:", "sha256:x", f"{DIGEST}, {DIGEST}", "sha512:" + 64 * "a"])
def test_a_malformed_digest_says_nothing(said: str) -> None:
    assert announced({"docker-content-digest": said}) is None


# -- how long parts are

MIB = 1024 * 1024


def test_without_a_wish_a_blob_goes_in_one_request() -> None:
    assert PartRules().length(10**12, 0) == 0


@pytest.mark.parametrize(
    ("size", "minimum", "length"),
    [(8 * MIB, 0, 0), (8 * MIB + 1, 0, 8 * MIB), (9 * MIB, 16 * MIB, 16 * MIB), (9 * MIB, MIB, 8 * MIB)],
)
def test_the_wish_of_the_user_and_the_registrys_minimum(size: int, minimum: int, length: int) -> None:
    assert PartRules(8 * MIB).length(size, minimum) == length


def test_a_body_that_was_refused_makes_parts_a_fourth_of_it() -> None:
    rules = PartRules()
    assert rules.refuse(100 * MIB, 0) == 25 * MIB
    assert [rules.demanded(size) for size in (99 * MIB, 100 * MIB)] == [False, True]
    assert [rules.length(size, 0) for size in (99 * MIB, 100 * MIB)] == [0, 64 * MIB]
    assert rules.refuse(64 * MIB, 0) == 16 * MIB
    assert rules.length(64 * MIB, 0) == 16 * MIB


@pytest.mark.parametrize(("length", "minimum"), [(SMALLEST_PART, 0), (1, 0), (3 * MIB, 3 * MIB), (2 * MIB, 5 * MIB)])
def test_what_cannot_become_smaller_is_refused_for_good(length: int, minimum: int) -> None:
    rules = PartRules()
    assert rules.refuse(length, minimum) == 0
    assert not rules.demanded(10**12)


def test_who_takes_no_parts_gets_one_request_unless_that_was_refused() -> None:
    rules = PartRules(MIB)
    rules.taken = False
    assert rules.length(8 * MIB, 0) == 0
    rules.refuse(8 * MIB, 0)
    assert rules.length(8 * MIB, 0) == MIB
