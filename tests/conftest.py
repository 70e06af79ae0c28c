"""What every test may use: real files, a registry, and options that do not wait."""

from __future__ import annotations

import gc
import hashlib
import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import settings

import transferkit as tk
from transferkit.testing.registry import RunningRegistry, running_registry

FULL = os.environ.get("TRANSFERKIT_TEST_FULL") == "1"
MakeBlobs = Callable[..., list[tk.Blob]]


@pytest.fixture
def make_blobs() -> MakeBlobs:
    """Write files of random content, named after their digests, and return their blobs."""

    def make(folder: Path, sizes: list[int], seed: int = 0) -> list[tk.Blob]:
        folder.mkdir(parents=True, exist_ok=True)
        rng = random.Random(seed)
        blobs = []
        for size in sizes:
            data = rng.randbytes(size)
            hexdigest = hashlib.sha256(data).hexdigest()
            (folder / f"sha256-{hexdigest}").write_bytes(data)
            blobs.append(tk.Blob(f"sha256:{hexdigest}", size))
        return blobs

    return make


@pytest.fixture
def registry() -> Iterator[RunningRegistry]:
    with running_registry() as running:
        yield running


@pytest.fixture
def impatient() -> tk.TransferOptions:
    """Options under which a failure is final after two attempts, at once."""
    return tk.TransferOptions(retry=tk.RetryOptions(attempts=2, patience=0.0, max_wait=0.01))


def pytest_configure() -> None:
    # Who begins the tests in the background of a shell has it ignored, and so have the programs that tests begin.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Of tests that name no number; hypothesis takes 100 by default. No test is a timed one.
    settings.register_profile("transferkit", max_examples=200 if FULL else 30, deadline=None)
    settings.load_profile("transferkit")


# Whole matrices, loads, waits and real servers go over lines that other tests cover, many times, and to trace each of
# those took a quarter of the time of all tests.
UNTRACED = re.compile(
    r"integration/|test_benchmarks|test_pipelines|test_gguf.py::test_what_is_kept|remote/test_chunksums.py::test_a_list_without"
    r"|storage/test_(conformance|cache_crashes|tree|unpacking)|registry/test_folder_pull.py::test_(after_a_crash|whatever)"
    r"|functional/test_(soak|flat|fault_matrix|requests|interrupts|download|upload|large_|resume"
    r"|limits|advisories|cancellation|caches|stall|rate_limits|greenlets|scarce|waits|auth|many_processes|malformed|unfinished"
    r"|bundles|file_system_|folder_pull|tensors|threads)"
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what has the marker ``full``, but for TRANSFERKIT_TEST_FULL=1."""
    for item in items:
        if UNTRACED.search(item.nodeid):
            item.add_marker(pytest.mark.no_cover)
    full = [item for item in items if item.get_closest_marker("full")]
    if full and not FULL:
        config.hook.pytest_deselected(items=full)
        items[:] = [item for item in items if not item.get_closest_marker("full")]


def pytest_collection_finish() -> None:
    # The thousands of tests are no garbage: who collects that (``tests.descriptors``) need not look at them each time.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _transport(monkeypatch: pytest.MonkeyPatch) -> None:
    """With TRANSFERKIT_TEST_TRANSPORT=plain in the environment, every request of the run is seen by a session."""
    if os.environ.get("TRANSFERKIT_TEST_TRANSPORT") == "plain":
        send = requests.Session.send

        def traced(session: requests.Session, request: requests.PreparedRequest, **keywords: Any) -> requests.Response:
            return send(session, request, **keywords)

        monkeypatch.setattr(requests.Session, "send", traced)


@pytest.fixture(autouse=True)
def _nobodys_machine(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The credentials of whoever runs the tests are none of theirs."""
    for name in ("TRANSFERKIT_TOKEN", "TRANSFERKIT_USERNAME", "TRANSFERKIT_PASSWORD", "TRANSFERKIT_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("DOCKER_AUTH_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    empty = tmp_path_factory.getbasetemp() / "no-credentials"
    monkeypatch.setenv("DOCKER_CONFIG", str(empty))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(empty))


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    """No call of this library leaves a thread behind."""
    before = {thread.ident for thread in threading.enumerate()}
    yield
    deadline = time.monotonic() + 5
    left: list[threading.Thread] = []
    while time.monotonic() < deadline:
        left = [t for t in threading.enumerate() if t.ident not in before and t.name.startswith("transferkit")]
        if not left:
            return
        time.sleep(0.01)
    pytest.fail(f"threads left behind: {left}")
