"""A folder of blobs: what is handed out is verified, what is stored is complete, whatever fails on the way."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Outcome
from transferkit.errors import (
    DigestMismatchError,
    OutOfSpaceError,
    ReadError,
    SizeMismatchError,
    SourceError,
    StorageError,
)
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk
from transferkit.transfer.flow import WorkerFlow

DATA = bytes(range(256)) * 4096  # 1 MiB


class Source:
    """A source in memory that may break, lie or refuse to resume."""

    def __init__(self, data: bytes, *, piece: int = 70_000, breaks_at: int | None = None, resumes: bool = True) -> None:
        self.data = data
        self.piece = piece
        self.breaks_at = breaks_at
        self.resumes = resumes
        self.offsets: list[int] = []

    def fetch(self, descriptor, *, offset=0, flow):
        self.offsets.append(offset)
        return _Body(self, offset if self.resumes else 0)


class _Body:
    def __init__(self, source: Source, offset: int) -> None:
        self.offset = offset
        self.length = len(source.data) - offset
        self._at = offset
        self._source = source

    def readinto(self, buffer):
        source = self._source
        if source.breaks_at is not None and self._at >= source.breaks_at:
            raise ReadError("the connection broke")
        block = source.data[self._at : self._at + min(source.piece, len(buffer))]
        buffer[: len(block)] = block
        self._at += len(block)
        return len(block)

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def descriptor_of(data: bytes) -> Descriptor:
    return Descriptor("sha256:" + hashlib.sha256(data).hexdigest(), len(data))


@pytest.fixture
def flow():
    flow = WorkerFlow()
    flow.counter.begin()
    return flow


def leftovers(folder: Path) -> list[str]:
    return sorted(os.listdir(folder / ".partial")) if (folder / ".partial").exists() else []


def test_content_is_stored_under_its_digest(tmp_path, flow):
    descriptor = descriptor_of(DATA)
    directory = Directory(tmp_path)

    assert Outcome.MOVED is directory.push(descriptor, Source(DATA), flow=flow)
    assert DATA == (tmp_path / descriptor.digest.file_name).read_bytes()
    assert len(DATA) == flow.counter.progress == flow.counter.traffic
    assert leftovers(tmp_path) == []
    assert Outcome.PRESENT is directory.push(descriptor, Source(b""), flow=flow)


@pytest.mark.parametrize("threshold", [1, 2**40])
@pytest.mark.parametrize("surplus", [1, 2 * len(DATA)])
def test_what_is_too_much_is_never_progress(tmp_path, threshold, surplus):
    """A bar may look at any moment, also in the one before the surplus is refused."""
    descriptor = descriptor_of(DATA)
    seen = []

    class Watched(WorkerFlow):
        def moved(self, count):
            super().moved(count)
            seen.append(self.counter.progress)

    flow = Watched()
    flow.counter.begin()
    with pytest.raises(SizeMismatchError):
        Directory(tmp_path, resume_threshold=threshold).push(descriptor, Source(DATA + surplus * b"X"), flow=flow)

    assert len(DATA) == max(seen)


@pytest.mark.parametrize("threshold", [1, 2**40])
@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (DATA[:-1], SizeMismatchError),
        (DATA + b"X", SizeMismatchError),
        (DATA + DATA, SizeMismatchError),
        (b"", SizeMismatchError),
        (b"X" + DATA[1:], DigestMismatchError),
    ],
)
def test_what_is_not_the_content_is_never_visible(tmp_path, flow, threshold, data, kind):
    descriptor = descriptor_of(DATA)
    directory = Directory(tmp_path, resume_threshold=threshold)

    with pytest.raises(kind):
        directory.push(descriptor, Source(data), flow=flow)

    assert [".partial"] == os.listdir(tmp_path)
    # What was too short or too long may be the beginning of the right content: the next attempt will see.
    keeps = kind is SizeMismatchError and threshold == 1
    assert keeps == (descriptor.digest.file_name in leftovers(tmp_path))
    assert flow.counter.progress == (min(len(data), len(DATA)) if keeps else 0)


@pytest.mark.parametrize("first", [DATA[:-1], DATA + b"X", b"X" + DATA[1:-1]])
def test_after_content_of_another_size_the_right_one_comes(tmp_path, flow, first):
    directory = Directory(tmp_path, resume_threshold=1)
    with pytest.raises(SizeMismatchError):
        directory.push(descriptor_of(DATA), Source(first), flow=flow)
    if first.startswith(b"X"):
        with pytest.raises(DigestMismatchError):
            directory.push(descriptor_of(DATA), Source(DATA), flow=WorkerFlow())
    again = WorkerFlow()
    directory.push(descriptor_of(DATA), Source(DATA), flow=again)

    assert DATA == (tmp_path / descriptor_of(DATA).digest.file_name).read_bytes()
    assert again.counter.traffic == {DATA[:-1]: 1, DATA + b"X": 0}.get(first, len(DATA))


def test_a_broken_small_attempt_leaves_nothing_and_counts_nothing(tmp_path, flow):
    with pytest.raises(ReadError):
        Directory(tmp_path).push(descriptor_of(DATA), Source(DATA, breaks_at=500_000), flow=flow)

    assert leftovers(tmp_path) == []
    assert 0 == flow.counter.progress
    assert 490_000 <= flow.counter.traffic <= 560_000


def test_a_broken_large_attempt_is_continued_by_the_next(tmp_path, flow):
    descriptor = descriptor_of(DATA)
    directory = Directory(tmp_path, resume_threshold=1)
    with pytest.raises(ReadError):
        directory.push(descriptor, Source(DATA, breaks_at=500_000), flow=flow)
    kept = flow.counter.progress
    assert kept == (tmp_path / ".partial" / descriptor.digest.file_name).stat().st_size > 250_000
    source = Source(DATA)

    assert Outcome.MOVED is directory.push(descriptor, source, flow=flow)
    assert [kept] == source.offsets
    assert len(DATA) == flow.counter.progress
    assert leftovers(tmp_path) == []


def test_a_source_that_cannot_resume_starts_again(tmp_path, flow):
    descriptor = descriptor_of(DATA)
    directory = Directory(tmp_path, resume_threshold=1)
    with pytest.raises(ReadError):
        directory.push(descriptor, Source(DATA, breaks_at=500_000), flow=flow)

    directory.push(descriptor, Source(DATA, resumes=False), flow=flow)

    assert DATA == (tmp_path / descriptor.digest.file_name).read_bytes()
    assert len(DATA) == flow.counter.progress


class FailingDisk(Disk):
    """A disk on which one kind of call fails, from the n-th on."""

    def __init__(self, call: str, code: int = errno.EIO, first: int = 1) -> None:
        self.armed = False
        self.calls = 0
        real = getattr(Disk, call)

        def failing(*arguments):
            if self.armed:
                self.calls += 1
                if self.calls >= first:
                    raise OSError(code, os.strerror(code))
            return real(self, *arguments)

        setattr(self, call, failing)


@pytest.mark.parametrize("threshold", [1, 2**40])
@pytest.mark.parametrize("call", ["create", "pwrite", "fstat", "close", "rename", "fsync", "sync_folder"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES])
def test_whatever_call_fails_nothing_wrong_is_visible(tmp_path, flow, threshold, call, code):
    if call == "create" and threshold == 1:
        call = "reopen"
    disk = FailingDisk(call, code)
    directory = Directory(tmp_path, resume_threshold=threshold, disk=disk, durable=True)
    descriptor = descriptor_of(DATA)
    disk.armed = True

    kind = OutOfSpaceError if code in (errno.ENOSPC, errno.EDQUOT) else StorageError
    with pytest.raises(kind) as caught:
        directory.push(descriptor, Source(DATA), flow=flow)
    disk.armed = False

    assert code == caught.value.errno
    final = tmp_path / descriptor.digest.file_name
    # After the rename only the folder's sync can fail, and then the content is whole.
    assert not final.exists() or (call == "sync_folder" and DATA == final.read_bytes())
    directory.push(descriptor, Source(DATA), flow=flow)
    assert DATA == final.read_bytes()


def test_a_folder_for_partial_files_that_vanishes_is_made_again(tmp_path, flow):
    directory = Directory(tmp_path)
    directory.prepare()
    (tmp_path / ".partial").rmdir()

    directory.push(descriptor_of(DATA), Source(DATA), flow=flow)

    assert DATA == (tmp_path / descriptor_of(DATA).digest.file_name).read_bytes()


def test_reading_verifies_before_the_last_byte(tmp_path, flow):
    descriptor = descriptor_of(DATA)
    (tmp_path / descriptor.digest.file_name).write_bytes(DATA[:-1] + b"X")
    directory = Directory(tmp_path)
    handed_out = 0

    with directory.fetch(descriptor, flow=flow) as body, pytest.raises(SourceError, match="does not match"):
        while count := body.readinto(flow.buffer):
            handed_out += count

    assert handed_out < len(DATA)


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path, flow):
    descriptor = descriptor_of(DATA)
    path = tmp_path / descriptor.digest.file_name
    path.write_bytes(DATA)
    with Directory(tmp_path).fetch(descriptor, flow=flow) as body:
        body.readinto(flow.buffer)
        os.truncate(path, 10)
        with pytest.raises(SourceError, match="became shorter"):
            body.readinto(flow.buffer)


def test_a_file_that_vanishes_is_an_error(tmp_path, flow, monkeypatch):
    descriptor = descriptor_of(DATA)
    directory = Directory(tmp_path)
    monkeypatch.setattr(directory, "check_source", lambda _: None)

    with pytest.raises(SourceError, match="cannot be read"):
        directory.fetch(descriptor, flow=flow)


def test_zero_bytes_under_a_wrong_digest_do_not_exist(tmp_path, flow):
    liar = Descriptor("sha256:" + 64 * "a", 0)
    (tmp_path / liar.digest.file_name).write_bytes(b"")

    assert not Directory(tmp_path).exists(liar, flow=flow)
    with pytest.raises(DigestMismatchError):
        Directory(tmp_path).push(liar, Source(b""), flow=flow)


def test_a_folder_under_the_name_of_a_blob_is_no_blob(tmp_path, flow):
    descriptor = descriptor_of(DATA)
    (tmp_path / descriptor.digest.file_name).mkdir()
    directory = Directory(tmp_path)

    assert not directory.exists(descriptor, flow=flow)
    with pytest.raises(SourceError, match="is not a file"):
        directory.check_source(descriptor)
    with pytest.raises(StorageError):
        directory.push(descriptor, Source(DATA), flow=flow)


def test_the_repr_names_the_folder(tmp_path):
    assert f"<Directory {tmp_path}>" == repr(Directory(tmp_path))


@pytest.mark.parametrize("name", ["verified", "state"])
def test_a_named_pipe_in_the_place_of_a_file_of_ours_is_not_waited_for(tmp_path, flow, name):
    descriptor = descriptor_of(DATA)
    (tmp_path / ".partial").mkdir()
    os.mkfifo(tmp_path / ".partial" / (name if name == "verified" else f"{descriptor.digest.file_name}.json"))
    directory = Directory(tmp_path, resume_threshold=1)

    assert not directory.knows(descriptor)
    assert 0 == directory.received(descriptor)


def test_a_partial_file_with_a_second_name_is_not_written_to(tmp_path, flow):
    descriptor = descriptor_of(DATA)
    directory = Directory(tmp_path, resume_threshold=1)
    with pytest.raises(ReadError):
        directory.push(descriptor, Source(DATA, breaks_at=500_000), flow=flow)
    partial = tmp_path / ".partial" / descriptor.digest.file_name
    precious = tmp_path / "precious"
    precious.write_bytes(b"keep me" * 100_000)
    partial.unlink()
    os.link(precious, partial)

    directory.push(descriptor, Source(DATA), flow=flow)

    assert b"keep me" * 100_000 == precious.read_bytes()
    assert DATA == (tmp_path / descriptor.digest.file_name).read_bytes()
