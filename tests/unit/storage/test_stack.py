"""Folders of blobs above each other: which of them is read, and that one alone is written to."""

from __future__ import annotations

from pathlib import Path

import pytest

import transferkit as tk
from tests.unit.storage.suite import DATA, descriptor_of, store
from transferkit.storage.directory import Directory
from transferkit.storage.stack import Stack
from transferkit.transfer.flow import WorkerFlow

BLOB = descriptor_of(DATA)


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    store(Directory(tmp_path / "below"), DATA)
    return Stack(Directory(tmp_path / "own"), [Directory(tmp_path / "between"), Directory(tmp_path / "below")])


def test_the_first_folder_that_has_it_is_read(stack, tmp_path):
    assert f"{tmp_path}/below/{BLOB.digest.file_name}" == stack.path(BLOB.digest) == stack.get(BLOB.digest).path
    assert DATA == stack.read(BLOB.digest)
    store(stack.directories[1], DATA)
    assert f"{tmp_path}/between/{BLOB.digest.file_name}" == stack.path(BLOB.digest)


def test_what_is_below_and_right_is_not_fetched(stack, tmp_path):
    assert stack.exists(BLOB, flow=WorkerFlow())
    assert stack.ingest(BLOB, flow=WorkerFlow()) is None
    stack.check_source(BLOB)
    stack.prepare([BLOB])
    assert ["below"] == [path.name for path in tmp_path.iterdir()]


def test_what_is_below_and_wrong_is_fetched_into_the_own_folder(stack, tmp_path):
    path = Path(stack.path(BLOB.digest))
    path.write_bytes(bytes(len(DATA)))
    store(stack, DATA)
    assert DATA == (tmp_path / "own" / BLOB.digest.file_name).read_bytes()
    assert bytes(len(DATA)) == path.read_bytes()
    assert DATA == stack.read(BLOB.digest)


def test_a_plan_counts_what_is_anywhere(stack):
    new = descriptor_of(b"new")
    plan = stack.plan([BLOB, new])
    assert (2, 1, 3, 3) == (plan.blobs, plan.present, plan.bytes, plan.needed)
    assert [new] == stack.missing([BLOB, new])


def test_what_is_nowhere_is_not_found(stack, tmp_path):
    new = descriptor_of(b"new")
    assert f"{tmp_path}/own/{new.digest.file_name}" == stack.path(new.digest)
    with pytest.raises(tk.BlobNotFoundError):
        stack.read(new.digest)
    with pytest.raises(tk.SourceError):
        stack.fetch(new, flow=WorkerFlow())
