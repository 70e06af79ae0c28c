"""What is remembered as verified, and what is not believed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.unit.storage.suite import CHANGES, DATA, change_file, descriptor_of, store
from transferkit.content.digest import Digest
from transferkit.errors import StorageError
from transferkit.storage import rows as module
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk
from transferkit.storage.index import VerifiedIndex
from transferkit.transfer.flow import WorkerFlow

A = Digest("sha256:" + 64 * "a")
B = Digest("sha256:" + 64 * "b")


@pytest.fixture
def file(tmp_path):
    (tmp_path / ".partial").mkdir()
    path = tmp_path / "blob"
    path.write_bytes(b"12345")
    return path


def make(tmp_path: Path, boot: str | None = "boot-1") -> VerifiedIndex:
    disk = Disk()
    disk.boot = boot
    return VerifiedIndex(str(tmp_path), disk)


def test_a_row_is_known_to_the_next_run(tmp_path, file):
    first = make(tmp_path)
    first.add(A, file.stat(), durable=False)
    first.close()
    second = make(tmp_path)

    assert second.knows(A, file.stat())
    assert not second.knows(B, file.stat())


def test_what_is_new_is_remembered_however_long_the_index_is(tmp_path, file, monkeypatch):
    monkeypatch.setattr(module, "LIMIT", 1000)
    for digest in (A, B, A, B, A, B, A, B, A, B):
        index = make(tmp_path)
        index.add(digest, file.stat(), durable=False)
        index.close()
    assert (tmp_path / ".partial" / "verified").stat().st_size > 1000
    (tmp_path / "new").write_bytes(b"new")
    index = make(tmp_path)
    index.add(A, (tmp_path / "new").stat(), durable=False)
    index.close()

    assert make(tmp_path).knows(A, (tmp_path / "new").stat())


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changed_is_not_known(tmp_path, file, change):
    first = make(tmp_path)
    first.add(A, file.stat(), durable=False)
    first.close()
    change_file(file, change)
    assert not make(tmp_path).knows(A, file.stat())


def test_a_row_without_a_sync_counts_in_its_own_boot_only(tmp_path, file):
    first = make(tmp_path, "boot-1")
    first.add(A, file.stat(), durable=False)
    first.add(B, file.stat(), durable=True)
    first.close()
    after = make(tmp_path, "boot-2")

    assert not after.knows(A, file.stat())
    assert after.knows(B, file.stat())


def test_without_a_boot_id_only_synced_rows_are_written(tmp_path, file):
    first = make(tmp_path, None)
    first.add(A, file.stat(), durable=False)
    first.close()
    assert not (tmp_path / ".partial" / "verified").exists()

    first.add(B, file.stat(), durable=True)
    first.close()
    assert make(tmp_path, None).knows(B, file.stat())


@pytest.mark.parametrize(
    "line", ["", "2", "2 x 5 5 5 5 boot-1", "1 {a} {k} boot-1", "2 {a} {k} boot-1 more", "\xff\x00"]
)
def test_a_line_that_does_not_parse_is_ignored(tmp_path, file, line):
    status = file.stat()
    key = f"{status.st_size} {status.st_mtime_ns} {status.st_ino} {status.st_ctime_ns}"
    text = line.format(a=A, k=key) + f"\n2 {B} {key} boot-1\n"
    (tmp_path / ".partial" / "verified").write_bytes(text.encode("latin-1"))
    index = make(tmp_path)

    assert not index.knows(A, status)
    assert index.knows(B, status)


def test_rows_are_written_in_batches(tmp_path, file):
    index = make(tmp_path)
    for number in range(module._BATCH + 1):
        index.add(Digest(f"sha256:{number:064x}"), file.stat(), durable=False)

    assert module._BATCH == len((tmp_path / ".partial" / "verified").read_text().splitlines())
    index.close()
    assert module._BATCH + 1 == len((tmp_path / ".partial" / "verified").read_text().splitlines())


def test_an_index_that_cannot_be_written_costs_nothing_but_the_next_hashing(tmp_path, file):
    class FullDisk(Disk):
        def append(self, path, data, folder=None):
            raise OSError(errno.ENOSPC, "No space left on device")

    index = VerifiedIndex(str(tmp_path), FullDisk())
    for _ in range(module._BATCH + 1):
        index.add(A, file.stat(), durable=False)
    index.close()
    assert not make(tmp_path).knows(A, file.stat())


def test_an_index_brings_its_folder_with_it(tmp_path, file):
    index = make(tmp_path / "d")
    index.add(A, file.stat(), durable=False)
    index.close()
    assert (tmp_path / "d" / ".partial" / "verified").is_file()


def test_a_link_in_the_place_of_the_index_is_refused(tmp_path, file):
    (tmp_path / ".partial" / "verified").symlink_to(tmp_path / "elsewhere")
    index = make(tmp_path)
    index.add(A, file.stat(), durable=False)
    with pytest.raises(StorageError, match="writing the index"):
        index.close()
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_was_edited_in_place_with_its_time_put_back_is_hashed_again(tmp_path):
    """Blobs that went the whole way are known in the next run, and one of them is not after that."""
    blobs = [descriptor_of(DATA), descriptor_of(DATA[1:])]
    directory = Directory(tmp_path)
    for blob, data in zip(blobs, (DATA, DATA[1:]), strict=True):
        store(directory, data, blob)
    directory.close()
    assert [True, True] == [Directory(tmp_path).knows(blob) for blob in blobs]
    path = tmp_path / blobs[0].digest.file_name
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"X")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (before.st_size, before.st_mtime_ns, before.st_ino) == (after.st_size, after.st_mtime_ns, after.st_ino)
    again = Directory(tmp_path)
    assert [False, True] == [again.knows(blob) for blob in blobs]
    assert not again.exists(blobs[0], flow=WorkerFlow())


@pytest.mark.parametrize("threshold", [1, 2**40], ids=["large", "small"])
def test_a_file_that_was_replaced_right_after_its_commit_is_not_taken_for_it(tmp_path, threshold):
    class Raced(Disk):
        def rename(self, source: str, target: str, folder: int | None = None) -> None:
            super().rename(source, target, folder)
            if target.startswith("/"):
                os.rename(target, f"{target}.old")
                Path(target).write_bytes(b"X" + DATA[1:])

    directory = Directory(tmp_path, disk=Raced(), resume_threshold=threshold)
    store(directory, DATA)
    directory.close()
    assert not Directory(tmp_path).knows(descriptor_of(DATA))


def test_rows_of_an_older_release_are_not_believed(tmp_path, file):
    """They do not know the time of the last change, so an edited file would be one of them."""
    status = file.stat()
    row = f"1 {A} {status.st_size} {status.st_mtime_ns} {status.st_ino} boot-1\n"
    (tmp_path / ".partial" / "verified").write_text(row)
    assert not make(tmp_path).knows(A, status)


def test_a_pipe_in_the_place_of_the_index_is_not_waited_for(tmp_path, file):
    os.mkfifo(tmp_path / ".partial" / "verified")
    index = make(tmp_path)
    index.add(A, file.stat(), durable=False)
    index.close()
    assert not make(tmp_path).knows(A, file.stat())
