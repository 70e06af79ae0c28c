"""One thread for many sockets and timers.

Knows selectors, a heap of times and how to be woken; nothing of what the sockets are for.
"""

from __future__ import annotations

import heapq
import itertools
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class Loop:
    """Calls back from its own thread. Only ``call``, ``start`` and ``stop`` are for other threads."""

    def __init__(self, name: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._events: dict[int, int] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()  # two timers of one time are not compared by what they call
        self._calls: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.watch(self._woken, READ, self._clear)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and close what is the loop's own. The watched sockets are not."""
        if self._thread.is_alive():
            self.call(self._stop)
            self._thread.join()
        self._selector.close()
        self._wake.close()
        self._woken.close()

    def call(self, function: Callable[[], T]) -> T:
        """Run ``function`` in the loop, between events, and return what it returns.

        Events that came before the call are handled before it.
        """
        if threading.current_thread() is self._thread or not self._thread.is_alive():
            return function()
        done = threading.Event()
        results: list[T] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                results.append(function())
            except BaseException as error:  # noqa: BLE001 - it belongs to the caller, and is raised there
                errors.append(error)
            done.set()

        self._calls.append(run)
        try:
            self._wake.send(b"\0")
        except BlockingIOError:  # full of wake-ups that are still to be read
            pass
        while not done.wait(0.1):
            if not self._thread.is_alive():
                raise RuntimeError("the loop has ended")
        if errors:
            raise errors[0]
        return results[0]

    def watch(self, sock: socket.socket, events: int, callback: Callable[[int], None]) -> None:
        """Call back when one of ``events`` is there; 0 for no more. Costs nothing where nothing changes."""
        fileno = sock.fileno()
        known = self._events.get(fileno, 0)
        if events == known:
            return
        if events == 0:
            self._selector.unregister(sock)
            del self._events[fileno]
            return
        if known == 0:
            self._selector.register(sock, events, callback)
        else:
            self._selector.modify(sock, events, callback)
        self._events[fileno] = events

    def later(self, due: float, callback: Callable[[], None]) -> None:
        """Call back at ``due`` of ``time.monotonic``."""
        heapq.heappush(self._timers, (due, next(self._order), callback))

    def close(self, sock: socket.socket) -> None:
        """Forget the socket and close it."""
        if sock.fileno() != -1:
            self.watch(sock, 0, self._clear)
            sock.close()

    def _run(self) -> None:
        while not self._stopping:
            for key, events in self._selector.select(self._patience()):
                key.data(events)
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                heapq.heappop(self._timers)[2]()
            while self._calls:
                self._calls.popleft()()

    def _stop(self) -> None:
        self._stopping = True

    def _patience(self) -> float | None:
        if not self._timers:
            return None
        return max(self._timers[0][0] - time.monotonic(), 0.0)

    def _clear(self, _events: int) -> None:
        try:
            self._woken.recv(4096)
        except BlockingIOError:
            pass
