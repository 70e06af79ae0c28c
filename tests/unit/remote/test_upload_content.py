"""The content of an upload: opened where a request's body begins, once where that is enough."""

from __future__ import annotations

from contextlib import closing

import pytest
from transferkit.remote.upload_content import Content

from transferkit.content.descriptor import Descriptor
from transferkit.errors import CancelledError, ReadError
from transferkit.transfer.flow import WorkerFlow

DATA = bytes(range(256)) * 4096
DESCRIPTOR = Descriptor("sha256:" + 64 * "a", len(DATA))


class Source:
    """A source that cannot go back, like a registry; it may not be able to resume, or end early."""

    def __init__(self, *, resumes: bool = True, ends_at: int = len(DATA)) -> None:
        self.resumes = resumes
        self.ends_at = ends_at
        self.fetched: list[int] = []
        self.open = 0

    def fetch(self, descriptor, *, offset=0, flow):
        self.fetched.append(offset)
        self.open += 1
        return Body(self, offset if self.resumes else 0)


class Body:
    length = None

    def __init__(self, source: Source, offset: int) -> None:
        self.offset = self._at = offset
        self._source = source
        self._open = True

    def readinto(self, buffer):
        block = DATA[self._at : min(self._at + min(len(buffer), 70_000), self._source.ends_at)]
        buffer[: len(block)] = block
        self._at += len(block)
        return len(block)

    def close(self):
        self._source.open -= self._open
        self._open = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@pytest.fixture
def flow():
    flow = WorkerFlow()
    flow.counter.begin()
    return flow


def test_a_body_that_was_looked_for_is_not_fetched_twice(flow):
    source = Source()
    with closing(Content(source, DESCRIPTOR, flow)) as content:
        content.seek(5)
        with content.at(5) as body:
            assert DATA[5:10] == bytes(flow.buffer[: body.readinto(flow.buffer[:5])])
        assert [5] == source.fetched
        with content.at(5) as body:  # a redirect: from the same place once more
            assert DATA[5:10] == bytes(flow.buffer[: body.readinto(flow.buffer[:5])])
        assert [5, 5] == source.fetched
        assert 1 == source.open
    assert 0 == source.open


@pytest.mark.parametrize("offset", [0, 1, 70_000, 300_000, len(DATA)])
def test_what_a_source_cannot_leave_out_is_thrown_away(flow, offset):
    with closing(Content(Source(resumes=False), DESCRIPTOR, flow)) as content, content.at(offset) as body:
        count = body.readinto(flow.buffer)
        assert DATA[offset : offset + 70_000] == bytes(flow.buffer[:count])


def test_a_source_that_ends_before_is_a_read_error(flow):
    with closing(Content(Source(resumes=False, ends_at=1000), DESCRIPTOR, flow)) as content:
        with pytest.raises(ReadError, match="ended 1000 bytes early"):
            content.seek(2000)


def test_throwing_away_can_be_cancelled(flow):
    flow.cut(CancelledError("enough"), final=True)
    source = Source(resumes=False)
    with closing(Content(source, DESCRIPTOR, flow)) as content:
        with pytest.raises(CancelledError):
            content.seek(2000)
    assert 0 == source.open
