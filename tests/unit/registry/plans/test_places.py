"""Where a plan runs: paths with variables of that machine, and credentials that are named."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

import transferkit as tk
from transferkit.registry.plans.places import given_by, here, registry_for


def test_variables_and_home_are_those_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.setenv("HOME", "/home/me")

    assert "/scratch/me/models" == here("$SCRATCH/models", "to")
    assert "/scratch/me-1/x" == here("${SCRATCH}-1/x", "to")
    assert "/home/me/models" == here("~/models", "cache")
    assert "$SCRATCH/models" == here(Path("$SCRATCH/models"), "to")
    assert "cost/$/1$" == here("cost/$/1$", "to")


@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_not_set_is_an_error(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv("SCRATCH", raising=False)
    else:
        monkeypatch.setenv("SCRATCH", value)

    with pytest.raises(tk.InvalidNameError, match=r"to is '\$SCRATCH/models', and \$SCRATCH is not set on "):
        here("$SCRATCH/models", "to")


@pytest.mark.parametrize(("path", "error"), [("", tk.InvalidNameError), ("a\0b", tk.InvalidNameError), (7, TypeError)])
def test_what_is_no_path_is_refused(path: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        here(path, "cache")


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("team_credentials")
    monkeypatch.setitem(sys.modules, "team_credentials", module)
    return module


def test_credentials_are_what_a_callable_gives(credentials: Any) -> None:
    credentials.Vault = types.SimpleNamespace(registry=lambda: {"auth": ("me", "secret")})

    assert {"auth": ("me", "secret")} == given_by("team_credentials:Vault.registry")
    with registry_for("team_credentials:Vault.registry") as registry:
        assert isinstance(registry, tk.Registry)
    with registry_for("") as one, registry_for("") as two:
        assert one is two


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such_module:give", "has no such callable: No module named 'no_such_module'"),
        ("team_credentials:absent", "has no such callable"),
        ("team_credentials:number", "is int, and no callable"),
        ("team_credentials:text", "has to return a mapping with some of auth, token, get_token"),
        ("team_credentials:session", "has to return a mapping with some of auth, token, get_token"),
        ("os", "named as package.module:callable"),
    ],
)
def test_what_gives_no_credentials_is_an_error(credentials: Any, name: str, said: str) -> None:
    credentials.number = 7
    credentials.text = lambda: "token"
    credentials.session = lambda: {"session": object()}

    with pytest.raises(tk.InvalidPlanError, match=said):
        given_by(name)
