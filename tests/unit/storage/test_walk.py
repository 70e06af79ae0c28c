"""A folder that is to be pushed: what is in it, and what cannot be a file of it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.descriptors import open_descriptors
from transferkit.errors import SourceError
from transferkit.storage import walk as module
from transferkit.storage.disk import Disk
from transferkit.storage.walk import Walk, walk
from transferkit.transfer.flow import WorkerFlow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two files, beside something that is none of it."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"mine")
    folder = tmp_path / "folder"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "a").write_bytes(b"a")
    (folder / "deep" / "er" / "b").write_bytes(b"bb")
    return folder


def look(folder: Path, disk: Disk | None = None) -> Walk:
    return walk(str(folder), disk or Disk(), WorkerFlow())


def places(found: Walk) -> dict[str, str]:
    return {file.path: file.place for file in found.files}


def reasons(found: Walk) -> dict[str, str]:
    return {each.path: each.reason for each in found.refused}


def test_files_are_found_by_their_paths_in_all_folders(folder: Path) -> None:
    found = look(folder)
    assert {"a": f"{folder}/a", "deep/er/b": f"{folder}/deep/er/b"} == places(found)
    assert {"a": 1, "deep/er/b": 2} == {file.path: file.status.st_size for file in found.files}
    assert [] == found.refused


def test_the_folder_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert places(look(folder)) == places(look(tmp_path / "link"))


@pytest.mark.parametrize(
    "path", [".git/config", ".partial/x", "deep/.transferkit/x", ".cache/huggingface/x", ".DS_Store", "deep/.DS_Store"]
)
def test_what_belongs_to_other_programs_is_left_out(folder: Path, path: str) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(b"x")
    assert {"a", "deep/er/b"} == places(look(folder)).keys()


@pytest.mark.parametrize("path", [".gitignore", "huggingface/x", ".cache/x", "x.git/y", ".github/x"])
def test_what_is_only_called_alike_is_a_file(folder: Path, path: str) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(b"x")
    assert {"a", "deep/er/b", path} == places(look(folder)).keys()


@pytest.mark.parametrize(
    ("link", "target", "within"),
    [
        ("meta", ".git", ".git/config"),
        ("config", ".git/config", ".git/config"),
        ("deep/meta", "../.git/refs", ".git/refs/x"),
        ("token", ".cache/huggingface/token", ".cache/huggingface/token"),
        ("cache", ".cache", ".cache/huggingface/token"),
        ("deep/state", "er/.transferkit", "deep/er/.transferkit/state.json"),
    ],
)
def test_what_is_left_out_is_left_out_by_way_of_a_link(folder: Path, link: str, target: str, within: str) -> None:
    (folder / within).parent.mkdir(parents=True, exist_ok=True)
    (folder / within).write_bytes(b"token")
    (folder / link).symlink_to(target)
    found = look(folder)
    assert ({"a", "deep/er/b"}, []) == (places(found).keys(), found.refused)


# -- links


def test_links_within_the_folder_are_followed(folder: Path) -> None:
    (folder / "link").symlink_to("deep/er/b")
    (folder / "absolute").symlink_to(folder / "a")
    (folder / "twice").symlink_to("link")
    (folder / "linked").symlink_to("deep/er")
    found = look(folder)
    b = f"{folder}/deep/er/b"
    expected = {"a": f"{folder}/a", "absolute": f"{folder}/a", "deep/er/b": b, "link": b, "twice": b, "linked/b": b}
    assert (expected, []) == (places(found), found.refused)


def test_a_link_out_of_the_folder_is_refused_whatever_is_there(folder: Path, tmp_path: Path) -> None:
    (folder / "file").symlink_to("../outside/secret")
    (folder / "all").symlink_to(tmp_path / "outside")
    (folder / "none").symlink_to("/nowhere/at/all")
    (folder / "device").symlink_to("/dev/null")
    (folder / "deep" / "up").symlink_to("../..")
    found = look(folder)
    assert {"a", "deep/er/b"} == places(found).keys()
    assert {"file", "all", "none", "device", "deep/up"} == reasons(found).keys()
    assert all(reason.startswith("it is a link out of the folder, to '/") for reason in reasons(found).values())
    assert {"all", "deep/up"} == {each.path for each in found.refused if each.is_folder}


def test_a_link_through_a_linked_folder_does_not_lead_out(folder: Path, tmp_path: Path) -> None:
    """Each step stays within, and the last one, seen from where it really is, does not."""
    (folder / "one").symlink_to("deep/er")
    (folder / "deep" / "er" / "out").symlink_to("../../../outside/secret")
    found = look(folder)
    assert {"one/out", "deep/er/out"} == reasons(found).keys()
    assert {"a", "deep/er/b", "one/b"} == places(found).keys()


def test_a_folder_beside_it_that_begins_alike_is_outside(folder: Path) -> None:
    (folder.parent / "folder-2").mkdir()
    (folder.parent / "folder-2" / "x").write_bytes(b"x")
    (folder / "link").symlink_to("../folder-2/x")
    assert ["link"] == list(reasons(look(folder)))


def test_links_that_lead_around_are_refused(folder: Path) -> None:
    (folder / "deep" / "top").symlink_to("..")
    (folder / "deep" / "er" / "self").symlink_to(".")
    (folder / "itself").symlink_to("itself")
    (folder / "dangling").symlink_to("nothing")
    found = look(folder)
    assert {"a", "deep/er/b"} == places(found).keys()
    around = "it is a link to a folder that it is in"
    expected = {"deep/top": around, "deep/er/self": around, "dangling": "it is a link to nothing"}
    expected["itself"] = "it is a link to itself"
    assert expected == reasons(found)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("nothing/../deep", "nothing"),
        ("itself/../deep", "itself"),
        ("a/../deep", "a place that cannot be reached"),
        ("deep/er/b/../../er", "a place that cannot be reached"),
    ],
)
def test_a_link_leads_where_the_system_leads_it(folder: Path, target: str, reason: str) -> None:
    """To leave out ``x/..`` makes a way of what is none."""
    (folder / "itself").symlink_to("itself")
    (folder / "link").symlink_to(target)
    with pytest.raises(OSError):
        os.stat(folder / "link")
    found = look(folder)
    assert {"a", "deep/er/b"} == places(found).keys()
    assert f"it is a link to {reason}" == reasons(found)["link"]


def test_links_to_each_other_end(folder: Path) -> None:
    (folder / "x").mkdir()
    (folder / "y").mkdir()
    (folder / "x" / "to-y").symlink_to("../y")
    (folder / "y" / "to-x").symlink_to("../x")
    assert {"x/to-y/to-x", "y/to-x/to-y"} == reasons(look(folder)).keys()


def test_what_multiplies_by_links_has_an_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 100)
    for level in range(12):
        (folder / f"level-{level}").mkdir()
        for number in range(2):
            (folder / f"level-{level}" / f"link-{number}").symlink_to(f"../level-{level + 1}")
    (folder / "level-12").mkdir()
    with pytest.raises(SourceError, match="more than 100 entries, links to folders included"):
        look(folder)


@pytest.mark.parametrize("what", ["deep/er", "deep"])
def test_a_link_that_is_planted_while_one_looks_leads_nowhere(folder: Path, tmp_path: Path, what: str) -> None:
    """A folder, or the one that it is in, is replaced by a link after it was seen as a folder."""
    (tmp_path / "outside" / "er").mkdir()
    (tmp_path / "outside" / "er" / "secret").write_bytes(b"mine")

    class Planting(Disk):
        def lstat(self, path: str, folder_fd: int | None = None) -> os.stat_result:
            status = super().lstat(path, folder_fd)
            if path == "er" and not (tmp_path / "moved").exists():
                os.rename(folder / what, tmp_path / "moved")
                (folder / what).symlink_to(tmp_path / "outside")
            return status

    found = look(folder, Planting())
    assert (["a"], ["deep/er"]) == (list(places(found)), list(reasons(found)))


# -- what is no file


def test_sockets_pipes_and_devices_are_refused_by_name(folder: Path) -> None:
    os.mknod(folder / "socket", stat.S_IFSOCK | 0o600)
    os.mkfifo(folder / "pipe")
    (folder / "deep" / "device").write_bytes(b"")

    class WithDevice(Disk):
        def lstat(self, path: str, folder_fd: int | None = None) -> os.stat_result:
            status = super().lstat(path, folder_fd)
            if path == "device":
                return os.stat_result((stat.S_IFCHR | 0o600, *status[1:]))
            return status

    found = look(folder, WithDevice())
    assert {"socket": "it is a socket", "pipe": "it is a named pipe", "deep/device": "it is a device"} == reasons(found)
    assert not any(each.is_folder for each in found.refused)


def test_a_folder_that_cannot_be_read_is_refused(folder: Path) -> None:
    class Denied(Disk):
        def open_folder(self, path: str, folder_fd: int | None = None) -> int:
            if path == "er":
                raise PermissionError(13, "Permission denied")
            return super().open_folder(path, folder_fd)

    found = look(folder, Denied())
    assert {"deep/er": "it cannot be read: Permission denied"} == reasons(found)
    assert found.refused[0].is_folder


@pytest.mark.skipif(not hasattr(os, "O_PATH"), reason="such a folder cannot be opened at all")
def test_a_folder_that_can_be_opened_and_not_be_read_says_so(folder: Path) -> None:
    class NotRoot(Disk):
        def open_folder(self, path: str, folder_fd: int | None = None) -> int:
            if path == "er":  # as Disk does where it may not read
                return os.open(path, os.O_PATH | os.O_DIRECTORY, dir_fd=folder_fd)
            return super().open_folder(path, folder_fd)

    assert {"deep/er": "it cannot be read: Permission denied"} == reasons(look(folder, NotRoot()))


def test_a_path_that_is_too_long_is_not_followed_down(folder: Path) -> None:
    deep = folder
    for _ in range(6):
        deep = deep / (200 * "x")
    os.makedirs(deep)
    (deep / "file").write_bytes(b"x")
    assert ["its path is too long"] == list(reasons(look(folder)).values())


def test_what_is_no_folder_is_an_error(folder: Path, tmp_path: Path) -> None:
    for path, reason in ((folder / "a", "Not a directory"), (tmp_path / "nothing", "No such file or directory")):
        with pytest.raises(SourceError, match=f"the folder {path} cannot be read: {reason}"):
            look(path)


def test_no_descriptor_is_left_open(folder: Path) -> None:
    (folder / "link").symlink_to("deep/er")
    (folder / "broken").symlink_to("deep/er/nothing/at/all")
    before = len(open_descriptors())
    look(folder)
    assert before == len(open_descriptors())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join),
        st.none()
        | st.lists(st.sampled_from(["..", ".", "a", "b", "c", "outside"]), min_size=1, max_size=4).map("/".join),
        max_size=8,
    )
)
def test_whatever_links_there_are_only_files_of_the_folder_are_found(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[str, str | None]
) -> None:
    """``None`` is a file, a text where a link leads to. Each path is found once, and is that of a file below."""
    top = tmp_path_factory.mktemp("walk").joinpath(*"0123456789ab")  # links lead up: three links of four steps
    (top / "outside").mkdir(parents=True)
    (top / "outside" / "a").write_bytes(b"mine")
    root = top / "root"
    root.mkdir()
    for path, target in entries.items():
        with suppress(OSError):  # where a link is a part of the path, or something is there
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            if target is None:
                (root / path).write_bytes(b"x")
            else:
                (root / path).symlink_to(target)
    found = look(root)
    assert len(found.files) == len(places(found))
    for file in found.files:
        assert file.place == os.path.realpath(root / file.path)
        assert file.place.startswith(f"{root}/")
        assert stat.S_ISREG(os.lstat(file.place).st_mode)
    expected = {
        path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file() and not path.is_symlink()
    }
    assert expected <= places(found).keys()
