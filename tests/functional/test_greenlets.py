"""Under gevent and under eventlet, which take over threads and sockets: right bytes, and time limits that hold."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import transferkit as tk
from transferkit.testing.registry import RunningRegistry

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}
MIB = 1024 * 1024

# Each child begins with the patch, as the programs of users do, and prints what came out.
BEGINNING = """
import warnings
warnings.simplefilter("ignore")
{patch}
import hashlib, json, os, sys, threading, time
import transferkit as tk
given = json.loads(sys.argv[1])
blobs = [tk.Blob(digest, size) for digest, size in given["blobs"]]
where = dict(base_url=given["url"], repository="a/b")
"""

MOVE = """
options = tk.TransferOptions(chunk_threshold=1024 * 1024, chunk_size=256 * 1024)
sent = tk.upload(blobs, given["folder"] + "/source", options=options, **where)
got = tk.download(blobs, given["folder"] + "/copy", options=options, concurrency=8, **where)
found = {n: "sha256-" + hashlib.sha256(open(given["folder"] + "/copy/" + n, "rb").read()).hexdigest()
         for n in os.listdir(given["folder"] + "/copy") if not n.startswith(".")}
print(json.dumps([sent.bytes, got.bytes, len(found), all(name == digest for name, digest in found.items())]))
"""

WAIT = """
options = tk.TransferOptions(
    retry=tk.RetryOptions(attempts=1, patience=0.0), transport=tk.TransportOptions(response_timeout=0.3))
began = time.monotonic()
try:
    {call}
except tk.IncompleteError as error:
    (cause,) = error.failures.values()
    print(json.dumps([isinstance(cause, tk.TransportTimeout), time.monotonic() - began < 5]))
"""

CANCEL = """
cancel, ended = tk.Cancellation(), []
def stop():
    time.sleep(0.3)
    ended.append(time.monotonic())
    cancel.cancel("enough")
threading.Thread(target=stop).start()
options = None
try:
    {call}
except tk.CancelledError as error:
    print(json.dumps([str(error), time.monotonic() - ended[0] < 1, threading.active_count()]))
"""

CALLS = {
    "download": 'tk.download(blobs, given["folder"] + "/copy", options=options, **where)',
    "upload": 'tk.upload(blobs, given["folder"] + "/source", options=options, **where)',
}

library = pytest.mark.parametrize("library", PATCHES)
way = pytest.mark.parametrize("way", CALLS)


@pytest.fixture
def child(tmp_path: Path) -> Callable[..., Any]:
    """``child(library, code, url, blobs)`` runs code in a process of its own and returns what it has printed."""

    def run(library: str, code: str, url: str, blobs: list[tk.Blob]) -> Any:
        if find_spec(library) is None:  # not imported here: eventlet would warn of each fork of these tests
            pytest.skip(f"needs {library}")
        given = {"url": url, "folder": str(tmp_path), "blobs": [(blob.digest, blob.size) for blob in blobs]}
        command = [sys.executable, "-c", BEGINNING.format(patch=PATCHES[library]) + code, json.dumps(given)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert "" == ran.stderr
        return json.loads(ran.stdout)

    return run


@library
def test_right_bytes(library: str, child: Callable[..., Any], registry: RunningRegistry, make_blobs, tmp_path: Path):
    blobs = make_blobs(tmp_path / "source", [0, 5000, 6000, 700_000, 2 * MIB, *range(1, 30)])
    total = sum(blob.size for blob in blobs)

    assert [total, total, len(blobs), True] == child(library, MOVE, registry.url, blobs)


@library
@way
def test_a_silent_server_ends_in_time(library: str, way: str, child: Callable[..., Any], make_blobs, tmp_path: Path):
    blobs = make_blobs(tmp_path / "source", [5000])
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert [True, True] == child(library, WAIT.format(call=CALLS[way]), url, blobs)


@library
@way
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_cancel_wakes_it(library: str, way: str, scheme: str, child: Callable[..., Any], make_blobs, tmp_path: Path):
    blobs = make_blobs(tmp_path / "source", [5000])
    call = CALLS[way].replace("**where", "cancel=cancel, **where")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}"
        assert ["enough", True, 1] == child(library, CANCEL.format(call=call), url, blobs)
