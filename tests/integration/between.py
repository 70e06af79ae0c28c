"""haproxy, which stands before a server and speaks HTTP to both sides."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.conftest import answers, end, free_ports, program

HAPROXY = """
global
    maxconn 256
defaults
    mode http
    timeout connect 10s
    timeout client 60s
    timeout server 60s
    {rules}
frontend all
    bind 127.0.0.1:{port}
    default_backend server
backend server
    server one {authority}
"""


@contextmanager
def haproxy(folder: Path, url: str, *rules: str) -> Iterator[str]:
    """Run haproxy before a server, and yield its URL; ``rules`` are lines of its section ``defaults``."""
    executable = program("haproxy", package="haproxy")
    (port,) = free_ports(1)
    folder.mkdir(parents=True, exist_ok=True)
    authority = url.removeprefix("http://")
    config, log = folder / "haproxy.cfg", folder / "log"
    config.write_text(HAPROXY.format(rules="\n    ".join(rules), port=port, authority=authority))
    with log.open("wb") as out:
        process = subprocess.Popen(
            [executable, "-db", "-f", str(config)], stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        if not answers(process, port, tls=False):
            pytest.fail(f"haproxy did not start: {log.read_text(errors='replace')[-500:]}")
        yield f"http://127.0.0.1:{port}"
    finally:
        end(process)
