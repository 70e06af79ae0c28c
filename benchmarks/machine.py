"""What a reader needs to know of the machine, and nothing that tells which one it is."""

from __future__ import annotations

import os
import platform
import re
import ssl
import subprocess
from collections.abc import Iterable
from pathlib import Path

from benchmarks import servers
from benchmarks.entrants import ALL


def describe() -> dict[str, str]:
    return {
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "processor": _first_line("/proc/cpuinfo", r"model name\s*:\s*(.*)") or platform.machine(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1024**3:.0f} GiB",
        "Python": platform.python_version(),
        "TLS": ssl.OPENSSL_VERSION.rsplit(maxsplit=3)[0],
        # Without what a distributor or a host of virtual machines adds.
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
    }


def versions(contestants: Iterable[str]) -> dict[str, str]:
    found = {}
    for name, command in (
        ("nginx", [servers.nginx_path() or "nginx", "-v"]),
        ("docker-registry", ["docker-registry", "--version"]),
    ):
        if version := _version(command):
            found[name] = version
    for name in contestants:
        contestant = ALL[name]
        version = "" if contestant.missing() else contestant.version()
        if version:
            found[contestant.package or contestant.program] = version
    return found


def _version(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""  # not installed
    number = re.search(r"[0-9]+(\.[0-9]+)+", done.stdout + done.stderr)
    return number[0] if number else ""


def _first_line(path: str, pattern: str) -> str:
    try:
        found = re.search(pattern, Path(path).read_text())
    except OSError:
        return ""
    return found[1].strip() if found else ""
