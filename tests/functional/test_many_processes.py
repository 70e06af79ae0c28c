"""Processes that share a folder, with locks that work, lie and fail; with cancels, kills and discards beside them."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

import transferkit as tk
from transferkit.server import OCIRegistry
from transferkit.testing.registry import running_registry

REPOSITORY = "library/model"
MIB = 1024 * 1024
CHILD = """
import errno, fcntl, random, sys, threading, time
import transferkit as tk

locks, url, folder, seed, *blobs = sys.argv[1:]
real, rng = fcntl.flock, random.Random(int(seed))

def flock(fd, operation):
    if locks == "refused":
        raise OSError(errno.ENOLCK, "No locks available")
    if locks == "work":
        real(fd, operation)

fcntl.flock = flock
blobs = [tk.Blob(digest, int(size)) for digest, size in (blob.split("=") for blob in blobs)]
end = time.monotonic() + 0.6
while time.monotonic() < end:
    cancel = tk.Cancellation()
    if rng.random() < 0.6:
        threading.Timer(rng.uniform(0.01, 0.2), cancel.cancel).start()
    if rng.random() < 0.3:
        tk.discard(folder, older_than=0)
    limit = rng.choice([None, 60e6, 20e6])
    options = tk.TransferOptions(
        chunk_threshold=2**20, chunk_size=2**19, resume_threshold=2**20, max_bandwidth=limit, rehash_existing=True
    )
    try:
        tk.download(
            blobs, folder, base_url=url, repository="library/model", cancel=cancel, concurrency=4, options=options
        )
    except tk.CancelledError:
        pass
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A registry with lists of chunks, and the folder of its blobs."""
    store, source, rng = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("source"), random.Random(1)
    blobs = []
    for size in (3 * MIB, 5 * MIB, 40_000, 50_000, 2_000):
        data = rng.randbytes(size)
        blobs.append(tk.Blob("sha256:" + hashlib.sha256(data).hexdigest(), size))
        (source / tk.digest_to_path(blobs[-1].digest)).write_bytes(data)

    def middleware(_app):
        return OCIRegistry(store, chunksums=True, chunk_size=MIB // 2)

    with running_registry(store, middleware=middleware, threads=32) as registry:
        tk.upload(blobs, source, base_url=registry.url, repository=REPOSITORY)
        yield registry.url, blobs


def digests(folder: Path) -> dict[str, str]:
    paths = [path for path in folder.iterdir() if path.name.startswith("sha256-")]
    return {path.name: "sha256-" + hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=[pytest.mark.full] if seed > 1 else []) for seed in range(1, 9)]
)
@pytest.mark.parametrize("locks", ["work", "granted to all", "refused"])
@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.full)])
def test_whatever_processes_do_to_each_other_what_is_visible_is_right(served, tmp_path, locks, processes, seed):
    url, blobs = served
    command = [sys.executable, "-c", CHILD, locks, url, str(tmp_path)]
    named = [f"{blob.digest}={blob.size}" for blob in blobs]
    children = [
        subprocess.Popen([*command, str(100 * seed + n), *named], stderr=subprocess.PIPE, text=True)
        for n in range(processes)
    ]
    time.sleep(random.Random(seed).uniform(0.4, 0.9))
    children[0].kill()
    while any(child.poll() is None for child in children):
        assert all(name == digest for name, digest in digests(tmp_path).items())
        time.sleep(0.01)
    ends = [(child.wait(), child.communicate()[1]) for child in children]
    assert [(0, "")] * (processes - 1) == ends[1:]

    options = tk.TransferOptions(resume_threshold=MIB)
    tk.download(blobs, tmp_path, base_url=url, repository=REPOSITORY, options=options)
    names = {tk.digest_to_path(blob.digest) for blob in blobs}
    assert {name: name for name in names} == digests(tmp_path)
    if locks == "work":
        tk.discard(tmp_path, older_than=0)
        assert ["verified"] == os.listdir(tmp_path / ".partial")
