"""Names that files get in a folder that somebody else is at as well, or that refuses them."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

import pytest

import transferkit as tk
from tests.unit.registry.folder_rig import Source, contents_of, files, fill
from tests.unit.storage.suite import FailingDisk
from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Body
from transferkit.registry import folder_pull
from transferkit.storage import lock
from transferkit.storage.disk import Disk
from transferkit.storage.pulled_folder import PulledFolder

LARGE = random.Random(6).randbytes(30_000)
THREE = [{name: f"{name} {number}".encode() for name in "ab"} for number in (1, 2, 3)]


class Disturbed(Source):
    """While something is fetched for the first time, somebody else does something."""

    def __init__(self, disturb: Any) -> None:
        super().__init__()
        self._disturb = disturb

    def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Any) -> Body:
        disturb, self._disturb = self._disturb, lambda: None
        disturb()
        return super().fetch(descriptor, offset=offset, flow=flow)


def version(source: Source, contents: dict[str, bytes]) -> Any:
    return contents_of(*(source.entry(path, data) for path, data in contents.items()))


@pytest.mark.parametrize("is_cached", [True, False])
def test_two_versions_at_once_end_as_one_of_them(tmp_path, monkeypatch, is_cached):
    """The second does not wait for the first, which seems to do nothing."""
    monkeypatch.setattr(lock, "PATIENCE", 0.0)
    out, other = tmp_path / "out", Source()
    zero, one = {"tok": b"A"}, {"tok": b"A", "w": LARGE}
    two = {"tok": b"B", "w": b"small"}
    caches = [{"cache": tmp_path / name} if is_cached else {} for name in ("one", "two")]
    fill(other, version(other, zero), out)
    source = Disturbed(lambda: fill(other, version(other, two), out, **caches[1]))
    report = fill(source, version(source, one), out, **caches[0])
    assert one == files(out)
    assert ("tok", "w") == report.written


def test_who_waits_sees_what_comes_to_the_cache(tmp_path, monkeypatch):
    looks: list[Any] = []
    real = PulledFolder.fill

    def spied(self: PulledFolder, flow: Any, look: Any) -> None:
        looks.append(look)
        real(self, flow, look)

    monkeypatch.setattr(folder_pull.PulledFolder, "fill", spied)
    source = Source()
    fill(source, version(source, {"a": b"1"}), tmp_path / "out", cache=tmp_path / "cache")
    before = looks[0]()
    (tmp_path / "cache" / "blobs" / ".partial" / "more").write_bytes(b"bytes")
    assert looks[0]() != before


@pytest.mark.parametrize("is_cached", [True, False])
@pytest.mark.parametrize("there", [{}, {"config": b"old"}])
def test_a_file_of_the_users_that_came_meanwhile_is_left(tmp_path, is_cached, there):
    out, old = tmp_path / "out", Source()
    fill(old, version(old, {**there, "other": b"1"}), out)
    source = Disturbed(lambda: (out / "config").write_bytes(b"the user's"))
    keywords = {"cache": tmp_path / "cache"} if is_cached else {}
    new = {"config": b"new", "other": b"2"}
    with pytest.raises(tk.StorageError, match="somebody else has put there or changed: config; they were left"):
        fill(source, version(source, new), out, **keywords)
    assert {"config": b"the user's", "other": b"1"} == files(out)
    fill(source, version(source, new), out, overwrite=True, **keywords)
    assert new == files(out)


@pytest.mark.parametrize("call", ["can_write", "rename_new"])
@pytest.mark.parametrize("there", [{}, {"config": b"old"}])
def test_one_that_came_at_the_last_moment_is_left_as_well(tmp_path, call, there):
    out, source = tmp_path / "out", Source()
    if there:
        fill(source, version(source, there), out)

    class Late(Disk):
        def can_write(self, folder: int) -> bool:
            if call == "can_write":
                (out / "config").write_bytes(b"the user's")
            return super().can_write(folder)

        def rename_new(self, source: str, target: str, folder: int | None = None, *, into: int | None = None) -> None:
            if call == "rename_new" and not there:
                (out / "config").write_bytes(b"the user's")
            super().rename_new(source, target, folder, into=into)

    if there and call == "rename_new":
        pytest.skip("nothing replaces a file but a rename")
    with pytest.raises(tk.StorageError, match="config; it came while the others got their names"):
        fill(source, version(source, {"config": b"new"}), out, disk=Late())
    assert {"config": b"the user's"} == files(out)


def test_without_hard_links_files_get_their_names_all_the_same(tmp_path):
    source = Source()
    disk = FailingDisk(lambda name, _, __: name == "rename_new", errno.EPERM)
    fill(source, version(source, {"a": b"1", "deep/b": b"2"}), tmp_path / "out", disk=disk)
    assert {"a": b"1", "deep/b": b"2"} == files(tmp_path / "out")


def in_sub(folder: int | None) -> bool:
    return folder is not None and os.readlink(f"/proc/self/fd/{folder}").endswith("/sub")


@pytest.mark.parametrize("fault", ["no room for a folder", "a folder is read-only"])
def test_a_folder_that_takes_no_file_is_found_out_before_the_first_name(tmp_path, fault):
    class Refusing(Disk):
        def make_folder_in(self, name: str, folder: int | None = None) -> None:
            if name == "sub" and fault == "no room for a folder":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            super().make_folder_in(name, folder)

        def can_write(self, folder: int) -> bool:
            return not in_sub(folder)

        def create(self, path: str, folder: int | None = None) -> int:
            if in_sub(folder):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
            return super().create(path, folder)

    source, out = Source(), tmp_path / "out"
    fill(source, version(source, {"a": b"1", "z": b"1"}), out)
    new = {"a": b"2", "sub/x": b"x", "z": b"2"}
    with pytest.raises(tk.StorageError, match=f"writing to {out}/sub"):
        fill(source, version(source, new), out, disk=Refusing())
    assert {"a": b"1", "z": b"1"} == files(out)
    fill(source, version(source, new), out)
    assert new == files(out)


class Killed(Disk):
    """A process that ends as it has given a file its name: no call after that does anything."""

    is_over = False

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattribute__(self, name: str) -> Any:
        if name in ("rename", "rename_new", "create", "unlink", "pwrite", "open_lock") and self.is_over:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().__getattribute__(name)

    def rename(self, source: str, target: str, folder: int | None = None, *, into: int | None = None) -> None:
        super().rename(source, target, folder, into=into)
        self.is_over = self.is_over or target == self._name


def test_after_a_kill_between_two_names_a_part_and_then_another_version_take_over(tmp_path):
    source, out = Source(), tmp_path / "out"
    one, two, three = THREE
    fill(source, version(source, one), out, version="one")
    with pytest.raises(tk.TransferKitError):
        fill(source, version(source, two), out, disk=Killed("a"), version="two")
    assert {"a": b"a 2", "b": b"b 1"} == files(out)
    fill(source, version(source, two), out, only="b", version="two")
    assert two == files(out)
    fill(source, version(source, three), out, version="three")
    assert three == files(out)


def test_what_a_pull_has_left_that_did_not_end_is_told(tmp_path, caplog):
    source, out = Source(), tmp_path / "out"
    one, two, three = THREE
    fill(source, version(source, one), out, version="one")
    with pytest.raises(tk.TransferKitError):
        fill(source, version(source, two), out, disk=Killed("a"), version="two")
    fill(source, version(source, three), out, version="three")
    assert "the pull of two did not end" in caplog.text
    caplog.clear()
    fill(source, version(source, one), out, version="one")
    assert "did not end" not in caplog.text
    assert one == files(out)


def test_a_file_that_becomes_a_folder_and_one_again(tmp_path):
    source, out = Source(), tmp_path / "out"
    flat, deep = {"tok": b"file", "c": b"1"}, {"tok/a/b": b"b", "tok/c": b"c", "c": b"2"}
    for contents in (flat, deep, flat):
        report = fill(source, version(source, contents), out)
        assert (contents, ()) == (files(out), report.left)
    assert sorted(["tok", "c", ".transferkit"]) == sorted(os.listdir(out))


@pytest.mark.parametrize(
    ("first", "edited", "then"), [({"tok": b"1"}, "tok", {"tok/a": b"2"}), ({"tok/a": b"1"}, "tok/a", {"tok": b"2"})]
)
def test_a_file_in_the_way_that_was_changed_is_left_without_overwrite(tmp_path, first, edited, then):
    source, out = Source(), tmp_path / "out"
    fill(source, version(source, first), out)
    (out / edited).write_bytes(b"the user's")
    with pytest.raises(tk.StorageError, match=f"somebody else has put there or changed: {edited};"):
        fill(source, version(source, then), out)
    assert {edited: b"the user's"} == files(out)
    fill(source, version(source, then), out, overwrite=True)
    assert then == files(out)


def test_a_file_in_the_way_that_no_pull_has_put_there_is_left_without_overwrite(tmp_path):
    source, out = Source(), tmp_path / "out"
    out.mkdir()
    (out / "tok").write_bytes(b"the user's")
    with pytest.raises(tk.StorageError, match="somebody else has put there or changed: tok;"):
        fill(source, version(source, {"tok/a": b"1"}), out)
    assert {"tok": b"the user's"} == files(out)


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_folder_with_files_of_the_users_is_never_removed(tmp_path, overwrite):
    source, out = Source(), tmp_path / "out"
    fill(source, version(source, {"tok/a": b"1"}), out)
    (out / "tok" / "deep").mkdir()
    (out / "tok" / "deep" / "mine").write_bytes(b"mine")
    with pytest.raises(tk.StorageError, match=r"tok is a folder, and a file goes there; tok/deep/mine in it was put"):
        fill(source, version(source, {"tok": b"1"}), out, overwrite=overwrite)
    assert {"tok/a": b"1", "tok/deep/mine": b"mine"} == files(out)


# -- hard links


class NoReflinks(FailingDisk):
    def __init__(self) -> None:
        super().__init__(lambda name, _, __: name == "clone", 95)


def linked(tmp_path: Path) -> tuple[Source, Any, Path]:
    """A folder whose file is a hard link of a blob."""
    source, out = Source(), tmp_path / "out"
    contents = version(source, {"w": b"AAAA"})
    report = fill(source, contents, out, cache=tmp_path / "cache", disk=NoReflinks())
    assert {"w": "hard"} == report.linked
    return source, contents, out


def test_an_edit_of_a_hard_link_is_found_out_though_its_time_was_put_back(tmp_path):
    source, contents, out = linked(tmp_path)
    before = (out / "w").stat()
    (out / "w").chmod(0o644)
    (out / "w").write_bytes(b"HACK")
    os.utime(out / "w", ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(tk.StorageError, match="put there or changed: w;"):
        fill(source, contents, out, cache=tmp_path / "cache", disk=NoReflinks())
    report = fill(source, contents, out, cache=tmp_path / "cache", disk=NoReflinks(), overwrite=True)
    assert ("w",) == report.written
    assert {"w": b"AAAA"} == files(out)


def test_a_name_that_the_user_adds_costs_one_hash(tmp_path):
    source, contents, out = linked(tmp_path)
    os.link(out / "w", tmp_path / "mine")
    for expected in (True, False):
        disk = NoReflinks()
        assert () == fill(source, contents, out, cache=tmp_path / "cache", disk=disk).written
        assert expected == (disk.counts["preadv"] > 0)


def test_our_own_names_cost_no_hash(tmp_path):
    source, contents, out = linked(tmp_path)
    fill(source, contents, tmp_path / "more", cache=tmp_path / "cache", disk=NoReflinks())
    disk = NoReflinks()
    assert () == fill(source, contents, out, cache=tmp_path / "cache", disk=disk).written
    assert 0 == disk.counts["preadv"]


def test_a_copy_is_made_of_a_hard_link_where_one_is_asked_for(tmp_path):
    source, contents, out = linked(tmp_path)
    report = fill(source, contents, out, cache=tmp_path / "cache", disk=NoReflinks(), link="copy")
    assert ({"w": "copy"}, 1) == (report.linked, (out / "w").stat().st_nlink)
    assert () == fill(source, contents, out, cache=tmp_path / "cache", disk=NoReflinks(), link="copy").written


# -- times


class Coarse(Disk):
    """A file system that counts two seconds."""

    def lstat(self, path: str, folder: int | None = None) -> os.stat_result:
        return coarse(super().lstat(path, folder))

    def fstat(self, fd: int) -> os.stat_result:  # type: ignore[override]  # as a method
        return coarse(os.fstat(fd))


def coarse(status: os.stat_result) -> os.stat_result:
    times = {name: getattr(status, name) // (2 * 10**9) * (2 * 10**9) for name in ("st_mtime_ns", "st_ctime_ns")}
    return os.stat_result(tuple(status)[:10], {**{name: getattr(status, name) for name in ("st_atime_ns",)}, **times})


def test_where_times_are_coarse_an_edit_within_one_is_found_out(tmp_path):
    source, out = Source(), tmp_path / "out"
    fill(source, version(source, {"config": b"one"}), out, disk=Coarse())
    (out / "config").write_bytes(b"two")
    for contents in ({"config": b"one"}, {"config": b"six"}):
        with pytest.raises(tk.StorageError, match="put there or changed: config;"):
            fill(source, version(source, contents), out, disk=Coarse())
    assert {"config": b"two"} == files(out)


def test_where_times_are_coarse_what_a_kill_has_left_is_ours(tmp_path):
    class KilledCoarse(Killed, Coarse):
        pass

    source, out = Source(), tmp_path / "out"
    one, two, three = THREE
    fill(source, version(source, one), out, disk=Coarse())
    with pytest.raises(tk.TransferKitError):
        fill(source, version(source, two), out, disk=KilledCoarse("a"))
    assert {"a": b"a 2", "b": b"b 1"} == files(out)
    fill(source, version(source, three), out, disk=Coarse())
    assert three == files(out)
