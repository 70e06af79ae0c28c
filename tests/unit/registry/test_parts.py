"""Parts of blobs on their way into memory: every byte in its place, however they arrive and wherever it breaks off."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.errors import DigestMismatchError, ReadError, StalledError
from transferkit.registry.parts import Head, Part, read
from transferkit.transfer.flow import WorkerFlow

DATA = random.Random(7).randbytes(4000)
BLOB = Descriptor(f"sha256:{hashlib.sha256(DATA).hexdigest()}", len(DATA))


class Body:
    """Bytes from ``offset`` on, in pieces of these sizes; it ends after ``ends`` bytes."""

    length = None

    def __init__(self, offset=0, sizes=(1000,), ends=None, data=DATA):
        self.offset, self._sizes, self._turn = offset, sizes, 0
        self._left = data[offset:] if ends is None else data[offset : offset + ends]

    def readinto(self, buffer):
        count = min(len(buffer), len(self._left), self._sizes[self._turn % len(self._sizes)])
        self._turn += 1
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count


def digest_of(data: bytes) -> Digest:
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


def flow() -> WorkerFlow:
    return WorkerFlow(buffer=64)


@given(
    st.lists(st.integers(0, 4000), min_size=2, max_size=12, unique=True),
    st.lists(st.integers(1, 300), min_size=1, max_size=5),
    st.booleans(),
    st.data(),
)
def test_all_bytes_come_to_their_places(bounds, sizes, from_start, data):
    bounds = sorted(bounds)
    pairs = list(zip(bounds[::2], bounds[1::2], strict=False))
    memories = [bytearray(end - start) for start, end in pairs]
    places = [(start, memoryview(memory)) for (start, _), memory in zip(pairs, memories, strict=True)]
    start = data.draw(st.integers(0, pairs[0][0]))
    part = Part(BLOB, start, pairs[-1][1], places, digest_of(DATA[start : pairs[-1][1]]))
    read(Body(0 if from_start else start, sizes), part, flow())
    assert [DATA[start:end] for start, end in pairs] == [bytes(memory) for memory in memories]
    assert part.at == part.end


def test_places_of_which_a_part_has_only_some_bytes_get_those():
    left, right = bytearray(100), bytearray(100)
    part = Part(BLOB, 50, 250, [(0, memoryview(left)), (200, memoryview(right))])
    read(Body(50), part, flow())
    assert (bytes(50) + DATA[50:100], DATA[200:250] + bytes(50)) == (bytes(left), bytes(right))


def test_what_has_arrived_stays_and_is_counted_once():
    memory = bytearray(1000)
    part, worker = Part(BLOB, 100, 1100, [(100, memoryview(memory))], digest_of(DATA[100:1100])), flow()
    with pytest.raises(ReadError, match=r"^sha256:[0-9a-f]{12}: incomplete: received 300/1000 bytes of a part$"):
        read(Body(100, ends=300), part, worker)
    assert (400, 300) == (part.at, worker.counter.position)
    read(Body(400), part, worker)
    assert (1000, 1000) == (worker.counter.position, worker.counter.traffic)
    assert DATA[100:1100] == bytes(memory)


def test_a_body_from_the_first_byte_is_read_over_up_to_what_is_missing():
    memory, worker = bytearray(100), flow()
    part = Part(BLOB, 3000, 3100, [(3000, memoryview(memory))])
    seen = []

    class Looked(Body):
        def readinto(self, buffer):
            seen.append((worker.watch.body, worker.counter.position))
            return super().readinto(buffer)

    read(Looked(), part, worker)
    assert DATA[3000:3100] == bytes(memory)
    # What is read over is traffic and no progress; whoever watches for silence sees a new body each time.
    assert (100, 3100) == (worker.counter.position, worker.counter.traffic)
    skipping = [body for body, position in seen if not position]
    assert sorted(set(skipping)) == skipping[: len(set(skipping))]
    assert len(set(skipping)) >= 3000 // 64
    assert 0 == worker.watch.body


def test_what_is_not_its_digest_comes_again_from_its_start():
    memory = bytearray(500)
    part, worker = Part(BLOB, 0, 500, [(0, memoryview(memory))], digest_of(DATA[:500])), flow()
    wrong = DATA[:499] + bytes([DATA[499] ^ 1])
    with pytest.raises(
        DigestMismatchError, match=r"the bytes 0-499 are not what their digest sha256:\w+ says"
    ) as caught:
        read(Body(data=wrong), part, worker)
    assert (True, 0) == (caught.value.retryable, part.at)
    read(Body(), part, worker)
    assert DATA[:500] == bytes(memory)


def test_a_cut_ends_it_with_what_has_arrived():
    part, worker = Part(BLOB, 0, 500, []), flow()

    class Cut(Body):
        def readinto(self, buffer):
            count = super().readinto(buffer)
            worker.cut(StalledError("silent"), final=False)
            return count

    with pytest.raises(StalledError):
        read(Cut(), part, worker)
    assert (64, 0) == (part.at, worker.watch.body)


def test_a_head_grows_by_what_is_asked_for():
    head, worker = Head(BLOB), flow()
    head.end = 100
    read(Body(), head, worker)
    head.end = 300
    with pytest.raises(ReadError):
        read(Body(100, ends=50), head, worker)
    read(Body(150), head, worker)
    assert DATA[:300] == bytes(head.data)
