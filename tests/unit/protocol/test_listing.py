"""The rules of lists: pages, tags and referrers."""

from __future__ import annotations

import pytest

from transferkit.errors import ProtocolError
from transferkit.protocol.listing import next_page, read_referrers, read_tags

A = "sha256:" + 64 * "a"


@pytest.mark.parametrize(
    ("link", "url"),
    [
        (None, None),
        ("", None),
        ('</v2/a/tags/list?n=2&last=b>; rel="next"', "/v2/a/tags/list?n=2&last=b"),
        ("<https://r/x>;rel=next", "https://r/x"),
        ('<p>; rel="prev", <n>; rel="next"', "n"),
        ('<n>; title="a"; rel="next"', "n"),
        ('<p>; rel="prev"', None),
        ("n; rel=next", None),
    ],
)
def test_the_next_page(link: str | None, url: str | None) -> None:
    assert next_page(link) == url


@pytest.mark.parametrize(
    ("raw", "tags"),
    [
        (b'{"name": "a", "tags": ["v1", "v2"]}', ["v1", "v2"]),
        (b'{"name": "a", "tags": null}', []),
        (b'{"name": "a"}', []),
        (b'{"tags": ["v1", "../x", 5, null, "' + A.encode() + b'", "a:b"]}', ["v1"]),
    ],
)
def test_tags(raw: bytes, tags: list[str]) -> None:
    assert read_tags(raw) == tags


@pytest.mark.parametrize("raw", [b"", b"<html>", b"[]", b'{"tags": "v1"}', b"[" * 10_000])
def test_what_is_no_list_of_tags(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_tags(raw)


def test_referrers() -> None:
    raw = f'{{"schemaVersion": 2, "manifests": [{{"mediaType": "m", "digest": "{A}", "size": 5}}]}}'
    (found,) = read_referrers(raw.encode())
    assert (found.digest, found.size) == (A, 5)


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"layers": []}', b'{"manifests": 5}'])
def test_what_is_no_list_of_referrers(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_referrers(raw)
