"""What a download would do, whether it fits, and what interrupted ones have left."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

import transferkit as tk
from transferkit.storage.disk import Disk

REPOSITORY = "library/model"
MIB = 1024 * 1024
OPTIONS = tk.TransferOptions(resume_threshold=MIB, progress_interval=0.001)


@pytest.fixture
def served(registry, make_blobs, tmp_path):
    blobs = make_blobs(tmp_path / "source", [1000, 8 * MIB, 5000])
    tk.upload(blobs, tmp_path / "source", base_url=registry.url, repository=REPOSITORY)
    registry.log.clear()
    return blobs


def download(registry, blobs, folder: Path, **keywords) -> tk.Report:
    keywords.setdefault("options", OPTIONS)
    return tk.download(blobs, folder, base_url=registry.url, repository=REPOSITORY, **keywords)


def interrupt(registry, blob: tk.Blob, folder: Path) -> Path:
    """Leave a partial file of a blob, and return where it is."""
    cancel = tk.Cancellation()

    def stop(completed: int, total: int) -> None:
        if completed > 2 * MIB:
            cancel.cancel()

    with pytest.raises(tk.CancelledError):
        slowly = tk.TransferOptions(resume_threshold=MIB, progress_interval=0.001, max_bandwidth=20e6)
        download(registry, [blob], folder, progress=stop, cancel=cancel, options=slowly)
    return folder / ".partial" / tk.digest_to_path(blob.digest)


def test_a_plan_of_everything_moves_nothing(registry, served, tmp_path):
    plan = tk.plan([*served, served[0]], tmp_path / "d" / "deep", options=OPTIONS)

    assert (3, 0, 8 * MIB + 6000, 8 * MIB + 6000) == (plan.blobs, plan.present, plan.bytes, plan.needed)
    assert plan.fits
    assert plan.free > plan.needed
    assert 0 == len(registry.log)
    assert not (tmp_path / "d").exists()


def test_a_plan_counts_what_is_in_place(registry, served, tmp_path):
    download(registry, [served[0]], tmp_path / "d")
    name = tk.digest_to_path(served[2].digest)
    (tmp_path / "d" / name).write_bytes((tmp_path / "source" / name).read_bytes())

    plan = tk.plan(served, tmp_path / "d", options=OPTIONS)

    assert (2, 8 * MIB) == (plan.present, plan.bytes)


def test_a_plan_does_not_believe_a_size(served, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / tk.digest_to_path(served[0].digest)).write_bytes(bytes(1000))

    assert 0 == tk.plan(served, tmp_path / "d", options=OPTIONS).present


def test_a_plan_is_what_the_next_run_moves(registry, served, tmp_path):
    interrupt(registry, served[1], tmp_path / "d")

    plan = tk.plan(served, tmp_path / "d", options=OPTIONS)
    report = download(registry, served, tmp_path / "d")

    assert plan.bytes == report.bytes < 8 * MIB


def test_an_empty_plan():
    plan = tk.plan([], ".")

    assert (0, 0, 0, True) == (plan.blobs, plan.bytes, plan.needed, plan.fits)


def test_too_little_space_is_an_error_before_the_first_byte(registry, served, tmp_path, monkeypatch):
    monkeypatch.setattr(Disk, "free", lambda self, path: 8 * MIB)

    with pytest.raises(tk.OutOfSpaceError, match=r"8.0 MiB left, and 8.0 MiB are needed: free some"):
        download(registry, served, tmp_path / "d")
    assert 0 == len(registry.log)
    assert not tk.plan(served, tmp_path / "d").fits


def test_partial_files_are_listed_and_removed_when_they_are_old(registry, served, tmp_path):
    partial = interrupt(registry, served[1], tmp_path / "d")

    (listed,) = tk.partials(tmp_path / "d")
    assert (served[1].digest, str(partial)) == (listed.digest, listed.path)
    assert 0 <= listed.age < 60
    assert [] == tk.discard(tmp_path / "d")
    assert partial.exists()

    old = time.time() - 2 * 24 * 3600
    os.utime(partial, (old, old))
    assert [] == tk.discard(tmp_path / "d", [served[0].digest])
    assert [served[1].digest] == [removed.digest for removed in tk.discard(tmp_path / "d")]
    assert [] == tk.partials(tmp_path / "d")
    assert [] == [name for name in os.listdir(tmp_path / "d" / ".partial") if name.startswith("sha256-")]


def test_what_a_killed_process_left_of_a_small_blob_is_listed_too(tmp_path):
    folder = tmp_path / "d" / ".partial"
    folder.mkdir(parents=True)
    (folder / ("sha256-" + 64 * "a" + ".0123456789abcdef")).write_bytes(b"half")
    (folder / "something-else").write_bytes(b"")

    assert ["sha256:" + 64 * "a"] == [partial.digest for partial in tk.partials(tmp_path / "d")]
    assert 1 == len(tk.discard(tmp_path / "d", older_than=0))
    assert ["something-else"] == os.listdir(folder)


def test_a_partial_file_that_is_held_is_left_alone(registry, served, tmp_path):
    partial = interrupt(registry, served[1], tmp_path / "d")
    with open(f"{partial}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert [] == tk.discard(tmp_path / "d", older_than=0)

    assert 1 == len(tk.discard(tmp_path / "d", older_than=0))


def test_a_folder_without_leftovers(tmp_path):
    assert [] == tk.partials(tmp_path)
    assert [] == tk.discard(tmp_path / "nothing")
