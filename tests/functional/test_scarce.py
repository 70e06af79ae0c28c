"""A system that gives little: few descriptors, no thread, a program that ends. Right bytes, and in bounded time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import transferkit as tk
from transferkit.server import OCIRegistry
from transferkit.testing import FaultRule, RunningRegistry, respond, running_registry, with_faults

BEGINNING = """
import json, logging, sys, threading, time
import transferkit as tk
given = json.loads(sys.argv[1])
blobs = [tk.Blob(digest, size) for digest, size in given["blobs"]]
where = dict(base_url=given["url"], repository=given["repository"])
source, copy = given["folder"] + "/source", given["folder"] + "/copy"
def download():
    return tk.download(blobs, copy, **where)
def upload():
    return tk.upload(blobs, source, **where)
"""

LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
print({call}().bytes)
"""

WITHOUT_THREADS = """
import _thread
def refuse(*_):
    raise RuntimeError("can't start new thread")
_thread.start_new_thread = threading._start_new_thread = threading.Thread.start = refuse
print({call}().bytes)
"""

AT_EXIT = """
import atexit
atexit.register(lambda: print({call}().bytes))
"""

# At two megabytes a second it would take half a minute.
DAEMON = """
began = threading.Event()
threading.excepthook = lambda given: None
def run():
    tk.download(blobs, copy, concurrency=4, progress=lambda done, total: done > 1_000_000 and began.set(),
                options=tk.TransferOptions(max_bandwidth=2_000_000, chunk_size=1 << 17), **where)
threading.Thread(target=run, daemon=True).start()
assert began.wait(20)
print(time.time())
"""

LATE = """
def late():
    threading.main_thread().join()
    time.sleep(0.05)
    print({call}().bytes, flush=True)
threading.Thread(target=late{kind}).start()
"""

calls = pytest.mark.parametrize("call", ["download", "upload"])
Child = Callable[..., Any]


@pytest.fixture
def slow_registry() -> Iterator[RunningRegistry]:
    """Every answer takes 20 ms, so that many workers pay."""

    def slow(app):
        def delayed(environ, start):
            time.sleep(0.02)
            return app(environ, start)

        return delayed

    with running_registry(middleware=slow, threads=80) as running:
        yield running


@pytest.fixture
def child(tmp_path: Path) -> Child:
    """``child(code, registry, blobs)`` runs code in a process of its own; it returns its output and its errors."""

    def run(code: str, registry: RunningRegistry, blobs: list[tk.Blob], *, repository: str = "a/b") -> tuple[str, str]:
        given = {
            "url": registry.url,
            "repository": repository,
            "folder": str(tmp_path),
            "blobs": [(blob.digest, blob.size) for blob in blobs],
        }
        command = [sys.executable, "-c", BEGINNING + code, json.dumps(given)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return ran.stdout, ran.stderr

    return run


def of(blobs: list[tk.Blob]) -> str:
    return f"{sum(blob.size for blob in blobs)}\n"


def prepare(registry: RunningRegistry, blobs: list[tk.Blob], folder: Path, call: str) -> None:
    if call == "download":
        tk.upload(blobs, folder, base_url=registry.url, repository="a/b")


def stored(registry: RunningRegistry) -> Path:
    return registry.store / "blobs"


@calls
@pytest.mark.parametrize("limit", [pytest.param(40, marks=pytest.mark.full), 14])
def test_few_descriptors_mean_fewer_workers(call, limit, slow_registry, make_blobs, tmp_path, child, contents):
    blobs = make_blobs(tmp_path / "source", [20_000 + number for number in range(150)])
    prepare(slow_registry, blobs, tmp_path / "source", call)

    out, err = child(LIMITED.format(limit=limit, call=call), slow_registry, blobs)

    # Of small blobs that came together, one for which there was no descriptor left comes once more.
    size = int(of(blobs))
    assert size <= int(out) <= 1.2 * size
    assert [] == [line for line in err.splitlines() if not line.startswith("waiting for ")]
    found = contents(tmp_path / "copy" if call == "download" else stored(slow_registry))
    assert {blob.digest.replace(":", "-") for blob in blobs} <= {n for n, digest in found.items() if n == digest}


def test_few_descriptors_for_large_blobs(slow_registry, make_blobs, tmp_path, child, assert_exactly):
    """Each has three files open; all of them are begun at once where the system allows it."""
    blobs = make_blobs(tmp_path / "source", [1_500_000 + number for number in range(12)])
    prepare(slow_registry, blobs, tmp_path / "source", "download")
    options = "options=tk.TransferOptions(chunk_threshold=1 << 20, chunk_size=1 << 18, resume_threshold=1 << 20)"

    out, err = child(f"where.update({options})" + LIMITED.format(limit=20, call="download"), slow_registry, blobs)

    assert of(blobs) == out
    assert [] == [line for line in err.splitlines() if not line.startswith("waiting for ")]
    assert_exactly(tmp_path / "copy", blobs)


@calls
@pytest.mark.parametrize("code", [WITHOUT_THREADS, AT_EXIT], ids=["no thread", "atexit"])
def test_without_threads_the_caller_does_the_work(call, code, registry, make_blobs, tmp_path, child):
    blobs = make_blobs(tmp_path / "source", [20_000 + number for number in range(20)])
    prepare(registry, blobs, tmp_path / "source", call)

    assert (of(blobs), "") == child(code.format(call=call), registry, blobs)


@calls
def test_a_call_that_begins_while_the_program_ends_is_waited_for(call, registry, make_blobs, tmp_path, child):
    blobs = make_blobs(tmp_path / "source", [20_000 + number for number in range(20)])
    prepare(registry, blobs, tmp_path / "source", call)

    assert (of(blobs), "") == child(LATE.format(call=call, kind=""), registry, blobs)


@calls
def test_a_daemons_call_that_begins_while_the_program_ends_holds_nobody_up(call, registry, make_blobs, tmp_path, child):
    blobs = make_blobs(tmp_path / "source", [20_000 + number for number in range(20)])
    prepare(registry, blobs, tmp_path / "source", call)
    code = LATE.format(call=call, kind=", daemon=True") + "threading.Thread(target=time.sleep, args=(0.5,)).start()\n"

    _, err = child(code, registry, blobs)

    assert "" == err


def test_a_program_that_ends_cuts_the_download_of_a_daemon_thread_and_the_next_goes_on(
    make_blobs, tmp_path, child, assert_exactly
):
    blobs = make_blobs(tmp_path / "source", [64 * 1024 * 1024])
    store = tmp_path / "store"
    with running_registry(store, middleware=lambda _: OCIRegistry(store, chunksums=False)) as registry:
        prepare(registry, blobs, tmp_path / "source", "download")

        ended, err = child(DAEMON, registry, blobs)
        took = time.time() - float(ended)
        report = tk.download(blobs, tmp_path / "copy", base_url=registry.url, repository="a/b")

    assert "" == err
    assert took < 2.0
    assert report.bytes < blobs[0].size - 700_000
    assert_exactly(tmp_path / "copy", blobs)


# The first second of a call, with a fork at one moment of it: the child downloads for itself, or is done at once.
FORKS = """
import os, signal
first, step, forks, folder = {first}, {step}, {forks}, given["folder"]
def call():
    globals()["download"]()
began = time.monotonic()
thread = threading.Thread(target=call)
thread.start()
children = []
for number in range(forks):
    time.sleep(max(0.0, began + first + number * step - time.monotonic()))
    child = os.fork()
    if not child:
        try:
            if number % 2:
                tk.download(blobs[:2], folder + "/fork%d" % number, **where)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    children.append(child)
deadline, failed = time.monotonic() + 20, []
for child in children:
    done, status = os.waitpid(child, os.WNOHANG)
    while not done and time.monotonic() < deadline:
        time.sleep(0.002)
        done, status = os.waitpid(child, os.WNOHANG)
    if not done:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if not done or status:
        failed.append(children.index(child))
thread.join()
print(failed)
"""


IMPORTS = """
import transferkit.bulk
from transferkit.forks import importing
alone, together = [], []
class Watching:
    def find_spec(self, name, path=None, target=None):
        (together if importing._is_owned() else alone).append(name)
sys.meta_path.insert(0, Watching())
globals()["download"]()
print((alone, "tenacity" in together))
"""


@pytest.mark.parametrize("fails", [False, True])
def test_a_call_imports_nothing_that_a_forked_child_would_wait_for(fails, make_blobs, tmp_path, child):
    """Python's lock of a module that another thread imports stays locked in a child, for ever; a fork waits for what is
    imported under ``importing``."""
    busy = FaultRule(respond(503), method="GET", path="/blobs/", times=int(fails))
    blobs = make_blobs(tmp_path / "source", [1000, 2000])
    with running_registry(middleware=lambda app: with_faults(app, busy)) as registry:
        prepare(registry, blobs, tmp_path / "source", "download")
        out, err = child(IMPORTS, registry, blobs)
    assert f"([], {fails})\n" == out
    assert int(fails) == len(err.splitlines()) == err.count("registry responded with status 503")
    assert int(fails) == busy.hits


def test_no_child_hangs_whenever_a_process_forks(slow_registry, make_blobs, tmp_path, child, contents):
    """A fork at every 5 ms from the beginning of the process' first call on, which is when it imports: 50 forks, or in
    the full run 200, the whole of its first second."""
    forks = 200 if os.environ.get("TRANSFERKIT_TEST_FULL") == "1" else 50
    blobs = make_blobs(tmp_path / "source", [20_000 + number for number in range(150)])
    prepare(slow_registry, blobs, tmp_path / "source", "download")

    out, err = child(FORKS.format(first=0.0, step=0.005, forks=forks), slow_registry, blobs)
    # What err may have: Python calls a handler of logging's half, where logging was imported while the fork waited.
    assert "[]\n" == out, err

    assert 150 == len(contents(tmp_path / "copy")), err
    copies = sorted(tmp_path.glob("fork*"))
    assert forks // 2 == len(copies)
    for copy in copies:
        assert {blob.digest.replace(":", "-"): blob.digest.replace(":", "-") for blob in blobs[:2]} == contents(copy)
