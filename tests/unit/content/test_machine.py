"""What a machine is, by what its system says."""

from __future__ import annotations

import math
import os
import platform
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from transferkit.content.machine import idle_time, local_platform


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


@pytest.mark.parametrize("said", [b"82571.58 53827.48\n", b"5.00 0.01"])
def test_the_system_says_how_long_its_cores_were_idle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: bytes
) -> None:
    _say(monkeypatch, tmp_path, said)
    assert idle_time() == float(said.split()[1])


@pytest.mark.parametrize("said", [None, b"", b"82571.58", b"one two", b"120.00 0.00\n"])
def test_a_system_that_does_not_say_it_is_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: bytes | None
) -> None:
    """gVisor says 0; other systems have no such file."""
    _say(monkeypatch, tmp_path, said)
    assert math.isnan(idle_time())


def _say(monkeypatch: pytest.MonkeyPatch, folder: Path, said: bytes | None) -> None:
    uptime = folder / "uptime"
    if said is not None:
        uptime.write_bytes(said)
    monkeypatch.setattr("transferkit.content.machine.Path", lambda path: {"/proc/uptime": uptime}[path])
