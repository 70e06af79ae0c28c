"""Content that grows in a file and becomes a blob when its digest is told."""

from __future__ import annotations

import errno
import hashlib
import os
import re

import pytest

import transferkit as tk
from tests.unit.storage.suite import FailingDisk
from transferkit.content.digest import Digest
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk
from transferkit.storage.folder import OpenFolder
from transferkit.storage.writer import Writer

HELLO = Digest("sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")
SHA512 = Digest("sha512:" + hashlib.sha512(b"hello").hexdigest())


@pytest.fixture
def opened(tmp_path):
    """Open writers of the file ``upload``, each as a process of its own would."""

    def open_writer(disk=None, **options):
        disk = disk or Disk()
        return Writer(
            Directory(tmp_path / "blobs", disk=disk), OpenFolder(str(tmp_path / "up"), disk), "upload", **options
        )

    for name in ("blobs", "up"):
        (tmp_path / name).mkdir()
    return open_writer


def blobs(tmp_path):
    return {path.name: path.read_bytes() for path in (tmp_path / "blobs").iterdir()}


@pytest.mark.parametrize("digest", [HELLO, SHA512], ids=["sha256", "sha512"])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_what_was_appended_becomes_a_blob_of_either_algorithm(opened, tmp_path, digest, algorithm):
    writer = opened(algorithm=algorithm)
    writer.create()
    writer.append([b"he", b"l"])
    writer.append([b"lo"])
    assert (5, {}) == (writer.status().st_size, blobs(tmp_path))

    writer.commit(digest)

    assert {f"{digest[:6]}-{digest[7:]}": b"hello"} == blobs(tmp_path)
    assert [] == os.listdir(tmp_path / "up")


def test_a_later_process_goes_on_where_the_file_ends(opened, tmp_path):
    writer = opened()
    writer.create()
    writer.append([b"hel"])  # and is killed
    later = opened()
    later.append([b"lo"])
    later.commit(HELLO)
    assert {f"sha256-{HELLO[7:]}": b"hello"} == blobs(tmp_path)


def test_what_came_before_the_body_broke_off_is_kept(opened, tmp_path):
    def body():
        yield b"hel"
        raise ConnectionResetError

    writer = opened()
    writer.create()
    with pytest.raises(ConnectionResetError):
        writer.append(body())
    writer.close()
    writer.append([b"lo"])
    writer.commit(HELLO)
    assert {f"sha256-{HELLO[7:]}": b"hello"} == blobs(tmp_path)


def test_other_content_gets_no_name_and_may_go_on(opened, tmp_path):
    writer = opened()
    writer.create()
    writer.append([b"hell"])
    with pytest.raises(tk.DigestMismatchError, match="not sha256:2cf24dba5fb0"):
        writer.commit(HELLO)
    assert {} == blobs(tmp_path)
    writer.append([b"o"])
    writer.commit(HELLO)
    assert {f"sha256-{HELLO[7:]}": b"hello"} == blobs(tmp_path)


def test_bytes_that_a_full_disk_took_before_it_refused_count(opened, tmp_path):
    """A short write leaves a part of a block in the file, of which the hash in memory knows nothing."""

    class Full(Disk):
        def pwrite(self, fd, data, offset):
            os.pwrite(fd, data[:2], offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer = opened(Full())
    writer.create()
    with pytest.raises(tk.OutOfSpaceError, match=re.escape(f"writing {tmp_path}/up/upload")):
        writer.append([b"hel"])
    writer._disk = Disk()  # there is room again
    writer.append([b"llo"])
    writer.commit(HELLO)
    assert {f"sha256-{HELLO[7:]}": b"hello"} == blobs(tmp_path)


@pytest.mark.parametrize("durable", [True, False])
def test_data_is_synced_then_named_then_the_name_is_synced(opened, durable):
    calls: list[str] = []
    writer = opened(FailingDisk(lambda name, _, __: calls.append(name) is not None), durable=durable)
    writer.create()
    writer.append([b"hello"])
    writer.commit(HELLO)
    assert [name for name in calls if name in ("fsync", "close", "rename", "sync_folder")] == (
        ["fsync", "close", "rename", "sync_folder"] if durable else ["close", "rename"]
    )


@pytest.mark.parametrize("call", ["fsync", "rename", "close", "sync_folder"])
def test_a_disk_that_fails_at_the_end_is_an_error(opened, call):
    writer = opened(FailingDisk(lambda name, _, __: name == call), durable=True)
    writer.create()
    writer.append([b"hello"])
    with pytest.raises(tk.StorageError, match="storing"):
        writer.commit(HELLO)
    writer.abort()


def test_aborted_there_is_nothing(opened, tmp_path):
    writer = opened()
    writer.create()
    writer.append([b"hello"])
    writer.abort()
    writer.abort()
    assert ([], {}) == (os.listdir(tmp_path / "up"), blobs(tmp_path))
    with pytest.raises(FileNotFoundError):
        writer.status()
    with pytest.raises(tk.StorageError, match="opening"):
        writer.append([b"x"])


def test_a_link_in_the_place_of_the_file_is_not_followed(opened, tmp_path):
    (tmp_path / "victim").write_bytes(b"")
    (tmp_path / "up/upload").symlink_to(tmp_path / "victim")
    writer = opened()
    for work in (writer.create, lambda: writer.append([b"hello"])):
        with pytest.raises(tk.StorageError):
            work()
    assert b"" == (tmp_path / "victim").read_bytes()


@pytest.mark.parametrize(("durable", "expected"), [(True, [(0, 8), (8, 8)]), (False, [])])
def test_the_disk_begins_to_write_what_will_be_synced(opened, monkeypatch, durable, expected):
    class Noting(Disk):
        def write_back(self, fd, offset, count):
            begun.append((offset, count))

    monkeypatch.setattr("transferkit.storage.writer._STEP", 6)
    begun: list[tuple[int, int]] = []
    writer = opened(Noting(), durable=durable)
    writer.create()

    writer.append([b"four"] * 5)

    assert expected == begun


def test_a_block_may_be_overwritten_once_the_next_one_is_asked_for(opened, tmp_path):
    def body():
        buffer = bytearray(2)
        for text in (b"he", b"ll"):
            buffer[:] = text
            yield memoryview(buffer)
        yield b"o"

    writer = opened()
    writer.create()
    writer.append(body())
    writer.commit(HELLO)
    assert {f"sha256-{HELLO[7:]}": b"hello"} == blobs(tmp_path)
