"""A folder of blobs: what is handed out is verified, what is stored is complete, whatever fails on the way."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import closing
from pathlib import Path

import pytest

from tests.unit.storage.suite import FailingDisk, descriptor_of, fill, store
from transferkit.content.descriptor import Descriptor
from transferkit.errors import DigestMismatchError, OutOfSpaceError, SizeMismatchError, SourceError, StorageError
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk
from transferkit.storage.disk_errors import OPTIONAL
from transferkit.storage.ingest import SmallIngest
from transferkit.storage.partial import Partial
from transferkit.transfer.flow import WorkerFlow

DATA = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def flow():
    flow = WorkerFlow()
    flow.counter.next_unit()
    return flow


def leftovers(folder: Path) -> list[str]:
    return sorted(os.listdir(folder / ".partial")) if (folder / ".partial").exists() else []


def keep_half(folder: Path, descriptor: Descriptor) -> Path:
    """Leave the first half of a large blob, and return where it is."""
    ingest = Directory(folder, resume_threshold=1).ingest(descriptor, flow=WorkerFlow())
    fill(ingest, DATA, len(DATA) // 2)
    ingest.keep()
    return folder / ".partial" / descriptor.digest.file_name


@pytest.mark.parametrize("first", [DATA[:-1], b"X" + DATA[1:-1]])
def test_after_content_of_another_size_the_right_one_comes(tmp_path, first):
    descriptor = descriptor_of(DATA)
    directory = Directory(tmp_path, resume_threshold=1)
    with pytest.raises(SizeMismatchError):
        store(directory, first, descriptor)
    if first.startswith(b"X"):
        with pytest.raises(DigestMismatchError):
            store(directory, DATA)
    store(directory, DATA)

    assert DATA == (tmp_path / descriptor.digest.file_name).read_bytes()


def test_small_blobs_are_written_in_order(tmp_path):
    ingest = Directory(tmp_path).ingest(descriptor_of(DATA), flow=WorkerFlow())
    with pytest.raises(ValueError, match="in order: at byte 0, not at 10"):
        ingest.write_at(10, memoryview(DATA)[10:])
    ingest.abort()


@pytest.mark.parametrize(("size", "kind"), [(2**24 - 1, SmallIngest), (2**24, Partial)])
def test_a_blob_of_the_threshold_outlives_its_process(tmp_path, flow, size, kind):
    ingest = Directory(tmp_path).ingest(Descriptor("sha256:" + 64 * "a", size), flow=flow)
    assert kind is type(ingest)
    ingest.abort()


def test_a_small_blob_takes_no_more_system_calls_than_it_needs(tmp_path):
    disk = FailingDisk(lambda *_: False)
    directory = Directory(tmp_path, disk=disk)
    directory.prepare([descriptor_of(DATA)])
    before = dict(disk.counts)
    ingest = directory.ingest(descriptor_of(DATA), flow=WorkerFlow())
    ingest.write_at(0, memoryview(DATA))
    ingest.commit(WorkerFlow())

    calls = {name: count - before[name] for name, count in disk.counts.items() if count > before[name]}
    assert {"stat": 2, "create": 1, "pwrite": 1, "fstat": 1, "close": 1, "rename": 1} == calls


@pytest.mark.parametrize("threshold", [1, 2**40])
@pytest.mark.parametrize("call", ["create", "pwrite", "fstat", "close", "rename", "fsync", "sync_folder"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES])
def test_the_error_of_a_call_says_so(tmp_path, threshold, call, code):
    directory = Directory(
        tmp_path, resume_threshold=threshold, disk=FailingDisk(lambda name, *_: name == call, code), durable=True
    )
    kind = OutOfSpaceError if code in (errno.ENOSPC, errno.EDQUOT) else StorageError
    if call in OPTIONAL and code not in OPTIONAL[call] and call != "fsync":
        store(directory, DATA)
        return
    with pytest.raises(kind) as caught:
        store(directory, DATA)

    assert code == caught.value.errno
    assert directory.concerns_all(caught.value)


def test_what_is_wrong_with_one_blob_does_not_concern_the_others(tmp_path):
    assert not Directory(tmp_path).concerns_all(DigestMismatchError("x"))


def test_a_folder_for_partial_files_that_vanishes_is_made_again(tmp_path, flow):
    directory = Directory(tmp_path)
    directory.prepare([descriptor_of(DATA)])
    (tmp_path / ".partial").rmdir()

    store(directory, DATA)

    assert DATA == (tmp_path / descriptor_of(DATA).digest.file_name).read_bytes()


def test_reading_verifies_before_the_last_byte(tmp_path, flow):
    descriptor = descriptor_of(DATA)
    (tmp_path / descriptor.digest.file_name).write_bytes(DATA[:-1] + b"X")
    directory = Directory(tmp_path)
    handed_out = 0

    with directory.fetch(descriptor, flow=flow) as body, pytest.raises(SourceError, match="does not match"):
        while count := body.readinto(flow.buffer):
            handed_out += count

    assert handed_out < len(DATA)


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path, flow):
    descriptor = descriptor_of(DATA)
    path = tmp_path / descriptor.digest.file_name
    path.write_bytes(DATA)
    with Directory(tmp_path).fetch(descriptor, flow=flow) as body:
        body.readinto(flow.buffer)
        os.truncate(path, 10)
        with pytest.raises(SourceError, match="became shorter"):
            body.readinto(flow.buffer)


def test_a_file_that_vanishes_is_an_error(tmp_path, flow, monkeypatch):
    descriptor = descriptor_of(DATA)
    directory = Directory(tmp_path)
    monkeypatch.setattr(directory, "check_source", lambda _: None)

    with pytest.raises(SourceError, match="cannot be read"):
        directory.fetch(descriptor, flow=flow)


def test_zero_bytes_under_a_wrong_digest_do_not_exist(tmp_path, flow):
    liar = Descriptor("sha256:" + 64 * "a", 0)
    (tmp_path / liar.digest.file_name).write_bytes(b"")

    assert not Directory(tmp_path).exists(liar, flow=flow)


def test_a_folder_under_the_name_of_a_blob_is_no_blob(tmp_path, flow):
    descriptor = descriptor_of(DATA)
    (tmp_path / descriptor.digest.file_name).mkdir()
    directory = Directory(tmp_path)

    assert not directory.exists(descriptor, flow=flow)
    with pytest.raises(SourceError, match="is not a file"):
        directory.check_source(descriptor)
    with pytest.raises(StorageError):
        store(directory, DATA)


def test_the_repr_names_the_folder(tmp_path):
    assert f"<Directory {tmp_path}>" == repr(Directory(tmp_path))


@pytest.mark.parametrize("name", ["verified", "state"])
def test_a_named_pipe_in_the_place_of_a_file_of_ours_is_not_waited_for(tmp_path, flow, name):
    descriptor = descriptor_of(DATA)
    (tmp_path / ".partial").mkdir()
    os.mkfifo(tmp_path / ".partial" / (name if name == "verified" else f"{descriptor.digest.file_name}.json"))
    directory = Directory(tmp_path, resume_threshold=1)

    assert not directory.knows(descriptor)
    assert directory.received([descriptor]) in ({}, {descriptor.digest: 0})


def test_a_partial_file_with_a_second_name_is_not_written_to(tmp_path):
    descriptor = descriptor_of(DATA)
    partial = keep_half(tmp_path, descriptor)
    precious = tmp_path / "precious"
    precious.write_bytes(b"keep me" * 100_000)
    partial.unlink()
    os.link(precious, partial)

    store(Directory(tmp_path, resume_threshold=1), DATA)

    assert b"keep me" * 100_000 == precious.read_bytes()
    assert DATA == (tmp_path / descriptor.digest.file_name).read_bytes()


@pytest.mark.parametrize("plant", [os.mkfifo, os.mkdir])
def test_what_is_no_file_in_the_place_of_a_partial_one_is_not_waited_for(tmp_path, plant):
    partial = keep_half(tmp_path, descriptor_of(DATA))
    partial.unlink()
    plant(partial)
    if plant is os.mkdir:
        with pytest.raises(StorageError, match="Is a directory"):
            store(Directory(tmp_path, resume_threshold=1), DATA)
    else:
        store(Directory(tmp_path, resume_threshold=1), DATA)
        assert DATA == (tmp_path / descriptor_of(DATA).digest.file_name).read_bytes()


def test_who_may_write_to_a_shared_folder_may_write_to_its_unfinished_files(tmp_path):
    (tmp_path / "d").mkdir()
    os.chmod(tmp_path / "d", 0o2775)
    Directory(tmp_path / "d").prepare([descriptor_of(DATA)])
    assert 0o2775 == stat.S_IMODE((tmp_path / "d" / ".partial").stat().st_mode)


@pytest.mark.parametrize("durable", [True, False])
def test_every_folder_that_is_made_is_durable_too(tmp_path, durable):
    synced: list[str] = []
    disk = Disk()
    disk.sync_folder = synced.append
    Directory(tmp_path / "a" / "b", durable=durable, disk=disk).prepare([descriptor_of(DATA)])
    made = [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    assert sorted(map(str, made if durable else [])) == sorted(synced)


@pytest.mark.parametrize("is_known", [False, True])
def test_a_file_that_was_never_verified_is_not_looked_at_to_find_out(tmp_path, is_known):
    """An upload of many small files asks this of each of them."""
    looked: list[str] = []

    class Looking(Disk):
        def stat(self, path: str) -> os.stat_result:
            looked.append(path)
            return super().stat(path)

    descriptor = descriptor_of(b"hello")
    with closing(Directory(tmp_path, disk=Looking(), keep=True)) as directory:
        Path(directory.blob_path(descriptor.digest)).write_bytes(b"hello")
        if is_known:
            directory.remember(descriptor.digest, os.stat(directory.blob_path(descriptor.digest)))
        assert directory.knows(descriptor) is is_known
    assert len(looked) == is_known
