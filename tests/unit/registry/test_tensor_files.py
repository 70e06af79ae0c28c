"""What is asked for of a safetensors file, and where its bytes come from."""

from __future__ import annotations

import hashlib
import os
import random
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.functional.safetensors_files import safetensors_of
from transferkit.content.chunk import MAX_CHUNK, Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.errors import (
    BlobNotFoundError,
    CancelledError,
    InvalidModelError,
    ProtocolError,
    ReadError,
    SourceError,
)
from transferkit.models.ranges import GAP
from transferkit.registry import blob_files, tensor_files
from transferkit.registry.parts import read
from transferkit.registry.tensor_files import TensorFile, TensorFiles
from transferkit.storage.cache import DiskCache
from transferkit.transfer.flow import WorkerFlow

DATA = random.Random(3).randbytes(1_000_000)


def digest_of(data: bytes) -> Digest:
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


def blob_of(data: bytes) -> Descriptor:
    return Descriptor(digest_of(data), len(data))


BLOB = blob_of(DATA)


def listed(data: bytes, size: int):
    pieces = [(at, data[at : at + size]) for at in range(0, len(data), size)]
    return [(Chunk(at, at + len(piece) - 1), digest_of(piece)) for at, piece in pieces]


class Body:
    def __init__(self, data: bytes, offset: int, length: int) -> None:
        self._data, self.offset, self.length, self.version = data, offset, length, None

    def readinto(self, buffer):
        count = min(len(buffer), len(self._data), 4000)
        buffer[:count], self._data = self._data[:count], self._data[count:]
        return count

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class Source:
    """One blob, with a list of its chunks, or an error in its place."""

    def __init__(self, data: bytes, chunks=(), *, ranges: bool = True) -> None:
        self.data, self.chunks, self.ranges = data, chunks, ranges
        self.asked: list[tuple[int, int]] = []

    def fetch_range(self, descriptor, chunk, *, flow):
        self.asked.append((chunk.start, chunk.end))
        if not self.ranges:
            return Body(self.data, 0, len(self.data))
        return Body(self.data[chunk.start : chunk.end + 1], chunk.start, chunk.size)

    def chunksums(self, descriptor, *, flow):
        for each in self.chunks:
            if isinstance(each, Exception):
                raise each
            yield each


def files_of(tmp_path, data, source, path="a.safetensors"):
    file = TensorFile(path, blob_of(data))
    return file, TensorFiles([file], DiskCache(tmp_path), source)


def stored(tmp_path):
    """A file that is in a cache, opened, and nowhere else."""
    data, cache = safetensors_of({"w": ("U8", [100_000], bytes(100_000))}), DiskCache(tmp_path)
    file = TensorFile("a", cache.put(data))
    files = TensorFiles([file], cache, None)
    files.open(file, WorkerFlow())
    return file, files, cache


bounds = st.lists(st.integers(0, len(DATA)), min_size=2, max_size=16, unique=True).map(sorted)


@settings(max_examples=50, deadline=None)
@given(bounds, st.integers(10_000, 400_000), st.sampled_from(["plain", "listed", "one stream"]))
def test_what_is_asked_for_fills_all_places_with_little_in_vain(bounds, size, way):
    file = TensorFile("a.safetensors", BLOB)
    file.has_ranges = way != "one stream"
    if way == "listed":
        file.chunks = listed(DATA, 70_000)
    spans = list(zip(bounds[::2], bounds[1::2], strict=False))
    memories = [bytearray(end - start) for start, end in spans]
    parts = file.parts([(start, memoryview(memory)) for (start, _), memory in zip(spans, memories, strict=True)], size)
    for part in parts:
        read(Body(DATA[part.start : part.end], part.start, part.end - part.start), part, WorkerFlow(buffer=4096))
    assert [DATA[start:end] for start, end in spans] == [bytes(memory) for memory in memories]
    ranges = [(part.start, part.end) for part in parts]
    assert all(end <= start for (_, end), (start, _) in pairwise(ranges))
    vain = sum(end - start for start, end in ranges) - sum(map(len, memories))
    if way == "plain":
        assert all(end - start <= size for start, end in ranges)
        assert vain <= GAP * (len(spans) - 1)
    elif way == "listed":
        assert vain <= 2 * 70_000 * len(spans)
    else:
        assert [(spans[0][0], spans[-1][1])] == ranges


def test_nothing_is_asked_for_where_there_is_nothing():
    assert [] == TensorFile("a", BLOB).parts([(5, memoryview(bytearray()))], None)


@pytest.mark.parametrize(("chunks", "is_verified"), [((), False), (listed(DATA, 300_000), True)])
def test_a_list_verifies_a_file_where_there_is_one(tmp_path, chunks, is_verified):
    file, files = files_of(tmp_path, DATA, Source(DATA, chunks))
    files.locate(file, WorkerFlow())
    assert (is_verified, False) == (file.is_verified, file.is_local)


@pytest.mark.parametrize("error", [ProtocolError("a gap"), CancelledError("enough")])
def test_a_list_that_is_a_lie_is_an_error_and_a_cancel_is_none(tmp_path, error):
    file, files = files_of(tmp_path, DATA, Source(DATA, [*listed(DATA, 300_000)[:2], error]))
    with pytest.raises(type(error)):
        files.locate(file, WorkerFlow())


def test_a_list_of_chunks_too_many_or_too_long_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(blob_files, "MOST_LISTED", 3)
    file, files = files_of(tmp_path, DATA, Source(DATA, listed(DATA, 200_000)))
    files.locate(file, WorkerFlow())
    assert () == file.chunks
    long = TensorFile("b", Descriptor(BLOB.digest, MAX_CHUNK + 1))
    TensorFiles([long], DiskCache(tmp_path), Source(DATA, [(Chunk(0, MAX_CHUNK), BLOB.digest)])).locate(
        long, WorkerFlow()
    )
    assert () == long.chunks


def test_a_list_that_breaks_off_is_asked_for_again_and_then_done_without(tmp_path):
    """The optional question fails nothing, whatever the retry policy of the call."""
    whole = listed(DATA, 300_000)
    for failures, expected in ((2, whole), (3, [])):
        source, asked = Source(DATA), []

        def chunksums(descriptor, *, flow, failures=failures, asked=asked):
            asked.append(descriptor)
            yield whole[0]
            if len(asked) <= failures:
                raise ReadError("cut")
            yield from whole[1:]

        source.chunksums = chunksums
        file, files = files_of(tmp_path, DATA, source)
        files.locate(file, WorkerFlow())
        assert (expected, 3) == (file.chunks, len(asked))


def test_a_header_goes_on_where_it_broke_off(tmp_path):
    data = safetensors_of({f"t{number:05}": ("U8", [1], b"x") for number in range(3000)})
    source = Source(data)
    file, files = files_of(tmp_path, data, source)
    whole = source.fetch_range

    def cut(descriptor, chunk, *, flow):
        source.fetch_range = whole
        body = whole(descriptor, chunk, flow=flow)
        return Body(data[: 20_000 - chunk.start], body.offset, body.length)

    source.fetch_range = cut
    with pytest.raises(ReadError):
        files.open(file, WorkerFlow())
    files.open(file, WorkerFlow())
    start = file.header.data_start
    assert [(0, 65535), (20_000, 65535), (65536, start - 1)] == source.asked
    assert (3000, digest_of(data[:start]), None) == (len(file.header.tensors), file.seal, file.head)
    files.open(file, WorkerFlow())  # another attempt at what is done asks for nothing
    assert 3 == len(source.asked)


@pytest.mark.parametrize(
    ("ranges", "size", "expected"), [(True, 100_000, True), (False, 100_000, False), (False, 9, True)]
)
def test_whether_a_server_has_ranges_is_seen_from_the_header(tmp_path, ranges, size, expected):
    data = safetensors_of({"w": ("U8", [size], bytes(size))})
    file, files = files_of(tmp_path, data, Source(data, ranges=ranges))
    files.open(file, WorkerFlow())
    assert expected is file.has_ranges


def test_what_the_cache_does_not_have_is_nowhere_offline(tmp_path):
    file, files = files_of(tmp_path, DATA, None)
    with pytest.raises(BlobNotFoundError, match=rf"^a\.safetensors \({BLOB.digest.short}\) is not in {tmp_path}, and"):
        files.locate(file, WorkerFlow())


def test_a_store_that_believes_no_earlier_run_is_read_to_the_end(tmp_path):
    """So it is held to its digest each time."""
    data = safetensors_of({"w": ("U8", [100_000], bytes(100_000))})
    with DiskCache(tmp_path) as cache:
        cache.put(data)
    cache = DiskCache(tmp_path, rehash=True)
    file = TensorFile("a", blob_of(data))
    files = TensorFiles([file], cache, None)
    files.open(file, WorkerFlow())
    memory = bytearray(10)
    place = [(file.header.data_start, memoryview(memory))]
    (part,) = file.parts(place, None)
    files.fetch(file, part, WorkerFlow(), is_local=True)
    assert bytes(10) == bytes(memory)
    path = cache.path(file.blob.digest)
    with open(path, "r+b") as changed:
        changed.seek(-1, 2)
        changed.write(b"?")
    (part,) = file.parts(place, None)
    with pytest.raises(SourceError):
        files.fetch(file, part, WorkerFlow(), is_local=True)


def test_a_file_that_is_changed_while_it_is_read_is_an_error(tmp_path, monkeypatch):
    file, files, cache = stored(tmp_path)
    real, path = cache.disk.preadv, cache.path(file.blob.digest)

    def preadv(fd, buffer, at):
        os.utime(path, ns=(1, 1))
        return real(fd, buffer, at)

    monkeypatch.setattr(cache.disk, "preadv", preadv)
    (part,) = file.parts([(50_000, memoryview(bytearray(10)))], None)
    with pytest.raises(SourceError, match="changed while it was read"):
        files.fetch(file, part, WorkerFlow(), is_local=True)


def test_what_is_known_is_not_hashed_again(tmp_path, monkeypatch):
    file, files, cache = stored(tmp_path)
    reads = []
    real = cache.disk.preadv
    monkeypatch.setattr(
        cache.disk, "preadv", lambda fd, buffer, at: reads.append((at, len(buffer))) or real(fd, buffer, at)
    )
    (part,) = file.parts([(50_000, memoryview(bytearray(10)))], None)
    files.fetch(file, part, WorkerFlow(), is_local=True)
    assert [(50_000, 10)] == reads
    assert (True, None) == (file.is_verified, file.seal)


def test_only_what_is_missing_is_asked_for():
    source = Source(DATA)
    files = TensorFiles([], SimpleNamespace(), source)
    file = TensorFile("a", BLOB)
    (part,) = file.parts([(0, memoryview(bytearray(10)))], None)
    part.at = 10
    files.fetch(file, part, WorkerFlow(), is_local=False)
    assert [] == source.asked


def test_lists_of_chunks_are_bounded_for_all_files(tmp_path, monkeypatch):
    monkeypatch.setattr(blob_files, "MOST_LISTED_ALL", 9)
    wanted = [TensorFile(f"{number}", BLOB) for number in range(4)]
    files = TensorFiles(wanted, DiskCache(tmp_path), Source(DATA, listed(DATA, 300_000)))
    for file in wanted:
        files.locate(file, WorkerFlow())
        files.locate(file, WorkerFlow())  # again, as where the cache has lost it: it is the same list
    assert [4, 4, 0, 0] == [len(file.chunks) for file in wanted]


def headed(tensors: int, size: int = 0) -> bytes:
    data = ("U8", [size], bytes(size))
    return safetensors_of({f"{number:0100}": ("U8", [0], b"") for number in range(tensors - 1)} | {"data": data})


def opened(tmp_path, contents):
    """Open files one after the other; return how many there were until one was refused."""
    wanted, source = [TensorFile(f"{number}", blob_of(each)) for number, each in enumerate(contents)], Source(b"")
    files = TensorFiles(wanted, DiskCache(tmp_path), source)
    for number, (file, source.data) in enumerate(zip(wanted, contents, strict=True)):
        try:
            files.open(file, WorkerFlow())
        except InvalidModelError:
            return number
    return len(contents)


def test_short_headers_count_as_well_as_long_ones(tmp_path, monkeypatch):
    """Each of them has come with the first request."""
    content = headed(100, 100_000)
    size = 8 + int.from_bytes(content[:8], "little")
    monkeypatch.setattr(tensor_files, "MOST_HEADERS", 20 * size)
    assert size < tensor_files.GUESS < 20 * size
    assert 10 < opened(tmp_path, [content] * 30) <= 20


def test_tensors_are_counted_over_all_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_files, "MOST_TENSORS", 35)
    assert 3 == opened(tmp_path, [headed(10)] * 5)
