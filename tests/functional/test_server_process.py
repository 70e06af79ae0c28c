"""A registry in a process of its own: killed with kill -9 while clients push, started again, and fed a large blob."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

SERVER = """
import sys, threading
from transferkit.server import OCIRegistry, serving

with serving(OCIRegistry(sys.argv[1])) as url:
    print(url, flush=True)
    threading.Event().wait()
"""
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
NAME = re.compile(r"sha256-[0-9a-f]{64}\Z")
MIB = 1024 * 1024
PART = 64 * 1024  # bytes
KILLS = 3


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


class Pusher(threading.Thread):
    """A client that pushes blobs in one request and in parts, and manifests, and remembers what was acknowledged."""

    def __init__(self, authority: str, seed: int) -> None:
        super().__init__()
        self.authority = authority
        self.repository = f"models/{seed % 2}"
        self.blobs: dict[str, bytes] = {}
        self.tags: dict[str, bytes] = {}
        self.under_way: tuple[str, bytes] = ("", b"")
        """The location of an upload in parts, and what of it was acknowledged."""
        self._rng = random.Random(seed)
        self._seed = seed

    def run(self) -> None:
        connection = http.client.HTTPConnection(self.authority)
        with suppress(OSError, http.client.HTTPException):
            while True:
                self._push_blob(connection)
                self._push_parts(connection)
                self._push_manifest(connection)
        connection.close()

    def _push_blob(self, connection: http.client.HTTPConnection) -> None:
        data = self._rng.randbytes(self._rng.choice((10, 5_000, 300_000)))
        status, _, _ = ask(connection, "POST", f"/v2/{self.repository}/blobs/uploads/?digest={sha256(data)}", data)
        assert status == 201
        self.blobs[sha256(data)] = data

    def _push_parts(self, connection: http.client.HTTPConnection) -> None:
        _, headers, _ = ask(connection, "POST", f"/v2/{self.repository}/blobs/uploads/")
        location, data = headers["Location"], b""
        for _ in range(4):
            part = self._rng.randbytes(PART)
            span = f"{len(data)}-{len(data) + PART - 1}"
            status, headers, _ = ask(connection, "PATCH", location, part, Content_Range=span)
            assert status == 202
            location, data = headers["Location"], data + part
            self.under_way = location, data
        self.under_way = "", b""
        status, _, _ = ask(connection, "PUT", f"{location}&digest={sha256(data)}")
        assert status == 201
        self.blobs[sha256(data)] = data

    def _push_manifest(self, connection: http.client.HTTPConnection) -> None:
        digest = self._rng.choice(list(self.blobs))
        layer = {"mediaType": "application/octet-stream", "digest": digest, "size": len(self.blobs[digest])}
        raw = json.dumps({"schemaVersion": 2, "layers": [layer]}).encode()
        tag = f"v{self._seed}-{len(self.tags)}"
        url = f"/v2/{self.repository}/manifests/{tag}"
        status, _, _ = ask(connection, "PUT", url, raw, Content_Type=MANIFEST)
        assert status == 201
        self.tags[tag] = raw


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="kill -9 is POSIX's")
def test_what_was_acknowledged_outlives_kill_9_and_nothing_half_done_is_visible(tmp_path: Path) -> None:
    pushers: list[Pusher] = []
    for kill in range(KILLS):
        with running(tmp_path) as (authority, process):
            fresh = [Pusher(authority, 10 * kill + number) for number in range(4)]
            for pusher in fresh:
                pusher.start()
            threading.Event().wait(0.25)
            process.kill()
            for pusher in fresh:
                pusher.join(10)
                assert not pusher.is_alive()
            pushers += fresh
    assert all(pusher.blobs for pusher in pushers)
    assert sum(len(pusher.tags) for pusher in pushers) > KILLS

    with running(tmp_path) as (authority, _):
        connection = http.client.HTTPConnection(authority)
        for pusher in pushers:
            base = f"/v2/{pusher.repository}"
            for digest, data in pusher.blobs.items():
                assert (200, data) == ask(connection, "GET", f"{base}/blobs/{digest}")[::2]
            for tag, raw in pusher.tags.items():
                assert (200, raw) == ask(connection, "GET", f"{base}/manifests/{tag}")[::2]
            location, data = pusher.under_way
            if location:
                _continue(connection, pusher, location, data)
        for repository in ("models/0", "models/1"):
            _, _, body = ask(connection, "GET", f"/v2/{repository}/tags/list")
            for tag in json.loads(body)["tags"]:
                status, _, raw = ask(connection, "GET", f"/v2/{repository}/manifests/{tag}")
                assert status == 200
                for layer in json.loads(raw)["layers"]:
                    assert ask(connection, "HEAD", f"/v2/{repository}/blobs/{layer['digest']}")[0] == 200
        connection.close()
    for path in (tmp_path / "blobs").iterdir():
        assert NAME.match(path.name)
        assert sha256(path.read_bytes()) == path.name.replace("-", ":")


def _continue(connection: http.client.HTTPConnection, pusher: Pusher, location: str, acknowledged: bytes) -> None:
    """Go on with an upload: all of it that was acknowledged is there, and perhaps more of the part after it."""
    status, headers, _ = ask(connection, "GET", location)
    if status == 404:  # all four parts were there, and it was finished just before the kill
        assert len(acknowledged) == 4 * PART
        return
    there = int(headers["Range"].partition("-")[2]) + 1
    assert there >= len(acknowledged)
    if there == len(acknowledged):
        rest = b"the rest"
        status, headers, _ = ask(connection, "PATCH", headers["Location"], rest)
        assert (202, f"0-{there + len(rest) - 1}") == (status, headers["Range"])
        digest = sha256(acknowledged + rest)
        assert ask(connection, "PUT", f"{headers['Location']}&digest={digest}")[0] == 201
        assert ask(connection, "GET", f"/v2/{pusher.repository}/blobs/{digest}")[2] == acknowledged + rest
    else:
        assert ask(connection, "DELETE", headers["Location"])[0] == 204


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
