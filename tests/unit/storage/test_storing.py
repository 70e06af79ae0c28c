"""Content from this machine, and blobs that were found wrong."""

from __future__ import annotations

import errno
import io
import json
import os

import pytest

import transferkit as tk
from tests.unit.storage.models import digest_of
from tests.unit.storage.suite import DATA, FailingDisk, descriptor_of, fill, store
from transferkit.content.chunk import Chunk
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk
from transferkit.storage.lock import BlobLock
from transferkit.storage.storing import store_content, take_away
from transferkit.transfer.flow import WorkerFlow

BLOB = descriptor_of(DATA)


class Trickle(io.BytesIO):
    """A file that gives little at once."""

    def read(self, size=-1):
        return super().read(min(size, 1000))


def test_a_stream_is_stored_as_it_comes(tmp_path):
    assert BLOB == store_content(Directory(tmp_path), Trickle(DATA), durable=False)
    assert (tmp_path / BLOB.digest.file_name).read_bytes() == DATA


@pytest.mark.parametrize("content", [DATA, io.BytesIO(DATA)])
@pytest.mark.parametrize("call", ["create", "pwrite", "fsync", "close", "rename"])
def test_a_disk_that_refuses_is_an_error_and_leaves_nothing(tmp_path, call, content):
    disk = FailingDisk(lambda name, _, __: name == call, errno.ENOSPC)
    with pytest.raises(tk.OutOfSpaceError, match="storing content in"):
        store_content(Directory(tmp_path, disk=disk), content, durable=True)
    assert [".partial"] == os.listdir(tmp_path)
    assert [] == os.listdir(tmp_path / ".partial")


@pytest.mark.parametrize("durable", [True, False])
def test_content_is_synced_before_it_has_its_name_if_wanted(tmp_path, durable):
    calls: list[str] = []
    disk = FailingDisk(lambda name, _, __: calls.append(name) is not None)
    store_content(Directory(tmp_path, disk=disk), DATA, durable=durable)
    made = [name for name in calls if name in ("fsync", "rename", "sync_folder")]
    assert (["fsync", "rename", "sync_folder"] if durable else ["rename"]) == made


class Pruned(Disk):
    """A disk beside a program that removes the folder of what is unfinished, once, as it is renamed from."""

    def __init__(self) -> None:
        self.pruned = False

    def rename(self, source, target, folder=None, **keywords):
        if not self.pruned:
            self.pruned = True
            os.unlink(source, dir_fd=folder)
        super().rename(source, target, folder, **keywords)


@pytest.mark.parametrize("content", [DATA, io.BytesIO(b"header" + DATA)], ids=["bytes", "file"])
def test_what_somebody_removes_meanwhile_is_written_again(tmp_path, content):
    if not isinstance(content, bytes):
        content.seek(6)
    assert BLOB == store_content(Directory(tmp_path, disk=Pruned()), content, durable=False)


def test_a_stream_that_cannot_go_back_is_not_written_again(tmp_path):
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

    with pytest.raises(tk.StorageError, match="No such file"):
        store_content(Directory(tmp_path, disk=Pruned()), Pipe(DATA), durable=False)


# -- taking away


def wrong(folder, size: int) -> Directory:
    """Return a folder in which a blob is that has wrong bytes in its middle."""
    directory = Directory(folder, resume_threshold=size, keep=True, follow_links=False)
    store(directory, DATA)
    path = folder / BLOB.digest.file_name
    path.write_bytes(DATA[:20_000] + bytes(100) + DATA[20_100:])
    directory.remember(BLOB.digest, os.lstat(path))
    return directory


def test_a_small_blob_that_is_wrong_is_removed(tmp_path):
    directory = wrong(tmp_path, 2**40)
    assert directory.knows(BLOB)
    take_away(directory, BLOB)
    assert [".partial"] == os.listdir(tmp_path)
    assert not directory.knows(BLOB)
    take_away(directory, BLOB)  # it has gone already


def test_of_a_large_one_the_bytes_stay_to_be_verified_chunk_by_chunk(tmp_path):
    directory = wrong(tmp_path, 1)
    take_away(directory, BLOB)
    assert not directory.has(BLOB)
    ingest = directory.ingest(BLOB, flow=WorkerFlow())
    assert (0, len(DATA)) == (ingest.in_place, ingest.unverified)
    chunk = Chunk(0, 9_999)
    assert [chunk] == ingest.take_unverified(chunk)
    hasher = digest_of(b"").hasher()
    ingest.hash_unverified(chunk, hasher, WorkerFlow())
    assert digest_of(DATA[:10_000]).hex == hasher.hexdigest()
    ingest.record(0, 9_999)
    ingest.restart()
    fill(ingest, DATA)
    ingest.commit(WorkerFlow())
    assert (tmp_path / BLOB.digest.file_name).read_bytes() == DATA


def test_what_an_earlier_download_has_left_is_not_taken_for_the_blobs_bytes(tmp_path):
    directory = wrong(tmp_path, 1)
    (tmp_path / ".partial" / BLOB.digest.file_name).write_bytes(b"other bytes")
    take_away(directory, BLOB)
    assert len(DATA) == (tmp_path / ".partial" / BLOB.digest.file_name).stat().st_size
    lines = (tmp_path / ".partial" / f"{BLOB.digest.file_name}.json").read_text().splitlines()
    assert {"unverified": [0, len(DATA) - 1]} == json.loads(lines[-1])


def test_a_large_one_that_somebody_fetches_already_is_only_removed(tmp_path):
    directory = wrong(tmp_path, 1)
    lock = BlobLock(directory.open_unfinished(), f"{BLOB.digest.file_name}.lock")
    assert lock.attempt()
    take_away(directory, BLOB)
    lock.release()
    assert not directory.has(BLOB)
    assert not (tmp_path / ".partial" / BLOB.digest.file_name).exists()
