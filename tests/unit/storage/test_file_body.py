"""A blob's file on its way out: read from anywhere, hashed once, and given up where it changes."""

from __future__ import annotations

import errno
import hashlib
import os

import pytest

from tests.descriptors import open_descriptors
from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Local, Seekable, Shared
from transferkit.errors import CancelledError, SourceError, StorageError
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk
from transferkit.transfer.flow import WorkerFlow

DATA = bytes(range(256)) * 4096  # 1 MiB
DESCRIPTOR = Descriptor("sha256:" + hashlib.sha256(DATA).hexdigest(), len(DATA))


class CountingDisk(Disk):
    def __init__(self) -> None:
        self.read: list[tuple[int, int]] = []

    def preadv(self, fd, buffer, offset):
        count = super().preadv(fd, buffer, offset)
        self.read.append((offset, count))
        return count


@pytest.fixture
def flow():
    flow = WorkerFlow()
    flow.counter.next_unit()
    return flow


@pytest.fixture
def path(tmp_path):
    path = tmp_path / DESCRIPTOR.digest.file_name
    path.write_bytes(DATA)
    return path


def known(path, flow, disk=None) -> Directory:
    """A directory that remembers from an earlier run that the file is right."""
    directory = Directory(path.parent)
    assert directory.exists(DESCRIPTOR, flow=flow)
    directory.close()
    return Directory(path.parent, disk=disk)


def rest_of(body, flow) -> bytes:
    data = bytearray()
    while count := body.readinto(flow.buffer):
        data += flow.buffer[:count]
    return bytes(data)


@pytest.mark.parametrize("offset", [0, 1, 300_000, len(DATA) - 1, len(DATA)])
@pytest.mark.parametrize("verified", [True, False])
def test_it_begins_where_it_was_asked_to(path, flow, offset, verified):
    directory = known(path, flow) if verified else Directory(path.parent)
    with directory.fetch(DESCRIPTOR, offset=offset, flow=flow) as body:
        assert (offset, len(DATA) - offset) == (body.offset, body.length)
        assert DATA[offset:] == rest_of(body, flow)


def test_what_is_verified_is_read_from_there_alone(path, flow):
    disk = CountingDisk()
    with known(path, flow, disk).fetch(DESCRIPTOR, offset=1_000_000, flow=flow) as body:
        rest_of(body, flow)
    assert [(1_000_000, 48_576)] == disk.read


def test_what_is_not_verified_is_hashed_from_its_beginning(path, flow):
    path.write_bytes(b"X" + DATA[1:])
    with Directory(path.parent).fetch(DESCRIPTOR, offset=1_000_000, flow=flow) as body:
        with pytest.raises(SourceError, match="does not match its digest"):
            body.readinto(flow.buffer)


def test_a_wrong_file_is_found_out_also_where_only_its_beginning_is_hashed(path, flow):
    path.write_bytes(DATA[:-1] + b"X")
    with pytest.raises(SourceError, match="does not match its digest"):
        Directory(path.parent).fetch(DESCRIPTOR, offset=len(DATA), flow=flow)


def test_going_back_reads_again_and_hashes_nothing_twice(path, flow):
    disk = CountingDisk()
    with Directory(path.parent, disk=disk).fetch(DESCRIPTOR, flow=flow) as body:
        for offset in (600_000, 100_000, 0):
            body.seek(offset, flow=flow)
            assert DATA[offset : offset + 10] == bytes(flow.buffer[: body.readinto(flow.buffer[:10])])
        body.seek(500_000, flow=flow)
        assert DATA[500_000:] == rest_of(body, flow)
        body.seek(1_000_000, flow=flow)
        assert DATA[1_000_000:] == rest_of(body, flow)
        assert b"" == rest_of(body, flow)


def test_hashing_what_lies_before_can_be_cancelled(path, flow):
    flow.cut(CancelledError("enough"), final=True)
    files = len(open_descriptors())
    with pytest.raises(CancelledError):
        Directory(path.parent).fetch(DESCRIPTOR, offset=900_000, flow=flow)
    assert files == len(open_descriptors())


@pytest.mark.parametrize("verified", [True, False])
def test_a_file_that_is_touched_is_not_handed_out_to_its_end(path, flow, verified):
    directory = known(path, flow) if verified else Directory(path.parent)
    with directory.fetch(DESCRIPTOR, flow=flow) as body:
        body.readinto(flow.buffer)
        os.utime(path, ns=(1, 1))
        with pytest.raises(SourceError, match="changed while it was read"):
            rest_of(body, flow)


def test_only_a_verified_file_is_for_the_kernel(path, flow):
    with Directory(path.parent).fetch(DESCRIPTOR, flow=flow) as body:
        assert isinstance(body, Seekable)
        assert not isinstance(body, Local)
    with known(path, flow).fetch(DESCRIPTOR, flow=flow) as body:
        assert isinstance(body, Local)
        assert DATA == os.pread(body.fileno(), len(DATA), 0)
        body.confirm()
        path.write_bytes(DATA + b"X")
        with pytest.raises(SourceError, match="changed while it was read"):
            body.confirm()


def test_rehashing_keeps_the_kernel_from_it(path, flow):
    known(path, flow)
    with Directory(path.parent, rehash=True).fetch(DESCRIPTOR, flow=flow) as body:
        assert not isinstance(body, Local)


@pytest.mark.parametrize("plant", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("size", [0, len(DATA)])
def test_what_is_no_file_is_not_waited_for_and_is_no_source(tmp_path, flow, plant, size):
    descriptor = Descriptor(DESCRIPTOR.digest, size)
    plant(tmp_path / DESCRIPTOR.digest.file_name)
    directory = Directory(tmp_path)
    assert not directory.knows(descriptor)
    assert not directory.exists(descriptor, flow=flow)
    for look in (directory.check_source, lambda blob: directory.fetch(blob, flow=flow)):
        with pytest.raises(SourceError, match="is not a file"):
            look(descriptor)


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ENODEV])
def test_a_disk_that_was_unplugged_is_no_end_of_a_file(path, flow, code):
    class Gone(Disk):
        def preadv(self, fd: int, buffer: memoryview, offset: int) -> int:
            if offset:
                raise OSError(code, os.strerror(code))
            return super().preadv(fd, buffer[:1000], offset)

    with Directory(path.parent, disk=Gone()).fetch(DESCRIPTOR, flow=flow) as body:
        assert 1000 == body.readinto(flow.buffer)
        with pytest.raises(StorageError) as caught:
            body.readinto(flow.buffer)
    assert code == caught.value.errno


@pytest.mark.parametrize("verified", [True, False])
def test_another_reader_is_of_the_same_file_and_hashes_nothing(path, flow, verified):
    directory = known(path, flow) if verified else Directory(path.parent)
    with directory.fetch(DESCRIPTOR, flow=flow) as body:
        assert isinstance(body, Shared)
        with body.part(700_000) as part:
            assert (700_000, len(DATA) - 700_000) == (part.offset, part.length)
            assert DATA[700_000:] == rest_of(part, flow)
        assert verified is (body._hashed == len(DATA))
        assert 0 == body._at
        assert body._fd != part._fd == -1
        assert DATA[:1000] == bytes(DATA[: body.readinto(memoryview(bytearray(1000)))])


def test_another_reader_finds_a_file_that_has_changed(path, flow):
    with Directory(path.parent).fetch(DESCRIPTOR, flow=flow) as body, body.part(0) as part:
        os.utime(path, (1, 1))
        with pytest.raises(SourceError, match="changed while it was read"):
            rest_of(part, flow)


def test_where_the_system_has_no_descriptor_left_nothing_is_closed(path, flow, monkeypatch):
    def refuse(disk, fd):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(Disk, "duplicate", refuse)
    with Directory(path.parent).fetch(DESCRIPTOR, flow=flow) as body:
        with pytest.raises(StorageError, match="Too many open files"):
            body.part(5)
        assert DATA == rest_of(body, flow)
