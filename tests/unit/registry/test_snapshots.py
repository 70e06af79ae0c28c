"""Snapshots whatever call fails or is the last: what has the name of a digest is complete."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import transferkit as tk
from tests.unit.registry.folder_rig import OPTIONS
from tests.unit.storage.models import HOUR, digest_of
from tests.unit.storage.suite import CALLS, FailingDisk
from transferkit.names import Reference
from transferkit.registry.job import Job
from transferkit.registry.snapshots import snapshot
from transferkit.storage.cache import DiskCache
from transferkit.storage.disk import Disk
from transferkit.transfer.operation import Operation

TITLE = "org.opencontainers.image.title"
FILES = {"a": b"one", "deep/er/b": b"two", "big": random.Random(2).randbytes(20_000)}
NAME = "h.example/team/model:v1"
RAW = json.dumps(
    {"layers": [{"digest": digest_of(d), "size": len(d), "annotations": {TITLE: t}} for t, d in FILES.items()]}
).encode()


class QuickDisk(FailingDisk):
    fsync = sync_folder = staticmethod(lambda _: None)


def filled(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    with DiskCache(root, durable=False) as cache:
        for data in FILES.values():
            cache.put(data)
        cache.link(NAME, RAW)


def take(root: Path, disk: Disk | None = None) -> Path:
    with ExitStack() as held, Operation(options=OPTIONS) as operation:
        job = Job(operation, None, OPTIONS, held)  # type: ignore[arg-type]  # offline there are no sites
        cache = held.enter_context(DiskCache(root, disk=disk, durable=disk is not None))
        return Path(snapshot(job, cache, Reference.parse(NAME), "linux/amd64", offline=True))


def found(root: Path) -> dict[str, dict[str, bytes]]:
    """The snapshots of a store, with all their files."""
    folders = list((root / "snapshots").glob("sha256-*"))
    return {
        folder.name: {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        for folder in folders
    }


def assert_sound(root: Path) -> None:
    assert found(root) in ({}, {digest_of(RAW).file_name: FILES})


def assert_done(root: Path) -> None:
    assert {digest_of(RAW).file_name: FILES} == found(root)
    assert [] == os.listdir(root / "snapshots" / ".partial")
    with DiskCache(root) as cache:
        assert [] == cache.verify()


def calls_of(root: Path, act: Any = take) -> list[str]:
    made: list[str] = []
    filled(root)
    act(root, QuickDisk(lambda name, _, __: made.append(name) is not None))
    return made


def test_after_a_crash_at_any_call_a_snapshot_is_whole_or_not_there(tmp_path):
    root = tmp_path / "c"
    calls = len(calls_of(root))
    assert_done(root)
    step = 1 if os.environ.get("TRANSFERKIT_TEST_FULL") == "1" else max(1, calls // 12)
    for crash in range(random.randint(1, step), calls + 1, step):
        filled(root)
        disk = QuickDisk(lambda _, __, count, crash=crash: count >= crash)
        try:
            take(root, disk)
        except tk.TransferKitError:
            pass
        assert disk.failed
        assert_sound(root)
        path = take(root)
        assert_done(root)
        assert 0 == stat.S_IMODE((path / "deep").stat().st_mode) & 0o222


def test_whatever_single_call_fails_a_snapshot_is_whole_or_not_there(tmp_path):
    root = tmp_path / "c"
    for call in sorted(set(calls_of(root)) & set(CALLS)):
        filled(root)
        try:
            take(root, QuickDisk(lambda made, _, __, call=call: made == call))
        except tk.TransferKitError:
            pass
        assert_sound(root)
        take(root)
        assert_done(root)


def test_after_a_crash_of_gc_at_any_call_a_snapshot_is_whole_or_not_there(tmp_path):
    root = tmp_path / "c"

    def collect(root: Path, disk: Disk) -> None:
        take(root)
        with DiskCache(root) as cache:
            cache.unlink(NAME)
        with DiskCache(root, disk=disk, durable=False) as cache:
            cache.gc(grace=-HOUR)

    calls = len(calls_of(root, collect))
    assert {} == found(root)
    for crash in range(random.randint(1, 9), calls + 1, 9):
        filled(root)
        try:
            collect(root, QuickDisk(lambda _, __, count, crash=crash: count >= crash))
        except tk.TransferKitError:
            pass
        assert_sound(root)
        with DiskCache(root) as cache:
            cache.gc(grace=-HOUR)
        assert ({}, []) == (found(root), os.listdir(root / "snapshots" / ".partial"))
        assert [] == list((root / "blobs").glob("sha256-*"))


def test_two_that_make_it_without_a_lock_end_in_one(tmp_path):
    """Some file systems grant every lock."""

    class Unlocked(Disk):
        def lock(self, fd: int, operation: int) -> None:
            pass

    root = tmp_path / "c"
    filled(root)
    cache = DiskCache(root, disk=Unlocked(), durable=False)
    first = cache.snapshots.begin(digest_of(RAW), is_alone=False)
    second = cache.snapshots.begin(digest_of(RAW), is_alone=False)
    for folder in (first, second):
        for title, data in FILES.items():
            path = Path(folder, title)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    paths = {cache.snapshots.publish(folder, digest_of(RAW)) for folder in (first, second)}
    assert {cache.snapshots.find(digest_of(RAW))} == paths
    assert str(take(root, Unlocked())) in paths
    assert_done(root)


class Copying(Disk):
    """There are no reflinks, and no hard links."""

    def clone(self, source: int, path: str, folder: int | None = None) -> None:
        raise OSError(95, os.strerror(95))

    def hard_link(self, source: str, path: str, folder: int | None = None) -> None:
        raise OSError(1, os.strerror(1))


class Linking(Disk):
    clone = Copying.clone


def edit(path: Path) -> None:
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(b"ONE")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def remove(path: Path) -> None:
    path.parent.chmod(0o755)
    path.unlink()


@pytest.mark.parametrize("change", [edit, remove])
def test_a_snapshot_with_a_file_that_is_gone_or_changed_is_made_anew(tmp_path, change):
    root = tmp_path / "c"
    filled(root)
    path = take(root, Copying())
    change(path / "a")
    assert path == take(root, Copying())
    assert_done(root)


def test_an_edit_by_way_of_a_hard_link_is_found_out(tmp_path):
    """The blob is the same file: there is nothing that it could be made of here."""
    root = tmp_path / "c"
    filled(root)
    path = take(root, Linking())
    os.link(path / "a", tmp_path / "mine")
    edit(tmp_path / "mine")
    with pytest.raises(tk.TransferKitError):
        take(root, Linking())
    with DiskCache(root) as cache:
        cache.put(b"one")
    assert path == take(root, Linking())
    assert {digest_of(RAW).file_name: FILES} == found(root)


def test_another_name_for_a_file_leaves_the_snapshot_as_it_is(tmp_path):
    root = tmp_path / "c"
    filled(root)
    path = take(root, Linking())
    before = path.stat().st_ino
    os.link(path / "a", tmp_path / "mine")
    for expected in (True, False):
        disk = FailingDisk(lambda name, _, __: name == "clone", 95)
        assert (path, before) == (take(root, disk), path.stat().st_ino)
        assert expected == (disk.counts["preadv"] > 0)
