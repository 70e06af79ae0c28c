"""The interfaces that a copy needs: one or two methods each.

A transfer is a copy between a source and a target, both content-addressed. Extra powers (ranges, chunk digests, a file
descriptor) are interfaces of their own, found by a type test, never flags on the base one.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Protocol, runtime_checkable

from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest

Abort = Callable[[], None]


class Counter(Protocol):
    """The count of the bytes of one unit of work. It belongs to the worker that moves them."""

    def set_position(self, position: int) -> None:
        """Say that ``position`` bytes of this unit are in place: what was counted beyond is taken back, what is missing
        in the count was there already. Never raises."""


class Watch(Protocol):
    """Whether bytes of one worker should be moving: who watches for stalls looks at it."""

    paused: bool
    """Whether the worker is busy with something else than its body, the disk for one: silence is no stall meanwhile."""

    def begin(self) -> None:
        """Say that from now on bytes should move: silence is a stall."""

    def end(self) -> None:
        """Say that silence is no stall any more. Without a body under way it does nothing."""


class Flow(Protocol):
    """What an operation that blocks is given: how it learns that it must stop, and where it counts.

    One flow belongs to one worker thread at a time; only ``attach``'s callback is called from another one.
    """

    @property
    def counter(self) -> Counter: ...

    @property
    def watch(self) -> Watch: ...

    @property
    def buffer(self) -> memoryview:
        """Scratch memory of the worker, reused from blob to blob: its content is undefined between operations."""

    @property
    def fresh(self) -> bool:
        """Whether the next connection should be a new one: the last was cut for being silent or slow."""

    def check(self) -> None:
        """Raise when the operation was cancelled or cut, else return at once."""

    def wait(self, seconds: float) -> None:
        """Sleep, at most until the operation is cancelled or cut. Raises as ``check`` does."""

    def attach(self, abort: Abort) -> None:
        """Register how to wake the operation, from any thread, while it is blocked. Raises as ``check`` does."""

    def detach(self, abort: Abort) -> None:
        """Take ``abort`` back, known or not; once this has returned it is not called any more. Never raises."""

    def moved(self, count: int) -> None:
        """Count bytes that have just been moved. Raises as ``check`` does, before it counts."""


class Body(Protocol):
    """Content on its way. Not thread-safe: one reader."""

    offset: int
    """Where in the content this body begins; 0 although another was asked for: the source cannot resume."""

    @property
    def length(self) -> int | None:
        """How many bytes follow in all, from ``offset`` on; None where the source does not say."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Read what has arrived, at most the buffer.

        0 is the end; whether it is the right one, only the digest of the whole content tells.
        """

    def close(self) -> None:
        """Let go of the source; more than once is fine."""

    def __enter__(self) -> Body: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Fetcher(Protocol):
    """Content can be read from here. Thread-safe."""

    def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Flow) -> Body:
        """Open the content from ``offset`` (bytes) on.

        Raises:
            BlobNotFoundError: it is not here.
        """


@runtime_checkable
class RangeFetcher(Protocol):
    """The extra power of a source whose blobs can be read in parts. Thread-safe."""

    def fetch_range(self, descriptor: Descriptor, chunk: Chunk, *, flow: Flow) -> Body:
        """Open the bytes of ``chunk``, or all of the content (``offset`` 0, the blob's ``length``) where the source has
        no ranges: the caller goes on with one stream.

        Raises:
            BlobNotFoundError: it is not here.
        """


@runtime_checkable
class ChunkLister(Protocol):
    """The extra power of a source that knows the digests of a blob's parts. Thread-safe."""

    def chunksums(self, descriptor: Descriptor, *, flow: Flow) -> Generator[tuple[Chunk, Digest], None, None]:
        """Yield the parts in order as they become known, without gaps, from the first byte to the last.

        Nothing is yielded where the source has no such list.

        Raises:
            ProtocolError: the list is a lie.
            TransferKitError: it broke off; where that is retryable, it may be read again from its start.
        """


class Pusher(Protocol):
    """Content can be stored here. Thread-safe."""

    def push(self, descriptor: Descriptor, source: Fetcher, *, flow: Flow) -> Outcome:
        """Make one attempt to bring the content here, verified, and tell how it came about.

        Raises:
            VerificationError: what arrived is not what the descriptor says; nothing of it is visible here.
        """


class LargeIngest(Protocol):
    """A large blob on its way into a target, filled from several threads; what is in place survives the process."""

    @property
    def hashed(self) -> int:
        """How many bytes from the first one on are in place and hashed."""

    @property
    def in_place(self) -> int:
        """How many bytes are in place."""

    def missing_in(self, chunk: Chunk) -> list[Chunk]:
        """Return the ranges of ``chunk`` that are not in place."""

    def write_at(self, offset: int, data: memoryview, *, final: bool = True) -> None:
        """Write ``data`` at ``offset``. ``final``: it will be taken back only together with everything else."""

    def record(self, start: int, end: int) -> None:
        """Say that the bytes from ``start`` to ``end``, inclusive, are in place."""

    def follow(self, flow: Flow) -> None:
        """Hash what is in place next to what is hashed; at once, where another thread is at it."""

    def commit(self, flow: Flow) -> None:
        """Check size and digest, and make the content visible. A failure leaves everything as it was.

        Raises:
            VerificationError: it is not the content.
        """

    def restart(self) -> None:
        """Throw away what is in place, and go on from the first byte."""

    def discard(self) -> None:
        """Throw everything away, and close. Never raises."""

    def close(self) -> None:
        """Keep what is in place for the next run, and close. Never raises; more than once is fine."""


@runtime_checkable
class Ingester(Protocol):
    """The extra power of a target that large blobs can be brought to in chunks. Thread-safe."""

    def ingest(self, descriptor: Descriptor, *, flow: Flow) -> LargeIngest | None:
        """Open a blob for its chunks; ``None``: the content is here. Waits while another process is at it."""


class Storage(Fetcher, Pusher, Protocol):
    """A place that content is read from, stored in and looked up in. Thread-safe."""

    def exists(self, descriptor: Descriptor, *, flow: Flow) -> bool:
        """Tell whether the verified content is here; what lies here unverified is verified first."""


@runtime_checkable
class Seekable(Protocol):
    """The extra power of a body that can go on reading at another place."""

    def seek(self, offset: int, *, flow: Flow) -> None:
        """Let the next read begin at ``offset``; what has to be hashed before is read on the way."""


@runtime_checkable
class Local(Seekable, Protocol):
    """The extra power of a body that is a file, and known to be right: its descriptor can be handed to the kernel."""

    def fileno(self) -> int:
        """Return the open file's descriptor, positioned nowhere in particular: read with an explicit offset."""

    def confirm(self) -> None:
        """Raise where the file is not any more what it was when it was opened."""


class Outcome(enum.Enum):
    """How a blob came to be at its target."""

    MOVED = "moved"
    PRESENT = "present"
    MOUNTED = "mounted"
