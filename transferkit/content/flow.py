"""How whatever may block is told to stop, says what it moves, and is closed: a ``Flow``, and what belongs to one."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, TypeVar

Abort = Callable[[], None]
Notify = Callable[[], None]
T = TypeVar("T")


class Closing(Protocol):
    """A context manager that closes on its way out; what has a ``close`` inherits the rest."""

    __slots__ = ()

    def close(self) -> None:
        """Let go of what is held; more than once is fine."""

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Counter(Protocol):
    """The count of the bytes of one unit of work. It belongs to the worker that moves them."""

    @property
    def position(self) -> int:
        """How many bytes of this unit are counted."""

    def set_position(self, position: int) -> None:
        """Say that just ``position`` bytes of this unit are in place, whatever was counted. Never raises."""


class Watch(Protocol):
    """Whether bytes of one worker should be moving: who watches for stalls looks at it."""

    paused: bool
    """Whether the worker is busy with something else than its body, the disk for one: silence is no stall meanwhile."""

    def start(self) -> None:
        """Say that from now on bytes should move: silence is a stall."""

    def stop(self) -> None:
        """Say that silence is no stall any more. Without a body under way it does nothing."""


class Crew(Protocol):
    """What others do beside a worker, as a context manager: on the way out nobody is at it any more."""

    @property
    def size(self) -> int:
        """How much of it has not ended."""

    def offer(self, work: Callable[[Flow], None], subject: Any) -> None:
        """Let another worker do ``work``, with a flow of its own; it is one attempt at ``subject``."""

    def take_back(self) -> Any:
        """Return the subject of what nobody has begun, which nobody does any more; ``None``: there is nothing."""

    def wait(self) -> None:
        """Wait until something has ended. Raises what that has failed with, and as ``Flow.check`` does."""

    def look(self) -> None:
        """Raise what something that has ended has failed with."""

    def __enter__(self) -> Crew: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


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

    def wait(self, seconds: float, why: str = ...) -> None:
        """Sleep, at most until the operation is cancelled or cut. Raises as ``check`` does.

        ``why`` is a word for people: what is waited for. Without it the pause is a part of the work.
        """

    def attach(self, abort: Abort) -> None:
        """Register how to wake the operation, from any thread, while it is blocked. Raises as ``check`` does."""

    def detach(self, abort: Abort) -> None:
        """Take ``abort`` back, known or not; once this has returned it is not called any more. Never raises."""

    def moved(self, count: int) -> None:
        """Count bytes that have just been moved. Raises as ``check`` does, before it counts."""

    def crew(self) -> Crew:
        """Return what other workers may be given to do beside this one; there may be none."""
