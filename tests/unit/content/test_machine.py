"""What a machine is, by what its system says."""

from __future__ import annotations

import os
import platform
import sys
from types import SimpleNamespace

import pytest

from transferkit.content.machine import local_platform


@pytest.mark.parametrize(
    ("system", "machine", "named"),
    [
        ("linux", "x86_64", "linux/amd64"),
        ("linux", "aarch64", "linux/arm64"),
        ("linux2", "armv7l", "linux/arm/v7"),
        ("darwin", "arm64", "darwin/arm64"),
        ("linux", "riscv64", "linux/riscv64"),
    ],
)
def test_a_machine_is_named_as_registries_name_it(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, named: str
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    assert named == local_platform()


def test_where_there_is_no_uname_the_platform_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delattr(os, "uname")
    monkeypatch.setattr(platform, "machine", lambda: "AMD64")
    assert "win32/amd64" == local_platform()
