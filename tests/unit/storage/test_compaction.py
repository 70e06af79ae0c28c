"""The index of verified files stays small, whoever adds to it meanwhile."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from transferkit.content.digest import Digest
from transferkit.storage import compaction
from transferkit.storage.disk import Disk
from transferkit.storage.index import VerifiedIndex

FILES = 10


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(compaction, "SMALLEST", 2_000)


def digest(number: int) -> Digest:
    return Digest(f"sha256:{number:064x}")


def make(folder: Path, boot: str = "one", disk: Disk | None = None) -> VerifiedIndex:
    disk = disk or Disk()
    disk.boot = boot
    return VerifiedIndex(str(folder), disk)


@pytest.fixture
def folder(tmp_path):
    """A folder with some blobs."""
    (tmp_path / ".partial").mkdir()
    for number in range(FILES):
        (tmp_path / digest(number).file_name).write_bytes(b"%d" % number)
    return tmp_path


def path(folder: Path, number: int) -> Path:
    return folder / digest(number).file_name


def add(folder: Path, *numbers: int, boot: str = "one", disk: Disk | None = None) -> None:
    index = make(folder, boot, disk)
    for number in numbers:
        index.add(digest(number), path(folder, number % FILES).stat(), durable=False)
    index.close()


def size(folder: Path) -> int:
    return (folder / ".partial" / "verified").stat().st_size


def known(folder: Path, boot: str = "one") -> set[int]:
    index = make(folder, boot)
    return {number for number in range(FILES) if index.knows(digest(number), path(folder, number).stat())}


def test_after_years_it_is_as_small_as_what_is_there(folder):
    for year in range(100):
        # Each year the files that stay are changed, so that they are verified again, and others come and go.
        os.utime(path(folder, 3), (year, year))
        add(folder, 3, *range(1000 + 30 * year, 1030 + 30 * year))
        assert size(folder) < 2 * 5_000
    add(folder, *range(FILES))
    assert set(range(FILES)) == known(folder)


def test_what_is_there_stays_known_and_nothing_else_stays(folder):
    add(folder, *range(FILES))
    add(folder, *range(1000, 1100))
    rows = (folder / ".partial" / "verified").read_text().splitlines()
    assert FILES == len(rows)
    assert set(range(FILES)) == known(folder)
    assert ["verified"] == os.listdir(folder / ".partial")


def test_rows_of_another_boot_go(folder):
    add(folder, *range(FILES), boot="zero")
    add(folder, 1, *range(1000, 1100))
    assert ({1}, set()) == (known(folder), known(folder, "zero"))
    assert 1 == len((folder / ".partial" / "verified").read_text().splitlines())


def test_an_index_of_many_files_that_are_there_is_left_as_it_is(folder):
    for number in range(20):
        path(folder, 100 + number).write_bytes(b"x")
    add(folder, *range(FILES), *range(100, 120))
    before = size(folder)
    add(folder, 1)
    assert size(folder) > before > 2_000


class Meddling(Disk):
    """Another process does something just before, or just after the new index gets its name."""

    def __init__(self, before=lambda: None, after=lambda: None) -> None:
        self._before, self._after = before, after

    def rename(self, source: str, target: str, folder: int | None = None) -> None:
        self._before()
        super().rename(source, target, folder)
        self._after()


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_another_process_adds_meanwhile_is_not_lost(folder, when):
    def other() -> None:
        add(folder, 5)

    add(folder, 1, disk=None)
    add(folder, *range(1000, 1100), disk=Meddling(**{when: other}))
    assert {1, 5} == known(folder)
    assert size(folder) < 2_000


def test_two_do_not_compact_it_at_once(folder):
    """The second one finds the first one's lock, and leaves it."""
    seen: list[bytes] = []

    def other() -> None:
        add(folder, 5, *range(2000, 2100))
        seen.append((folder / ".partial" / "verified").read_bytes())

    add(folder, 1)
    add(folder, *range(1000, 1100), disk=Meddling(before=other))
    assert 202 == len(seen[0].splitlines())
    assert {1, 5} == known(folder)


@pytest.mark.parametrize("locks", ["granted to all", "refused"])
def test_without_locks_it_is_compacted_as_well(folder, monkeypatch, locks):
    def flock(fd: int, operation: int) -> None:
        if locks == "refused":
            raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    add(folder, 1)
    add(folder, *range(1000, 1100), disk=Meddling(before=lambda: add(folder, 5, *range(2000, 2100))))
    # Here two do it at once: rows may be lost, and none is made up.
    assert known(folder) <= {1, 5}
    assert size(folder) < 20_000


def test_a_crash_at_any_call_leaves_one_index_or_the_other(folder):
    for crash in range(1, 12):

        class Crashing(Disk):
            left = crash

            def __getattribute__(self, name):
                if name in ("create", "pwrite", "rename", "unlink", "preadv", "reopen", "append", "close"):
                    self.left -= 1
                    if self.left < 0:
                        raise OSError(5, "Input/output error")
                return object.__getattribute__(self, name)

        add(folder, *range(FILES))
        add(folder, *range(1000, 1100), disk=Crashing())
        assert set(range(FILES)) == known(folder)


def test_torn_and_strange_lines_go(folder):
    add(folder, 1)
    with (folder / ".partial" / "verified").open("ab") as file:
        file.write(b"\xff\x00" * 2_000 + b"\n2 sha256:../../x 1 1 1 1 one\n2 sha256:" + b"a" * 64)
    add(folder, 2)
    add(folder, 3, *range(1000, 1100))
    assert known(folder) <= {1, 2, 3}
    assert {1, 3} <= known(folder)
    assert all(line.startswith("2 sha256:000") for line in (folder / ".partial" / "verified").read_text().splitlines())


def test_of_a_layout_the_folders_of_its_algorithms_are_looked_through(tmp_path):
    """Where ``verified`` names files by their digests, and they are called otherwise."""
    (tmp_path / "sha256").mkdir()
    (tmp_path / ".partial").mkdir()
    index = VerifiedIndex(str(tmp_path), Disk(), names=lambda digest: f"{digest.algorithm}/{digest.hex}")
    for number in range(1000):
        file = tmp_path / "sha256" / digest(number % FILES).hex
        file.write_bytes(b"x")
        index.add(digest(number), file.stat(), durable=False)
    file = tmp_path / "sha256" / digest(3).hex
    index.add(digest(3), file.stat(), durable=False)
    index.close()
    assert size(tmp_path) < 5_000
    again = VerifiedIndex(str(tmp_path), Disk(), names=lambda digest: f"{digest.algorithm}/{digest.hex}")
    assert again.knows(digest(3), file.stat())
