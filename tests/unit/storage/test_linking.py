"""Files made of blobs: in the way that is asked for, or the first that there is, and never of a blob that is wrong."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import transferkit as tk
from tests.unit.storage.suite import BLOB, DATA, FailingDisk, descriptor_of, store
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk
from transferkit.storage.folder import OpenFolder
from transferkit.storage.linking import Linking
from transferkit.transfer.flow import WorkerFlow


class CopyingDisk(Disk):
    """A file system that has reflinks: here by a copy."""

    def clone(self, source: int, path: str, folder: int | None = None) -> None:
        fd = self.create(path, folder)
        os.write(fd, os.pread(source, len(DATA) + 1, 0))
        os.close(fd)


def refusing(*calls: str, code: int = errno.EOPNOTSUPP) -> Disk:
    disk: Disk = CopyingDisk()

    def refuse(*_: object, **__: object) -> None:
        disk.asked.append(1)  # type: ignore[attr-defined]  # of the test
        raise OSError(code, os.strerror(code))

    disk.asked = []  # type: ignore[attr-defined]
    for call in calls:
        setattr(disk, call, refuse)
    return disk


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., tuple[Linking, Directory, Path]]]:
    (tmp_path / "to").mkdir()
    folders: list[OpenFolder] = []

    def make(disk: Disk, way: str, *, is_own: bool = True) -> tuple[Linking, Directory, Path]:
        blobs = Directory(tmp_path / "blobs", follow_links=False, keep=True, disk=disk)
        store(blobs, DATA)
        folders.append(OpenFolder(str(tmp_path / "to"), disk))
        return Linking(folders[-1], way, own=blobs if is_own else None), blobs, tmp_path / "to"

    yield make
    for folder in folders:
        folder.close()


@pytest.mark.parametrize(
    ("refused", "way", "expected"),
    [
        ((), "auto", "reflink"),
        (("clone",), "auto", "hard"),
        (("clone", "hard_link"), "auto", "copy"),
        (("clone", "set_mode"), "auto", "copy"),
        ((), "hard", "hard"),
        ((), "copy", "copy"),
    ],
)
def test_a_file_has_the_content_in_whatever_way(made, refused, way, expected) -> None:
    linking, blobs, to = made(refusing(*refused), way)
    name, how = linking.make(BLOB, blobs, WorkerFlow())
    assert (expected, DATA) == (how, (to / name).read_bytes())
    assert [name] == os.listdir(to)
    assert (expected == "hard") == os.path.samefile(to / name, blobs.blob_path(BLOB.digest))
    assert (0 if expected == "hard" else 0o200) == stat.S_IMODE((to / name).stat().st_mode) & 0o200
    if "set_mode" not in refused:
        assert blobs.knows(BLOB)


@pytest.mark.parametrize(("call", "way"), [("clone", "reflink"), ("hard_link", "hard")])
def test_a_way_that_is_not_there_is_an_error_that_says_what_else_there_is(made, call, way) -> None:
    linking, blobs, to = made(refusing(call), way)
    with pytest.raises(tk.StorageError, match=rf'cannot become a {way} in .*to: .*link="auto" takes what there is'):
        linking.make(BLOB, blobs, WorkerFlow())
    assert [] == os.listdir(to)


def test_a_way_that_was_refused_once_is_not_asked_for_again(made) -> None:
    disk = refusing("clone")
    linking, blobs, _ = made(disk, "auto")
    for _ in range(5):
        linking.make(BLOB, blobs, WorkerFlow())
    assert 1 == len(disk.asked)


def test_a_store_of_somebody_else_gets_no_more_names(made) -> None:
    linking, blobs, to = made(refusing("clone"), "auto", is_own=False)
    name, how = linking.make(BLOB, blobs, WorkerFlow())
    assert ("copy", 1) == (how, (to / name).stat().st_nlink)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_is_full_or_broken_is_an_error_at_once(made, code) -> None:
    linking, blobs, to = made(refusing("clone", code=code), "auto")
    with pytest.raises(tk.StorageError) as caught:
        linking.make(BLOB, blobs, WorkerFlow())
    assert (code, []) == (caught.value.errno, os.listdir(to))


@pytest.mark.parametrize("way", ["reflink", "hard", "copy"])
def test_a_blob_that_is_wrong_becomes_no_file(made, way) -> None:
    linking, blobs, to = made(CopyingDisk(), way)
    Path(blobs.blob_path(BLOB.digest)).write_bytes(bytes(len(DATA)))
    with pytest.raises(tk.SourceError):
        linking.make(BLOB, blobs, WorkerFlow())
    with pytest.raises((tk.SourceError, tk.StorageError)):
        linking.make(descriptor_of(b"not here"), blobs, WorkerFlow())
    assert [] == os.listdir(to)


@pytest.mark.parametrize("way", ["reflink", "hard", "copy", "auto"])
def test_whatever_call_fails_no_file_and_no_descriptor_is_left(made, tmp_path, way) -> None:
    for call in ("open", "create", "fstat", "pwrite", "preadv", "hard_link", "clone", "set_mode", "lstat", "stat"):
        _, blobs, to = made(CopyingDisk(), way)
        before = set(os.listdir("/proc/self/fd"))
        disk = FailingDisk(lambda name, _, __, call=call: name == call)
        with OpenFolder(str(to), Disk()) as folder:
            folder.disk = disk
            failing = Directory(blobs.path, follow_links=False, keep=True, disk=disk)
            try:
                name, _ = Linking(folder, way, own=failing).make(BLOB, failing, WorkerFlow())
                assert DATA == (to / name).read_bytes()
                os.unlink(to / name)
            except tk.StorageError:
                pass
        assert set(os.listdir("/proc/self/fd")) <= before
        assert [] == os.listdir(to)
