"""Ranges in files of their own: filled by several at once, complete or not there, and a blob when all have come."""

from __future__ import annotations

import errno
import os
import random
import threading
from contextlib import closing
from pathlib import Path

import pytest

import transferkit as tk
from tests.unit.storage.suite import DATA, FailingDisk, descriptor_of, files, fill, nothing_left_open, store
from tests.unit.storage.volatile import Loss, VolatileDisk
from transferkit.content.blob_range import BlobRange
from transferkit.content.chunk import Chunk
from transferkit.storage import pace
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk
from transferkit.storage.range_files import RangeFiles, RangeStore
from transferkit.transfer.flow import WorkerFlow

BLOB = descriptor_of(DATA)
NAME = BLOB.digest.file_name
CUTS = [(0, 9_999), (10_000, 10_000), (10_001, len(DATA) - 1)]
PIECES = [BlobRange(BLOB, Chunk(start, end)) for start, end in CUTS]


def opened(folder: Path, disk: Disk | None = None, *, durable: bool = False) -> Directory:
    return Directory(folder, disk=disk, resume_threshold=1, durable=durable)


def bring(directory: Directory, piece: BlobRange, data: bytes = DATA) -> None:
    store(RangeStore(directory), data[piece.chunk.start : piece.chunk.end + 1], piece.unit)


def read(source: RangeFiles, offset: int = 0, *, step: int = 777) -> bytes:
    found, buffer = bytearray(), memoryview(bytearray(step))
    with source.fetch(BLOB, offset=offset, flow=WorkerFlow()) as body:
        assert (offset, len(DATA) - offset) == (body.offset, body.length)
        while count := body.readinto(buffer):
            found += buffer[:count]
    return bytes(found)


def test_ranges_make_a_blob_when_all_of_them_have_come(tmp_path: Path) -> None:
    directory = opened(tmp_path)
    with nothing_left_open(directory):
        for piece in reversed(PIECES):
            with RangeFiles(directory) as source:
                assert not source.have(BLOB)
            assert not RangeStore(directory).has(piece)
            bring(directory, piece)
            assert RangeStore(directory).has(piece)
            assert RangeStore(directory).ingest(piece.unit, flow=WorkerFlow()) is None
        with RangeFiles(directory) as source:
            assert source.have(BLOB)
            assert [DATA, DATA[10_000:], DATA[12_345:]] == [read(source, offset) for offset in (0, 10_000, 12_345)]
            buffer = memoryview(bytearray(50_000))
            with source.fetch_range(BLOB, Chunk(9_990, 10_000), flow=WorkerFlow()) as body:
                assert (9_990, 11) == (body.offset, body.length)
                counts = [body.readinto(buffer) for _ in range(3)]
            assert [10, 1, 0] == counts
            source.remove(BLOB)
            source.remove(BLOB)
    assert set() == files(tmp_path)


def test_a_range_is_held_to_its_size(tmp_path: Path) -> None:
    directory = opened(tmp_path)
    ingest = RangeStore(directory).ingest(PIECES[0].unit, flow=WorkerFlow())
    assert ingest is not None
    fill(ingest, DATA[:10_000], 5_000)
    with pytest.raises(tk.SizeMismatchError, match="incomplete: received 5000/10000 bytes"):
        ingest.commit(WorkerFlow())
    with pytest.raises(tk.SizeMismatchError, match="more than the 10000 bytes"):
        fill_more(directory)
    assert not RangeStore(directory).has(PIECES[0])


def fill_more(directory: Directory) -> None:
    ingest = RangeStore(directory).ingest(PIECES[0].unit, flow=WorkerFlow())
    assert ingest is not None
    try:
        ingest.write_at(9_999, memoryview(b"xx"))
    finally:
        ingest.keep()


def test_what_was_begun_goes_on_and_what_was_begun_of_another_range_does_not(tmp_path: Path) -> None:
    directory = opened(tmp_path)
    ingest = RangeStore(directory).ingest(PIECES[0].unit, flow=WorkerFlow())
    assert ingest is not None
    fill(ingest, DATA[:10_000], 6_000)
    ingest.keep()
    assert {f"{NAME}.at.{0:016x}.part", f"{NAME}.at.{0:016x}.part.json", f"{NAME}.at.{0:016x}.part.lock"} >= files(
        tmp_path
    )

    again = RangeStore(directory).ingest(PIECES[0].unit, flow=WorkerFlow())
    assert again is not None
    assert (6_000, [Chunk(6_000, 9_999)]) == (again.offset or again.in_place, again.missing_in(Chunk(0, 9_999)))
    again.keep()
    longer = RangeStore(directory).ingest(BlobRange(BLOB, Chunk(0, 19_999)).unit, flow=WorkerFlow())
    assert longer is not None
    assert 0 == longer.in_place
    longer.abort()
    assert set() == files(tmp_path)


def test_a_range_that_is_begun_anew_has_nothing_in_place(tmp_path: Path) -> None:
    directory = opened(tmp_path)
    ingest = RangeStore(directory).ingest(PIECES[0].unit, flow=WorkerFlow())
    assert ingest is not None
    fill(ingest, bytes(10_000), 6_000)
    ingest.restart()
    fill(ingest, DATA[:10_000])
    ingest.commit(WorkerFlow())

    assert DATA[:10_000] == (tmp_path / ".partial" / f"{NAME}.at.{0:016x}").read_bytes()


def test_who_comes_second_waits_and_finds_the_range(tmp_path: Path) -> None:
    first = RangeStore(opened(tmp_path)).ingest(PIECES[0].unit, flow=WorkerFlow())
    assert first is not None
    found: list[object] = []
    second = threading.Thread(
        target=lambda: found.append(RangeStore(opened(tmp_path)).ingest(PIECES[0].unit, flow=WorkerFlow()))
    )
    second.start()
    bring(opened(tmp_path), PIECES[1])  # another range is nobody else's
    assert [] == found
    fill(first, DATA[:10_000])
    first.commit(WorkerFlow())
    second.join(30)
    assert [None] == found


def test_what_is_no_range_is_not_read(tmp_path: Path) -> None:
    directory = opened(tmp_path)
    for piece in PIECES[:2]:
        bring(directory, piece)
    partial = tmp_path / ".partial"
    (partial / f"{NAME}.at.{10_001:016x}").symlink_to(partial / f"{NAME}.at.{0:016x}")
    (partial / f"{NAME}.at.{10_001:x}").write_bytes(DATA[10_001:])
    (partial / f"{NAME}.at.{10_000:016x}.part").write_bytes(DATA[10_000:])
    with RangeFiles(directory) as source:
        assert not source.have(BLOB)
    (partial / f"{NAME}.at.{10_001:016x}").unlink()
    (partial / f"{NAME}.at.{10_001:016x}").write_bytes(DATA[10_001:] + b"more")
    with RangeFiles(directory) as source:
        assert not source.have(BLOB)


def test_a_folder_without_ranges_has_none(tmp_path: Path) -> None:
    with RangeFiles(opened(tmp_path / "nowhere")) as source:
        assert not source.have(BLOB)
        assert source.have(descriptor_of(b""))
        with pytest.raises(tk.SourceError, match="cannot be opened"):
            source.fetch(descriptor_of(b""), flow=WorkerFlow())
        source.remove(BLOB)
    assert [] == os.listdir(tmp_path)


def test_a_range_that_goes_away_or_shrinks_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    directory = opened(tmp_path)
    for piece in PIECES:
        bring(directory, piece)
    first, last = (tmp_path / ".partial" / f"{NAME}.at.{start:016x}" for start in (0, 10_001))
    with RangeFiles(directory) as source:
        assert source.have(BLOB)
        os.truncate(last, 5)
        with pytest.raises(tk.SourceError, match="became shorter while it was read"):
            read(source)
        first.unlink()
        with pytest.raises(tk.SourceError, match="cannot be read: No such file"):
            read(source)


def test_leftovers_are_listed_and_discarded(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as directory:
        bring(directory, PIECES[0])
        ingest = RangeStore(directory).ingest(PIECES[2].unit, flow=WorkerFlow())
        assert ingest is not None
        fill(ingest, DATA[10_001:], 5_000)
        ingest.keep()
        assert [] == tk.discard(tmp_path, older_than=0)  # somebody may be at it

    assert [BLOB.digest, BLOB.digest] == [partial.digest for partial in tk.partials(tmp_path)]
    assert 2 == len(tk.discard(tmp_path, older_than=0))
    assert set() == {name for name in files(tmp_path) if not name.endswith(".lock")}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("at", range(1, 60))
def test_whatever_call_fails_a_range_is_complete_or_not_there_and_the_next_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, code: int
) -> None:
    """A disk that does nothing any more leaves what a process leaves that is killed."""
    monkeypatch.setattr(pace, "SYNC_EVERY", 8_000)
    piece, path = PIECES[2], tmp_path / ".partial" / f"{NAME}.at.{10_001:016x}"
    disk = FailingDisk(lambda name, count, total: total >= at, code)
    failed = False
    try:
        bring(opened(tmp_path, disk), piece)
    except tk.StorageError:
        failed = True
    assert failed or path.exists()
    assert not path.exists() or DATA[10_001:] == path.read_bytes()
    assert not (tmp_path / NAME).exists()

    bring(opened(tmp_path), piece)
    assert DATA[10_001:] == path.read_bytes()


@pytest.mark.parametrize("loss", ["names", "data", "order"])
@pytest.mark.parametrize("seed", range(6))
def test_a_complete_range_survives_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: Loss, seed: int
) -> None:
    monkeypatch.setattr(pace, "SYNC_EVERY", random.Random(seed).choice([3_000, 10_000, 10**6]))
    monkeypatch.setattr(Disk, "boot", "one")
    disk, folder = VolatileDisk(), tmp_path / "d"
    directory = opened(folder, disk)
    directory.open_unfinished()
    for piece in PIECES[:2]:
        bring(directory, piece)
    ingest = RangeStore(directory).ingest(PIECES[2].unit, flow=WorkerFlow())
    assert ingest is not None
    fill(ingest, DATA[10_001:], 9_000 + seed)
    disk.cut(folder, loss)

    monkeypatch.setattr(Disk, "boot", "two")
    directory = opened(folder, disk)
    assert all(RangeStore(directory).has(piece) for piece in PIECES[:2])
    bring(directory, PIECES[2])
    with RangeFiles(directory) as source:
        assert source.have(BLOB)
        assert DATA == read(source)
