"""Partial files: filled from several threads, hashed in order, and what is left of them after any end."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import random
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import transferkit as tk
from tests.unit.storage import volatile
from tests.unit.storage.suite import FailingDisk
from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.storage import pace
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk
from transferkit.storage.partial import Partial
from transferkit.transfer.flow import WorkerFlow

KIB = 1024
PIECE = 4 * KIB
SIZE = 16 * PIECE + 100
DATA = random.Random(5).randbytes(SIZE)
DESCRIPTOR = Descriptor("sha256:" + hashlib.sha256(DATA).hexdigest(), SIZE)
PIECES = [(start, min(start + PIECE, SIZE)) for start in range(0, SIZE, PIECE)]


class CountingHasher:
    """Counts what goes into a hasher."""

    def __init__(self, hasher) -> None:
        self._hasher = hasher
        self.count = 0

    def update(self, data) -> None:
        self.count += len(data)
        self._hasher.update(data)

    def __getattr__(self, name):
        return getattr(self._hasher, name)


def open_partial(folder, disk: Disk | None = None, descriptor: Descriptor = DESCRIPTOR, **keywords) -> Partial:
    partial = Directory(folder, disk=disk, resume_threshold=1, **keywords).ingest(descriptor, flow=WorkerFlow())
    assert partial is not None
    return partial


def put(partial: Partial, start: int, end: int, data: bytes = DATA, *, final: bool = True) -> None:
    partial.write_at(start, memoryview(data)[start:end], final=final)
    partial.record(start, end - 1)


def kill(partial: Partial) -> None:
    """Leave what kill -9 leaves: nothing is written on the way out."""
    os.close(partial._fd)
    os.close(partial._journal._fd)
    partial._fd = partial._journal._fd = -1
    partial.is_open = False
    partial._file_lock.release()


def missing(partial: Partial) -> list[Chunk]:
    return partial.missing_in(Chunk(0, SIZE - 1))


class ReadingDisk(Disk):
    """Counts the bytes that are read from files."""

    def __init__(self) -> None:
        self.read = 0

    def preadv(self, fd, buffer, offset):
        count = super().preadv(fd, buffer, offset)
        self.read += count
        return count


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def final_path(folder: Path) -> Path:
    return folder / DESCRIPTOR.digest.file_name


# -- filling and hashing


def test_bytes_in_order_are_hashed_from_memory(tmp_path):
    disk = ReadingDisk()
    partial = open_partial(tmp_path, disk)
    for start, end in PIECES:
        put(partial, start, end)
        assert end == partial.offset
    assert (0, SIZE) == (disk.read, partial.in_place)
    partial.commit(WorkerFlow())
    assert DATA == final_path(tmp_path).read_bytes()


def test_bytes_ahead_of_the_frontier_are_read_once(tmp_path):
    disk = ReadingDisk()
    partial = open_partial(tmp_path, disk)
    hasher = partial._hasher = CountingHasher(partial._hasher)
    for start, end in reversed(PIECES):
        put(partial, start, end)
        partial.follow(WorkerFlow())
    assert SIZE - PIECE == disk.read
    assert SIZE == partial.offset == hasher.count
    partial.commit(WorkerFlow())
    assert SIZE == hasher.count
    assert DATA == final_path(tmp_path).read_bytes()


def test_bytes_that_may_be_taken_back_are_hashed_after_they_are_recorded(tmp_path):
    disk = ReadingDisk()
    partial = open_partial(tmp_path, disk)
    partial.write_at(0, memoryview(DATA)[:PIECE], final=False)
    partial.follow(WorkerFlow())
    assert (0, 0) == (partial.offset, partial.in_place)
    partial.write_at(0, memoryview(DATA)[:PIECE], final=False)
    partial.record(0, PIECE - 1)
    partial.follow(WorkerFlow())
    assert (PIECE, PIECE) == (partial.offset, disk.read)
    partial.keep()


def test_threads_that_fill_at_once_hash_every_byte_once(tmp_path):
    disk = ReadingDisk()
    partial = open_partial(tmp_path, disk)
    hasher = partial._hasher = CountingHasher(partial._hasher)
    pieces = list(PIECES)
    random.Random(1).shuffle(pieces)
    lock = threading.Lock()

    def work() -> None:
        flow = WorkerFlow()
        while True:
            with lock:
                if not pieces:
                    return
                start, end = pieces.pop()
            put(partial, start, end)
            partial.follow(flow)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    partial.commit(WorkerFlow())
    assert SIZE == hasher.count
    assert disk.read <= SIZE
    assert DATA == final_path(tmp_path).read_bytes()


def test_what_is_missing_is_told(tmp_path):
    partial = open_partial(tmp_path)
    put(partial, PIECE, 2 * PIECE)
    assert [Chunk(0, PIECE - 1), Chunk(2 * PIECE, SIZE - 1)] == missing(partial)
    assert [Chunk(2 * PIECE, 2 * PIECE + 9)] == partial.missing_in(Chunk(PIECE + 10, 2 * PIECE + 9))
    assert [] == partial.missing_in(Chunk(PIECE, 2 * PIECE - 1))
    partial.keep()


def test_bytes_past_the_end_are_refused(tmp_path):
    partial = open_partial(tmp_path)
    with pytest.raises(tk.SizeMismatchError):
        partial.write_at(SIZE - 1, memoryview(b"ab"))
    partial.write_at(SIZE, memoryview(b""))
    partial.keep()


def test_committing_with_a_gap_is_refused_and_loses_nothing(tmp_path):
    partial = open_partial(tmp_path)
    for start, end in PIECES[1:]:
        put(partial, start, end)
    with pytest.raises(tk.SizeMismatchError, match=f"incomplete: received {SIZE - PIECE}/{SIZE} bytes"):
        partial.commit(WorkerFlow())
    assert not final_path(tmp_path).exists()

    again = open_partial(tmp_path)
    assert SIZE - PIECE == again.in_place
    put(again, 0, PIECE)
    again.commit(WorkerFlow())
    assert DATA == final_path(tmp_path).read_bytes()
    assert set() == names(tmp_path / ".partial")


def open_partial_and_close(folder: Path, **keywords) -> int:
    partial = open_partial(folder, **keywords)
    in_place = partial.in_place
    partial.keep()
    return in_place


def test_a_file_that_lost_bytes_is_an_error_and_not_a_wrong_digest(tmp_path):
    partial = open_partial(tmp_path)
    put(partial, PIECE, SIZE)
    put(partial, 0, PIECE)
    os.truncate(in_partial(tmp_path), PIECE)
    with pytest.raises(tk.SizeMismatchError, match="shorter") as caught:
        partial.commit(WorkerFlow())
    assert caught.value.retryable
    assert 0 == open_partial_and_close(tmp_path)


@pytest.mark.parametrize("size", [PIECE, SIZE + 1])
def test_a_file_of_another_size_is_not_stored_although_all_that_was_written_is_hashed(tmp_path, size):
    partial = open_partial(tmp_path)
    put(partial, 0, SIZE)
    os.truncate(in_partial(tmp_path), size)
    with pytest.raises(tk.VerificationError, match="moved, removed or replaced") as caught:
        partial.commit(WorkerFlow())
    assert caught.value.retryable
    assert not final_path(tmp_path).exists()
    assert 0 == open_partial_and_close(tmp_path)


def test_who_waits_for_the_hasher_is_told_at_each_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr("transferkit.storage.partial.MIN_CHUNK", 4 * PIECE)
    partial = open_partial(tmp_path)
    put(partial, PIECE, SIZE)
    put(partial, 0, PIECE)
    offsets: list[int] = []
    partial.follow(WorkerFlow(buffer=PIECE), lambda: offsets.append(partial.offset))
    assert [4 * PIECE, 8 * PIECE, 12 * PIECE, 16 * PIECE] == offsets
    partial.keep()


def test_a_cut_ends_the_hashing_of_a_large_prefix(tmp_path):
    partial = open_partial(tmp_path)
    put(partial, PIECE, SIZE)
    put(partial, 0, PIECE)
    flow = WorkerFlow()
    flow.cut(tk.CancelledError("now"), final=True)
    with pytest.raises(tk.CancelledError, match="now"):
        partial.follow(flow)
    partial.keep()


CHANGES = ("pwrite", "write", "fsync", "rename")


@pytest.mark.parametrize("at", range(50))
def test_whatever_call_fails_nothing_wrong_is_visible_and_the_next_run_goes_on(tmp_path, monkeypatch, at):
    monkeypatch.setattr(pace, "SYNC_EVERY", 4 * PIECE)
    changes = 0

    def fails(name: str, *_: int) -> bool:
        nonlocal changes
        changes += name in CHANGES
        return name in CHANGES and changes > at

    failed = False
    partial = None
    try:
        partial = open_partial(tmp_path, FailingDisk(fails, errno.ENOSPC))
        for start, end in PIECES:
            put(partial, start, end)
        partial.commit(WorkerFlow())
    except tk.OutOfSpaceError:
        failed = True
        if partial is not None:
            partial.keep()
    path = final_path(tmp_path)
    assert failed != path.exists()
    assert failed == (changes > at)
    if failed:
        again = open_partial(tmp_path)
        for chunk in missing(again):
            put(again, chunk.start, chunk.end + 1)
        again.commit(WorkerFlow())
    assert DATA == path.read_bytes()
    assert set() == names(tmp_path / ".partial")


# -- what others do to the file


def in_partial(folder: Path) -> Path:
    return folder / ".partial" / final_path(folder).name


@pytest.mark.parametrize("found", ["at the next sync", "at the end"])
def test_a_file_whose_name_is_another_files_begins_again(tmp_path, monkeypatch, found):
    if found == "at the next sync":
        monkeypatch.setattr(pace, "SYNC_EVERY", SIZE - PIECE)
    partial = open_partial(tmp_path)
    put(partial, 0, PIECE)
    in_partial(tmp_path).rename(tmp_path / "elsewhere")
    in_partial(tmp_path).write_bytes(bytes(SIZE))
    with pytest.raises(tk.VerificationError, match="moved, removed or replaced") as caught:
        put(partial, PIECE, SIZE - PIECE)
        assert found == "at the end"
        put(partial, SIZE - PIECE, SIZE)
        partial.commit(WorkerFlow())
    partial.keep()
    assert caught.value.retryable
    assert not final_path(tmp_path).exists()
    again = open_partial(tmp_path)
    for chunk in missing(again):
        put(again, chunk.start, chunk.end + 1)
    with pytest.raises(tk.DigestMismatchError):  # the state is still there, and speaks of the planted file
        again.commit(WorkerFlow())
    again = open_partial(tmp_path)
    put(again, 0, SIZE)
    again.commit(WorkerFlow())
    assert DATA == final_path(tmp_path).read_bytes()


def test_beginning_again_does_not_touch_a_file_that_has_another_name_by_now(tmp_path):
    """Where locks keep nobody away, it may be the blob that another process has finished."""
    partial = open_partial(tmp_path)
    put(partial, 0, SIZE)
    os.link(in_partial(tmp_path), final_path(tmp_path))
    partial.restart()
    put(partial, 0, PIECE, bytes(PIECE))
    partial.keep()
    assert DATA == final_path(tmp_path).read_bytes()


@pytest.mark.parametrize("locks", ["granted to all", "refused"])
def test_without_locks_each_writes_to_a_file_of_its_own(tmp_path, monkeypatch, locks):
    def flock(fd: int, operation: int) -> None:
        if locks == "refused":
            raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(fcntl, "flock", flock)
    first = open_partial(tmp_path)
    put(first, 0, PIECE)
    first.keep()
    first, second = open_partial(tmp_path), open_partial(tmp_path)
    assert (PIECE, 0) == (first.in_place, second.in_place)
    put(first, PIECE, SIZE)
    put(second, 0, 2 * PIECE, bytes(SIZE))
    first.commit(WorkerFlow())
    put(second, 2 * PIECE, SIZE)
    second.restart()
    assert DATA == final_path(tmp_path).read_bytes()
    put(second, 0, 3 * PIECE)
    second.keep()
    assert Directory(tmp_path, resume_threshold=1).ingest(DESCRIPTOR, flow=WorkerFlow()) is None
    assert {final_path(tmp_path).name} == names(tmp_path)


# -- after a crash of the process


@settings(max_examples=60, deadline=None)
@given(order=st.permutations(PIECES), crash=st.integers(0, len(PIECES)))
def test_after_a_crash_at_any_point_the_partial_is_absent_or_right(order, crash):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        partial = open_partial(folder)
        for start, end in order[:crash]:
            put(partial, start, end)
        kill(partial)
        assert not final_path(folder).exists()

        again = open_partial(folder)
        file = in_partial(folder)
        content = file.read_bytes()
        for chunk_start, chunk_end in order[:crash]:
            assert [] == again.missing_in(Chunk(chunk_start, chunk_end - 1))
            assert DATA[chunk_start:chunk_end] == content[chunk_start:chunk_end]
        assert sum(end - start for start, end in order[:crash]) == again.in_place
        for start, end in order[crash:]:
            put(again, start, end)
        again.commit(WorkerFlow())
        assert DATA == final_path(folder).read_bytes()


def journal(folder: Path) -> Path:
    return folder / ".partial" / f"{final_path(folder).name}.json"


def test_a_journal_that_is_torn_at_any_byte_is_right_as_far_as_it_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(pace, "SYNC_EVERY", 3 * PIECE)
    partial = open_partial(tmp_path)
    for start, end in PIECES[:3:2] + PIECES[5:9]:
        put(partial, start, end)
    partial.keep()
    text = journal(tmp_path).read_bytes()
    content = in_partial(tmp_path).read_bytes()
    before = 0
    for length in range(len(text) + 1):
        journal(tmp_path).write_bytes(text[:length])
        in_partial(tmp_path).write_bytes(content)
        again = open_partial(tmp_path)
        gaps = {chunk.start for chunk in missing(again)}
        for start, end in PIECES:
            if not again.missing_in(Chunk(start, end - 1)):
                assert DATA[start:end] == content[start:end]
        assert gaps or again.in_place == SIZE
        assert again.in_place >= before or length < 200  # more of the journal never means less
        before = again.in_place
        again.keep()
    assert 6 * PIECE == before


@pytest.mark.parametrize(
    "garbage", [b"\0" * 20, b"[1, 2\n", b'["0", 5]\n', b"[5, 1]\n", b"[-1, 5]\n", b"[0, 99999999]\n", b"{}\n"]
)
def test_a_journal_with_garbage_is_never_more_than_right(tmp_path, garbage):
    partial = open_partial(tmp_path)
    put(partial, 0, PIECE)
    partial.keep()
    with journal(tmp_path).open("ab") as file:
        file.write(garbage)
    assert open_partial_and_close(tmp_path) in (0, PIECE)


@pytest.mark.parametrize(
    "changes", [{"size": SIZE + 1}, {"digest": "sha256:" + 64 * "0"}, {"version": 1}, {"version": None}, {"more": 1}]
)
def test_a_journal_of_something_else_is_not_continued(tmp_path, changes):
    partial = open_partial(tmp_path)
    put(partial, 0, PIECE)
    partial.keep()
    head, rest = journal(tmp_path).read_text().split("\n", 1)
    journal(tmp_path).write_text(json.dumps({**json.loads(head), **changes}) + "\n" + rest)
    assert 0 == open_partial_and_close(tmp_path)


def test_rows_beyond_the_end_of_the_file_are_not_believed(tmp_path):
    partial = open_partial(tmp_path)
    put(partial, 0, 2 * PIECE)
    partial.keep()
    os.truncate(in_partial(tmp_path), PIECE)
    assert 0 == open_partial_and_close(tmp_path)


# -- after a power cut


def test_beginning_again_makes_the_journal_durable_before_the_new_file_has_bytes(tmp_path):
    """The other way round, an old journal could speak of new bytes after a power cut."""
    calls: list[str] = []
    disk = FailingDisk(lambda name, *_: calls.append(name) is not None)
    partial = open_partial(tmp_path, disk)
    put(partial, 0, PIECE)
    calls.clear()
    partial.restart()
    order = ["rename", "unlink", "create", "fsync", "sync_folder"]
    assert order == [name for name in calls[calls.index("rename") :] if name in order]
    assert 0 == in_partial(tmp_path).stat().st_size
    partial.keep()


def test_what_was_left_beside_a_blob_that_is_in_place_is_removed(tmp_path):
    """A kill between the rename and the end of the commit leaves the journal and the lock."""
    partial = open_partial(tmp_path)
    put(partial, 0, SIZE)
    left = journal(tmp_path).read_bytes()
    partial.commit(WorkerFlow())
    journal(tmp_path).write_bytes(left)
    Path(f"{journal(tmp_path)}.new").write_bytes(left)
    assert Directory(tmp_path, resume_threshold=1).ingest(DESCRIPTOR, flow=WorkerFlow()) is None
    assert {final_path(tmp_path).name} == names(tmp_path)


def boot(monkeypatch, name: str) -> None:
    monkeypatch.setattr(Disk, "boot", name)


@pytest.mark.parametrize("loss", ["names", "data", "order"])
@pytest.mark.parametrize("seed", range(6))
def test_after_a_power_cut_synced_bytes_are_kept_and_no_others(tmp_path, monkeypatch, loss, seed):
    monkeypatch.setattr(pace, "SYNC_EVERY", 4 * PIECE)
    rng = random.Random(seed)
    order = list(PIECES)
    rng.shuffle(order)
    folder = tmp_path / "d"
    disk = volatile.VolatileDisk()
    done: list[tuple[int, int]] = []
    for number in range(4):
        boot(monkeypatch, f"boot-{number}")
        partial = open_partial(folder, disk)
        assert_right(partial, folder)
        todo = [piece for piece in order if partial.missing_in(Chunk(piece[0], piece[1] - 1))]
        if not todo:
            partial.keep()
            break
        done = todo[: rng.randrange(1, 1 + len(todo))][:9]
        before = partial.in_place
        for start, end in done:
            put(partial, start, end)
        written = sum(end - start for start, end in done)
        is_orderly = rng.random() < 0.5
        (Partial.keep if is_orderly else kill)(partial)
        disk.cut(folder, loss)

        boot(monkeypatch, f"boot-{number + 1}")
        partial = open_partial(folder, disk)
        assert_right(partial, folder)
        assert partial.in_place >= before
        assert before + written - partial.in_place <= (0 if is_orderly else 4 * PIECE)
        partial.keep()
    partial = open_partial(folder, disk)
    for chunk in missing(partial):
        put(partial, chunk.start, chunk.end + 1)
    hasher = partial._hasher = CountingHasher(partial._hasher)
    partial.commit(WorkerFlow())
    assert hasher.count <= SIZE
    assert DATA == final_path(folder).read_bytes()


def assert_right(partial: Partial, folder: Path) -> None:
    """Assert that all that is believed to be there is right."""
    content = in_partial(folder).read_bytes()
    for start, end in PIECES:
        if not partial.missing_in(Chunk(start, end - 1)):
            assert DATA[start:end] == content[start:end]


@settings(max_examples=60, deadline=None)
@given(
    order=st.permutations(PIECES),
    first=st.integers(0, len(PIECES)),
    second=st.integers(0, len(PIECES)),
    loss=st.sampled_from(["names", "data", "order"]),
    begin_again=st.booleans(),
    is_orderly=st.booleans(),
)
def test_after_power_cuts_at_any_point_nothing_unsynced_is_believed(
    order, first, second, loss, begin_again, is_orderly
):
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(pace, "SYNC_EVERY", 3 * PIECE)
        folder = Path(name) / "d"
        disk = volatile.VolatileDisk()
        for number, count in enumerate((first, second)):
            boot(monkeypatch, f"boot-{number}")
            partial = open_partial(folder, disk)
            assert_right(partial, folder)
            for start, end in order[:count]:
                if partial.missing_in(Chunk(start, end - 1)):
                    put(partial, start, end)
            if begin_again and not number:
                partial.restart()
                for start, end in order[-2:]:
                    put(partial, start, end)
            (Partial.keep if is_orderly else kill)(partial)
            disk.cut(folder, loss)
        boot(monkeypatch, "boot-9")
        partial = open_partial(folder, disk)
        assert_right(partial, folder)
        for chunk in missing(partial):
            put(partial, chunk.start, chunk.end + 1)
        partial.commit(WorkerFlow())
        assert DATA == final_path(folder).read_bytes()


@pytest.mark.parametrize("loss", ["names", "data", "order"])
@pytest.mark.parametrize("durable", [False, True])
def test_a_committed_blob_after_a_power_cut_is_right_or_not_believed(tmp_path, monkeypatch, loss, durable):
    folder = tmp_path / "d"
    disk = volatile.VolatileDisk()
    boot(monkeypatch, "one")
    directory = Directory(folder, disk=disk, durable=durable, resume_threshold=1)
    partial = directory.ingest(DESCRIPTOR, flow=WorkerFlow())
    put(partial, 0, SIZE)
    partial.commit(WorkerFlow())
    directory.close()
    assert Directory(folder, disk=disk).knows(DESCRIPTOR)
    disk.cut(folder, loss)

    boot(monkeypatch, "two")
    after = Directory(folder, disk=disk)
    assert not after.knows(DESCRIPTOR) or DATA == final_path(folder).read_bytes()
    assert durable == after.exists(DESCRIPTOR, flow=WorkerFlow())


def state(folder: Path) -> list[str]:
    return journal(folder).read_text().splitlines()[1:]


@pytest.mark.parametrize("loss", ["names", "data", "order"])
def test_an_orderly_stop_says_that_it_has_synced_and_another_boot_goes_on(tmp_path, monkeypatch, loss):
    folder, disk = tmp_path / "d", volatile.VolatileDisk()
    boot(monkeypatch, "one")
    partial = open_partial(folder, disk)
    put(partial, 0, PIECE)
    put(partial, 3 * PIECE, 4 * PIECE)
    partial.keep()
    assert ["[0, 4095]", "[12288, 16383]", '{"synced": 2}'] == state(folder)
    disk.cut(folder, loss)
    boot(monkeypatch, "two")
    again = open_partial(folder, disk)
    assert 2 * PIECE == again.in_place
    put(again, 4 * PIECE, 5 * PIECE)
    kill(again)
    disk.cut(folder, loss)
    boot(monkeypatch, "three")
    assert 2 * PIECE == open_partial_and_close(folder, disk=disk)  # of what was synced once, nothing is lost


def test_a_stop_of_which_nothing_is_new_syncs_nothing(tmp_path):
    partial = open_partial(tmp_path)
    put(partial, 0, PIECE)
    partial.keep()
    calls: list[str] = []
    partial = open_partial(tmp_path, FailingDisk(lambda name, *_: calls.append(name) is not None))
    calls.clear()
    partial.keep()
    assert "fsync" not in calls


def test_a_stop_that_would_take_too_long_syncs_nothing_and_loses_nothing_in_this_boot(tmp_path, monkeypatch):
    monkeypatch.setattr(pace, "UNKNOWN", PIECE)  # a disk of 4 KiB a second
    partial = open_partial(tmp_path)
    put(partial, 0, PIECE)
    partial.keep()
    assert ["[0, 4095]"] == state(tmp_path)
    assert PIECE == open_partial_and_close(tmp_path)


def test_a_disk_that_refuses_to_sync_at_a_stop_harms_nobody(tmp_path):
    partial = open_partial(tmp_path, FailingDisk(lambda name, *_: name == "fsync"))
    put(partial, 0, PIECE)
    partial.keep()
    assert ["[0, 4095]"] == state(tmp_path)


@pytest.mark.parametrize("every", [SIZE, 4 * SIZE, 4 * PIECE])
def test_the_last_bytes_of_a_blob_are_not_synced_before_its_commit(tmp_path, monkeypatch, every):
    monkeypatch.setattr(pace, "SYNC_EVERY", every)
    calls: list[str] = []
    partial = open_partial(tmp_path, FailingDisk(lambda name, *_: calls.append(name) is not None))
    for start, end in PIECES:
        calls.clear()
        put(partial, start, end)
    assert "fsync" not in calls
    partial.commit(WorkerFlow())
    assert "fsync" not in calls


# -- chunks that are not complete


def put_unverified(partial: Partial, start: int, end: int, data: bytes = DATA, *, step: int = 1000) -> None:
    for at in range(start, end, step):
        partial.write_at(at, memoryview(data)[at : min(at + step, end)], final=False)
        partial.record_unverified(start, min(at + step, end) - 1)


def hashed(partial: Partial, chunk: Chunk) -> str:
    hasher = hashlib.sha256()
    partial.hash_unverified(chunk, hasher, WorkerFlow(buffer=777))
    return hasher.hexdigest()


@pytest.mark.parametrize("end", [Partial.keep, kill])
@pytest.mark.parametrize("next_boot", ["one", "two"])
def test_what_is_not_verified_stays_and_is_in_place_for_nobody(tmp_path, monkeypatch, end, next_boot):
    boot(monkeypatch, "one")
    partial = open_partial(tmp_path)
    put_unverified(partial, PIECE, PIECE + 3_500)
    put_unverified(partial, 5 * PIECE, 6 * PIECE)
    assert (0, 0) == (partial.in_place, partial.unverified)
    end(partial)
    boot(monkeypatch, next_boot)
    again = open_partial(tmp_path)
    assert (0, 3_500 + PIECE) == (again.in_place, again.unverified)
    again.follow(WorkerFlow())
    assert 0 == again.offset
    (found,) = again.take_unverified(Chunk(PIECE, 3 * PIECE - 1))
    assert Chunk(PIECE, PIECE + 3_499) == found
    assert hashlib.sha256(DATA[PIECE : PIECE + 3_500]).hexdigest() == hashed(again, found)
    assert PIECE == again.unverified
    assert [] == again.take_unverified(Chunk(PIECE, 3 * PIECE - 1))
    again.keep()


def test_what_was_found_right_is_not_unverified_any_more(tmp_path):
    partial = open_partial(tmp_path)
    put_unverified(partial, 0, 2 * PIECE)
    partial.record(0, 2 * PIECE - 1)
    put_unverified(partial, 2 * PIECE, 2 * PIECE + 10)
    partial.keep()
    again = open_partial(tmp_path)
    assert (2 * PIECE, 10) == (again.in_place, again.unverified)
    again.keep()


def test_a_chunk_that_was_begun_again_has_come_as_far_as_its_second_time(tmp_path):
    partial = open_partial(tmp_path)
    put_unverified(partial, 0, 3 * PIECE, bytes(SIZE))
    put_unverified(partial, 0, PIECE)
    partial.keep()
    again = open_partial(tmp_path)
    assert [Chunk(0, PIECE - 1)] == again.take_unverified(Chunk(0, 4 * PIECE - 1))
    again.keep()


def test_what_is_behind_the_end_of_the_file_is_not_there(tmp_path):
    partial = open_partial(tmp_path)
    put(partial, 0, PIECE)
    put_unverified(partial, 2 * PIECE, 4 * PIECE)
    partial.keep()
    os.truncate(in_partial(tmp_path), 3 * PIECE)
    again = open_partial(tmp_path)
    assert (PIECE, PIECE) == (again.in_place, again.unverified)
    again.keep()


def test_rows_of_unverified_bytes_are_no_more_than_those_of_verified_ones(tmp_path):
    size = 64 * 1024 * 1024
    blob = Descriptor("sha256:" + 64 * "a", size)
    partial = open_partial(tmp_path, descriptor=blob)
    for end in range(100, 200_000, 100):
        partial.record_unverified(0, end - 1)
    partial.keep()
    text = (tmp_path / ".partial" / f"{blob.digest.file_name}.json").read_text()
    assert 150 <= len(text.splitlines()) <= 200  # of 1,024 bytes each, a 65,536th of the blob


def test_who_reads_an_older_state_finds_its_rows(tmp_path):
    """And an older release stops at the first line that it does not know: it has less, and nothing wrong."""
    partial = open_partial(tmp_path)
    put(partial, 0, PIECE)
    partial.keep()
    rows = [row for row in state(tmp_path) if row.startswith("[")]
    head = journal(tmp_path).read_text().splitlines()[0]
    journal(tmp_path).write_text("\n".join([head, *rows, ""]))
    assert PIECE == open_partial_and_close(tmp_path)


# -- a lock that somebody holds who does nothing


def test_the_progress_of_who_waits_is_that_of_who_is_at_it(tmp_path):
    holder = open_partial(tmp_path)
    figures: list[int] = []

    class Waiting(WorkerFlow):
        def wait(self, seconds: float, why: str = "") -> None:
            figures.append(self.counter.position)
            if len(figures) <= len(PIECES):
                start, end = PIECES[len(figures) - 1]
                put(holder, start, end)
            else:
                holder.commit(WorkerFlow())

    assert Directory(tmp_path, resume_threshold=1).ingest(DESCRIPTOR, flow=Waiting()) is None
    assert [0, *(end for _, end in PIECES)] == figures


def test_who_goes_on_by_himself_leaves_the_holders_files_alone_and_goes_on_with_his_own(tmp_path, monkeypatch):
    monkeypatch.setattr("transferkit.storage.lock.PATIENCE", 0.0)
    holder = open_partial(tmp_path)
    put(holder, 0, PIECE)
    directory = Directory(tmp_path, resume_threshold=1)
    mine = directory.ingest(DESCRIPTOR, flow=WorkerFlow())
    assert 0 == mine.in_place
    put(mine, 0, 2 * PIECE)
    mine.keep()
    monkeypatch.setattr("transferkit.storage.lock.PATIENCE", 1e9)
    mine = directory.ingest(DESCRIPTOR, flow=WorkerFlow())  # he is not waited for twice
    assert 2 * PIECE == mine.in_place
    put(mine, 2 * PIECE, SIZE)
    mine.commit(WorkerFlow())
    assert DATA == final_path(tmp_path).read_bytes()
    inode = final_path(tmp_path).stat().st_ino
    assert {f"{final_path(tmp_path).name}{ending}" for ending in ("", ".json", ".lock")} == names(tmp_path / ".partial")

    put(holder, PIECE, 3 * PIECE, bytes(SIZE))  # what he writes goes nowhere else
    assert DATA == final_path(tmp_path).read_bytes()
    put(holder, PIECE, SIZE)
    holder.restart()
    put(holder, 0, SIZE)
    holder.commit(WorkerFlow())
    assert DATA == final_path(tmp_path).read_bytes()
    assert inode != final_path(tmp_path).stat().st_ino
    assert set() == names(tmp_path / ".partial")


# -- file systems that make things up


class MadeUp(Disk):
    """What ``fstat`` says of an open file is not what ``lstat`` says of its name."""

    def __init__(self, **changes: int) -> None:
        self._changes = changes

    def fstat(self, fd: int) -> os.stat_result:
        real = os.fstat(fd)
        fields = {name: getattr(real, name) for name in dir(real) if name.startswith("st_")}
        return type("Status", (), {**fields, **self._changes})


@pytest.mark.parametrize("changes", [{"st_ino": 7, "st_dev": 7}, {"st_nlink": 0}, {"st_blocks": 0}, {"st_nlink": 1}])
@pytest.mark.parametrize("threshold", [1, 2**40])
def test_where_fstat_makes_things_up_the_content_is_right(tmp_path, changes, threshold):
    for _ in range(2):
        directory = Directory(tmp_path, disk=MadeUp(**changes), resume_threshold=threshold)
        ingest = directory.ingest(DESCRIPTOR, flow=WorkerFlow())
        put(ingest, 0, PIECE)
        ingest.keep()
        ingest = directory.ingest(DESCRIPTOR, flow=WorkerFlow())
        put(ingest, ingest.in_place, SIZE)
        ingest.commit(WorkerFlow())
        assert DATA == final_path(tmp_path).read_bytes()
        assert directory.ingest(DESCRIPTOR, flow=WorkerFlow()) is None
        directory.close()
        final_path(tmp_path).unlink()


# -- a disk that has gone away


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO])
@pytest.mark.parametrize("call", ["pwrite", "preadv", "write", "fstat", "lstat", "close", "rename", "fsync"])
def test_a_disk_that_was_unplugged_is_an_error_though_it_comes_back(tmp_path, monkeypatch, call, code):
    """Its descriptors stay dead. What was written before it went may be there, and may not."""
    monkeypatch.setattr(pace, "SYNC_EVERY", 4 * PIECE)
    gone = []
    disk = FailingDisk(lambda name, *_: bool(gone) and name == call, code)
    partial = open_partial(tmp_path, disk, durable=True)
    put(partial, 2 * PIECE, 3 * PIECE)
    gone.append(1)
    with pytest.raises(tk.StorageError) as caught:
        put(partial, 0, PIECE)
        put(partial, PIECE, 2 * PIECE)
        put(partial, 3 * PIECE, SIZE)
        partial.commit(WorkerFlow())
    assert code == caught.value.errno
    assert not final_path(tmp_path).exists()
    partial.keep()
    zeros = bytearray(in_partial(tmp_path).read_bytes())
    zeros[2 * PIECE : 3 * PIECE] = bytes(PIECE)
    in_partial(tmp_path).write_bytes(zeros)  # it was never written out
    again = open_partial(tmp_path)
    for chunk in missing(again):
        put(again, chunk.start, chunk.end + 1)
    with pytest.raises(tk.DigestMismatchError):
        again.commit(WorkerFlow())
    assert not final_path(tmp_path).exists()
