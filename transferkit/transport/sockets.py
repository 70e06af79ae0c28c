"""Sockets: how one is connected, and how whoever is blocked on it is woken.

Knows addresses and descriptors; requests, TLS and proxies it does not.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
import traceback
from collections.abc import Sequence

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


def open_socket(
    host: str,
    port: int,
    *,
    timeout: float,
    flow: Flow,
    family: int,
    options: Sequence[tuple[int, int, int | bytes]],
    source_address: tuple[str, int] | None,
) -> socket.socket:
    """Connect to the first address of ``host`` that answers within ``timeout`` seconds, which is then the socket's own.

    Raises:
        OSError: the name does not resolve (``gaierror``), or no address answers: what the last one said.
    """
    last: OSError = OSError(f"{host} has no address")
    for kind, type_, protocol, _, address in socket.getaddrinfo(host, port, family, socket.SOCK_STREAM):
        sock = None
        try:
            sock = socket.socket(kind, type_, protocol)
            for option in options:
                sock.setsockopt(*option)
            if source_address:
                sock.bind(source_address)
            _connect(sock, address, timeout, flow)
        except BaseException as error:
            if sock is not None:
                sock.close()
            if not isinstance(error, OSError):
                raise
            last = error
        else:
            return sock
    raise last


def _connect(sock: socket.socket, address: object, timeout: float, flow: Flow) -> None:
    """Connect in slices: shutting a connecting socket down wakes it on Linux alone, so the flow is asked."""
    deadline = time.monotonic() + timeout
    sock.setblocking(False)
    # 115 EINPROGRESS, 36 on macOS; anything else that is not 0 has failed already and says so below.
    sock.connect_ex(address)  # type: ignore[arg-type]  # as getaddrinfo returned it
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
