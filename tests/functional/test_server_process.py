"""A registry in a process of its own, fed a large blob. What becomes of it when it is killed: ``test_soak_server``."""

from __future__ import annotations

import hashlib
import http.client
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SERVER = """
import sys, threading
from transferkit.server import OCIRegistry, serving

with serving(OCIRegistry(sys.argv[1])) as url:
    print(url, flush=True)
    threading.Event().wait()
"""
MIB = 1024 * 1024


@contextmanager
def running(store: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a registry in a process of its own, and give its authority."""
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(store)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip().removeprefix("http://"), process
    finally:
        process.kill()
        process.communicate()


def ask(
    connection: http.client.HTTPConnection, method: str, url: str, body: bytes = b"", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection.request(method, url, body=body, headers={name.replace("_", "-"): text for name, text in headers.items()})
    answer = connection.getresponse()
    data = answer.read()  # IncompleteRead: the server was killed on the way
    return answer.status, answer.headers, data


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def peak(process: subprocess.Popen[str]) -> int:
    """Return how many bytes of memory a process has had at most."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+([0-9]+) kB", status)[0]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the memory of a process")
def test_a_large_blob_is_never_in_memory(tmp_path: Path) -> None:
    block, blocks = random.Random(1).randbytes(MIB), 96
    hasher = hashlib.sha256()
    for _ in range(blocks):
        hasher.update(block)
    digest = f"sha256:{hasher.hexdigest()}"
    with running(tmp_path) as (authority, process):
        connection = http.client.HTTPConnection(authority)
        assert ask(connection, "POST", f"/v2/a/blobs/uploads/?digest={sha256(block)}", block)[0] == 201
        assert ask(connection, "GET", f"/v2/a/blobs/{sha256(block)}")[2] == block
        before = peak(process)

        _, headers, _ = ask(connection, "POST", "/v2/a/blobs/uploads/")
        connection.putrequest("PATCH", headers["Location"])
        connection.putheader("Content-Length", str(blocks * MIB))
        connection.endheaders()
        for _ in range(blocks):
            connection.send(block)
        answer = connection.getresponse()
        answer.read()
        assert ask(connection, "PUT", f"{answer.headers['Location']}&digest={digest}")[0] == 201
        connection.request("GET", f"/v2/a/blobs/{digest}")
        answer = connection.getresponse()
        received = hashlib.sha256()
        while data := answer.read(MIB):
            received.update(data)
        assert f"sha256:{received.hexdigest()}" == digest
        assert ask(connection, "GET", f"/v2/a/chunksums/{digest}")[2].count(b"\n") == 12  # of 8 MiB each

        assert peak(process) - before < 16 * MIB
        connection.close()
