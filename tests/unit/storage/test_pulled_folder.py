"""What stands in a folder that was pulled, and whose it is."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import transferkit as tk
from tests.unit.storage.models import digest_of
from transferkit.storage import lock
from transferkit.storage.disk import Disk
from transferkit.storage.pulled_folder import PulledFolder, Standing, check_own
from transferkit.transfer.flow import WorkerFlow

OLD, NEW = digest_of(b"old"), digest_of(b"new")


def later() -> float:
    return time.time() + 60.0


@pytest.fixture
def place(tmp_path: Path):
    with PulledFolder(tmp_path / "out", Disk(), durable=False, resume_threshold=10_000, clock=later) as folder:
        folder.fill(WorkerFlow())
        yield folder


def put(place: PulledFolder, path: str, data: bytes) -> Path:
    file = Path(place.tree.path, path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def standing(place: PulledFolder, path: str, wanted=NEW) -> Standing:
    return place.standing(path, place.tree.statuses([path])[path], wanted)


def test_what_is_remembered_costs_a_look(place):
    file = put(place, "deep/a", b"new")
    assert Standing.UNKNOWN is standing(place, "deep/a")
    place.remember("deep/a", NEW, file.stat())
    assert Standing.RIGHT is standing(place, "deep/a")
    assert Standing.OURS is standing(place, "deep/a", OLD)
    assert Standing.ABSENT is standing(place, "deep/b")


@pytest.mark.parametrize(
    ("content", "row", "placing", "expected"),
    [
        (b"new", None, None, Standing.RIGHT),
        (b"other", None, None, Standing.CHANGED),
        (b"old", OLD, None, Standing.OURS),  # touched, and not changed
        (b"old", None, OLD, Standing.OURS),  # the process ended before it was remembered
        (b"other", OLD, NEW, Standing.CHANGED),
    ],
)
def test_what_is_not_remembered_is_hashed(place, content, row, placing, expected):
    file = put(place, "a", content)
    if row is not None:
        place.remember("a", row, file.stat())
        os.utime(file)
    if placing is not None:
        place.state.placing["a"] = placing
    assert Standing.UNKNOWN is standing(place, "a")
    assert expected is place.judge("a", NEW, WorkerFlow())
    if expected is Standing.RIGHT:
        assert Standing.RIGHT is standing(place, "a")


def test_what_is_no_file_is_never_read(place, tmp_path):
    (tmp_path / "secret").write_bytes(b"new")
    Path(place.tree.path, "link").symlink_to(tmp_path / "secret")
    os.mkfifo(Path(place.tree.path, "pipe"))
    assert Standing.CHANGED is standing(place, "link")
    assert Standing.CHANGED is standing(place, "pipe")
    assert Standing.CHANGED is place.judge("pipe", NEW, WorkerFlow())
    with pytest.raises(tk.StorageError):
        place.judge("link", NEW, WorkerFlow())
    Path(place.tree.path, "folder").mkdir()
    assert Standing.FOLDER is standing(place, "folder")


def test_the_state_is_kept_and_rows_of_another_boot_are_not(place):
    place.remember("a", NEW, put(place, "a", b"new").stat())
    place.remember("b", NEW, put(place, "b", b"new").stat(), synced=True)
    place.state.layers = {"layer": {"x": str(OLD), "y": ""}}
    place.state.config = b"\0{}"
    place.save()
    again = PulledFolder(place.tree.path, Disk(), durable=False, resume_threshold=10_000)
    assert place.state == again.state

    rebooted = type("Rebooted", (Disk,), {"boot": "another"})()
    after = PulledFolder(place.tree.path, rebooted, durable=False, resume_threshold=10_000)
    assert [Standing.UNKNOWN, Standing.RIGHT] == [standing(after, path) for path in "ab"]


def test_a_file_written_in_this_moment_is_hashed_the_next_time(tmp_path):
    with PulledFolder(tmp_path / "out", Disk(), durable=False, resume_threshold=10_000) as place:
        place.fill(WorkerFlow())
        status = put(place, "a", b"old").stat()
        place.remember("a", OLD, status)
        place._clock = lambda: status.st_mtime + 0.001
        place.save()
    again = PulledFolder(tmp_path / "out", Disk(), durable=False, resume_threshold=10_000)
    assert (Standing.UNKNOWN, [OLD]) == (standing(again, "a", OLD), again.digests("a"))


def test_who_waits_for_the_folder_sees_what_comes_elsewhere(place, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.12)
    looks: list[int] = []

    def look() -> object:
        looks.append(len(looks))
        if len(looks) == 5:
            place.close()
        return len(looks)

    with PulledFolder(place.tree.path, Disk(), durable=False, resume_threshold=10_000) as second:
        second.fill(WorkerFlow(), look)
    assert 5 == len(looks)  # without it the wait is given up before


def test_what_other_versions_have_left_is_told_while_it_is_there(place, tmp_path):
    for path in ("kept", "left", "gone"):
        place.remember(path, OLD, put(place, path, b"old").stat())
    os.unlink(tmp_path / "out" / "gone")
    place.state.rows["../secret"] = place.state.rows["kept"]  # by hand
    place.state.rows[".transferkit/state.json"] = place.state.rows["kept"]
    (tmp_path / "secret").write_bytes(b"x")
    assert ["left"] == place.gone_from(["kept"])
    assert {"kept", "left"} == set(place.state.rows)


@pytest.mark.parametrize("path", [".transferkit", ".transferkit/a", ".TRANSFERKIT/a"])
def test_what_is_ours_is_no_place_for_files(path):
    with pytest.raises(tk.InvalidNameError, match="is ours"):
        check_own(path)
    assert "a/.transferkit" == check_own("a/.transferkit")


def test_what_a_killed_process_has_left_goes_when_the_folder_is_whole(place, tmp_path):
    own = tmp_path / "out" / ".transferkit"
    left = [own / ".partial" / f"file.{16 * 'a'}", own / ".partial" / OLD.file_name, own / OLD.file_name]
    for path in left:
        path.write_bytes(b"half")
    (own / ".partial" / "notes").write_bytes(b"nobody knows whose")
    place.finish()
    assert [False] * 3 == [path.exists() for path in left]
    assert (own / ".partial" / "notes").exists()
