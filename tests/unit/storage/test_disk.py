"""System calls: what is written is all written, and an error says what could not be done."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.descriptors import open_descriptors
from transferkit.errors import OutOfSpaceError, StorageError
from transferkit.storage.disk import Disk, sync_folder
from transferkit.storage.disk_errors import OPTIONAL, disk_errors, storage_error


def test_a_short_write_is_continued(tmp_path, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:3], offset))
    disk = Disk()
    fd = disk.create(str(tmp_path / "f"))
    disk.pwrite(fd, memoryview(b"0123456789"), 0)
    disk.close(fd)

    assert b"0123456789" == (tmp_path / "f").read_bytes()


def test_a_disk_that_takes_nothing_more_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: 0)
    disk = Disk()
    fd = disk.create(str(tmp_path / "f"))
    with pytest.raises(OSError, match="no more bytes"):
        disk.pwrite(fd, memoryview(b"0123456789"), 0)
    disk.close(fd)


def test_a_new_file_is_never_an_old_one_nor_a_link(tmp_path):
    (tmp_path / "old").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    disk = Disk()

    for name in ("old", "link"):
        with pytest.raises(FileExistsError):
            disk.create(str(tmp_path / name))
    with pytest.raises(OSError, match="symbolic"):
        disk.reopen(str(tmp_path / "link"))
    assert not (tmp_path / "elsewhere").exists()


def test_the_umask_decides_who_may_read(tmp_path):
    old = os.umask(0o027)
    try:
        disk = Disk()
        disk.close(disk.create(str(tmp_path / "f")))
    finally:
        os.umask(old)
    assert 0o640 == stat.S_IMODE((tmp_path / "f").stat().st_mode)


def test_lines_are_appended(tmp_path):
    disk = Disk()
    disk.append(str(tmp_path / "f"), b"one\n")
    disk.append(str(tmp_path / "f"), b"two\n")

    assert b"one\ntwo\n" == (tmp_path / "f").read_bytes()


def test_a_folder_can_be_synced(tmp_path):
    Disk().sync_folder(str(tmp_path))
    with pytest.raises(OSError, match=r"."):
        Disk().sync_folder(str(tmp_path / "nothing"))


@pytest.mark.parametrize(("code", "fails"), [(errno.EINVAL, False), (errno.ENOSYS, False), (errno.EIO, True)])
def test_a_file_system_that_cannot_sync_folders_is_good_enough(tmp_path, monkeypatch, code, fails):
    def refuse(fd: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    before = open_descriptors()
    with pytest.raises(OSError, match="output error") if fails else nullcontext():
        sync_folder(Disk(), str(tmp_path))
    assert before == open_descriptors()


def test_of_a_file_that_is_too_long_the_end_is_read(tmp_path):
    (tmp_path / "f").write_bytes(b"0123456789")
    assert b"6789" == Disk().read_file(str(tmp_path / "f"), 4)
    assert b"0123456789" == Disk().read_file(str(tmp_path / "f"), 11)


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        (errno.ENOSPC, OutOfSpaceError, "free some"),
        (errno.EDQUOT, OutOfSpaceError, "free some"),
        (errno.EACCES, StorageError, "check the permissions"),
        (errno.EROFS, StorageError, "read-only"),
        (errno.EMFILE, StorageError, "ulimit"),
        (errno.EIO, StorageError, "Input/output error"),
    ],
)
def test_an_error_says_what_where_and_what_to_do(code, kind, says):
    error = storage_error(OSError(code, os.strerror(code)), "writing", "/data/x")

    assert kind is type(error)
    assert code == error.errno
    assert "writing /data/x" in str(error)
    assert says in str(error)
    assert not error.retryable


def test_our_own_errors_pass_unchanged():
    with pytest.raises(OutOfSpaceError, match="mine"), disk_errors("writing", "/x"):
        raise OutOfSpaceError("mine")


def test_linux_names_its_boot(monkeypatch):
    assert Disk().boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    monkeypatch.setattr(sys, "platform", "plan9")
    assert Disk().boot is None


def test_macos_names_its_boot(monkeypatch, tmp_path):
    class Done:
        stdout = "3C2A0E54-1B7F\n"

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("subprocess.run", lambda *a, **k: Done)
    assert "3C2A0E54-1B7F" == Disk().boot

    def failing(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr("subprocess.run", failing)
    assert Disk().boot is None


def test_the_page_has_the_errors_of_each_call_that_is_optional():
    page = Path(__file__).parents[3] / "docs" / "system-calls.rst"
    rows = re.findall(r"^``(\w+)`` +(none|[A-Z ]+)$", page.read_text(), re.MULTILINE)
    named = {call: {getattr(errno, name) for name in names.replace("none", "").split()} for call, names in rows}
    assert OPTIONAL == named


def test_a_new_name_replaces_nothing(tmp_path):
    disk = Disk()
    (tmp_path / "one").write_bytes(b"1")
    (tmp_path / "two").write_bytes(b"2")
    with pytest.raises(FileExistsError):
        disk.rename_new(str(tmp_path / "one"), str(tmp_path / "two"))
    assert b"2" == (tmp_path / "two").read_bytes()
    disk.rename_new(str(tmp_path / "one"), str(tmp_path / "three"))
    assert ["three", "two"] == sorted(os.listdir(tmp_path))
