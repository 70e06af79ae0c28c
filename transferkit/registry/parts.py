"""Parts of blobs on their way into memory. What has arrived stays when an attempt fails; what has a digest
is held to it.

Knows bodies and memory; where a body comes from, who calls says.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Protocol, TypeAlias

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.interfaces import Body
from transferkit.errors import DigestMismatchError, ReadError
from transferkit.transfer.flow import WorkerFlow

Place: TypeAlias = "tuple[int, memoryview]"
"""Memory, and the offset in its blob of the bytes that belong there."""


class Wanted(Protocol):
    """Bytes of a blob from ``start`` to ``end``, not inclusive; those before ``at`` have arrived. One thread's."""

    @property
    def blob(self) -> Descriptor: ...
    @property
    def start(self) -> int: ...
    @property
    def at(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def digest(self) -> Digest | None:
        """What all of it is held to, if anything."""

    def room(self, scrap: memoryview) -> memoryview:
        """Return memory for the next bytes: ``scrap``, or where they belong."""

    def arrived(self, data: memoryview) -> None:
        """Take in the next bytes, which are in what ``room`` has returned."""


class Part:
    """Bytes of a blob that go to their places, which are sorted and apart; those that have none are read over.

    With a ``digest`` the whole part is held to it.
    """

    __slots__ = ("_hasher", "_offsets", "_places", "at", "blob", "digest", "end", "start")

    def __init__(
        self, blob: Descriptor, start: int, end: int, places: Sequence[Place], digest: Digest | None = None
    ) -> None:
        self.blob = blob
        self.start = self.at = start
        self.end = end
        self._places = places
        self._offsets = [offset for offset, _ in places]
        self.digest = digest
        self._hasher = digest.hasher() if digest is not None else None

    def room(self, scrap: memoryview) -> memoryview:
        at, end = self.at, self.end
        number = bisect_right(self._offsets, at) - 1
        if number >= 0:
            offset, memory = self._places[number]
            if at < offset + len(memory):
                return memory[at - offset : end - offset]
        if number + 1 < len(self._offsets):
            end = min(end, self._offsets[number + 1])
        return scrap[: end - at]

    def arrived(self, data: memoryview) -> None:
        """Take in the next bytes. DigestMismatchError: it is not what its digest says; all of it is to come again."""
        self.at += len(data)
        if self.digest is None or self._hasher is None:
            return
        self._hasher.update(data)
        if self.at == self.end and not self.digest.matches(self._hasher):
            self.at, self._hasher = self.start, self.digest.hasher()
            text = f"the bytes {self.start}-{self.end - 1} are not what their digest {self.digest.short} says"
            # Once more: the attempts see to it that there is no third time.
            raise DigestMismatchError(f"{self.blob.digest.short}: {text}", retryable=True)


class Head:
    """The first bytes of a blob, as many as ``end`` says, which may grow: ``data`` has those that have arrived."""

    start = 0
    digest = None

    def __init__(self, blob: Descriptor) -> None:
        self.blob = blob
        self.data = bytearray()
        self.end = 0

    @property
    def at(self) -> int:
        return len(self.data)

    def room(self, scrap: memoryview) -> memoryview:
        return scrap[: self.end - self.at]

    def arrived(self, data: memoryview) -> None:
        self.data += data


def read(body: Body, wanted: Wanted, flow: WorkerFlow) -> None:
    """Read what is missing of a part from a body, which may begin before that: then what is known is read over.

    Raises:
        ReadError: the body ended before.
        DigestMismatchError: a chunk is not what its digest says.
    """
    buffer, counter, watch = flow.buffer, flow.counter, flow.watch
    skipped = wanted.at - body.offset
    counter.set_position(wanted.at - wanted.start)
    watch.start()
    try:
        while skipped > 0:
            count = _some(body, buffer[:skipped], wanted)
            skipped -= count
            flow.moved(count)
            counter.set_position(wanted.at - wanted.start)  # it is none of what is wanted
            watch.start()  # and yet no silence
        while wanted.at < wanted.end:
            room = wanted.room(buffer)
            count = _some(body, room, wanted)
            wanted.arrived(room[:count])
            flow.moved(count)
    finally:
        watch.stop()


def _some(body: Body, room: memoryview, wanted: Wanted) -> int:
    count = body.readinto(room)
    if not count:
        received = f"received {wanted.at - wanted.start}/{wanted.end - wanted.start} bytes of a part"
        raise ReadError(f"{wanted.blob.digest.short}: incomplete: {received}")
    return count
