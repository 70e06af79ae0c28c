"""The digests of files that are anywhere: remembered while the files are as they were, and not a moment longer."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.unit.storage.suite import CHANGES, change_file
from transferkit.content.digest import Digest
from transferkit.errors import StorageError
from transferkit.storage import hashes as module
from transferkit.storage.disk import Disk
from transferkit.storage.hashes import HashIndex

A = Digest("sha256:" + 64 * "a")
B = Digest("sha256:" + 64 * "b")
LATER = 60.0  # seconds after the change of a file


def make(tmp_path: Path, *, boot: str | None = "one", later: float = LATER, rehash: bool = False) -> HashIndex:
    disk = Disk()
    disk.boot = boot
    return HashIndex(str(tmp_path / "cache"), disk, rehash=rehash, clock=lambda: time.time() + later)


def remember(tmp_path: Path, path: Path, digest: Digest = A, **keywords: object) -> None:
    index = make(tmp_path, **keywords)  # type: ignore[arg-type]
    index.add(str(path), path.stat(), digest)
    index.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a file"
    path.write_bytes(b"12345")
    return path


def test_a_file_is_known_to_the_next_run_by_its_place(tmp_path: Path, file: Path) -> None:
    remember(tmp_path, file)
    other = tmp_path / "other"
    os.link(file, other)
    index = make(tmp_path)
    assert index.find(str(file), file.stat()) is None  # the link has changed it
    remember(tmp_path, file)
    index = make(tmp_path)
    assert A == index.find(str(file), file.stat())
    assert index.find(str(other), other.stat()) is None


@pytest.mark.parametrize(
    "name", ["with space", "with\nline", "größe", "per%cent", b"\xff\xfe".decode(errors="surrogateescape")]
)
def test_whatever_a_file_is_called(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"x")
    remember(tmp_path, path)
    assert A == make(tmp_path).find(str(path), path.stat())
    assert 1 == len((tmp_path / "cache/.partial/hashes").read_bytes().splitlines())


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changed_is_not_known(tmp_path: Path, file: Path, change: str) -> None:
    remember(tmp_path, file)
    change_file(file, change)
    assert make(tmp_path).find(str(file), file.stat()) is None


def test_the_newest_row_counts(tmp_path: Path, file: Path) -> None:
    remember(tmp_path, file)
    remember(tmp_path, file, B)
    assert B == make(tmp_path).find(str(file), file.stat())


def test_what_was_changed_in_this_moment_is_not_remembered(tmp_path: Path, file: Path) -> None:
    """The next change may come within the same tick of the kernel's clock, and leave no trace."""
    age = time.time() - file.stat().st_ctime
    remember(tmp_path, file, later=0.005 - age)
    assert make(tmp_path).find(str(file), file.stat()) is None
    remember(tmp_path, file, later=0.05)
    assert A == make(tmp_path).find(str(file), file.stat())


def test_where_times_are_whole_seconds_a_moment_is_longer(tmp_path: Path, file: Path) -> None:
    fields = {name: getattr(file.stat(), name) for name in dir(file.stat()) if name.startswith("st_")}
    fields["st_ctime_ns"] = 1_700_000_000 * 10**9
    status = type("Status", (), fields)()
    for later, known in ((1.5, None), (2.5, A)):
        index = HashIndex(str(tmp_path / "cache"), Disk(), clock=lambda later=later: 1_700_000_000 + later)
        index.add(str(file), status, A)  # type: ignore[arg-type]
        index.close()
        assert known == HashIndex(str(tmp_path / "cache"), Disk()).find(str(file), status)  # type: ignore[arg-type]


def test_what_may_not_be_on_the_disk_yet_counts_in_this_boot_only(tmp_path: Path, file: Path) -> None:
    old = tmp_path / "old"
    old.write_bytes(b"old")
    remember(tmp_path, file)
    remember(tmp_path, old, later=2 * 3600)
    after = make(tmp_path, boot="two")
    assert after.find(str(file), file.stat()) is None
    assert A == after.find(str(old), old.stat())


def test_where_boots_have_no_name_only_what_is_settled_is_remembered(tmp_path: Path, file: Path) -> None:
    remember(tmp_path, file, boot=None)
    assert not (tmp_path / "cache").exists()
    remember(tmp_path, file, boot=None, later=2 * 3600)
    assert A == make(tmp_path, boot=None).find(str(file), file.stat())


def test_with_rehash_no_earlier_run_is_believed(tmp_path: Path, file: Path) -> None:
    remember(tmp_path, file)
    assert make(tmp_path, rehash=True).find(str(file), file.stat()) is None


@pytest.mark.parametrize(
    "line", ["", "1", "2 {k} {a} one {p}", "1 {k} sha256:../../x one {p}", "1 {k} {a} one", "\xff"]
)
def test_a_line_that_does_not_parse_is_ignored(tmp_path: Path, file: Path, line: str) -> None:
    remember(tmp_path, file)
    path = tmp_path / "cache/.partial/hashes"
    row = path.read_text()
    key, quoted = row.partition(" sha256")[0].removeprefix("1 "), row.split()[-1]
    path.write_bytes(row.encode() + line.format(k=key, a=B, p=quoted).encode("latin-1") + b"\n")
    assert A == make(tmp_path).find(str(file), file.stat())


def test_a_link_in_the_place_of_the_index_is_refused(tmp_path: Path, file: Path) -> None:
    (tmp_path / "cache/.partial").mkdir(parents=True)
    (tmp_path / "cache/.partial/hashes").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="writing the index"):
        remember(tmp_path, file)
    assert not (tmp_path / "elsewhere").exists()


def test_after_years_it_is_as_small_as_what_is_there(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALLEST", 2_000)
    for year in range(40):
        os.utime(file, (year, year))
        gone = tmp_path / f"gone-{year}"
        gone.write_bytes(b"x")
        index = make(tmp_path)
        index.add(str(gone), gone.stat(), B)
        index.add(str(file), file.stat(), A)
        gone.unlink()
        index.close()
    assert (tmp_path / "cache/.partial/hashes").stat().st_size < 4_000
    assert A == make(tmp_path).find(str(file), file.stat())


def test_an_index_of_files_that_are_there_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SMALLEST", 2_000)
    files = [tmp_path / str(number) for number in range(40)]
    for path in files:
        path.write_bytes(b"x")
        remember(tmp_path, path)
    index = make(tmp_path)
    assert [A] * 40 == [index.find(str(path), path.stat()) for path in files]
