"""What the tests of a repository have in common: a blob, a flow that can be cut, and servers of parts."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.unit.transport.rig import everything
from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.errors import CancelledError, TransferKitError
from transferkit.remote.repository import Repository
from transferkit.testing import RawRequest, answer
from transferkit.transfer.crew import Crew
from transferkit.transfer.flow import BodyWatch, ByteCounter

WHERE = "library/model"
DATA = bytes(range(256)) * 4
# python3 -c 'import hashlib; print(hashlib.sha256(bytes(range(256)) * 4).hexdigest())'
DIGEST = "sha256:785b0751fc2c53dc14a4ce3d800e69ef9ce1009eb327ccf458afe09c242c26c9"
BLOB = Descriptor(DIGEST, len(DATA))
OTHER = Descriptor("sha256:" + 64 * "b", len(DATA))
BLOB_PATH = f"/v2/{WHERE}/blobs/{DIGEST}"
LIST_PATH = f"/v2/{WHERE}/chunksums/{DIGEST}"
PART = Chunk(100, 299)


class Flow:
    """A flow that knows who could wake it."""

    fresh = False
    attempt = 0

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(64 * 1024))
        self.held: set[Any] = set()
        self.counter = ByteCounter()
        self.watch = BodyWatch()
        self._cut: TransferKitError | None = None

    def cut(self) -> None:
        self._cut = CancelledError("enough")
        for abort in list(self.held):
            abort()

    def check(self) -> None:
        if self._cut is not None:
            raise self._cut

    def attach(self, abort: Any) -> None:
        self.held.add(abort)
        self.check()

    def detach(self, abort: Any) -> None:
        self.held.discard(abort)

    def moved(self, count: int) -> None:
        self.check()
        self.counter.progress += count

    def wait(self, seconds: float, why: str = "") -> None:
        time.sleep(seconds)
        self.check()

    def crew(self) -> Crew:
        return Crew(self, None)


def part(request: RawRequest, **headers: str) -> bytes:
    """Response as a server of DATA that honours ranges."""
    if "range" not in request.headers:
        return answer(200, DATA)
    start, end = map(int, request.headers["range"].removeprefix("bytes=").split("-"))
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return answer(206, DATA[start : end + 1], {"Content-Range": f"bytes {start}-{end}/{len(DATA)}", **named})


def take(repository: Repository, chunk: Chunk = PART, flow: Flow | None = None) -> bytes:
    flow = flow or Flow()
    with repository.fetch_range(BLOB, chunk, flow=flow) as body:
        data = everything(body)
        assert (body.offset, body.length) == (chunk.start, chunk.size)
    assert data == DATA[chunk.start : chunk.end + 1]
    assert flow.held == set()
    return data


def all_parts(repository: Repository, threads: int = 8) -> None:
    """Fetch a part in each of some threads, all at once."""
    start = threading.Barrier(threads)

    def one(number: int) -> None:
        start.wait()
        take(repository, Chunk(number * 10, number * 10 + 9))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(threads)))


def targets(server: Any) -> list[str]:
    return [request.target for request in server.requests]


class Source:
    """A source of ``data``, like a registry: it cannot go back; it may not be able to resume, or end early."""

    def __init__(self, data: bytes = DATA, *, resumes: bool = True, ends_at: int | None = None) -> None:
        self.data = data[:ends_at]
        self.resumes = resumes
        self.fetched: list[int] = []
        self.open = 0

    def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Any) -> SourceBody:
        self.fetched.append(offset)
        self.open += 1
        return SourceBody(self, offset if self.resumes else 0)


class SourceBody:
    length = None

    def __init__(self, source: Source, offset: int) -> None:
        self.offset = self._at = offset
        self._source = source
        self._open = True

    def readinto(self, buffer: memoryview, /) -> int:
        block = self._source.data[self._at : self._at + min(len(buffer), 70_000)]
        buffer[: len(block)] = block
        self._at += len(block)
        return len(block)

    def close(self) -> None:
        self._source.open -= self._open
        self._open = False

    def __enter__(self) -> SourceBody:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def requests_of(server: Any) -> list[tuple[str, str]]:
    return [(request.method, request.target) for request in server.requests]
