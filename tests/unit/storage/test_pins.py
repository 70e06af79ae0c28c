"""Pins: how long they count, and what is left of them."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

import transferkit as tk
from tests.unit.storage.models import ReadOnlyDisk, digest_of
from tests.unit.storage.suite import FailingDisk
from transferkit.storage.directory import Directory
from transferkit.storage.pins import Pins

ONE, TWO = digest_of(b"one"), digest_of(b"two")
NAME = f"pin.{16 * 'a'}"


def pins(folder: Path, **options) -> Pins:
    return Pins(Directory(folder, disk=options.pop("disk", None)), **options)


def left(folder: Path) -> set[str]:
    return set(os.listdir(folder / ".partial"))


def test_all_pins_count_together_and_leave_nothing(tmp_path):
    first, second = pins(tmp_path), pins(tmp_path)
    with first.holding([ONE]):
        with second.holding([TWO]), first.holding([ONE, TWO]):
            assert {ONE, TWO} == first.held() == second.held()
        assert {ONE} == second.held()
    assert set() == first.held()
    assert set() == left(tmp_path)


def test_where_there_is_nothing_nothing_is_made(tmp_path):
    assert set() == pins(tmp_path / "nothing").held()
    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize("files", [[NAME], [f"{NAME}.new"], [f"{NAME}.lock"], [NAME, f"{NAME}.new", f"{NAME}.lock"]])
def test_what_a_process_that_was_killed_has_left_is_removed(tmp_path, files):
    (tmp_path / ".partial").mkdir()
    for file in files:
        (tmp_path / ".partial" / file).write_text(f"{ONE}\n")
    assert set() == pins(tmp_path).held()
    assert set() == left(tmp_path)


def test_without_locks_a_pin_counts_for_a_day(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / ".partial").mkdir()
    (tmp_path / ".partial" / NAME).write_text(f"{ONE}\nnonsense\n")
    written = os.lstat(tmp_path / ".partial" / NAME).st_mtime
    assert {ONE} == pins(tmp_path, clock=lambda: written + 23 * 3600).held()
    with pins(tmp_path).holding([TWO]):
        assert {ONE, TWO} == pins(tmp_path, clock=lambda: written + 23 * 3600).held()
    assert set() == pins(tmp_path, clock=lambda: written + 25 * 3600).held()


def test_a_pin_that_cannot_be_read_is_an_error_and_not_none(tmp_path):
    with pins(tmp_path).holding([ONE]):
        disk = FailingDisk(lambda name, _, __: name == "read_file" and disk.counts["open_lock"] > 0, errno.EMFILE)
        with pytest.raises(tk.StorageError, match="too many open files"):
            pins(tmp_path, disk=disk).held()


def test_a_link_in_the_place_of_a_pin_is_an_error(tmp_path):
    (tmp_path / ".partial").mkdir()
    (tmp_path / "precious").write_text("keep me")
    (tmp_path / ".partial" / f"{NAME}.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(tk.StorageError, match="locking"):
        pins(tmp_path).held()
    assert "keep me" == (tmp_path / "precious").read_text()


def test_a_store_that_can_only_be_read_needs_none(tmp_path):
    with pins(tmp_path, disk=ReadOnlyDisk()).holding([ONE]):
        assert [] == os.listdir(tmp_path)


def test_a_disk_that_is_full_does_not_end_a_pull(tmp_path):
    disk = FailingDisk(lambda name, _, __: name == "pwrite", errno.ENOSPC)
    with pins(tmp_path, disk=disk).holding([ONE]):
        assert set() == pins(tmp_path).held()
    assert set() == left(tmp_path)
