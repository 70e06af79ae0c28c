"""A body that goes on where its source breaks off: the same bytes, and never other ones."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.remote.rig import BLOB, DATA, OTHER, Flow
from tests.unit.transport.rig import everything
from transferkit.content.descriptor import Descriptor
from transferkit.errors import (
    BlobNotFoundError,
    CancelledError,
    DigestMismatchError,
    ReadError,
    SizeMismatchError,
    TransferKitError,
)
from transferkit.remote.steady import SteadySource


class Hasty(Flow):
    """A flow whose waits take no time."""

    def wait(self, seconds: float, why: str = "") -> None:
        self.check()


@pytest.fixture
def flow() -> Flow:
    return Hasty()


class Breaking:
    """A source of DATA whose bodies each end after so many bytes, by an error or in silence."""

    def __init__(self, *ends: int, error: TransferKitError | None = None, resumes: bool = True) -> None:
        self.ends = list(ends)
        self.error = error
        self.resumes = resumes
        self.fetched: list[int] = []
        self.closed = 0

    def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Any) -> Breaking.Body:
        self.fetched.append(offset)
        flow.buffer[:10] = b"scratch..."  # as a request does it, for the head of its answer
        return Breaking.Body(self, offset if self.resumes else 0, self.ends.pop(0) if self.ends else len(DATA))

    class Body:
        length = None

        def __init__(self, source: Breaking, offset: int, end: int) -> None:
            self.offset = self.at = offset
            self.source = source
            self.end = end

        def readinto(self, buffer: memoryview, /) -> int:
            block = DATA[self.at : min(self.end, self.at + 100)][: len(buffer)]
            if not block and self.source.error is not None and self.at < len(DATA):
                raise self.source.error
            buffer[: len(block)] = block
            self.at += len(block)
            return len(block)

        def close(self) -> None:
            self.source.closed += 1


def test_what_does_not_break_is_read_once(flow: Flow) -> None:
    source = Breaking()
    with SteadySource(source).fetch(BLOB, flow=flow) as body:
        assert (body.offset, body.length, everything(body)) == (0, len(DATA), DATA)
        assert body.readinto(flow.buffer) == 0
    assert (source.fetched, source.closed) == ([0], 1)


@pytest.mark.parametrize("error", [ReadError("broken"), None])
def test_it_goes_on_where_it_breaks_off(flow: Flow, error: TransferKitError | None) -> None:
    source = Breaking(300, 550, error=error)
    with SteadySource(source).fetch(BLOB, flow=flow) as body:
        assert everything(body) == DATA
    assert (source.fetched, source.closed) == ([0, 300, 550], 3)


def test_without_ranges_it_reads_again_what_is_known(flow: Flow) -> None:
    source = Breaking(300, error=ReadError("broken"), resumes=False)
    with SteadySource(source).fetch(BLOB, flow=flow) as body:
        assert everything(body) == DATA
    assert source.fetched == [0, 300]


@pytest.mark.parametrize("resumes", [True, False])
def test_the_block_that_its_reader_has_begun_stays(flow: Flow, resumes: bool) -> None:
    """Who sends a body fills the buffer of the flow, and a request for the rest of the source uses that too."""
    source, size = Breaking(300, error=ReadError("broken"), resumes=resumes), len(DATA)
    filled = 0
    with SteadySource(source).fetch(BLOB, flow=flow) as body:
        while filled < size:
            filled += body.readinto(flow.buffer[filled:size])
    assert bytes(flow.buffer[:size]) == DATA


def test_it_may_begin_in_the_middle(flow: Flow) -> None:
    source = Breaking()
    with SteadySource(source).fetch(BLOB, offset=1000, flow=flow) as body:
        assert (body.offset, body.length, everything(body)) == (1000, 24, DATA[1000:])


def test_other_content_has_no_end(flow: Flow) -> None:
    seen = 0
    with SteadySource(Breaking()).fetch(OTHER, flow=flow) as body, pytest.raises(DigestMismatchError):
        while count := body.readinto(flow.buffer[:100]):
            seen += count
    assert seen < len(DATA)


def test_it_gives_up_after_some_tries_without_a_byte(flow: Flow) -> None:
    source = Breaking(300, *[0] * 20, error=ReadError("broken"))
    with SteadySource(source).fetch(BLOB, flow=flow) as body, pytest.raises(ReadError):
        everything(body)
    assert source.fetched == [0, *[300] * 5]


def test_a_silent_end_says_how_much_came(flow: Flow) -> None:
    source = Breaking(300, *[0] * 20)
    with SteadySource(source).fetch(BLOB, flow=flow) as body, pytest.raises(SizeMismatchError) as caught:
        everything(body)
    assert str(caught.value) == f"{BLOB.digest.short}: incomplete: received 300/1024 bytes"
    assert caught.value.retryable


def test_what_is_final_is_not_tried_again(flow: Flow) -> None:
    source = Breaking(300, error=BlobNotFoundError("gone"))
    with SteadySource(source).fetch(BLOB, flow=flow) as body, pytest.raises(BlobNotFoundError):
        everything(body)
    assert source.fetched == [0]


def test_a_source_that_has_become_shorter_fails(flow: Flow) -> None:
    source = Breaking(300, *[100] * 20, error=None, resumes=False)
    with SteadySource(source).fetch(BLOB, flow=flow) as body, pytest.raises(SizeMismatchError):
        everything(body)


def test_a_cut_ends_it(flow: Flow) -> None:
    source = Breaking(300, error=ReadError("broken"))
    with SteadySource(source).fetch(BLOB, flow=flow) as body:
        body.readinto(flow.buffer[:300])
        flow.cut()
        with pytest.raises(CancelledError):
            everything(body)
    assert source.fetched == [0]
