"""Where user names and passwords come from."""

from __future__ import annotations

from typing import Any

import pytest

from transferkit.errors import UnauthorizedError
from transferkit.transport.credentials import Given, basic, credentials_of


def test_a_pair_is_the_same_for_every_repository() -> None:
    assert ("user", "password") == credentials_of(("user", "password")).for_("registry.example", "library/model")


def test_without_auth_there_is_no_pair() -> None:
    assert credentials_of(None).for_("registry.example", "library/model") is None


def test_a_function_is_asked_with_the_host() -> None:
    asked: list[str] = []

    def auth(host: str) -> tuple[str, str] | None:
        asked.append(host)
        return ("user", "password") if host == "a.example:5000" else None

    credentials = credentials_of(auth)
    assert [("user", "password"), None] == [credentials.for_(host, "x") for host in ("a.example:5000", "b.example")]
    assert ["a.example:5000", "b.example"] == asked


def test_credentials_of_the_users_are_taken_as_they_are() -> None:
    class Vault:
        def for_(self, host: str, repository: str) -> tuple[str, str] | None:
            return host, repository

    vault = Vault()
    assert vault is credentials_of(vault)


@pytest.mark.parametrize("pair", [("user",), ("user", "password", "x"), ("user", 3), ("user", None), ()])
def test_what_is_no_pair_is_refused_when_it_is_needed(pair: Any) -> None:
    for credentials in (Given(pair), Given(lambda _: pair)):
        with pytest.raises(UnauthorizedError, match=r"auth is \(user, password\), or a function"):
            credentials.for_("registry.example", "library/model")


def test_a_representation_holds_no_password() -> None:
    assert "Given()" == repr(Given(("user", "secret")))
    assert "Given()" == repr(Given(lambda _: ("user", "secret")))


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
