"""A source and a target in memory, for tests of the engine without network and disk."""

from __future__ import annotations

import hashlib
import random
import threading
from concurrent.futures import Executor, Future
from types import SimpleNamespace

import pytest

from transferkit.content.chunk import Chunk, Ranges, partition
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.interfaces import Outcome
from transferkit.errors import DigestMismatchError, ReadError


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
        self.corrupt: dict[int, int] = {}
        """How often the range that begins there comes with a wrong first byte."""
        self.on_range = lambda: None
        self._lock = threading.Lock()

    def fetch(self, descriptor, *, offset=0, flow):
        self.whole += 1
        return Body(self.blobs[descriptor.digest][offset:], offset, length=descriptor.size - offset)

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
        chunks = list(partition(descriptor.size, self.step))
        is_cut = self.lists <= self.cuts
        for chunk in chunks[: len(chunks) // 2] if is_cut else chunks:
            digest = Digest("sha256:" + hashlib.sha256(data[chunk.start : chunk.end + 1]).hexdigest())
            yield chunk, self.lies.get(chunk.start, digest)
        if is_cut:
            raise self.error


class MemoryIngest:
    def __init__(self, target: Target, descriptor: Descriptor) -> None:
        self.target, self.descriptor = target, descriptor
        self.data = bytearray(descriptor.size)
        self.ranges = Ranges()
        self.hashed = 0
        self.ended: list[str] = []
        self.unhashed = descriptor.size
        """How many bytes were not hashed when the last one so far was written."""
        self._lock = threading.Lock()

    @property
    def in_place(self) -> int:
        return self.ranges.total

    def missing_in(self, chunk: Chunk) -> list[Chunk]:
        with self._lock:
            return self.ranges.missing_in(chunk)

    def write_at(self, offset, data, *, final=True):
        self.data[offset : offset + len(data)] = data
        self.unhashed = self.descriptor.size - self.hashed

    def record(self, start, end):
        with self._lock:
            self.ranges.add(start, end)

    def follow(self, flow):
        flow.check()
        with self._lock:
            self.hashed = self.ranges.contiguous_from(0)

    def commit(self, flow):
        assert self.in_place == self.descriptor.size
        if "sha256:" + hashlib.sha256(self.data).hexdigest() != self.descriptor.digest:
            raise DigestMismatchError("the whole is wrong")
        self.target.stored[self.descriptor.digest] = bytes(self.data)
        self.ended.append("commit")

    def restart(self):
        self.ranges, self.hashed = Ranges(), 0
        self.ended.append("restart")

    def discard(self):
        self.ended.append("discard")

    def close(self):
        self.ended.append("close")


class Target:
    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.ingests: list[MemoryIngest] = []

    def ingest(self, descriptor, *, flow):
        if descriptor.digest in self.stored:
            return None
        self.ingests.append(MemoryIngest(self, descriptor))
        return self.ingests[-1]

    def push(self, descriptor, source, *, flow):
        data = bytearray()
        with source.fetch(descriptor, flow=flow) as body:
            flow.watch.begin()
            while count := body.readinto(flow.buffer):
                flow.moved(count)
                data += flow.buffer[:count]
            flow.watch.end()
        self.stored[descriptor.digest] = bytes(data)
        return Outcome.MOVED


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
