"""Nothing grows: threads, descriptors and memory stay flat, over many calls and over many blobs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

import transferkit as tk
from transferkit.testing import Close

REPOSITORY = "library/model"


def answer_of(status: int, body: bytes) -> bytes:
    return (
        b"HTTP/1.1 %d Text\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body
    )


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd"))


def test_fifty_transfers_leave_threads_and_descriptors_flat(registry, make_blobs, tmp_path):
    blobs = make_blobs(tmp_path / "source", [10_000] * 8)
    tk.upload(blobs, tmp_path / "source", base_url=registry.url, repository=REPOSITORY)
    threads, files = [], []
    for number in range(50):
        tk.upload(blobs, tmp_path / "source", base_url=registry.url, repository=f"other/{number % 3}")
        tk.download(blobs, tmp_path / f"d{number}", base_url=registry.url, repository=REPOSITORY)
        threads.append(threading.active_count())
        files.append(descriptors())

    # The registry is in this process too, and on a busy machine it holds connections that it has not seen close yet. A
    # descriptor or a thread that each call left behind would show in the least ones, too.
    assert min(threads[-10:]) <= min(threads[:10])
    assert min(files[-10:]) <= min(files[:10]) + 5


MANY = """
import pathlib, sys
import transferkit as tk
url, listing, folder = sys.argv[1:]
blobs = [tk.Blob(line.split()[0], int(line.split()[1])) for line in open(listing)]
report = tk.download(blobs, folder, base_url=url, repository="library/model", concurrency=16)
# Not ru_maxrss: a child inherits the peak of the process that forked it.
(peak,) = [line.split()[1] for line in pathlib.Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
print(report.blobs, peak)
"""


def peak(registry, blobs, folder) -> int:
    """Return the most KiB of memory that a process takes for a download of these blobs."""
    listing = folder / f"list-{len(blobs)}"
    listing.write_text("".join(f"{blob.digest} {blob.size}\n" for blob in blobs))
    registry.log.clear()
    done = subprocess.run(
        [sys.executable, "-c", MANY, registry.url, str(listing), str(folder / f"d-{len(blobs)}")],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    count, kib = map(int, done.stdout.split())
    assert len(blobs) == count == len(registry.log)
    return kib


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("count", [1000, pytest.param(5000, marks=pytest.mark.full)])
def test_memory_for_many_blobs_stays_under_90_mb(registry, make_blobs, tmp_path, count):
    blobs = make_blobs(tmp_path / "source", [512] * count)
    # A file in the store and a mark in the repository are what a push would have made; 5,000 pushes take half a minute.
    marks = registry.store / "repositories" / REPOSITORY / "_blobs"
    marks.mkdir(parents=True)
    for blob in blobs:
        name = tk.digest_to_path(blob.digest)
        os.link(tmp_path / "source" / name, registry.blob_path(blob.digest))
        (marks / name).touch()

    few, many = peak(registry, blobs[:200], tmp_path), peak(registry, blobs, tmp_path)

    assert many < 90_000
    assert many - few < 6 * count  # 6 KiB a blob; it was 2


FAILING = """
import gc, hashlib, logging, sys, tracemalloc
import transferkit as tk
logging.disable()
url, folder, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
blobs = [tk.Blob("sha256:" + hashlib.sha256(b"%d" % number).hexdigest(), 5) for number in range(count)]
options = tk.TransferOptions(retry=tk.RetryOptions(attempts=2, patience=0.0, max_wait=0.0))
def failures(blobs):
    try:
        tk.download(blobs, folder, base_url=url, repository="a/b", concurrency=4, options=options)
    except tk.IncompleteError as error:
        return error.failures
kept = failures(blobs[:20])  # what is imported and remembered once is nobody's
tracemalloc.start()
gc.collect()
before = tracemalloc.get_traced_memory()[0]
kept = failures(blobs)
gc.collect()
print(len(kept), (tracemalloc.get_traced_memory()[0] - before) / count)
print(sum(error.__traceback__ is not None for error in kept.values()), kept[blobs[0].digest])
"""


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            answer_of(404, b'{"errors": [{"code": "BLOB_UNKNOWN", "message": "blob unknown to registry"}]}'),
            "responded with status 404",
        ),
        pytest.param(
            answer_of(500, b'{"errors": [{"code": "UNKNOWN", "message": "unknown error"}]}'),
            "responded with status 500",
            marks=pytest.mark.full,
        ),
        (answer_of(200, b"wrong"), "digest"),
        pytest.param([Close()], "closed the connection", marks=pytest.mark.full),
        ([answer_of(200, b"wrong")[:-2], Close()], "2 bytes before the end"),
    ],
    ids=["missing", "refused", "wrong", "closed", "cut off"],
)
def test_thousands_of_failing_blobs_cost_little_each(answer, words, serve, tmp_path):
    server = serve(lambda _: answer)
    done = subprocess.run(
        [sys.executable, "-c", FAILING, server.url, str(tmp_path / "copy"), "1000"],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    figures, texts = done.stdout.splitlines()
    count, each = figures.split()
    assert ("1000", "") == (count, done.stderr)
    assert float(each) < 2048
    assert texts.startswith("0 ")
    assert words in texts
