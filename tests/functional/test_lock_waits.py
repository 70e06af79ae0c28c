"""A process that holds the lock of a blob and is stopped: who waits says so, and goes on by himself."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from hashlib import sha256
from types import SimpleNamespace

import pytest

import transferkit as tk
from transferkit.storage import lock
from transferkit.testing.registry import running_registry

REPOSITORY = "library/model"
MIB = 1024 * 1024
SIZE = 4 * MIB
OPTIONS = tk.TransferOptions(resume_threshold=MIB, progress_interval=0.005)
HOLDER = """
import sys, transferkit as tk
url, digest, size, folder = sys.argv[1:]
options = tk.TransferOptions(resume_threshold=1024 * 1024)
tk.download([tk.Blob(digest, int(size))], folder, base_url=url, repository="library/model", options=options)
"""


@pytest.fixture
def served(make_blobs, tmp_path):
    """A registry whose first body waits half way, for ``go_on``."""
    go_on, held = threading.Event(), []

    def middleware(app):
        def middle(environ, start_response):
            body = app(environ, start_response)
            if environ["REQUEST_METHOD"] != "GET" or "/blobs/" not in environ["PATH_INFO"] or held:
                return body
            held.append(1)
            return hold(body)

        def hold(body):
            sent = 0
            for block in body:
                if sent > SIZE // 2:
                    go_on.wait(60)
                sent += len(block)
                yield block

        return middle

    with running_registry(middleware=middleware) as registry:
        (blob,) = make_blobs(tmp_path / "source", [SIZE])
        tk.upload([blob], tmp_path / "source", base_url=registry.url, repository=REPOSITORY)
        try:
            yield SimpleNamespace(url=registry.url, blob=blob, go_on=go_on)
        finally:
            go_on.set()


@pytest.fixture
def holder(served, tmp_path):
    """A process that has half of the blob, and is stopped."""
    folder = tmp_path / "d"
    command = [sys.executable, "-c", HOLDER, served.url, served.blob.digest, str(SIZE), str(folder)]
    child = subprocess.Popen(command)
    partial = folder / ".partial" / tk.digest_to_path(served.blob.digest)
    deadline = time.monotonic() + 30
    while not (partial.exists() and partial.stat().st_size >= SIZE // 2) and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGSTOP)
    yield child
    child.kill()
    child.wait()


def test_who_waits_for_a_stopped_process_says_so_and_goes_on_by_himself(
    served, holder, tmp_path, monkeypatch, caplog, assert_exactly
):
    monkeypatch.setattr(lock, "LONG", 0.1)
    monkeypatch.setattr(lock, "PATIENCE", 0.3)
    caplog.set_level(logging.INFO, "transferkit")
    folder, calls = tmp_path / "d", []
    report = tk.download(
        [served.blob],
        folder,
        base_url=served.url,
        repository=REPOSITORY,
        options=OPTIONS,
        progress=lambda *figures: calls.append(figures),
    )

    assert (SIZE, (SIZE, SIZE)) == (report.bytes, calls[-1])
    assert ["sha256:" + sha256(path.read_bytes()).hexdigest() for path in folder.glob("sha256-*")] == [
        served.blob.digest
    ]
    told = [record for record in caplog.records if record.name == "transferkit.storage.lock"]
    assert [logging.WARNING, logging.INFO] == [record.levelno for record in told]
    assert f"{tk.digest_to_path(served.blob.digest)}.lock" in told[0].message
    assert f"process {holder.pid} on {os.uname().nodename}" in told[0].message
    # While it waits, its progress is what the other one has.
    assert any(SIZE // 2 <= completed < SIZE for completed, _ in calls)

    holder.send_signal(signal.SIGCONT)
    served.go_on.set()
    assert 0 == holder.wait(30)
    assert_exactly(folder, [served.blob])
    assert ["verified"] == os.listdir(folder / ".partial")


def test_who_waits_for_a_process_that_is_killed_goes_on_with_what_it_has(served, holder, tmp_path, assert_exactly):
    threading.Timer(0.2, holder.kill).start()
    report = tk.download([served.blob], tmp_path / "d", base_url=served.url, repository=REPOSITORY, options=OPTIONS)
    assert 0 < report.bytes <= SIZE // 2 + 512 * 1024
    assert_exactly(tmp_path / "d", [served.blob])


def test_a_wait_for_a_stopped_process_can_be_cancelled(served, holder, tmp_path):
    cancel = tk.Cancellation()
    threading.Timer(0.2, cancel.cancel).start()
    began = time.monotonic()
    with pytest.raises(tk.CancelledError):
        tk.download(
            [served.blob],
            tmp_path / "d",
            base_url=served.url,
            repository=REPOSITORY,
            options=OPTIONS,
            cancel=cancel,
        )
    assert time.monotonic() - began < 1.2
