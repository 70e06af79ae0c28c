"""``progress=True`` over the whole stack: every call has it, what is waited for is named, and calls do not mix."""

from __future__ import annotations

import io
import sys
import threading
import time

import matplotlib
import pytest
from matplotlib import pyplot

import transferkit as tk
from tests.functional import safetensors_files
from transferkit.storage.disk import Disk
from transferkit.storage.folder import OpenFolder
from transferkit.storage.lock import BlobLock
from transferkit.testing import FaultRule, respond, with_faults
from transferkit.testing.registry import running_registry

REPOSITORY = "library/model"
OFTEN = tk.TransferOptions(progress_interval=0.01, resume_threshold=1024)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch):
    """``terminal()`` puts one in the place of the standard error stream, which pytest replaces before each test."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")

    def begin() -> Terminal:
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return begin


class Waits(tk.Trace):
    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.seconds = 0.0

    def waiting(self, reason, pause):
        self.told.append(("waiting", reason))

    def waited(self, reason, seconds):
        self.told.append(("waited", reason))
        self.seconds += seconds


def test_a_pause_that_the_registry_asks_for_is_named(make_blobs, tmp_path, terminal):
    screen = terminal()
    blobs, waits, recording = make_blobs(tmp_path / "s", [10_000]), Waits(), tk.Recording()
    rule = FaultRule(respond(429, b"slow down", retry_after="1"), times=1)

    def middleware(app):
        faulty = with_faults(app, rule)
        return lambda environ, start: (faulty if environ["REQUEST_METHOD"] == "GET" else app)(environ, start)

    with running_registry(middleware=middleware) as registry:
        where = {"base_url": registry.url, "repository": REPOSITORY, "options": OFTEN}
        tk.upload(blobs, tmp_path / "s", **where)
        report = tk.download(blobs, tmp_path / "d", progress=True, trace=tk.Traces(waits, recording), **where)
    assert waits.told == [("waiting", "rate limit"), ("waited", "rate limit")]
    assert 0.5 < waits.seconds
    assert "waiting: rate limit" in screen.getvalue()
    assert "100%" in screen.getvalue().splitlines()[-1]
    for record in (report.record, recording.record):
        assert "waiting: rate limit" in [what for _, _, what in record.waits()]
        assert ["retried"] == [event.kind for event in record.events]
        assert 10_000 == record.samples[-1].moved


def test_the_lock_of_another_process_is_named(registry, make_blobs, tmp_path, terminal):
    screen = terminal()
    (blob,) = make_blobs(tmp_path / "s", [10_000])
    where = {"base_url": registry.url, "repository": REPOSITORY, "options": OFTEN}
    tk.upload([blob], tmp_path / "s", **where)
    (tmp_path / "d" / ".partial").mkdir(parents=True)
    with OpenFolder(str(tmp_path / "d" / ".partial"), Disk()) as folder:
        lock = BlobLock(folder, f"{tk.digest_to_path(blob.digest)}.lock")
        assert lock.attempt()
        call = threading.Thread(target=tk.download, args=([blob], tmp_path / "d"), kwargs={"progress": True, **where})
        call.start()
        deadline = time.monotonic() + 30
        while "waiting: lock" not in screen.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
        lock.release()
        call.join()
    assert "waiting: lock" in screen.getvalue()
    assert "9.8 KiB of 9.8 KiB" in screen.getvalue().splitlines()[-1]


@pytest.fixture
def pushed(registry, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(safetensors_files.safetensors_of({"a": ("U8", [4], b"1234")}))
    name = f"{registry.url}/team/model:v1"
    with tk.Registry(cache=tmp_path / "c") as client:
        client.push(name, folder=folder)
        yield client, name, folder


CALLS = {
    "push a folder": lambda client, name, folder: client.push(f"{name}-two", folder=folder, progress=True),
    "pull": lambda client, name, folder: client.pull(name, progress=True),
    "pull to a folder": lambda client, name, folder: client.pull(name, to=folder.parent / "new", progress=True),
    "copy": lambda client, name, folder: client.copy(name, f"{name}-copy", progress=True),
    "snapshot": lambda client, name, folder: client.snapshot(name, progress=True),
    "export": lambda client, name, folder: client.export(name, folder.parent / "out", progress=True),
    "tensors": lambda client, name, folder: client.open_tensors(name, progress=True).load(),
    "pull and repair": lambda client, name, folder: (client.pull(name), client.repair(name, progress=True)),
    "pull and verify": lambda client, name, folder: (client.pull(name), client.cache.verify(progress=True)),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_call_has_a_bar(call, pushed, terminal):
    screen = terminal()
    call(*pushed)
    lines = screen.getvalue().splitlines()
    assert "100%" in lines[-1]
    assert " B of " in lines[-1] or "KiB of " in lines[-1]


@pytest.mark.parametrize("call", ["resolve", "tags", "plan", "referrers"])
def test_a_question_that_moves_nothing_leaves_no_bar(call, pushed, terminal):
    screen = terminal()
    client, name, _ = pushed
    getattr(client, call)(name, progress=True)
    assert "%" not in screen.getvalue()


def test_two_calls_at_once_have_a_line_each(registry, make_blobs, tmp_path, terminal):
    screen = terminal()
    blobs = make_blobs(tmp_path / "s", [300_000] * 2)
    tk.upload(blobs, tmp_path / "s", base_url=registry.url, repository="one/model")
    tk.upload(blobs, tmp_path / "s", base_url=registry.url, repository="two/model")
    options = tk.TransferOptions(max_bandwidth=2_000_000)

    def download(repository: str) -> None:
        folder = tmp_path / repository
        tk.download(blobs, folder, base_url=registry.url, repository=repository, progress=True, options=options)

    calls = [threading.Thread(target=download, args=(repository,)) for repository in ("one/model", "two/model")]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    finished = [
        line for line in screen.getvalue().split("\r") if "586.0 KiB of 586.0 KiB" in line or "585.9 KiB of" in line
    ]
    assert any("one/model 100%" in line for line in finished)
    assert any("two/model 100%" in line for line in finished)


def test_a_closed_standard_error_stream_fails_no_call(registry, make_blobs, tmp_path, monkeypatch):
    blobs = make_blobs(tmp_path / "s", [1000] * 3)
    where = {"base_url": registry.url, "repository": REPOSITORY}
    tk.upload(blobs, tmp_path / "s", **where)
    stream = Terminal()
    stream.close()
    for number, broken in enumerate((None, stream)):
        monkeypatch.setattr(sys, "stderr", broken)
        assert 3 == tk.download(blobs, tmp_path / str(number), progress=True, **where).blobs


def test_a_report_draws_what_it_has_seen(registry, make_blobs, tmp_path):
    matplotlib.use("Agg")
    blobs = make_blobs(tmp_path / "s", [100_000] * 3)
    where = {"base_url": registry.url, "repository": REPOSITORY}
    tk.upload(blobs, tmp_path / "s", **where)
    report = tk.download(blobs, tmp_path / "d", options=tk.TransferOptions(max_bandwidth=1_000_000), **where)
    assert 300_000 == report.record.samples[-1].moved
    assert report.record.seconds <= report.seconds + 0.1
    axes = report.plot()
    assert "seconds" == axes.get_xlabel()
    assert axes.get_ylabel() in ("KiB/s", "MiB/s")
    assert axes is tk.Report().plot(axes)  # nothing to draw is drawn, too
    pyplot.close("all")
