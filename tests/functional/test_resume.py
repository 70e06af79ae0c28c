"""Partial files of large blobs: what has arrived is kept, checked and continued."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import transferkit as tk
from transferkit.testing.registry import running_registry

pytestmark = pytest.mark.lanes

REPOSITORY = "library/model"
MIB = 1024 * 1024
SIZE = 8 * MIB
OPTIONS = tk.TransferOptions(resume_threshold=MIB, progress_interval=0.001)
# Slow enough to be stopped in the middle.
SLOWLY = tk.TransferOptions(resume_threshold=MIB, progress_interval=0.001, max_bandwidth=20e6)


@pytest.fixture
def served(registry, make_blobs, tmp_path):
    blobs = make_blobs(tmp_path / "source", [SIZE])
    tk.upload(blobs, tmp_path / "source", base_url=registry.url, repository=REPOSITORY)
    registry.log.clear()
    return blobs[0]


def download(registry, blob, folder: Path, **keywords) -> tk.Report:
    keywords.setdefault("options", OPTIONS)
    return tk.download([blob], folder, base_url=registry.url, repository=REPOSITORY, **keywords)


def plant(folder: Path, blob: tk.Blob, data: bytes, **changes) -> Path:
    """Write a partial file and its state, as an earlier run of this boot would have left them."""
    partial = folder / ".partial" / tk.digest_to_path(blob.digest)
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.write_bytes(data)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    header = {"version": 2, "digest": blob.digest, "size": blob.size, "boot": boot, **changes}
    rows = [[0, min(len(data), blob.size) - 1]] if data else []
    Path(f"{partial}.json").write_text("".join(json.dumps(line) + "\n" for line in [header, *rows]))
    return partial


def original(tmp_path: Path, blob: tk.Blob) -> bytes:
    return (tmp_path / "source" / tk.digest_to_path(blob.digest)).read_bytes()


def test_a_cancelled_download_continues_where_it_stopped(registry, served, tmp_path, assert_exactly):
    cancel = tk.Cancellation()
    reached = 0

    def stop(completed: int, total: int) -> None:
        nonlocal reached
        if 2 * MIB < completed < total:
            reached = completed
            cancel.cancel("enough")

    with pytest.raises(tk.CancelledError, match="enough"):
        download(registry, served, tmp_path / "d", progress=stop, cancel=cancel, options=SLOWLY)
    partial = tmp_path / "d" / ".partial" / tk.digest_to_path(served.digest)
    kept = partial.stat().st_size
    assert MIB < kept < SIZE
    assert original(tmp_path, served).startswith(partial.read_bytes())
    registry.log.clear()
    calls = []

    report = download(registry, served, tmp_path / "d", progress=lambda *figures: calls.append(figures))

    assert SIZE - kept == report.bytes
    assert calls[0] == (kept, SIZE)  # what is there, before anything is asked for
    # The server may notice the end of the first one late, and log it now.
    (request,) = [request for request in registry.log if "range" in request.headers]
    assert (f"bytes={kept}-", SIZE - kept) == (request.headers["range"], request.sent)
    assert calls[-1] == (SIZE, SIZE)
    assert_exactly(tmp_path / "d", [served])


def test_a_planted_prefix_is_continued(registry, served, tmp_path, assert_exactly):
    plant(tmp_path / "d", served, original(tmp_path, served)[: 3 * MIB])

    report = download(registry, served, tmp_path / "d")

    assert 5 * MIB == report.bytes
    assert_exactly(tmp_path / "d", [served])


def test_a_complete_partial_file_takes_no_request(registry, served, tmp_path, assert_exactly):
    plant(tmp_path / "d", served, original(tmp_path, served))

    report = download(registry, served, tmp_path / "d")

    assert (0, 0) == (report.bytes, len(registry.log))
    assert_exactly(tmp_path / "d", [served])


def test_a_partial_file_that_is_too_long_is_discarded(registry, served, tmp_path, assert_exactly):
    plant(tmp_path / "d", served, original(tmp_path, served) + b"X")

    report = download(registry, served, tmp_path / "d")

    assert SIZE == report.bytes
    assert_exactly(tmp_path / "d", [served])


def test_a_partial_file_with_other_bytes_is_found_out_and_fetched_anew(registry, served, tmp_path, assert_exactly):
    plant(tmp_path / "d", served, bytes(3 * MIB))

    calls = []
    report = download(registry, served, tmp_path / "d", progress=lambda *figures: calls.append(figures))

    assert 5 * MIB + SIZE == report.bytes
    assert 1 == report.retried
    assert calls[-1] == (SIZE, SIZE)
    assert max(completed for completed, _ in calls) <= SIZE
    assert_exactly(tmp_path / "d", [served])


@pytest.mark.parametrize(
    "changes",
    [{"size": SIZE + 1}, {"digest": "sha256:" + 64 * "0"}, {"version": 99}, {"boot": "another"}, {"extra": 1}],
)
def test_a_state_of_something_else_is_not_continued(registry, served, tmp_path, changes, assert_exactly):
    plant(tmp_path / "d", served, original(tmp_path, served)[: 3 * MIB], **changes)

    assert SIZE == download(registry, served, tmp_path / "d").bytes
    assert_exactly(tmp_path / "d", [served])


@pytest.mark.parametrize("state", ["", "{", "[]", "null", "[" * 100_000, "\x00\xff"])
def test_a_state_that_does_not_parse_is_discarded(registry, served, tmp_path, state, assert_exactly):
    partial = plant(tmp_path / "d", served, original(tmp_path, served)[: 3 * MIB])
    Path(f"{partial}.json").write_text(state, encoding="latin-1")

    assert SIZE == download(registry, served, tmp_path / "d").bytes
    assert_exactly(tmp_path / "d", [served])


def test_a_partial_file_without_a_state_is_discarded(registry, served, tmp_path, assert_exactly):
    partial = plant(tmp_path / "d", served, original(tmp_path, served)[: 3 * MIB])
    Path(f"{partial}.json").unlink()

    assert SIZE == download(registry, served, tmp_path / "d").bytes
    assert_exactly(tmp_path / "d", [served])


def test_a_symbolic_link_planted_as_partial_file_is_not_written_through(registry, served, tmp_path):
    precious = tmp_path / "precious"
    precious.write_bytes(b"keep me")
    partial = plant(tmp_path / "d", served, b"")
    Path(f"{partial}.json").unlink()
    partial.unlink()
    partial.symlink_to(precious)

    download(registry, served, tmp_path / "d")

    assert b"keep me" == precious.read_bytes()


def test_a_server_that_ignores_ranges_restarts_cleanly(make_blobs, tmp_path, assert_exactly):
    def whole(app):
        def middle(environ, start_response):
            environ.pop("HTTP_RANGE", None)
            return app(environ, start_response)

        return middle

    with running_registry(middleware=whole) as registry:
        (blob,) = make_blobs(tmp_path / "source", [SIZE])
        tk.upload([blob], tmp_path / "source", base_url=registry.url, repository=REPOSITORY)
        plant(tmp_path / "d", blob, original(tmp_path, blob)[: 3 * MIB])
        calls = []

        report = download(registry, blob, tmp_path / "d", progress=lambda *figures: calls.append(figures))

    assert SIZE == report.bytes
    assert calls[-1] == (SIZE, SIZE)
    assert max(completed for completed, _ in calls) <= SIZE
    assert_exactly(tmp_path / "d", [blob])


def test_a_server_that_refuses_the_range_restarts_cleanly(make_blobs, tmp_path, assert_exactly):
    def refusing(app):
        def middle(environ, start_response):
            if "HTTP_RANGE" in environ:
                start_response("416 Range Not Satisfiable", [("Content-Length", "0")])
                return [b""]
            return app(environ, start_response)

        return middle

    with running_registry(middleware=refusing) as registry:
        (blob,) = make_blobs(tmp_path / "source", [SIZE])
        tk.upload([blob], tmp_path / "source", base_url=registry.url, repository=REPOSITORY)
        plant(tmp_path / "d", blob, original(tmp_path, blob)[: 3 * MIB])

        download(registry, blob, tmp_path / "d")

    assert_exactly(tmp_path / "d", [blob])


def test_a_content_range_of_something_else_means_one_stream(make_blobs, tmp_path, assert_exactly):
    def shifted(app):
        def middle(environ, start_response):
            def start(status, headers, exc_info=None):
                wrong = f"bytes {3 * MIB + 1}-{SIZE - 1}/{SIZE}"
                return start_response(status, [(k, wrong if k == "Content-Range" else v) for k, v in headers], exc_info)

            return app(environ, start)

        return middle

    with running_registry(middleware=shifted) as registry:
        (blob,) = make_blobs(tmp_path / "source", [SIZE])
        tk.upload([blob], tmp_path / "source", base_url=registry.url, repository=REPOSITORY)
        plant(tmp_path / "d", blob, original(tmp_path, blob)[: 3 * MIB])
        report = download(registry, blob, tmp_path / "d", options=OPTIONS)

    assert SIZE == report.bytes
    assert_exactly(tmp_path / "d", [blob])


def test_a_small_blob_leaves_nothing_behind_when_it_is_interrupted(registry, served, tmp_path):
    cancel = tk.Cancellation()

    def stop(completed: int, total: int) -> None:
        if 0 < completed < total:
            cancel.cancel()

    with pytest.raises(tk.CancelledError):
        download(
            registry,
            served,
            tmp_path / "d",
            progress=stop,
            cancel=cancel,
            options=tk.TransferOptions(progress_interval=0.001, max_bandwidth=20e6),
        )

    assert [] == os.listdir(tmp_path / "d" / ".partial")


KILLED = """
import sys, transferkit as tk
url, digest, size, folder = sys.argv[1:]
options = tk.TransferOptions(resume_threshold=1024 * 1024)
tk.download([tk.Blob(digest, int(size))], folder, base_url=url, repository="library/model", options=options)
"""


def test_what_arrived_before_kill_9_is_not_fetched_again(make_blobs, tmp_path, assert_exactly):
    def slow(app):
        def middle(environ, start_response):
            body = app(environ, start_response)
            if environ["REQUEST_METHOD"] != "GET":
                return body
            return dripping(body)

        def dripping(body):
            for block in body:
                for start in range(0, len(block), 65536):
                    time.sleep(0.002)
                    yield block[start : start + 65536]

        return middle

    with running_registry(middleware=slow) as registry:
        (blob,) = make_blobs(tmp_path / "source", [SIZE])
        tk.upload([blob], tmp_path / "source", base_url=registry.url, repository=REPOSITORY)
        folder = tmp_path / "d"
        partial = folder / ".partial" / tk.digest_to_path(blob.digest)
        child = subprocess.Popen([sys.executable, "-c", KILLED, registry.url, blob.digest, str(SIZE), str(folder)])
        deadline = time.monotonic() + 20
        while not (partial.exists() and partial.stat().st_size > MIB) and time.monotonic() < deadline:
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        child.wait()
        kept = partial.stat().st_size
        assert MIB < kept < SIZE
        assert not (folder / tk.digest_to_path(blob.digest)).exists()

        report = download(registry, blob, folder)

    # What was written and not yet said to be: at most one buffer.
    assert SIZE - kept <= report.bytes <= SIZE - kept + 512 * 1024
    assert_exactly(folder, [blob])


def test_two_processes_on_the_same_blob_fetch_one_body(registry, served, tmp_path, assert_exactly):
    folder = tmp_path / "d"
    command = [sys.executable, "-c", KILLED, registry.url, served.digest, str(SIZE), str(folder)]
    children = [subprocess.Popen(command) for _ in range(3)]

    assert [0, 0, 0] == [child.wait(timeout=30) for child in children]

    assert SIZE == sum(request.sent for request in registry.log)
    assert_exactly(folder, [served])


def test_the_digest_of_the_source_is_the_literal_one(tmp_path, make_blobs):
    """Guard of this file's helper: the name of a generated file is what ``sha256sum`` prints for it."""
    (blob,) = make_blobs(tmp_path / "s", [1000])
    path = tmp_path / "s" / tk.digest_to_path(blob.digest)
    printed = subprocess.run(["sha256sum", str(path)], capture_output=True, text=True, check=True).stdout

    assert blob.digest == "sha256:" + printed.split()[0]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == printed.split()[0]
