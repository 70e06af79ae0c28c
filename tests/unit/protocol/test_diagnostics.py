"""What a refusal means."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transferkit.errors import (
    BlobNotFoundError,
    DeniedError,
    ManifestNotFoundError,
    NotFoundError,
    RateLimitedError,
    RegistryError,
    ServerError,
    UnauthorizedError,
)
from transferkit.protocol.diagnostics import Complaint, read_complaint, read_retry_after, refusal

BLOB = "https://registry.example.com/v2/library/model/blobs/sha256:" + 64 * "a"
MANIFEST = "https://registry.example.com/v2/library/model/manifests/latest"
UPLOAD = "https://registry.example.com/v2/library/model/blobs/uploads/"


def refused(status: int, **changes: Any) -> Any:
    values: dict[str, Any] = {
        "method": "GET",
        "url": BLOB,
        "status": status,
        "headers": {},
        "body": b"",
        "now": 1_445_412_480.0,
        "max_retry_after": 300.0,
    }
    return refusal(**{**values, **changes})


# -- the registry's own words


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            b'{"errors":[{"code":"DENIED","message":"no","detail":"you"},{"code":"OTHER"}]}',
            Complaint("DENIED", "no", "you"),
        ),
        (b'{"errors":[{"code":"UNKNOWN","detail":{"a":[1,null]}}]}', Complaint("UNKNOWN", "", '{"a": [1, null]}')),
        (b'{"errors":[{"error":"no"}]}', Complaint("", "no", "")),
        (b'{"error":"no","code":5}', Complaint("5", "no", "")),
        (b'{"message":"no","error":"yes"}', Complaint("", "no", "")),
        (b'{"errors":[],"message":"no"}', Complaint("", "no", "")),
        (b'{"errors":{},"message":"no"}', Complaint("", "no", "")),
        (b'{"errors":null}', Complaint()),
        (b"{}", Complaint()),
        (b'{"errors":["no"]}', Complaint("", '{"errors":["no"]}', "")),
        (b'["no"]', Complaint("", '["no"]', "")),
        (b'"no"', Complaint("", '"no"', "")),
        (b"", Complaint()),
        (b" \r\n\t", Complaint()),
        (b"404 page not found\n", Complaint("", "404 page not found", "")),
        (b"two\r\nlines\x1b[2J\x00 and  blanks", Complaint("", "two lines [2J and blanks", "")),
        (b"\xff\xfe", Complaint("", "\ufffd\ufffd", "")),
        (b'{"message":"a\\ud800b\\u202ec"}', Complaint("", "a b c", "")),
        (b'{"code":{"a":NaN},"message":true}', Complaint('{"a": NaN}', "true", "")),
        ('{"message":"gr\u00fc\u00df"}'.encode(), Complaint("", "gr\u00fc\u00df", "")),
        (b"<html><body>Bad Gateway</body></html>", Complaint("", "an HTML page, not a registry's answer", "")),
        (b"\n <?xml version='1.0'?><Error/>", Complaint("", "an HTML page, not a registry's answer", "")),
        (100_000 * b"[", Complaint("", 300 * "[", "")),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_complaint_is_read(body: bytes, expected: Complaint) -> None:
    assert read_complaint(body) == expected


def test_a_page_is_known_by_its_type_too() -> None:
    assert read_complaint(b"Bad Gateway", "Text/HTML; charset=utf-8").message == "an HTML page, not a registry's answer"
    assert read_complaint(b"Bad Gateway", "text/plain").message == "Bad Gateway"
    assert read_complaint(b'{"message":"no"}', "text/html").message == "no"


def test_a_complaint_is_bounded() -> None:
    long = json.dumps({"code": 1000 * "c", "message": 1000 * "m", "detail": [1000 * "d"]}).encode()
    complaint = read_complaint(long)
    assert (complaint.code, complaint.message) == (300 * "c", 300 * "m")
    assert complaint.detail == '["' + 298 * "d"
    assert read_complaint(1000 * b"x").message == 300 * "x"


def test_only_the_first_64_kib_are_looked_at() -> None:
    assert read_complaint(b'{"message":"no"}' + 65_520 * b" ").message == "no"
    assert read_complaint(b'{"message":"no"}' + 65_520 * b" " + b"garbage").message == "no"
    assert read_complaint(65_536 * b" " + b'{"message":"no"}') == Complaint()


@pytest.mark.parametrize("opening", ['{"detail":', '{"errors":[{"message":', '{"code":{"a":'])
def test_nesting_of_any_depth_is_read_without_an_error(opening: str) -> None:
    closing = "".join({"{": "}", "[": "]"}[c] for c in reversed(opening) if c in "{[")
    for depth in [2, *range(850, 1010), 5_000, 30_000]:
        complaint = read_complaint(f"{opening}{depth * '['}{depth * ']'}{closing}".encode())
        assert complaint != Complaint()


ERRORS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["errors", "error", "code", "message", "detail"]), inner, max_size=5)
    ),
    max_leaves=10,
)


@given(
    body=st.binary() | st.text().map(str.encode) | ERRORS.map(lambda value: json.dumps(value).encode()),
    content_type=st.sampled_from(["", "application/json", "text/html"]) | st.text(),
)
@settings(deadline=None, max_examples=150)
def test_whatever_is_in_a_body_is_read_without_an_error(body: bytes, content_type: str) -> None:
    complaint = read_complaint(body, content_type)
    for text in (complaint.code, complaint.message, complaint.detail):
        assert len(text) <= 300
        assert text.isprintable()


# -- Retry-After


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        (" 120 ", 120.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("-5", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 60.0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 60.0),
        ("Wed, 21 Oct 2015 07:28:00", 60.0),
        ("Wed, 21 Oct 2015 09:28:00 +0200", 60.0),
        ("Wednesday, 21-Oct-15 07:28:00 GMT", 60.0),
        ("Wed Oct 21 07:28:00 2015", 60.0),
        ("Wed, 21 Oct 2015 07:26:00 GMT", 0.0),
        ("Fri, 01 Jan 1999 00:00:00 GMT", 0.0),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("-inf", None),
        ("1e999", None),
        ("120, 130", None),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ("Wed, 21 Oct 99999 07:28:00 GMT", None),
        ("Wed, 21 Oct 2015 07:28:00 +9999", None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(value: str | None, seconds: float | None) -> None:
    assert read_retry_after(value, now=1_445_412_420.0) == seconds


def test_a_date_without_a_zone_is_gmt_wherever_we_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        assert read_retry_after("Wed, 21 Oct 2015 07:28:00", now=1_445_412_420.0) == 60.0
    finally:
        monkeypatch.undo()
        time.tzset()


DATES = st.builds(
    "{}{} {} {} {}:{}:{} {}".format,
    st.sampled_from(["Wed, ", "Wednesday, ", "", ", ", "x"]),
    st.integers(-1, 40),
    st.sampled_from(["Oct", "oct", "Foo", "10", ""]),
    st.integers(-1, 10**10),
    st.integers(-1, 30),
    st.integers(0, 99),
    st.integers(0, 99),
    st.sampled_from(["GMT", "-0000", "+2359", "-2359", "+9999", "+99999999999", "EST", "", "Z", "\u0661"]),
)


@given(
    value=st.one_of(
        st.none(),
        st.text(),
        DATES,
        st.floats().map(repr),
        st.text(st.sampled_from('WedOct0123456789 :,-+.eE_GMT()"\\\n'), max_size=40),
    ),
    now=st.floats(0, 4e9),
)
@settings(deadline=None, max_examples=200)
def test_retry_after_never_raises_and_is_a_time_to_wait(value: str | None, now: float) -> None:
    seconds = read_retry_after(value, now=now)
    assert seconds is None or (math.isfinite(seconds) and seconds >= 0.0)


# -- the exception


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (301, RegistryError, False),
        (400, RegistryError, False),
        (401, UnauthorizedError, False),
        (403, DeniedError, False),
        (405, RegistryError, False),
        (408, RegistryError, True),
        (409, RegistryError, False),
        (416, RegistryError, False),
        (425, RegistryError, True),
        (429, RateLimitedError, True),
        (499, RegistryError, True),
        (500, ServerError, True),
        (501, ServerError, False),
        (502, ServerError, True),
        (503, ServerError, True),
        (504, ServerError, True),
        (505, ServerError, False),
        (522, ServerError, True),
        (599, ServerError, True),
        (600, RegistryError, False),
        (999, RegistryError, False),
    ],
)
def test_a_status_decides_the_exception_and_whether_to_try_again(
    status: int, kind: type[RegistryError], retryable: bool
) -> None:
    error = refused(status)
    assert type(error) is kind
    assert (error.status, error.retryable, error.retry_after) == (status, retryable, None)


@pytest.mark.parametrize("status", [400, 404])
def test_a_manifest_of_unknown_blobs_names_them(status: int) -> None:
    complaint = {"code": "MANIFEST_BLOB_UNKNOWN", "message": "blob unknown", "detail": {"digest": "sha256:ab"}}
    error = refused(status, method="PUT", url=MANIFEST, body=json.dumps({"errors": [complaint]}).encode())
    assert type(error) is BlobNotFoundError
    assert "in the repository first" in str(error)
    assert "sha256:ab" in str(error)


@pytest.mark.parametrize("status", [400, 404])
def test_some_registries_call_the_blobs_of_a_manifest_unknown_blobs(status: int) -> None:
    body = b'{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}'
    assert type(refused(status, method="PUT", url=MANIFEST, body=body)) is BlobNotFoundError
    assert type(refused(status, method="PUT", url=UPLOAD, body=body)) is not BlobNotFoundError


@pytest.mark.parametrize("code", ["MANIFEST_UNKNOWN", "manifest_unknown", "Manifest_Unknown"])
@pytest.mark.parametrize("status", [200, 400, 403, 404, 500, 999])
def test_an_unknown_manifest_is_one_whatever_the_status_and_the_case(status: int, code: str) -> None:
    error = refused(status, url=MANIFEST, body=json.dumps({"errors": [{"code": code, "message": "m"}]}).encode())
    assert type(error) is ManifestNotFoundError
    advice = "check the name and the tag ('transferkit tags registry.example.com/library/model' lists the tags)"
    assert str(error) == f"GET {MANIFEST}: registry responded with status {status}: code {code}: m; {advice}"


def test_ollamas_own_words() -> None:
    """From Ollama's own tests: a status that is none, and a code with its message."""
    url = "https://example.com/v2/library/BOOM/manifests/latest"
    boom = refused(999, url=url, body=b'{"error": "boom"}')
    assert str(boom) == f"GET {url}: registry responded with status 999: boom"
    coded = refused(400, url=url, body=b'{"errors": [{"code": "X", "message": "message"}]}')
    assert str(coded) == f"GET {url}: registry responded with status 400: code X: message"


@pytest.mark.parametrize("kind", [BlobNotFoundError, ManifestNotFoundError, NotFoundError])
@pytest.mark.parametrize("url", [BLOB, MANIFEST, UPLOAD, "https://cdn.example.com/data/1?X-Signature=secret"])
def test_a_404_is_what_was_asked_for_whatever_its_url_looks_like(url: str, kind: type[NotFoundError]) -> None:
    error = refused(404, method="GET", url=url, missing=kind)
    assert type(error) is kind
    assert error.retryable is False
    assert "secret" not in str(error)


def test_a_digest_that_stands_in_the_url_is_not_said_twice() -> None:
    url = f"https://registry.example.com/v2/a/blobs/sha256:{64 * 'a'}"
    error = refused(500, method="GET", url=url, subject="sha256:aaaaaaaaaaaa")
    assert str(error) == f"GET {url}: registry responded with status 500"


def test_a_refusal_says_what_where_and_why() -> None:
    error = refused(
        403,
        method="HEAD",
        url="https://registry.example.com/v2/a/blobs/1?token=secret",
        body=b'{"errors":[{"code":"DENIED","message":"not yours","detail":{"a":1}}]}',
        subject="sha256:aaaaaaaaaaaa",
    )
    assert str(error) == (
        "sha256:aaaaaaaaaaaa: HEAD https://registry.example.com/v2/a/blobs/1: "
        "registry responded with status 403: code DENIED: not yours; "
        "who is logged in may not do this: use other credentials, or ask whoever runs the registry"
    )
    assert (error.method, error.url) == ("HEAD", "https://registry.example.com/v2/a/blobs/1")
    assert (error.code, error.message, error.detail) == ("DENIED", "not yours", '{"a": 1}')


def test_a_refusal_without_words_is_short() -> None:
    assert str(refused(500, url="https://r/v2/")) == "GET https://r/v2/: registry responded with status 500"
    oops = refused(500, url="https://r/v2/", body=b"oops")
    assert str(oops) == "GET https://r/v2/: registry responded with status 500: oops"


def test_a_401_says_how_to_pass_credentials() -> None:
    assert str(refused(401, url="https://r/v2/")) == (
        "GET https://r/v2/: registry responded with status 401; pass auth=, token= or get_token="
    )


def test_the_type_of_a_body_is_looked_at() -> None:
    error = refused(502, headers={"content-type": "text/html"}, body=b"Bad Gateway")
    assert error.message == "an HTML page, not a registry's answer"


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_kept_where_it_means_something(status: int) -> None:
    error = refused(status, headers={"retry-after": "7"})
    assert (error.retry_after, error.retryable) == (7.0, True)


@pytest.mark.parametrize("status", [401, 403, 500, 502])
def test_retry_after_is_ignored_elsewhere(status: int) -> None:
    assert refused(status, headers={"retry-after": "7"}).retry_after is None


def test_retry_after_as_a_date_counts_from_now() -> None:
    error = refused(429, headers={"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"})
    assert error.retry_after == 30.0


@pytest.mark.parametrize(("seconds", "retryable"), [("300", True), ("301", False)])
def test_a_wait_that_is_too_long_fails_at_once(seconds: str, retryable: bool) -> None:
    error = refused(429, headers={"retry-after": seconds})
    assert (error.retryable, error.retry_after) == (retryable, float(seconds))


def test_a_wait_that_is_too_long_is_named_with_the_option() -> None:
    error = refused(503, url="https://r/v2/", headers={"retry-after": "3600"})
    assert type(error) is ServerError
    assert str(error) == (
        "GET https://r/v2/: registry responded with status 503; it asks to come back in 3600 s, more than "
        "RetryOptions(max_retry_after=300)"
    )


# -- codes


@pytest.mark.parametrize(
    ("status", "code", "kind", "retryable"),
    [
        (400, "BLOB_UPLOAD_INVALID", RegistryError, True),
        (404, "BLOB_UPLOAD_UNKNOWN", NotFoundError, True),
        (403, "TOOMANYREQUESTS", RateLimitedError, True),
        (400, "UNAVAILABLE", RegistryError, True),
        (409, "UNKNOWN", RegistryError, True),
        (404, "UNKNOWN", NotFoundError, False),
        (401, "UNKNOWN", UnauthorizedError, False),
        (413, "UNAVAILABLE", RegistryError, False),
        (400, "DIGEST_INVALID", RegistryError, False),
        (403, "DENIED", DeniedError, False),
    ],
)
def test_a_code_says_again_whatever_the_status(status: int, code: str, kind: type, retryable: bool) -> None:
    error = refused(status, body=json.dumps({"errors": [{"code": code}]}).encode())
    assert (type(error), error.retryable) == (kind, retryable)


def test_a_code_that_says_too_many_waits_as_its_status_would() -> None:
    body = b'{"errors":[{"code":"TOOMANYREQUESTS"}]}'
    assert refused(403, body=body, headers={"retry-after": "7"}).retry_after == 7.0
    assert not refused(403, body=body, headers={"retry-after": "301"}).retryable


def test_what_the_hub_says_in_its_header_fields_is_said() -> None:
    headers = {"x-error-code": "GatedRepo", "x-error-message": "Access is restricted\r\n"}
    error = refused(403, headers=headers, body=b"<html>")
    assert type(error) is DeniedError
    assert error.code == "GatedRepo"
    assert "Access is restricted" in str(error)
