"""A source and a target in memory, for tests of the engine without network and disk."""

from __future__ import annotations

import hashlib
import random
import threading
from concurrent.futures import Executor, Future
from types import SimpleNamespace

import pytest

from transferkit.content.chunk import Chunk, Ranges
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.errors import DigestMismatchError, ReadError, SizeMismatchError, StorageError


def make_blob(size: int, seed: int = 0) -> tuple[bytes, Descriptor]:
    data = random.Random(seed).randbytes(size)
    return data, Descriptor("sha256:" + hashlib.sha256(data).hexdigest(), size)


class Body:
    def __init__(self, data: bytes, offset: int, *, length: int | None, breaks: bool = False) -> None:
        self.offset, self.length = offset, length
        self._data, self._breaks = data, breaks

    def readinto(self, buffer: memoryview, /) -> int:
        count = min(len(buffer), len(self._data), 1000)
        if not count and self._breaks:
            raise ReadError("broken")
        buffer[:count], self._data = self._data[:count], self._data[count:]
        return count

    def close(self) -> None:
        pass

    def __enter__(self) -> Body:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Source:
    """Blobs in memory. ``breaks`` maps the first byte of a range to after how many bytes it breaks, once."""

    def __init__(self, blobs: dict[str, bytes], *, ranges: bool = True) -> None:
        self.blobs = blobs
        self.ranges = ranges
        self.asked: list[tuple[int, int]] = []
        self.whole = 0
        self.breaks: dict[int, int] = {}
        self.breaks_whole: list[int] = []
        """After how many bytes the next streams break, the last one first."""
        self.corrupt: dict[int, int] = {}
        """How often the range that begins there comes with a wrong first byte."""
        self.on_range = lambda: None
        self._lock = threading.Lock()

    def fetch(self, descriptor, *, offset=0, flow):
        self.whole += 1
        data = self.blobs[descriptor.digest][offset:]
        breaks = self.breaks_whole.pop() if self.breaks_whole else None
        return Body(data[:breaks], offset, length=descriptor.size - offset, breaks=breaks is not None)

    def fetch_range(self, descriptor, chunk, *, flow):
        self.on_range()
        data = self.blobs[descriptor.digest]
        with self._lock:
            self.asked.append((chunk.start, chunk.end))
            if not self.ranges:
                return Body(data, 0, length=len(data))
            part = data[chunk.start : chunk.end + 1]
            if self.corrupt.get(chunk.start, 0):
                self.corrupt[chunk.start] -= 1
                part = bytes([part[0] ^ 1]) + part[1:]
            breaks = self.breaks.pop(chunk.start, None)
        if breaks is not None:
            return Body(part[:breaks], chunk.start, length=chunk.size, breaks=True)
        return Body(part, chunk.start, length=chunk.size)


class ListingSource(Source):
    """Has a list of chunks besides, which is cut short ``cuts`` times."""

    def __init__(self, blobs, *, step: int, cuts: int = 0) -> None:
        super().__init__(blobs)
        self.step, self.cuts, self.lists = step, cuts, 0
        self.error = ReadError("cut short")
        self.lies: dict[int, Digest] = {}

    def chunksums(self, descriptor, *, flow):
        self.lists += 1
        data = self.blobs[descriptor.digest]
        size, step = descriptor.size, self.step
        chunks = [Chunk(start, min(start + step, size) - 1) for start in range(0, size, step)]
        is_cut = self.lists <= self.cuts
        for chunk in chunks[: len(chunks) // 2] if is_cut else chunks:
            digest = Digest("sha256:" + hashlib.sha256(data[chunk.start : chunk.end + 1]).hexdigest())
            yield chunk, self.lies.get(chunk.start, digest)
        if is_cut:
            raise self.error


class MemoryIngest:
    """``ended`` says how it was closed, and whether it was begun again before."""

    def __init__(self, target: Target, descriptor: Descriptor) -> None:
        self.target, self.descriptor = target, descriptor
        self.data = bytearray(descriptor.size)
        self.ranges = Ranges()
        self.half = Ranges()
        self.offset = 0
        self.ended: list[str] = []
        self.unhashed = descriptor.size
        """How many bytes were not hashed when the last ones so far arrived."""
        self._lock = threading.Lock()

    @property
    def in_place(self) -> int:
        return self.ranges.total

    def missing_in(self, chunk: Chunk) -> list[Chunk]:
        with self._lock:
            return self.ranges.missing_in(chunk)

    def write_at(self, offset, data, *, final=True):
        if offset + len(data) > self.descriptor.size:
            raise SizeMismatchError("more than was expected")
        self.data[offset : offset + len(data)] = data
        self.unhashed = self.descriptor.size - self.offset
        if final and offset == self.offset:
            self.offset = offset + len(data)

    def record(self, start, end):
        with self._lock:
            self.ranges.add(start, end)

    @property
    def unverified(self) -> int:
        return self.half.total

    def record_unverified(self, start, end):
        self.target.unverified[start] = end

    def take_unverified(self, chunk):
        found = self.half.within(chunk)
        for piece in found:
            taken = Ranges()
            taken.add(piece.start, piece.end)
            self.half = self.half.minus(taken)
        return found

    def hash_unverified(self, chunk, hasher, flow):
        flow.check()
        hasher.update(self.data[chunk.start : chunk.end + 1])

    def follow(self, flow, notify=None):
        flow.check()
        with self._lock:
            self.offset = self.ranges.contiguous_from(self.offset)

    def restart(self):
        self.ranges, self.offset = Ranges(), 0
        self.ended.append("restart")

    def commit(self, flow):
        flow.check()
        if self.in_place < self.descriptor.size:
            self.keep()
            raise SizeMismatchError("bytes are missing")
        if "sha256:" + hashlib.sha256(self.data).hexdigest() != self.descriptor.digest:
            self.abort()
            raise DigestMismatchError("the whole is wrong")
        self.target.kept.pop(self.descriptor.digest, None)
        self.target.stored[self.descriptor.digest] = bytes(self.data)
        self.ended.append("commit")

    def keep(self):
        """Leave what is in place to the next run, but for small blobs."""
        if self.is_open:
            self.ended.append("keep")
            if self.descriptor.size >= self.target.resume_threshold:
                self.target.kept[self.descriptor.digest] = bytes(self.data), self.ranges
            else:
                self.ranges, self.offset = Ranges(), 0

    def abort(self):
        if self.is_open:
            self.ended.append("abort")
            self.target.kept.pop(self.descriptor.digest, None)
            self.ranges, self.offset = Ranges(), 0

    @property
    def is_open(self) -> bool:
        return not self.ended or self.ended[-1] == "restart"


class Target:
    """Blobs in memory; those of ``resume_threshold`` bytes and more are continued."""

    def __init__(self, *, resume_threshold: int = 1000) -> None:
        self.resume_threshold = resume_threshold
        self.stored: dict[str, bytes] = {}
        self.kept: dict[str, tuple[bytes, Ranges]] = {}
        self.unverified: dict[int, int] = {}
        """Of chunks of the only blob: the first byte, and how far it has come."""
        self.ingests: list[MemoryIngest] = []

    def ingest(self, descriptor, *, flow):
        if descriptor.digest in self.stored:
            return None
        ingest = MemoryIngest(self, descriptor)
        if descriptor.digest in self.kept:
            data, ingest.ranges = self.kept[descriptor.digest]
            ingest.data[:] = data
            for start, end in self.unverified.items():
                ingest.half.add(start, end)
            ingest.half = ingest.half.minus(ingest.ranges)
        self.ingests.append(ingest)
        return ingest

    def concerns_all(self, error):
        return isinstance(error, StorageError)


class SerialExecutor(Executor):
    """Runs everything at once, in the thread that asks for it."""

    def submit(self, fn, /, *args, **kwargs):
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


@pytest.fixture
def memory() -> SimpleNamespace:
    """The classes of this file: ``make_blob``, ``Source``, ``ListingSource``, ``Target``, ``SerialExecutor``."""
    return SimpleNamespace(
        make_blob=make_blob,
        Body=Body,
        Source=Source,
        ListingSource=ListingSource,
        Target=Target,
        Ingest=MemoryIngest,
        SerialExecutor=SerialExecutor,
    )
