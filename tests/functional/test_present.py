"""A folder that has everything already: what a second download of it asks the disk, and what it keeps in memory."""

from __future__ import annotations

import hashlib
import os
import threading
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

import transferkit as tk
from transferkit.storage import listing
from transferkit.storage.disk import Disk

NOBODY = {"base_url": "http://127.0.0.1:9", "repository": "library/data"}
"""Whoever is asked for anything refuses."""


class Calls(Counter[str]):
    """What the disk was asked: system calls by name, and by the name of a blob's file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        monkeypatch.setattr(Disk, "stat", staticmethod(self._stat))
        for name in ("read_file", "open", "append", "create"):
            monkeypatch.setattr(Disk, name, self._counted(name))
        monkeypatch.setattr(listing.os, "scandir", self._scandir)

    def _stat(self, path: str) -> os.stat_result:
        self[f"stat {os.path.basename(path)[:7]}"] += 1
        return os.stat(path)

    def _counted(self, name: str):
        call = getattr(Disk, name)

        def counted(disk: Disk, path: str, *given, **keywords):
            self[f"{name} {os.path.basename(path)}"] += 1
            return call(disk, path, *given, **keywords)

        return counted

    def _scandir(self, path, call=os.scandir):
        self["scandir"] += 1
        return call(path)


def fill(folder: Path, count: int) -> list[tk.Blob]:
    """Put blobs of 8 bytes into a folder, as somebody else would."""
    folder.mkdir()
    blobs = []
    for number in range(count):
        content = b"%08d" % number
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        (folder / tk.digest_to_path(digest)).write_bytes(content)
        blobs.append(tk.Blob(digest, 8))
    return blobs


def test_what_is_in_place_costs_one_look_each_and_the_index_is_read_once(tmp_path, monkeypatch):
    blobs = fill(tmp_path / "there", 200)
    assert 200 == tk.download(blobs, tmp_path / "there", **NOBODY).skipped
    calls = Calls(monkeypatch)

    report = tk.download(blobs, tmp_path / "there", **NOBODY)

    assert (200, 200) == (report.skipped, len(report.paths))
    # A look at each, because a file that was replaced has another size, time or inode. No listing: the index says what
    # may be there. Nothing is opened, and nothing is written.
    assert {"read_file verified": 1, "stat sha256-": 200} == dict(calls)


def test_what_was_replaced_since_then_is_seen_and_hashed_again(tmp_path, monkeypatch):
    blobs = fill(tmp_path / "there", 30)
    tk.download(blobs, tmp_path / "there", **NOBODY)
    replaced = tmp_path / "there" / tk.digest_to_path(blobs[3].digest)
    replaced.write_bytes(b"00000003")  # the same content, as only a hash can tell
    calls = Calls(monkeypatch)

    assert 30 == tk.download(blobs, tmp_path / "there", **NOBODY).skipped
    assert {f"open {replaced.name}": 1} == {name: calls[name] for name in calls if name.startswith("open ")}

    replaced.write_bytes(b"0000000x")
    with pytest.raises(tk.ConnectError):
        once = tk.TransferOptions(retry=tk.RetryOptions(attempts=1, patience=0.0))
        tk.download(blobs, tmp_path / "there", options=once, **NOBODY)


def test_each_further_blob_in_place_takes_less_than_a_kilobyte(tmp_path):
    def peak(count: int) -> int:
        blobs = fill(tmp_path / str(count), count)
        tk.download(blobs, tmp_path / str(count), **NOBODY)
        tracemalloc.start()
        try:
            assert count == tk.download(blobs, tmp_path / str(count), **NOBODY).skipped
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = peak(200), peak(2000)
    assert (many - few) / 1800 < 1000


@pytest.mark.parametrize("threshold", [4, 16 * 1024 * 1024], ids=["blobs that come in chunks", "whole ones"])
def test_files_of_unknown_origin_are_hashed_several_at_a_time(tmp_path, monkeypatch, threshold):
    blobs = fill(tmp_path / "there", 2)
    both = threading.Barrier(2, timeout=30)
    preadv = Disk.preadv

    def read(disk: Disk, *arguments):
        both.wait()  # until the other file is read as well
        return preadv(disk, *arguments)

    monkeypatch.setattr(Disk, "preadv", read)
    options = tk.TransferOptions(chunk_threshold=threshold, resume_threshold=threshold)

    assert 2 == tk.download(blobs, tmp_path / "there", options=options, **NOBODY).skipped
