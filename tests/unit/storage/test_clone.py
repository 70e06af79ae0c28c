"""Clones of files: a new file with the same blocks, or an error and no file."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from pathlib import Path

import pytest

from tests.descriptors import open_descriptors
from transferkit.storage import clone as module
from transferkit.storage.disk import Disk


@pytest.fixture
def source(tmp_path: Path):
    (tmp_path / "source").write_bytes(b"content")
    fd = os.open(tmp_path / "source", os.O_RDONLY)
    yield fd
    os.close(fd)


def test_a_clone_has_the_content_or_there_is_none(source, tmp_path):
    """Which of the two, the file system of the test decides."""
    before = open_descriptors()
    try:
        Disk().clone(source, str(tmp_path / "clone"))
    except OSError:
        assert not (tmp_path / "clone").exists()
    else:
        assert b"content" == (tmp_path / "clone").read_bytes()
    assert before == open_descriptors()


def test_on_linux_the_new_file_is_asked_to_share_the_blocks_of_the_old_one(source, tmp_path, monkeypatch):
    asked = []

    def ioctl(fd: int, request: int, argument: int) -> int:
        asked.append((os.readlink(f"/proc/self/fd/{fd}"), request, argument))
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        Disk().clone(source, "clone", folder)
    finally:
        os.close(folder)
    # FICLONE of <linux/fs.h>: _IOW(0x94, 9, int)
    assert [(str(tmp_path / "clone"), (1 << 30) | (4 << 16) | (0x94 << 8) | 9, source)] == asked


def test_a_file_that_is_there_is_not_replaced(source, tmp_path):
    (tmp_path / "there").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        Disk().clone(source, str(tmp_path / "there"))
    assert b"mine" == (tmp_path / "there").read_bytes()


@pytest.mark.parametrize(("folder", "expected"), [(None, -2), (7, 7)])
def test_on_macos_the_call_is_fclonefileat(monkeypatch, folder, expected):
    asked = []

    class Library:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def fclonefileat(self, *arguments: object) -> int:
            asked.append(arguments)
            ctypes.set_errno(errno.ENOTSUP)
            return len(asked) - 1

    monkeypatch.setattr(module.sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", Library)
    module.clone(5, "clone", folder, lambda path, folder: 1 // 0)
    assert [(5, expected, b"clone", 0)] == asked
    with pytest.raises(OSError, match=os.strerror(errno.ENOTSUP)):
        module.clone(5, "clone", folder, lambda path, folder: 1 // 0)


def test_a_hard_link_is_to_a_file_and_not_through_a_link(tmp_path):
    (tmp_path / "source").write_bytes(b"content")
    (tmp_path / "link").symlink_to("source")
    disk = Disk()
    disk.hard_link(str(tmp_path / "source"), str(tmp_path / "hard"))
    disk.hard_link(str(tmp_path / "link"), str(tmp_path / "other"))
    assert os.path.samefile(tmp_path / "source", tmp_path / "hard")
    assert (tmp_path / "other").is_symlink()
