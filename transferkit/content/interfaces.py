"""The interfaces that a copy needs: one or two methods each.

A transfer is a copy between a source and a target, both content-addressed. Extra powers (ranges, chunk digests, a file
descriptor) are interfaces of their own, found by a type test, never flags on the base one.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, runtime_checkable

from transferkit.content.descriptor import Descriptor

Abort = Callable[[], None]


class Flow(Protocol):
    """What an operation that blocks is given: how it learns that it must stop, and where it counts.

    One flow belongs to one worker thread at a time; only ``attach``'s callback is called from another one.
    """

    @property
    def buffer(self) -> memoryview:
        """Scratch memory of the worker, reused from blob to blob: its content is undefined between operations."""

    def check(self) -> None:
        """Raise when the operation was cancelled or cut, else return at once."""

    def attach(self, abort: Abort) -> None:
        """Register how to wake the operation, from any thread, while it is blocked. Raises as ``check`` does."""

    def detach(self, abort: Abort) -> None:
        """Take ``abort`` back, known or not; once this has returned it is not called any more. Never raises."""

    def begin_body(self) -> None:
        """Say that from now on bytes should move: silence is a stall."""

    def end_body(self) -> None:
        """Say that silence is no stall any more. Without a body under way it does nothing."""

    def moved(self, count: int) -> None:
        """Count bytes that have just been moved. Raises as ``check`` does, before it counts."""

    def settle(self, position: int) -> None:
        """Say that ``position`` bytes of this unit of work are in place: what was counted beyond is taken back, what is
        missing in the count was there already. Never raises."""


class Body(Protocol):
    """Content on its way. Not thread-safe: one reader."""

    offset: int
    """Where in the content this body begins; 0 although another was asked for: the source cannot resume."""

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


class Pusher(Protocol):
    """Content can be stored here. Thread-safe."""

    def push(self, descriptor: Descriptor, source: Fetcher, *, flow: Flow) -> Outcome:
        """Make one attempt to bring the content here, verified, and tell how it came about.

        Raises:
            VerificationError: what arrived is not what the descriptor says; nothing of it is visible here.
        """


class Storage(Fetcher, Pusher, Protocol):
    """A place that content is read from, stored in and looked up in. Thread-safe."""

    def exists(self, descriptor: Descriptor, *, flow: Flow) -> bool:
        """Tell whether the verified content is here; what lies here unverified is verified first."""


@runtime_checkable
class Local(Protocol):
    """The extra power of a body that is a file: its descriptor can be handed to the kernel."""

    def fileno(self) -> int:
        """Return the open file's descriptor, positioned nowhere in particular: read with an explicit offset."""


class Outcome(enum.Enum):
    """How a blob came to be at its target."""

    MOVED = "moved"
    PRESENT = "present"
    MOUNTED = "mounted"
