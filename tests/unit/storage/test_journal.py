"""The journal of a partial file: rows, what of them was synced, and what is believed of it later."""

from __future__ import annotations

import os

import pytest

from tests.descriptors import open_descriptors
from transferkit.content.descriptor import Descriptor
from transferkit.storage.disk import Disk
from transferkit.storage.folder import OpenFolder
from transferkit.storage.journal import Journal

BLOB = Descriptor("sha256:" + 64 * "a", 1000)


def make(folder, descriptor: Descriptor = BLOB, boot: str | None = "one") -> Journal:
    disk = Disk()
    disk.boot = boot
    return Journal(OpenFolder(str(folder), disk), "state.json", descriptor)


def load(journal: Journal) -> list[list[int]]:
    journal.load()
    return journal.ranges.to_list()


def written(folder, rows, *, synced: int | None = None, boot: str | None = "one") -> Journal:
    state = make(folder, boot=boot)
    state.empty()
    for number, (start, end) in enumerate(rows):
        if synced == number:
            state.sync(number)
        state.add(start, end)
    state.close()
    return state


def test_rows_are_read_back(tmp_path):
    written(tmp_path, [(0, 9), (20, 29), (10, 14)])
    assert [[0, 14], [20, 29]] == load(make(tmp_path))


def test_without_a_file_nothing_is_there(tmp_path):
    assert [] == load(make(tmp_path))


def test_the_first_line_says_what_it_is(tmp_path):
    written(tmp_path, [(0, 9)])
    lines = (tmp_path / "state.json").read_text().split("\n")
    first = f'{{"version": 2, "digest": "{BLOB.digest}", "size": 1000, "boot": "one"}}'
    assert [first, "[0, 9]", ""] == lines


def test_after_another_boot_only_synced_rows_count(tmp_path):
    written(tmp_path, [(0, 9), (20, 29), (40, 49)], synced=2)
    assert [[0, 9], [20, 29]] == load(make(tmp_path, boot="two"))
    assert [[0, 9], [20, 29], [40, 49]] == load(make(tmp_path))


def test_where_boots_have_no_name_only_synced_rows_count(tmp_path):
    written(tmp_path, [(0, 9), (20, 29)], synced=1, boot=None)
    assert [[0, 9]] == load(make(tmp_path, boot=None))


@pytest.mark.parametrize("descriptor", [Descriptor("sha256:" + 64 * "b", 1000), Descriptor(BLOB.digest, 1001)])
def test_a_state_of_another_blob_is_not_believed(tmp_path, descriptor):
    written(tmp_path, [(0, 9)])
    assert [] == load(make(tmp_path, descriptor))


@pytest.mark.parametrize("line", ["[0, 1000]", "[0, 99999999999999999999]"])
def test_a_row_past_the_end_makes_all_of_it_worth_nothing(tmp_path, line):
    written(tmp_path, [(0, 9)])
    with (tmp_path / "state.json").open("a") as file:
        file.write(line + "\n")
    assert [] == load(make(tmp_path))


@pytest.mark.parametrize(
    "line", ["[5, 1", "[true, 1]", '["0", 1]', "[0, 1, 2]", "null", "{", "\0\0", '{"synced": "9"}']
)
def test_what_follows_a_line_that_does_not_parse_is_ignored(tmp_path, line):
    written(tmp_path, [(0, 9)])
    with (tmp_path / "state.json").open("a") as file:
        file.write(line + "\n[20, 29]\n")
    assert [[0, 9]] == load(make(tmp_path))


def test_a_mark_that_promises_more_rows_than_there_were_counts_those_before_it(tmp_path):
    written(tmp_path, [(0, 9)])
    with (tmp_path / "state.json").open("a") as file:
        file.write('{"synced": 99}\n[20, 29]\n')
    assert [[0, 9]] == load(make(tmp_path, boot="two"))


def test_writing_anew_forgets_what_was_synced_and_leaves_one_file(tmp_path):
    state = written(tmp_path, [(0, 9)], synced=0)
    (tmp_path / "state.json.new").write_text("left by kill -9")
    load(state)
    state.rewrite()
    state.close()
    assert ["state.json"] == os.listdir(tmp_path)
    assert ([[0, 9]], []) == (load(make(tmp_path)), load(make(tmp_path, boot="two")))


def test_the_name_is_made_durable_with_the_first_mark(tmp_path):
    synced = []
    disk = Disk()
    disk.sync_folder = synced.append
    state = Journal(OpenFolder(str(tmp_path), disk), "state.json", BLOB)
    state.empty()
    assert [] == synced
    state.sync(0)
    state.close()
    assert [str(tmp_path)] == synced


def test_closing_more_than_once_is_fine(tmp_path):
    state = make(tmp_path)
    state.empty()
    before = len(open_descriptors())
    state.close()
    state.close()
    assert before - 1 == len(open_descriptors())


def test_rows_that_are_short_for_the_blob_are_joined(tmp_path):
    """80 GB in reads of 20 KB, as a limit of the bandwidth makes them, and no row for each of them."""
    large = Descriptor(BLOB.digest, 80 * 10**9)
    state = make(tmp_path, large)
    state.empty()
    for start in range(0, 100_000_000, 20_000):
        state.add(start, start + 19_999)
        state.add(start + 40 * 10**9, start + 40 * 10**9 + 19_999)
    assert 150 <= state.rows <= 163  # of 20,000 and some bytes more than a 65,536th of the blob
    (left,) = [sum(end - start + 1 for start, end in load(make(tmp_path, large)))]  # as after a kill -9
    assert 200_000_000 - 2 * (80 * 10**9 // 65_536 + 20_000) <= left < 200_000_000
    state.close()
    assert [[0, 99_999_999], [40 * 10**9, 40 * 10**9 + 99_999_999]] == load(make(tmp_path, large))


def test_a_state_that_is_written_anew_has_its_short_rows_in_it(tmp_path):
    large = Descriptor(BLOB.digest, 80 * 10**9)
    state = make(tmp_path, large)
    state.empty()
    state.add(0, 99)
    state.rewrite()
    state.close()
    assert (1, [[0, 99]]) == (state.rows, load(make(tmp_path, large)))
