"""One direction of a connection through the proxy: bytes that were read here and go there, when their course allows it.

Knows non-blocking sockets, positions and rates. How a connection ends is the tunnel's.
"""

from __future__ import annotations

import socket
from collections import deque
from typing import TYPE_CHECKING

from transferkit.testing.network import Course

if TYPE_CHECKING:
    from transferkit.testing.tunnel import Tunnel

BUFFER = 1024 * 1024  # bytes a read; with 256 KiB the proxy was half as fast
_LATE = 8 * 1024 * 1024  # bytes under way at most with latency, which caps the speed at 8 MiB per latency
_STEP = 0.01  # seconds worth of bytes that a limited bandwidth lets through at once
_CATCH_UP = 0.05  # seconds that a limited bandwidth makes up for when the thread was late


class Pipe:
    """One direction: what was read from ``source`` and is not with ``sink`` yet."""

    def __init__(self, tunnel: Tunnel, source: socket.socket, sink: socket.socket) -> None:
        self._tunnel = tunnel
        self.source = source
        self.sink = sink
        self.count = 0
        """Bytes given to ``sink``."""
        self.blocked = False
        """``sink`` takes no more for now."""
        self.silent = False
        self.finished = False
        """The end of ``source`` was passed on."""
        self._ended = False
        self._held: deque[tuple[float, memoryview]] = deque()  # each block with the time it is due
        self._held_bytes = 0
        self._timer: float | None = None
        self.follow(Course())

    def follow(self, course: Course) -> None:
        """Take another course; its positions count from here."""
        self._course = course
        self._base = self.count
        self.silent = False
        self._not_before = 0.0
        self._plain = course == Course()
        self.check_end()

    def wants_data(self) -> bool:
        if self._ended or self.silent:
            return False
        return not self._held or (self._course.latency > 0 and self._held_bytes < _LATE)

    def read(self, now: float) -> None:
        if not self.wants_data():
            return
        buffer = self._tunnel.buffer
        try:
            size = self.source.recv_into(buffer)
        except BlockingIOError:
            return
        except OSError:
            self._tunnel.broke(self.source)
            return
        if size == 0:
            self._ended = True
            self._tunnel.saw_end(self.source)
        elif self._held or self._course.latency:
            self._hold(now + self._course.latency, buffer[:size])
        else:
            given = self._give(buffer[:size], now)
            if given < size:
                self._hold(now, buffer[given:size])
        self.flush(now)

    def flush(self, now: float) -> None:
        """Give away what is due, as far as it is taken."""
        while self._held and not self.blocked and self._tunnel.is_open and not self.silent:
            due, block = self._held[0]
            if due > now:
                self._wake_at(due)
                return
            given = self._give(block, now)
            if not self._tunnel.is_open:  # it ended in there, and nothing is held any more
                return
            self._held_bytes -= given
            if given < len(block):
                self._held[0] = (due, block[given:])
                return
            self._held.popleft()
        if self._ended and not self._held and not self.finished and self._tunnel.is_open:
            self.finished = True
            try:
                self.sink.shutdown(socket.SHUT_WR)
            except OSError:  # gone already; its other direction says so
                pass

    def drop(self) -> None:
        self._held.clear()
        self._held_bytes = 0

    def check_end(self) -> None:
        """Carry the end out where its position is reached."""
        if self._course.end_after is not None and self.count - self._base >= self._course.end_after:
            self._tunnel.end(self._course.end, self)

    def _hold(self, due: float, block: memoryview) -> None:
        self._held.append((due, memoryview(bytes(block))))
        self._held_bytes += len(block)

    def _give(self, block: memoryview, now: float) -> int:
        given = 0
        while given < len(block) and self._tunnel.is_open and not self.silent:
            rate = self._rate()
            allowed = len(block) - given if self._plain else self._allowance(len(block) - given, rate, now)
            if allowed == 0:
                break
            piece = block[given : given + allowed]
            try:
                sent = self.sink.send(piece if self._plain else self._damaged(piece))
            except BlockingIOError:
                sent = 0
            except OSError:
                self._tunnel.broke(self.sink)
                break
            given += sent
            self.count += sent
            if not self._plain:
                if rate is not None:
                    self._not_before = max(self._not_before, now - _CATCH_UP) + sent / rate[0]
                self.check_end()
            if sent < allowed:
                self.blocked = True
                break
        return given

    def _rate(self) -> tuple[float, int] | None:
        """Return the bytes a second that hold here, and how many of them may go at once."""
        course = self._course
        if course.trickle is not None and self.count - self._base >= course.trickle_after:
            return course.trickle, 1
        if course.bandwidth is not None:
            return course.bandwidth, max(1, int(course.bandwidth * _STEP))
        return None

    def _allowance(self, wanted: int, rate: tuple[float, int] | None, now: float) -> int:
        course, position = self._course, self.count - self._base
        for mark in (course.end_after, course.trickle_after if course.trickle is not None else None):
            if mark is not None and mark > position:
                wanted = min(wanted, mark - position)
        if rate is None:
            return wanted
        if now < self._not_before:
            self._wake_at(self._not_before)
            return 0
        return min(wanted, rate[1])

    def _damaged(self, piece: memoryview) -> memoryview | bytearray:
        if self._course.corrupt_at is None:
            return piece
        index = self._course.corrupt_at - (self.count - self._base)
        if not 0 <= index < len(piece):
            return piece
        damaged = bytearray(piece)
        damaged[index] ^= 1
        return damaged

    def _wake_at(self, due: float) -> None:
        if self._timer is None or due < self._timer:
            self._timer = due
            self._tunnel.loop.later(due, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._tunnel.advance()
