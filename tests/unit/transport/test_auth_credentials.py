"""Where user names and passwords come from."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from transferkit.errors import UnauthorizedError
from transferkit.options import TransportOptions
from transferkit.protocol.origin import Origin
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.auth import Authorizer
from transferkit.transport.exchange import Exchange, basic
from transferkit.transport.request import Lane, Request
from transferkit.transport.tokens import Issued

SCOPE = "repository:library/model:pull"


def pair_of(auth: Any, host: str = "registry.example") -> tuple[str, str] | None:
    exchange = Exchange(requests.Session(), TransportOptions())
    found = Authorizer(Origin.of(f"https://{host}"), exchange, auth=auth)._credential(SCOPE, WorkerFlow())
    return found and (found.user, found.password)


def test_a_pair_is_the_same_for_every_repository() -> None:
    assert ("user", "password") == pair_of(("user", "password"))


def test_without_auth_there_is_no_pair() -> None:
    assert pair_of(None) is None


def test_a_function_is_asked_with_the_host() -> None:
    asked: list[str] = []

    def auth(host: str) -> tuple[str, str] | None:
        asked.append(host)
        return ("user", "password") if host == "a.example:5000" else None

    assert [("user", "password"), None] == [pair_of(auth, host) for host in ("a.example:5000", "b.example")]
    assert ["a.example:5000", "b.example"] == asked


def test_credentials_of_the_users_are_asked_with_host_and_repository() -> None:
    class Vault:
        def for_(self, host: str, repository: str) -> tuple[str, str] | None:
            return host, repository

    assert ("registry.example", "library/model") == pair_of(Vault())


@pytest.mark.parametrize("pair", [("user",), ("user", "password", "x"), ("user", 3), ("user", None), ()])
def test_what_is_no_pair_is_refused_when_it_is_needed(pair: Any) -> None:
    for auth in (pair, lambda _: pair):
        with pytest.raises(UnauthorizedError, match=r"auth is \(user, password\), or a function"):
            pair_of(auth)


def test_a_representation_holds_no_password() -> None:
    exchange = Exchange(requests.Session(), TransportOptions())
    proxies = {"http": "http://user:secret@proxy.example"}
    for secretive in (
        Authorizer(Origin.of("https://a.example"), exchange, auth=("user", "secret")),
        Request(method="GET", url="https://a.example/x?a=secret", ok=(), headers={"Authorization": "Bearer secret"}),
        Lane(origin="https://a.example", settings={"proxies": proxies}, headers={"X": "secret"}, fields="Y: secret"),
        Issued("Bearer secret", 1.0, ""),
    ):
        assert type(secretive).__name__ in repr(secretive)
        assert "secret" not in repr(secretive)


@pytest.mark.parametrize(
    ("user", "password", "header"),
    [
        ("Aladdin", "open sesame", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),  # RFC 7617, section 2
        ("test", "123\u00a3", "Basic dGVzdDoxMjPCow=="),  # RFC 7617, section 2.1
        ("", "", "Basic Og=="),
    ],
)
def test_a_pair_becomes_a_header(user: str, password: str, header: str) -> None:
    assert header == basic(user, password)
