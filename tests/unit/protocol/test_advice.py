"""What a refusal advises."""

from __future__ import annotations

import pytest

from transferkit.protocol.advice import NOT_A_REGISTRY, about
from transferkit.protocol.diagnostics import read_complaint

HUB = "https://registry.example.com/v2/org/team/model"
NAME = "check the name and the tag ('transferkit tags registry.example.com/org/team/model' lists the tags)"
DIGEST = (
    "check the digest ('transferkit show registry.example.com/org/team/model:TAG' tells the one that a tag has now)"
)


@pytest.mark.parametrize(
    ("status", "place", "is_page", "advice"),
    [
        (404, f"{HUB}/manifests/v1", False, NAME),
        (404, f"{HUB}/manifests/sha256:{64 * 'a'}", False, DIGEST),
        (404, f"{HUB}/blobs/sha256:{64 * 'a'}", False, "check the digest and the repository"),
        (404, f"{HUB}/blobs/uploads/17", False, ""),
        (404, f"{HUB}/tags/list", False, ""),
        (404, f"{HUB}/manifests/v1", True, NOT_A_REGISTRY),
        (500, HUB, False, ""),
        (502, HUB, True, "a proxy or a balancer before the registry has failed"),
        (429, HUB, False, "many registries allow more to users who are logged in"),
        (403, HUB, False, "who is logged in may not do this: use other credentials, or ask whoever runs the registry"),
        (403, HUB, True, NOT_A_REGISTRY),
    ],
)
def test_what_a_refusal_advises(status: int, place: str, is_page: bool, advice: str) -> None:
    assert advice == about(status, place, is_page=is_page)


@pytest.mark.parametrize("is_page", [False, True])
def test_a_proxy_that_wants_a_password_says_where_it_stands(is_page: bool) -> None:
    assert "http://user:password@host:port" in about(407, HUB, is_page=is_page)


@pytest.mark.parametrize(
    ("body", "title"),
    [
        (b"<html><head><TITLE>Blocked\n by  policy</TITLE></head>", " ('Blocked by policy')"),
        (b"<html><title></title>", ""),
        (b"<html><title>never ends", ""),
        (b"<html></title><title>", ""),
        (b"<html><title>" + 500 * b"x" + b"</title>", f" ('{80 * 'x'}')"),
        (b"<html><title>\x1b[31mred</title>", " ('[31mred')"),
        (b"<html>", ""),
    ],
)
def test_the_title_of_a_page_is_repeated(body: bytes, title: str) -> None:
    assert f"an HTML page, not a registry's answer{title}" == read_complaint(body).message
