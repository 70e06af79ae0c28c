"""Nothing grows: threads, descriptors and memory stay flat, over many calls and over many blobs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

import transferkit as tk

REPOSITORY = "library/model"


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
