"""Paths of the registry API, and the base URL that they are appended to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transferkit.content.digest import Digest
from transferkit.errors import InvalidNameError
from transferkit.protocol import routes
from transferkit.protocol.routes import check_base_url

A = Digest("sha256:" + 64 * "a")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://registry.example.com", "https://registry.example.com"),
        ("https://registry.example.com/", "https://registry.example.com"),
        ("https://registry.example.com//", "https://registry.example.com"),
        ("http://localhost:5000", "http://localhost:5000"),
        ("http://[::1]:5000/", "http://[::1]:5000"),
        ("https://example.com/registry/", "https://example.com/registry"),
        ("https://registry.example.com/v2", "https://registry.example.com"),
        ("https://registry.example.com/v2/", "https://registry.example.com"),
        ("https://example.com/registry/v2/", "https://example.com/registry"),
        ("https://example.com/v2x", "https://example.com/v2x"),
        ("https://example.com.", "https://example.com."),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("HTTPS://Example.com", "HTTPS://Example.com"),
        ("https://example.com:65535", "https://example.com:65535"),
    ],
)
def test_a_base_url_loses_its_trailing_slash(url: str, expected: str) -> None:
    assert check_base_url(url) == expected


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (None, "one ASCII text without blanks"),
        (b"https://example.com", "one ASCII text without blanks"),
        ("https://b\u00fccher.example", "one ASCII text without blanks"),
        ("https://example.com/a b", "one ASCII text without blanks"),
        (" https://example.com", "one ASCII text without blanks"),
        ("https://example.com\n", "one ASCII text without blanks"),
        ("https://example.com\x7f", "one ASCII text without blanks"),
        ("https://example.com\\evil.example", "one ASCII text without blanks and backslashes"),
        ("https://[::1", "does not parse is refused"),
        ("https://example.com:http", "does not parse is refused"),
        ("https://example.com:65536", "does not parse is refused"),
        ("https://user@example.com", "holds a user name"),
        ("https://user:secret@example.com", "holds a user name"),
        ("https://:secret@example.com", "holds a user name"),
        ("https://@example.com", "holds a user name"),
        ("https://user:1/secret@example.com", "holds a user name"),
        ("user:secret@example.com", "holds a user name"),
        ("https:/user:secret@example.com", "holds a user name"),
        ("", "is not the base URL of a registry"),
        ("registry.example.com", "is not the base URL of a registry"),
        ("registry.example.com:5000", "is not the base URL of a registry"),
        ("ftp://example.com", "is not the base URL of a registry"),
        ("file:///etc/passwd", "is not the base URL of a registry"),
        ("https://", "is not the base URL of a registry"),
        ("https:///path", "is not the base URL of a registry"),
        ("https://:5000", "is not the base URL of a registry"),
        ("https://./", "is not the base URL of a registry"),
        ("https://example.com:0", "is not the base URL of a registry"),
        ("https://example.com?secret=1", "takes no query"),
        ("https://example.com/?", "takes no query"),
        ("https://example.com#secret", "takes no query"),
        ("https://example.com/#", "takes no query"),
        ("registry.example.com/?token=secret", "takes no query"),
    ],
)
def test_what_is_no_base_url_is_refused_without_its_secrets(url: Any, message: str) -> None:
    with pytest.raises(InvalidNameError, match=message) as caught:
        check_base_url(url)
    assert "secret" not in str(caught.value)


def test_the_refusal_of_a_base_url_is_bounded() -> None:
    with pytest.raises(InvalidNameError) as caught:
        check_base_url("x" * 10_000)
    assert len(str(caught.value)) < 400


@given(
    scheme=st.sampled_from(["", "https:", "https:/", "https://", "http://", "ftp://", "//"]),
    before=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=8),
    separator=st.sampled_from(["@", "?", "#"]),
    after=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=8),
)
@settings(deadline=None, max_examples=100)
def test_no_secret_of_a_base_url_is_repeated(scheme: str, before: str, separator: str, after: str) -> None:
    secret = f"{before}s3cret"
    text = f"user:{secret}@host{after}" if separator == "@" else f"host/{separator}{secret}{after}"
    with pytest.raises(InvalidNameError) as caught:
        check_base_url(scheme + text)
    assert "s3cret" not in str(caught.value)


def test_paths_are_those_of_the_specification() -> None:
    assert routes.blobs("library/model") + A == "/v2/library/model/blobs/sha256:" + 64 * "a"
    assert routes.uploads("library/model", A, None) == "/v2/library/model/blobs/uploads/"
    assert routes.manifest("library/model", "latest") == "/v2/library/model/manifests/latest"
    assert routes.manifest("library/model", A) == "/v2/library/model/manifests/sha256:" + 64 * "a"


def test_scopes_are_those_of_the_token_specification() -> None:
    assert routes.pull_scope("library/model") == "repository:library/model:pull"
    assert routes.push_scope("library/model") == "repository:library/model:pull,push"
    assert routes.push_scope("library/model", "library/other") == (
        "repository:library/model:pull,push repository:library/other:pull"
    )


@pytest.mark.parametrize(
    ("source", "quoted"),
    [("library/other", "library%2Fother"), ("a&b=c", "a%26b%3Dc"), ("a b#c?d", "a%20b%23c%3Fd"), ("\u00fc", "%C3%BC")],
)
def test_the_source_of_a_mount_is_quoted(source: str, quoted: str) -> None:
    path = f"/v2/library/model/blobs/uploads/?mount=sha256:{64 * 'a'}&from={quoted}"
    assert routes.uploads("library/model", A, source) == path


def test_a_host_that_is_no_name_is_refused() -> None:
    with pytest.raises(InvalidNameError, match="not the base URL of a registry"):
        routes.check_base_url("http://a..b")


def test_the_list_of_the_digests_of_a_blobs_parts_is_beside_the_blobs() -> None:
    """Ollama's own path; the digest stands in it as it is."""
    assert routes.chunksums("library/llama", A) == f"/v2/library/llama/chunksums/sha256:{64 * 'a'}"
