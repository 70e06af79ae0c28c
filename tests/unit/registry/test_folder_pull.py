"""Filling a folder: in the right order, and sound whatever call fails or is the last."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

import transferkit as tk
from tests.descriptors import open_descriptors
from tests.unit.registry.folder_rig import OPTIONS, Source, contents_of, files, fill, left
from tests.unit.storage.suite import CALLS, FailingDisk
from tests.unit.storage.volatile import VolatileDisk
from transferkit.storage.disk import Disk

LARGE = random.Random(5).randbytes(30_000)
OLD = {"a": b"one", "deep/b": b"two", "big": LARGE, "gone": b"old", "tok/x": b"x1", "tok/y": b"y"}
NEW = {"a": b"ONE", "deep/b": b"two", "big": LARGE[::-1], "twin": b"ONE", "tok/x": b"x2", "tok/y": b"y"}


def version(source: Source, contents: dict[str, bytes]) -> Any:
    """A version of a model: what is in ``tok`` is one layer."""
    plain = [source.entry(path, data) for path, data in contents.items() if not path.startswith("tok/")]
    packed = source.packed({path: data for path, data in contents.items() if path.startswith("tok/")})
    return contents_of(packed, *plain)


class QuickDisk(FailingDisk):
    """What is synced counts as a call, and takes no time; there are no reflinks."""

    fsync = sync_folder = staticmethod(lambda _: None)

    def clone(self, source: int, path: str, folder: int | None = None) -> None:
        raise OSError(95, os.strerror(95))


WAYS: dict[str, dict[str, Any]] = {
    "straight": {},
    "hard": {"cache": True},
    "copy": {"cache": True, "link": "copy"},
    "durable": {"options": tk.TransferOptions(durable=True, resume_threshold=10_000, retry=OPTIONS.retry)},
}


def keywords_of(way: str, tmp_path: Path) -> dict[str, Any]:
    keywords = dict(WAYS[way])
    if keywords.get("cache"):
        keywords["cache"] = tmp_path / "cache"
    return keywords


def prepared(tmp_path: Path, way: str) -> tuple[Source, Path, dict[str, Any]]:
    """A folder with the old version, and a file of the user's."""
    source, out, keywords = Source(), tmp_path / "out", keywords_of(way, tmp_path)
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    fill(source, version(source, OLD), out, **keywords)
    (out / "mine").write_bytes(b"mine")
    return source, out, keywords


def assert_whole(out: Path) -> None:
    """See that each file is of the old version or of the new one, whole."""
    allowed = {*OLD.items(), *NEW.items(), ("mine", b"mine")}
    assert set(files(out).items()) <= allowed
    assert b"mine" == (out / "mine").read_bytes()


def assert_new(out: Path, *, written: bool = True) -> None:
    """See that the new version is there; what it did not write it does not clean up after."""
    assert {**NEW, "gone": b"old", "mine": b"mine"} == files(out)
    if written:
        assert set() == left(out)


def calls_of(tmp_path: Path, way: str) -> list[str]:
    made: list[str] = []
    source, out, keywords = prepared(tmp_path, way)
    disk = QuickDisk(lambda name, _, __: made.append(name) is not None)
    fill(source, version(source, NEW), out, disk=disk, **keywords)
    assert_new(out)
    return made


@pytest.mark.parametrize("way", WAYS)
def test_after_a_crash_at_any_call_all_files_are_whole_and_the_next_run_completes(tmp_path, way):
    calls = len(calls_of(tmp_path, way))
    step = 1 if os.environ.get("TRANSFERKIT_TEST_FULL") == "1" else max(1, calls // 10)
    for crash in range(random.randint(1, step), calls + 1, step):
        source, out, keywords = prepared(tmp_path, way)
        disk = QuickDisk(lambda _, __, count, crash=crash: count >= crash)
        try:
            fill(source, version(source, NEW), out, disk=disk, **keywords)
        except tk.TransferKitError:
            pass
        assert disk.failed
        assert_whole(out)
        report = fill(source, version(source, NEW), out, **keywords)
        assert ("gone",) == report.left
        assert_new(out, written=report.written != ())


@pytest.mark.parametrize("way", ["straight", pytest.param("copy", marks=pytest.mark.full), "hard"])
def test_whatever_single_call_fails_all_files_are_whole_and_the_next_run_completes(tmp_path, way):
    for call in sorted(set(calls_of(tmp_path, way)) & set(CALLS)):
        source, out, keywords = prepared(tmp_path, way)
        disk = QuickDisk(lambda made, _, __, call=call: made == call)
        try:
            fill(source, version(source, NEW), out, disk=disk, **keywords)
        except tk.TransferKitError:
            pass
        assert_whole(out)
        report = fill(source, version(source, NEW), out, **keywords)
        assert_new(out, written=report.written != ())


def test_after_a_crash_between_two_names_a_third_version_takes_over(tmp_path):
    """The files of the second one are nobody else's."""
    calls = calls_of(tmp_path, "straight")
    last = max(number for number, call in enumerate(calls, 1) if call == "make_folder_in")
    for crash in range(last - 8, last + 1, 4):
        source, out, keywords = prepared(tmp_path, "straight")
        disk = QuickDisk(lambda _, __, count, crash=crash: count >= crash)
        with pytest.raises(tk.TransferKitError):
            fill(source, version(source, NEW), out, disk=disk, **keywords)
        third = {"a": b"three", "big": b"3", "tok/x": b"3"}
        fill(source, version(source, third), out, **keywords)
        assert third == {path: data for path, data in files(out).items() if path in third}


def test_no_file_gets_its_name_before_all_are_there(tmp_path):
    source, out = Source(), tmp_path / "out"
    contents = version(source, OLD)
    del source.contents[source.add(b"two").digest]
    for keywords in ({}, {"cache": tmp_path / "cache"}):
        with pytest.raises(tk.IncompleteError):
            fill(source, contents, out, **keywords)
        assert {} == files(out)


def test_what_is_there_is_not_asked_for(tmp_path):
    source, out = Source(), tmp_path / "out"
    fill(source, version(source, OLD), out)
    source.asked.clear()
    report = fill(source, version(source, OLD), out)
    assert ([], tuple(sorted(OLD))) == (source.asked, report.kept)
    fill(source, version(source, NEW), out)
    assert 3 == len(source.asked)  # a, and twin, which is the same; big; the layer; nothing that was there
    assert source.add(b"two").digest not in source.asked


def test_a_look_is_a_stat_a_file_and_writes_nothing(tmp_path):
    source, out = Source(), tmp_path / "out"
    fill(source, version(source, OLD), out)

    class Reading(Disk):
        def create(self, path: str, folder: int | None = None) -> int:
            raise OSError(30, os.strerror(30))

        open_lock = make_folder_in = rename = create  # type: ignore[assignment]  # none of them is called

    assert () == fill(source, version(source, OLD), out, disk=Reading()).written
    counting = FailingDisk(lambda *_: False)
    fill(source, version(source, OLD), out, disk=counting)
    assert (len(OLD), 0, 0) == tuple(counting.counts[call] for call in ("lstat", "open", "preadv"))


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([("a", b"1"), ({"a": b"2"}, "")], "two layers have the file 'a'"),
        ([({"a": b"1"}, ""), ({"a": b"2"}, "")], "two layers have the file 'a'"),
        ([("a", b"1"), ({"A": b"2"}, "")], "would be one file"),
        ([("a", b"1"), ({"a/b": b"2"}, "")], "is a file and a folder"),
        ([({".transferkit/x": b"1"}, "")], "is refused"),
        ([(".transferkit", b"1")], "is refused"),
    ],
)
def test_two_files_in_one_place_are_refused_before_any_has_its_name(tmp_path, entries, problem):
    source = Source()
    made = [source.packed(one) if isinstance(one, dict) else source.entry(one, two) for one, two in entries]
    with pytest.raises(tk.InvalidNameError, match=problem):
        fill(source, contents_of(*made), tmp_path / "out")
    assert {} == files(tmp_path / "out")


def test_a_folder_in_the_place_of_a_file_is_an_error_whatever_is_asked_for(tmp_path):
    source = Source()
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "a" / "mine").write_bytes(b"mine")
    with pytest.raises(tk.StorageError, match="is a folder, and a file goes there"):
        fill(source, contents_of(source.entry("a", b"1")), tmp_path / "out", overwrite=True)


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path):
    source = Source()
    (tmp_path / "out").write_bytes(b"mine")
    with pytest.raises(tk.StorageError):
        fill(source, contents_of(source.entry("a", b"1")), tmp_path / "out")
    assert b"mine" == (tmp_path / "out").read_bytes()


def test_the_folder_may_be_a_link_of_the_users(tmp_path):
    source = Source()
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to("real")
    fill(source, contents_of(source.entry("a/b", b"1")), tmp_path / "out")
    assert {"a/b": b"1"} == files(tmp_path / "real")


def test_a_layer_is_unpacked_to_where_its_entry_says(tmp_path):
    source = Source()
    layer = source.packed({"tok/v": b"v", "./tok/w": b"w", "other": b"o"}, path="to", inside="tok")
    report = fill(source, contents_of(layer), tmp_path / "out")
    assert {"to/v": b"v", "to/w": b"w"} == files(tmp_path / "out")
    assert {"to/v": "unpacked", "to/w": "unpacked"} == report.linked


def test_no_descriptor_is_left_open(tmp_path):
    source = Source()
    before = open_descriptors()
    for keywords in ({}, {"cache": tmp_path / "cache"}):
        for contents in (OLD, NEW, NEW):
            fill(source, version(source, contents), tmp_path / "out", **keywords)
    assert before == open_descriptors()


class Rebooted(Disk):
    boot = "another"  # type: ignore[assignment]  # it is one of the same kind


@pytest.mark.parametrize("loss", ["names", "data", "order"])
@pytest.mark.parametrize("durable", [True, False])
def test_after_a_power_cut_no_file_is_believed_that_was_not_synced(tmp_path, loss, durable):
    source, out = Source(), tmp_path / "out"
    disk, options = VolatileDisk(), dataclasses.replace(OPTIONS, durable=durable)
    fill(source, version(source, OLD), out, disk=disk, options=options)
    disk.cut(tmp_path, loss)
    if durable:
        assert files(out) == OLD
    fill(source, version(source, OLD), out, disk=Rebooted(), options=options, overwrite=not durable)
    assert files(out) == OLD
