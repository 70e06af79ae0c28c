"""Sockets: how one is connected, and how whoever is blocked on it is woken."""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transferkit.content.interfaces import Abort, Flow

_SLICE = 0.1  # seconds between two looks at the flow while a connection is being made


def abort_of(sock: socket.socket) -> Abort:
    """Return what wakes every thread that is blocked on ``sock``, in whatever it does there.

    Closing a socket wakes nobody. ``SSLSocket.shutdown`` wakes, and drops the TLS layer on the way: the next read would
    hand out ciphertext as if it were content. So it is the base class's, which leaves the TLS layer alone.
    """

    def abort() -> None:
        try:
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
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


def open_socket(host: str, port: int, family: int, kind: Any, dial: Callable[[Any, Any], None]) -> socket.socket:
    """Return a socket of ``kind`` that ``dial(socket, address)`` has connected to the first address that answers."""
    last = OSError(f"{host} has no address")
    for *parameters, _, address in socket.getaddrinfo(host, port, family, socket.SOCK_STREAM):
        try:
            sock: socket.socket = kind(*parameters)
            with closed_on_error(sock):
                dial(sock, address)
            return sock
        except OSError as error:
            last = error
    raise last


def connect(sock: socket.socket, address: Any, timeout: float, flow: Flow) -> None:
    """Connect in slices: shutting a connecting socket down wakes it on Linux alone, so the flow is asked."""
    deadline = time.monotonic() + timeout
    sock.setblocking(False)
    error = sock.connect_ex(address)
    if error in (errno.EINPROGRESS, errno.EINTR, errno.EWOULDBLOCK):
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        while not poll.poll(_SLICE * 1000):
            flow.check()
            if time.monotonic() >= deadline:
                raise TimeoutError(f"timed out after {timeout} s")
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))
    sock.settimeout(timeout)


def close_half_made(error: BaseException) -> None:
    """Close the TLS socket that Python begins to make of a connection, where that is reset in the same moment.

    Python 3.11 leaves it open and to nobody but the traceback, which lives as long as the error that we raise.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        half_made = frame.f_locals.get("self")
        if isinstance(half_made, ssl.SSLSocket):
            half_made.close()
