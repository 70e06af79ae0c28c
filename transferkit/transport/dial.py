"""New connections of the direct way: an address after the other, TLS, and at any moment a way to wake who waits.

Knows sockets; requests, answers and refusals it does not. The connections that urllib3 makes take ``open_socket`` and
``watched`` from here.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import struct
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transferkit.content.interfaces import Abort, Flow
from transferkit.errors import CertificateError

if TYPE_CHECKING:
    import ssl

logger = logging.getLogger(__name__)

_SLICE = 0.1  # seconds between two looks at the flow while a connection is being made
_OPTIONS = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)


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
    family: int = socket.AF_UNSPEC,
    options: Sequence[tuple[int, int, int | bytes]] = _OPTIONS,
    source_address: tuple[str, int] | None = None,
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
        except OSError as error:
            if sock is not None:
                sock.close()
            last = error
            continue
        except BaseException:
            if sock is not None:
                sock.close()
            raise
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


@contextmanager
def watched(sock: socket.socket, flow: Flow) -> Iterator[None]:
    """Let ``flow`` wake a handshake: a second descriptor does it, for ``wrap_socket`` takes away the plain one."""
    twin = sock.dup()
    abort = abort_of(twin)
    try:
        flow.attach(abort)
        yield
    finally:
        flow.detach(abort)
        twin.close()


class Connection:
    """A connection that stands. Of one thread at a time."""

    __slots__ = ("abort", "limit", "over_tls", "readable", "sock")

    def __init__(self, sock: socket.socket, *, over_tls: bool) -> None:
        self.sock = sock
        self.over_tls = over_tls
        self.abort: Abort = abort_of(sock)
        """Wakes whoever is blocked on it."""
        self.limit: float | None = None
        """How long one call on the socket may block, in seconds, once that was said."""
        self.readable = select.poll()
        """Tells whether something has come that was not read."""
        self.readable.register(sock, select.POLLIN)

    def is_quiet(self) -> bool:
        """Whether it may be used again: it has not ended, and brought nothing that nobody asked for.

        What follows a body would be taken for the answer to the next request.
        """
        sock: Any = self.sock
        if self.over_tls and sock.pending():
            return False  # deciphered already, with the last bytes of the body
        if not self.readable.poll(0):
            return True
        return self.over_tls and self._is_ticket()

    def _is_ticket(self) -> bool:
        """Tell whether what has come is no more than a session ticket, which may come at any time."""
        import ssl

        self.limit = None
        try:
            self.sock.settimeout(0)
            self.sock.recv(1)
        except ssl.SSLWantReadError:
            return True
        except OSError:
            pass
        return False

    def bound(self, seconds: float) -> None:
        """Bound how long one call on the socket may block."""
        if self.limit == seconds:
            return
        if self.over_tls or sys.platform == "win32":
            self.sock.settimeout(seconds)
        else:
            # The kernel's own limit: Python's asks poll() before each call, which doubles the system calls of a small
            # blob.
            interval = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
            self.sock.settimeout(None)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)
        self.limit = seconds

    def close(self) -> None:
        """Close it; twice is no harm."""
        self.sock.close()


@dataclass(frozen=True, eq=False, slots=True)
class Endpoint:
    """Where connections of one origin go. Thread-safe."""

    host: str
    port: int
    context: ssl.SSLContext | None
    """``None`` for plain HTTP."""

    def connect(self, timeout: float, flow: Flow) -> Connection:
        """Make a connection; each step may take ``timeout`` seconds.

        Raises:
            OSError: there is none; ``ssl.SSLError`` is one.
        """
        logger.debug("a new connection to %s, port %d", self.host, self.port)
        sock = open_socket(self.host, self.port, timeout=timeout, flow=flow)
        try:
            if self.context is not None:
                with watched(sock, flow):
                    sock = self.context.wrap_socket(sock, server_hostname=self.host)
            return Connection(sock, over_tls=self.context is not None)
        except BaseException as error:
            sock.close()
            close_half_made(error)
            raise


def close_half_made(error: BaseException) -> None:
    """Close the TLS socket that Python begins to make of a connection, where that is reset in the same moment.

    Python 3.11 leaves it open and to nobody but the traceback, which lives as long as the error that we raise.
    """
    import ssl

    for frame, _ in traceback.walk_tb(error.__traceback__):
        half_made = frame.f_locals.get("self")
        if isinstance(half_made, ssl.SSLSocket):
            half_made.close()


def tls_context(bundle: str | None) -> ssl.SSLContext:
    """Return the settings of TLS: certificates are verified against ``bundle``, a file or folder, or certifi's.

    Raises:
        CertificateError: the bundle cannot be read.
    """
    import ssl

    if bundle is None:
        import certifi

        path = certifi.where()
    else:
        path = bundle
    try:
        if os.path.isdir(path):
            context = ssl.create_default_context(capath=path)
        else:
            context = ssl.create_default_context(cafile=path)
    except OSError as error:
        raise CertificateError(
            f"the CA bundle {path} cannot be read: {error.strerror or error}; set REQUESTS_CA_BUNDLE to a file in PEM "
            "format, or to a folder of such files"
        ) from error
    context.set_alpn_protocols(["http/1.1"])
    return context
