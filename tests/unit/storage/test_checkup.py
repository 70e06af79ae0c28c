"""What is said of a store and its disk; each missing call is found, and what follows from it told."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest

from transferkit.content.finding import Finding
from transferkit.storage.cache import DiskCache
from transferkit.storage.checkup import check_store
from transferkit.storage.disk import Disk
from transferkit.storage.lock import BlobLock


class Poor(Disk):
    """A disk without some calls."""

    def __init__(self, *missing: str, code: int = errno.EOPNOTSUPP) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise OSError(code, os.strerror(code))

        for name in missing:
            setattr(self, name, fail)


def found(folder: Path, disk: Disk | None = None) -> dict[str, Finding]:
    return {finding.about: finding for finding in check_store(DiskCache(folder, disk=disk))}


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    seen = found(tmp_path / "a" / "b")
    assert ("note", f"{tmp_path}/a/b is not there yet; the first pull makes it") == (
        seen["store"].level,
        seen["store"].text,
    )
    assert [] == os.listdir(tmp_path)


def test_a_good_disk_is_good_and_nothing_stays_on_it(tmp_path: Path) -> None:
    seen = found(tmp_path)
    assert {"store": "ok", "fsync": "ok", "lock": "ok", "rename": "ok"} == {
        about: seen[about].level for about in ("store", "fsync", "lock", "rename")
    }
    assert [] == [name for name in os.listdir(tmp_path / "blobs" / ".partial") if name.startswith("sha256-")]


@pytest.mark.parametrize(
    ("call", "about", "level"),
    [
        ("fsync", "fsync", "warning"),
        ("clone", "reflink", "note"),
        ("rename", "rename", "problem"),
        ("create", "store", "problem"),
        ("free", "space", "note"),
    ],
)
def test_a_call_that_the_disk_lacks_is_found_with_what_follows(
    tmp_path: Path, call: str, about: str, level: str
) -> None:
    seen = found(tmp_path, Poor(call))[about]
    assert (level, True) == (seen.level, "Operation not supported" in seen.text)
    assert seen.advice or call == "free"
    assert [] == [name for name in os.listdir(tmp_path / "blobs" / ".partial") if name.startswith("sha256-")]


def test_locks_that_are_none_or_everybodys_are_found(tmp_path: Path) -> None:
    class Generous(Disk):
        def lock(self, fd: int, operation: int) -> None:
            """Grant it."""

    for disk in (Poor("lock"), Generous()):
        seen = found(tmp_path, disk)["lock"]
        assert ("warning", True) == (seen.level, "has no locks, or grants them to everybody" in seen.text)


def test_who_holds_a_lock_is_told(tmp_path: Path) -> None:
    with DiskCache(tmp_path) as cache:
        lock = BlobLock(cache.open_unfinished(), "name.abc.lock")
        assert lock.attempt()
        seen = [each.text for each in check_store(DiskCache(tmp_path)) if each.about == "lock"]
        lock.release()
    holder = f"process {os.getpid()} on {os.uname().nodename}"
    place = tmp_path / "blobs" / ".partial" / "name.abc.lock"
    assert ["processes can wait for each other", f"{place} is held by {holder}; others wait for it"] == seen
    assert 1 == len([each for each in check_store(DiskCache(tmp_path)) if each.about == "lock"])


def test_a_store_that_can_only_be_read_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    seen = found(tmp_path, Poor("make_folder", code=errno.EROFS))["store"]
    assert ("warning", True) == (seen.level, seen.text.startswith("it can only be read: "))


def test_little_room_is_a_warning(tmp_path: Path) -> None:
    class Full(Disk):
        def free(self, path: str) -> int:
            return 1024

    seen = found(tmp_path, Full())["space"]
    assert ("warning", "only 1.0 KiB are free") == (seen.level, seen.text)
    assert "transferkit gc" in seen.advice


def test_what_was_left_a_week_ago_is_told(tmp_path: Path) -> None:
    partial = tmp_path / "blobs" / ".partial" / f"sha256-{64 * 'a'}"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"half")
    assert "" == found(tmp_path)["partials"].advice
    then = time.time() - 8 * 86400
    os.utime(partial, (then, then))
    seen = found(tmp_path)["partials"]
    assert "1 of them older than a week" in seen.text
    assert "--discard --older-than 7d" in seen.advice


def test_it_says_why_this_store_is_the_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFERKIT_CACHE", str(tmp_path))
    assert f"{tmp_path} (from TRANSFERKIT_CACHE) has 0 models" == found(tmp_path)["store"].text
    monkeypatch.delenv("TRANSFERKIT_CACHE")
    assert "(as was asked for)" in found(tmp_path)["store"].text


def test_a_store_whose_partial_files_cannot_be_written_is_a_warning_as_well(tmp_path: Path) -> None:
    (tmp_path / "blobs" / ".partial").mkdir(parents=True)
    seen = found(tmp_path, Poor("create", code=errno.EACCES))["store"]
    assert ("warning", True) == (seen.level, seen.text.startswith("no file can be made in "))
    assert "problem" == found(tmp_path, Poor("create", code=errno.EIO))["store"].level


def test_a_folder_that_cannot_be_read_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    monkeypatch.setattr(os, "access", lambda path, _: path != str(manifests))
    seen = found(tmp_path)["store"]
    assert ("problem", f"{manifests} cannot be read: the models in it are not seen") == (seen.level, seen.text)
