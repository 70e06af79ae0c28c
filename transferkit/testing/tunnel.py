"""One connection through the proxy: two sockets, a pipe each way, and how all of it ends.

Knows connecting, resetting and closing. Where connections come from, and which faults they get, is the proxy's.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from transferkit.testing.loop import READ, WRITE, Loop
from transferkit.testing.network import End, Faults
from transferkit.testing.pipe import Pipe
from transferkit.testing.sockets import LINGER, TAKE, reset_on_close, undelivered

Ended: TypeAlias = Literal[
    "client closed",
    "server closed",
    "reset by client",
    "reset by server",
    "server unreachable",
    "reset",
    "closed",
    "refused",
    "cut",
    "proxy closed",
]


class Tunnel:
    """A client's connection and the one to the server. For the thread of its loop."""

    def __init__(
        self,
        loop: Loop,
        buffer: memoryview,
        number: int,
        client: socket.socket,
        family: int,
        on_closed: Callable[[Tunnel], None],
    ) -> None:
        self.loop = loop
        self._on_closed = on_closed
        self.buffer = buffer
        """Shared by all tunnels of the loop: it is empty between two events."""
        self.number = number
        self.faults = Faults()
        self.ended: Ended | None = None
        self.is_open = False
        """Bytes pass: both ends are connected and neither fault nor error has ended it."""
        self.is_closed = False
        self._client = client
        self._server = socket.socket(family, socket.SOCK_STREAM)
        for sock in (client, self._server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.up = Pipe(self, client, self._server)
        self.down = Pipe(self, self._server, client)

    def open(self, address: Any, faults: Faults) -> None:
        """Connect to the server, and carry bytes."""
        self.faults = faults
        if faults.refuse:
            self._reset("refused")
            return
        if self._server.connect_ex(address) not in (0, errno.EINPROGRESS):
            self._reset("server unreachable")
            return
        # Also where it is connected already: then it is writable at once.
        self.loop.watch(self._server, WRITE, self._on_server)

    def follow(self, faults: Faults) -> None:
        """Take other faults; their positions count from here."""
        if self.is_closed:
            return
        self.faults = faults
        if self.is_open:
            self.down.follow(faults.down())
            self.up.follow(faults.up())
            self.advance()

    def advance(self) -> None:
        """Pass on what is due, and see what to wait for."""
        now = time.monotonic()
        self.down.flush(now)
        self.up.flush(now)
        self._update()

    def saw_end(self, peer: socket.socket) -> None:
        self._mark("client closed" if peer is self._client else "server closed")

    def broke(self, peer: socket.socket) -> None:
        """A peer is gone: tell the other one in the same way."""
        other = self._server if peer is self._client else self._client
        self._reset("reset by client" if peer is self._client else "reset by server", drain=(other,))

    def end(self, end: End, pipe: Pipe) -> None:
        """Carry out the end of a course."""
        if not self.is_open:
            return
        if end == "silent":
            pipe.silent = True
        elif end == "reset":
            self._reset("reset", drain=(self._client, self._server))
        else:
            self._close_cleanly()

    def cut(self) -> None:
        """Reset both sides now."""
        self._reset("cut", drain=(self._client, self._server) if self.is_open else ())

    def close(self) -> None:
        """Let go of everything at once."""
        self._mark("proxy closed")
        self._release()

    def _on_client(self, events: int) -> None:
        if not self.is_open:
            return
        now = time.monotonic()
        if events & WRITE:
            self.down.blocked = False
            self.down.flush(now)
        if events & READ and self.is_open:
            self.up.read(now)
        self._update()

    def _on_server(self, events: int) -> None:
        if not self.is_open:
            self._on_connected()
            return
        now = time.monotonic()
        if events & WRITE:
            self.up.blocked = False
            self.up.flush(now)
        if events & READ and self.is_open:
            self.down.read(now)
        self._update()

    def _on_connected(self) -> None:
        if self.ended is not None:
            return
        if self._server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._reset("server unreachable")
            return
        self.is_open = True
        self.follow(self.faults)

    def _update(self) -> None:
        if not self.is_open:
            return
        if self._is_over():
            self._release()
            return
        client, server = self.up, self.down  # what is read from each
        self.loop.watch(
            self._client, READ * client.wants_data() | WRITE * server.blocked * (not server.silent), self._on_client
        )
        self.loop.watch(
            self._server, READ * server.wants_data() | WRITE * client.blocked * (not client.silent), self._on_server
        )

    def _is_over(self) -> bool:
        up, down = self.up, self.down
        return (up.finished or up.silent) and (down.finished or down.silent) and (up.finished or down.finished)

    def _mark(self, ended: Ended) -> None:
        # The first cause is the one that a test asks for.
        if self.ended is None:
            self.ended = ended

    def _reset(self, ended: Ended, *, drain: tuple[socket.socket, ...] = ()) -> None:
        self._mark(ended)
        self.is_open = False
        self._unwatch()
        self.up.drop()
        self.down.drop()
        self._reset_when_taken(drain, time.monotonic() + TAKE)

    def _reset_when_taken(self, drain: tuple[socket.socket, ...], deadline: float) -> None:
        # RST overtakes what the system has not delivered, and a test counts bytes: wait until there is none left.
        if self.is_closed:
            return
        now = time.monotonic()
        if now < deadline and any(map(undelivered, drain)):
            self.loop.later(now + 0.001, lambda: self._reset_when_taken(drain, deadline))
            return
        for sock in (self._client, self._server):
            reset_on_close(sock)
        self._release()

    def _close_cleanly(self) -> None:
        self._mark("closed")
        self.is_open = False
        self._unwatch()
        self.up.drop()
        self.down.drop()
        try:
            self._client.shutdown(socket.SHUT_WR)
        except OSError:
            self._release()
            return
        self.loop.close(self._server)
        # What still comes is read and thrown away: unread bytes would make the close below a reset.
        self.loop.watch(self._client, READ, self._on_rest)
        self.loop.later(time.monotonic() + LINGER, self._release)

    def _on_rest(self, _events: int) -> None:
        if self.is_closed:
            return
        try:
            if self._client.recv_into(self.buffer):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._release()

    def _unwatch(self) -> None:
        self.loop.watch(self._client, 0, self._on_client)
        self.loop.watch(self._server, 0, self._on_server)

    def _release(self) -> None:
        self.is_open = False
        self.is_closed = True
        self.up.drop()
        self.down.drop()
        self.loop.close(self._client)
        self.loop.close(self._server)
        self._on_closed(self)
