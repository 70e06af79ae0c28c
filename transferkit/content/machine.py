"""What this machine is, as registries and their clients name it."""

from __future__ import annotations

import os
import sys

_MACHINES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm/v7"}


def _machine() -> str:
    if hasattr(os, "uname"):  # ``platform`` says the same, and costs a first call a millisecond
        return os.uname().machine
    import platform  # Windows

    return platform.machine()


def local_platform() -> str:
    """Return what this machine is, as an index names it: ``linux/amd64``."""
    machine = _machine()
    return f"{'linux' if sys.platform.startswith('linux') else sys.platform}/{_MACHINES.get(machine, machine)}"
