"""Sockets: how whoever is blocked on one is woken, and what works where gevent or eventlet have taken them over, too.

Their sockets do not block in the kernel, so its time limits do not hold for them, and eventlet has no ``select.poll``.
"""

from __future__ import annotations

import _socket
import select
import socket
import ssl
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from transferkit.content.flow import Abort


def is_kernels(sock: Any) -> bool:
    """Tell whether a socket blocks in the kernel, and not in the loop of a library."""
    return isinstance(sock, _socket.socket)


class _Poll:
    """What ``select.poll`` does for sockets that are ready to be read or written, by ``select.select``."""

    def __init__(self) -> None:
        self._events: dict[int, int] = {}

    def register(self, sock: Any, events: int) -> None:
        self._events[sock if isinstance(sock, int) else sock.fileno()] = events

    modify = register

    def unregister(self, descriptor: int) -> None:
        del self._events[descriptor]

    def poll(self, milliseconds: float) -> list[tuple[int, int]]:
        readers, writers = ([fd for fd, events in self._events.items() if events & kind] for kind in (READ, WRITE))
        readable, writable, _ = select.select(readers, writers, [], milliseconds / 1000)
        ready = {fd: (fd in readable) * READ | (fd in writable) * WRITE for fd in self._events}
        return [(fd, events) for fd, events in ready.items() if events]


# As ``select.POLLIN`` and ``POLLOUT``, which are not everywhere.
READ, WRITE = 1, 4


def new_poll() -> Any:
    """Return a ``select.poll``, or what does the same where there is none."""
    make: Any = getattr(select, "poll", _Poll)
    return make()


def nobody() -> None:
    """An ``Abort`` that wakes nobody: it says that the worker is at work on a connection it looks after itself."""


def abort_of(sock: socket.socket) -> Abort:
    """Return what wakes every thread that is blocked on ``sock``, in whatever it does there.

    Closing a socket wakes nobody. ``SSLSocket.shutdown`` wakes, and drops the TLS layer on the way: the next read would
    hand out ciphertext as if it were content. So it is the base class's, which leaves the TLS layer alone.
    """
    base: Any = _socket.socket if is_kernels(sock) else socket.socket
    # A plain socket of eventlet's has a method for itself alone.
    shutdown = partial(base.shutdown, sock) if hasattr(base, "shutdown") else sock.shutdown

    def abort() -> None:
        try:
            shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # not connected any more: nobody is blocked on it

    return abort


@contextmanager
def closed_on_error(resource: Any) -> Iterator[None]:
    """Close what nobody else knows yet, where the body raises."""
    try:
        yield
    except BaseException:
        resource.close()
        raise


@contextmanager
def alarm(seconds: float, abort: Abort) -> Iterator[None]:
    """Wake who is blocked in the body after ``seconds``, by ``abort``, and raise TimeoutError then."""
    is_late = threading.Event()

    def ring() -> None:
        is_late.set()
        abort()

    timer = threading.Timer(seconds, ring)
    timer.name = "transferkit-alarm"
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        if is_late.is_set():
            raise TimeoutError(f"timed out after {seconds} s") from None


def close_half_made(error: BaseException) -> None:
    """Close the TLS socket that Python begins to make of a connection, where that is reset in the same moment.

    Python 3.11 leaves it open and to nobody but the traceback, which lives as long as the error that we raise.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        half_made = frame.f_locals.get("self")
        if isinstance(half_made, ssl.SSLSocket):
            half_made.close()
