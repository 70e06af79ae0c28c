"""How a piece that runs elsewhere tells how far it is, and hears that it has to end.

A line is sent along with a piece, and leads back. It is of use, and nothing depends on it: where it cannot be opened,
or breaks, a piece runs without, and its result comes by way of the executor.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

from transferkit.cancellation import Cancellation
from transferkit.trace import EVENTS, Status, Trace

TELL_EVERY = 0.1  # seconds between two messages about how far a piece is
_BLOBS = 4  # under way, that are told of
_OWN = ("status", "moved", "announced", "waiting", "waited")  # what comes of all pieces together

Message = tuple[Any, ...]
"""``("begun", number, worker)``, ``("told", number, status, events)`` or ``("lost", number)``."""


class End(Protocol):
    """The end of a line where a piece runs. Thread-safe."""

    worker: str
    cancellation: Cancellation
    every: float

    def tell(self, status: Status, events: Sequence[Message]) -> None:
        """Tell how far the piece is, and what happened since."""


class Line(Protocol):
    """What is sent along with a piece."""

    def opened(self, number: int) -> contextlib.AbstractContextManager[End]:
        """Open the line of a piece, where it runs."""


class Teller(Trace):
    """The trace of a piece: what happens is told now and then, all together. A subclass may do more about an event."""

    def __init__(self, end: End, events: Sequence[str]) -> None:
        self._end = end
        self._events: list[Message] = []
        self._lock = threading.Lock()
        self._told = float("-inf")
        self._last = Status()
        for event in events:
            setattr(self, event, self._keeping(event))

    def _keeping(self, event: str) -> Callable[..., None]:
        own: Callable[..., None] = getattr(self, event)

        def keep(*arguments: object) -> None:
            own(*arguments)
            with self._lock:
                self._events.append((event, *arguments))

        return keep

    def status(self, status: Status) -> None:
        self._last = status
        now = time.monotonic()
        if now - self._told >= self._end.every:
            self._told = now
            self.flush()

    def flush(self) -> None:
        """Tell what there is."""
        with self._lock:
            events, self._events = self._events, []
        self._end.tell(replace(self._last, blobs=self._last.blobs[:_BLOBS]), events)


def heard_of(trace: Trace) -> tuple[str, ...]:
    """Return the names of the events of single blobs that a trace does something about."""
    from transferkit.trace import hears

    return tuple(event for event in EVENTS if event not in _OWN and hears(trace, event))


# -- in the same process


class ThreadLine:
    """A line between threads of one process: it is not pickled."""

    def __init__(self, put: Callable[[Message], object]) -> None:
        self._put = put
        self._cancellation = Cancellation()

    @contextlib.contextmanager
    def opened(self, number: int) -> Iterator[End]:
        end = _ThreadEnd(number, self._put, self._cancellation)
        self._put(("begun", number, end.worker))
        yield end

    def cancel(self) -> None:
        """End all pieces."""
        self._cancellation.cancel("the caller has ended the run of the plan")

    def close(self) -> None:
        """There is nothing to be closed."""


class _ThreadEnd:
    every = TELL_EVERY

    def __init__(self, number: int, put: Callable[[Message], object], cancellation: Cancellation) -> None:
        self.worker = threading.current_thread().name
        self.cancellation = cancellation
        self._number, self._put = number, put

    def tell(self, status: Status, events: Sequence[Message]) -> None:
        self._put(("told", self._number, status, list(events)))


# -- between processes of one machine


class PipeEnd:
    """The end of a line in another process of this machine, over a socket that only this user can open."""

    every = TELL_EVERY

    def __init__(self, number: int, address: Any, key: bytes) -> None:
        self.worker = f"process {os.getpid()}"
        self.cancellation = Cancellation()
        self._lock = threading.Lock()
        self._connection = _connected(address, key)
        self._thread: threading.Thread | None = None
        if self._connection is not None:
            self._send(("begun", number, self.worker))
            self._thread = threading.Thread(target=self._listen, name="transferkit-line", daemon=True)
            self._thread.start()
        self._number = number

    def tell(self, status: Status, events: Sequence[Message]) -> None:
        self._send(("told", self._number, status, list(events)))

    def _send(self, message: Message) -> None:
        connection = self._connection
        if connection is not None:
            with self._lock, contextlib.suppress(OSError, ValueError):  # nobody is there any more: the listener says so
                connection.send_bytes(pickle.dumps(message))

    def _listen(self) -> None:
        assert self._connection is not None
        with contextlib.suppress(OSError, EOFError):
            while self._connection.recv_bytes() == b"cancel":
                self.cancellation.cancel("the caller has ended the run of the plan")
            return  # the answer to "ended"
        self.cancellation.cancel("the process that began this has gone")

    def close(self) -> None:
        """Say that this was all, and wait for the other side to hear it."""
        if self._connection is not None and self._thread is not None:
            self._send(("ended", self._number))
            self._thread.join(2.0)
            with self._lock:
                self._connection.close()


class PipeLine:
    """What is sent along with a piece to another process of this machine."""

    def __init__(self, address: Any, key: bytes) -> None:
        self._address, self._key = address, key

    @contextlib.contextmanager
    def opened(self, number: int) -> Iterator[End]:
        end = PipeEnd(number, self._address, self._key)
        try:
            yield end
        finally:
            end.close()

    def __repr__(self) -> str:
        return "<PipeLine>"  # the key is a secret


def _connected(address: Any, key: bytes) -> Any:
    from multiprocessing import AuthenticationError
    from multiprocessing.connection import Client

    try:
        return Client(address, authkey=key)
    except (OSError, EOFError, AuthenticationError):  # another machine
        return None
