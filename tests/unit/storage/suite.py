"""What every target on disk promises of an ingest: one suite, run over each kind of store.

A test module makes a class of it, with a fixture ``kind``. ``fill`` and ``FailingDisk`` are for the other tests too.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import transferkit as tk
from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.interfaces import Ingest, Ingester
from transferkit.storage import pace
from transferkit.storage.disk import Disk
from transferkit.storage.index import FLAT
from transferkit.transfer.flow import WorkerFlow

DATA = random.Random(3).randbytes(40_000)
HALF = len(DATA) // 2
PIECE = 3_000
CALLS = sorted(name for name in vars(Disk) if not name.startswith("_") and name != "boot")

FULL = os.environ.get("TRANSFERKIT_TEST_FULL") == "1"


def descriptor_of(data: bytes) -> Descriptor:
    return Descriptor("sha256:" + hashlib.sha256(data).hexdigest(), len(data))


BLOB = descriptor_of(DATA)


def fill(ingest: Ingest, data: bytes, until: int | None = None) -> None:
    """Write ``data`` into an ingest, from where it is to ``until``, as one stream."""
    ingest.follow(WorkerFlow())
    for start in range(ingest.offset, len(data) if until is None else until, PIECE):
        piece = memoryview(data)[start : min(start + PIECE, len(data) if until is None else until)]
        ingest.write_at(start, piece)
        ingest.record(start, start + len(piece) - 1)


def store(target: Ingester, data: bytes, descriptor: Descriptor | None = None) -> None:
    """Make one attempt to bring ``data`` to a target; what arrived of it is kept."""
    ingest = target.ingest(descriptor or descriptor_of(data), flow=WorkerFlow())
    if ingest is not None:
        try:
            fill(ingest, data)
            ingest.commit(WorkerFlow())
        finally:
            ingest.keep()


def files(folder: Path) -> set[str]:
    """Return the names of all files in a folder, without the list of what is verified."""
    return {path.name for path in folder.rglob("*") if not path.is_dir()} - {"verified"}


def is_stored(folder: Path, data: bytes = DATA) -> bool:
    """Tell whether the content is visible; whatever is visible is right."""
    path = folder / descriptor_of(data).digest.file_name
    if not path.exists():
        return False
    assert data == path.read_bytes()
    return True


@contextmanager
def nothing_left_open(*targets: Any) -> Iterator[None]:
    """See that no descriptor is left once the targets are closed."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    for target in targets:
        target.close()
    assert set(os.listdir("/proc/self/fd")) <= before


class FailingDisk(Disk):
    """A disk on which the calls fail that ``fails`` (the name, how many of that name and of all there were) tells."""

    def __init__(self, fails: Callable[[str, int, int], bool], code: int = errno.EIO) -> None:
        self.counts = dict.fromkeys(CALLS, 0)
        self.failed = 0
        for name in CALLS:
            setattr(self, name, self._wrap(name, getattr(self, name), fails, code))

    def _wrap(self, name: str, real: Any, fails: Callable[[str, int, int], bool], code: int) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            self.counts[name] += 1
            if fails(name, self.counts[name], sum(self.counts.values())):
                self.failed += 1
                if name == "close":
                    real(*arguments, **keywords)  # as Linux does: the descriptor is gone, whatever close says
                raise OSError(code, os.strerror(code))
            return real(*arguments, **keywords)

        return call


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A store, and what blobs of one size can expect of it."""

    name: str
    open: Callable[..., Ingester]
    """With a folder and, as ``disk=``, a disk."""
    resumes: bool
    """Whether what was kept is continued."""
    blobs: str = ""
    """The folder of the blobs, in that of the store."""
    names: Callable[[Digest], str] = FLAT
    """How a blob's file is called in there."""

    def path(self, folder: Path, digest: Digest) -> Path:
        return folder / self.blobs / self.names(digest)

    def write(self, folder: Path, digest: Digest, data: bytes) -> None:
        """Put content under a blob's name, as somebody else might."""
        self.path(folder, digest).parent.mkdir(parents=True, exist_ok=True)
        self.path(folder, digest).write_bytes(data)

    def unfinished(self, folder: Path) -> Path:
        return folder / self.blobs / ".partial"

    def is_stored(self, folder: Path, data: bytes = DATA) -> bool:
        """Tell whether the content is visible; whatever is visible is right."""
        path = self.path(folder, descriptor_of(data).digest)
        if not path.exists():
            return False
        assert data == path.read_bytes()
        return True

    def files(self, folder: Path) -> set[str]:
        """Return the paths of all files below the blobs, without the list of what is verified."""
        blobs = folder / self.blobs
        return {str(path.relative_to(blobs)) for path in blobs.rglob("*") if not path.is_dir()} - {".partial/verified"}


class TargetSuite:
    """The promises. A subclass has a fixture ``kind``."""

    kind: Kind

    @pytest.fixture(autouse=True)
    def set_kind(self, kind: Kind) -> None:
        self.kind = kind

    @pytest.fixture
    def target(self, kind: Kind, tmp_path: Path) -> Ingester:
        return kind.open(tmp_path)

    @pytest.fixture
    def ingest(self, target: Ingester) -> Iterator[Ingest]:
        ingest = target.ingest(BLOB, flow=WorkerFlow())
        assert ingest is not None
        assert BLOB == ingest.descriptor
        yield ingest
        ingest.abort()

    # -- the way of content that is right

    def test_content_is_visible_after_its_commit_and_not_before(self, target, tmp_path):
        with nothing_left_open(target):
            ingest = target.ingest(BLOB, flow=WorkerFlow())
            fill(ingest, DATA)
            assert not self.kind.is_stored(tmp_path)
            ingest.commit(WorkerFlow())
        assert self.kind.is_stored(tmp_path)
        assert {self.kind.names(BLOB.digest)} == self.kind.files(tmp_path)

    def test_what_is_there_is_not_ingested_again(self, target, kind, tmp_path):
        store(target, DATA)
        assert target.ingest(BLOB, flow=WorkerFlow()) is None
        assert kind.open(tmp_path).ingest(BLOB, flow=WorkerFlow()) is None

    def test_empty_content_is_content(self, target, tmp_path):
        store(target, b"")
        assert self.kind.is_stored(tmp_path, b"")
        assert target.ingest(descriptor_of(b""), flow=WorkerFlow()) is None

    def test_it_tells_what_is_in_place_and_what_is_missing(self, ingest):
        last = len(DATA) - 1
        assert (0, 0, [Chunk(0, last)]) == (ingest.offset, ingest.in_place, ingest.missing_in(Chunk(0, last)))
        fill(ingest, DATA, HALF)
        assert (HALF, HALF) == (ingest.offset, ingest.in_place)
        assert [Chunk(HALF, last)] == ingest.missing_in(Chunk(0, last))
        assert [Chunk(last, last)] == ingest.missing_in(Chunk(last, last))
        assert [] == ingest.missing_in(Chunk(5, HALF - 1))

    def test_it_can_begin_again(self, ingest, tmp_path):
        fill(ingest, bytes(HALF))
        ingest.restart()
        assert (0, 0) == (ingest.offset, ingest.in_place)
        fill(ingest, DATA)
        ingest.commit(WorkerFlow())
        assert self.kind.is_stored(tmp_path)

    def test_two_at_once_end_in_one_right_content(self, kind, tmp_path):
        errors: list[BaseException] = []

        def work() -> None:
            try:
                for _ in range(5):
                    store(kind.open(tmp_path), DATA)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        with nothing_left_open():
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert errors == []
        assert self.kind.is_stored(tmp_path)
        assert {self.kind.names(BLOB.digest)} == self.kind.files(tmp_path)

    # -- content that is not right

    def test_another_content_is_removed(self, target, kind, tmp_path):
        with nothing_left_open(target), pytest.raises(tk.DigestMismatchError):
            store(target, b"X" + DATA[1:], BLOB)
        assert set() == self.kind.files(tmp_path)
        store(target, DATA)
        assert self.kind.is_stored(tmp_path)

    def test_zero_bytes_are_not_the_content_of_another_digest(self, target, tmp_path):
        liar = Descriptor("sha256:" + 64 * "a", 0)
        with pytest.raises(tk.DigestMismatchError):
            store(target, b"", liar)
        self.kind.write(tmp_path, liar.digest, b"")
        ingest = target.ingest(liar, flow=WorkerFlow())
        assert ingest is not None
        ingest.abort()

    def test_content_that_is_too_short_is_kept_for_the_next_run(self, target, kind, tmp_path):
        with (
            nothing_left_open(target),
            pytest.raises(tk.SizeMismatchError, match=f"incomplete: received {HALF}/{len(DATA)} bytes"),
        ):
            store(target, DATA[:HALF], BLOB)
        assert not self.kind.is_stored(tmp_path)
        self.assert_continues(kind, tmp_path)

    def test_the_surplus_is_not_written(self, ingest, tmp_path):
        fill(ingest, DATA)
        with pytest.raises(tk.SizeMismatchError, match=f"more than the {len(DATA)} bytes"):
            ingest.write_at(len(DATA), memoryview(b"X"))
        ingest.commit(WorkerFlow())
        assert self.kind.is_stored(tmp_path)

    def test_a_file_under_its_name_that_is_wrong_is_replaced(self, target, tmp_path):
        self.kind.write(tmp_path, BLOB.digest, bytes(len(DATA)))
        store(target, DATA)
        assert self.kind.is_stored(tmp_path)

    def test_a_file_under_its_name_that_is_right_is_believed_once_it_was_read(self, target, tmp_path):
        self.kind.write(tmp_path, BLOB.digest, DATA)
        assert target.ingest(BLOB, flow=WorkerFlow()) is None

    # -- other ends

    def assert_continues(self, kind: Kind, folder: Path, at: int = HALF) -> None:
        """What was kept is continued where the kind can, else nothing is left of it."""
        ingest = kind.open(folder).ingest(BLOB, flow=WorkerFlow())
        assert ingest is not None
        ingest.follow(WorkerFlow())
        assert (at if kind.resumes else 0) == ingest.offset == ingest.in_place
        fill(ingest, DATA)
        ingest.commit(WorkerFlow())
        assert self.kind.is_stored(folder)
        assert {self.kind.names(BLOB.digest)} == self.kind.files(folder)

    def test_what_is_kept_is_continued(self, target, kind, tmp_path):
        with nothing_left_open(target):
            ingest = target.ingest(BLOB, flow=WorkerFlow())
            fill(ingest, DATA, HALF)
            ingest.keep()
        assert (HALF if kind.resumes else 0) == ingest.offset == ingest.in_place
        assert kind.resumes == bool(self.kind.files(tmp_path))
        self.assert_continues(kind, tmp_path)

    def test_what_is_aborted_is_gone(self, target, tmp_path):
        with nothing_left_open(target):
            ingest = target.ingest(BLOB, flow=WorkerFlow())
            fill(ingest, DATA)
            ingest.abort()
        assert set() == self.kind.files(tmp_path)

    @pytest.mark.parametrize("first", ["commit", "keep", "abort"])
    def test_closing_again_changes_nothing(self, target, kind, tmp_path, first):
        ingest = target.ingest(BLOB, flow=WorkerFlow())
        fill(ingest, DATA)
        ingest.commit(WorkerFlow()) if first == "commit" else getattr(ingest, first)()
        left = self.kind.files(tmp_path)
        for again in ("keep", "abort", "abort", "keep"):
            getattr(ingest, again)()
        assert left == self.kind.files(tmp_path)
        assert self.kind.is_stored(tmp_path) == (first == "commit")

    # -- what others do to the files

    @pytest.mark.parametrize("again", ["nothing", "folder"])
    def test_where_the_unfinished_files_are_taken_away_it_begins_again(self, target, tmp_path, again):
        with (
            nothing_left_open(target),
            pytest.raises(tk.VerificationError, match="moved, removed or replaced") as caught,
        ):
            ingest = target.ingest(BLOB, flow=WorkerFlow())
            fill(ingest, DATA)
            shutil.rmtree(self.kind.unfinished(tmp_path))
            if again == "folder":
                self.kind.unfinished(tmp_path).mkdir()
            ingest.commit(WorkerFlow())
        assert caught.value.retryable
        assert not self.kind.is_stored(tmp_path)
        store(target, DATA)
        assert self.kind.is_stored(tmp_path)

    # -- failing disks

    @pytest.mark.parametrize("first", [1, 2, 5])
    @pytest.mark.parametrize("call", CALLS)
    def test_whatever_call_fails_nothing_wrong_is_visible(self, kind, tmp_path, monkeypatch, call, first):
        monkeypatch.setattr(pace, "SYNC_EVERY", 10_000)
        store(kind.open(tmp_path), b"something else")
        disk = FailingDisk(lambda name, count, _: name == call and count >= first, errno.ENOSPC)
        failed = False
        with nothing_left_open():
            try:
                store(kind.open(tmp_path, disk=disk), DATA)
            except tk.OutOfSpaceError:
                failed = True
        # After the rename only the syncing of the folder can fail, and then the content is whole.
        assert failed != self.kind.is_stored(tmp_path) or call == "sync_folder"
        assert disk.failed or not failed
        store(kind.open(tmp_path), DATA)
        assert self.kind.is_stored(tmp_path)
        assert {
            self.kind.names(BLOB.digest),
            self.kind.names(descriptor_of(b"something else").digest),
        } == self.kind.files(tmp_path)

    @settings(max_examples=300 if FULL else 40, deadline=None)
    @given(data=st.data())
    def test_after_a_crash_at_any_point_it_is_absent_or_complete(self, kind, data):
        """A disk that does nothing any more leaves what a process leaves that is killed."""
        crash = data.draw(st.integers(1, 75))
        keeps = data.draw(st.booleans())
        with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch, nothing_left_open():
            patch.setattr(pace, "SYNC_EVERY", 10_000)
            folder = Path(name)
            if keeps:
                ingest = kind.open(folder).ingest(BLOB, flow=WorkerFlow())
                fill(ingest, DATA, HALF)
                ingest.keep()
                del ingest  # it has the folder open
            try:
                store(kind.open(folder, disk=FailingDisk(lambda _, __, count: count >= crash)), DATA)
            except tk.StorageError:
                pass
            self.kind.is_stored(folder)
            store(kind.open(folder), DATA)
            assert self.kind.is_stored(folder)


CHANGES = ("size", "time", "inode", "in place")


def change_file(file: Path, how: str) -> None:
    """Change a file of b"12345" in one of the ``CHANGES``, and leave all else of it as it was."""
    before = file.stat()
    if how == "size":
        with file.open("ab") as opened:
            opened.write(b"6")
    elif how == "inode":
        copy = file.with_name("copy")
        copy.write_bytes(b"12345")
        os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
        copy.replace(file)
    elif how == "in place":  # with its time put back; only the kernel's own time tells
        with file.open("r+b") as opened:
            opened.write(b"X")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + (how == "time")))
