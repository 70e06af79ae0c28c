"""Connections that can be woken: urllib3's, which carry the flow that they are made for, and pools of them.

Connecting, TLS, proxies and pooling stay urllib3's. Knows sockets; requests and responses it does not.
"""

from __future__ import annotations

import os
import queue
import socket
import ssl
import struct
import threading
import time
import weakref
from contextlib import nullcontext, suppress
from typing import Any, cast

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.connection import allowed_gai_family

from transferkit.content.flow import Abort, Flow
from transferkit.transport.addresses import Addresses, Info, is_private, public_ones, race, refused
from transferkit.transport.idle import IDLE, IdleConnections
from transferkit.transport.sockets import (
    READ,
    abort_of,
    alarm,
    close_half_made,
    closed_on_error,
    is_kernels,
    new_poll,
    nobody,
)

_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux alone has it

# Answers that a server may owe us, for each one that it has sent: nginx ends a connection after its 1,000th answer, and
# says so; of a server that does it after every third, one request at a time is what it wants.
_OWED = 1 / 8
_FEW = 64  # answers until that is judged
_BROKEN = 2  # bundles in a row without an answer, after which no more are sent
_SOON = 1.0  # seconds; who ends a connection sooner after a response ends every one: tinyproxy, which does not say so


class WakeableConnection(HTTPConnection):
    """A connection of urllib3's that its flow can wake at any time, from the first packet on. Of one thread at a time.

    ``flow`` is whom it is made for, ``None`` where a session is used by hand: it behaves as urllib3's own then.
    """

    flow: Flow | None = None
    addresses: Addresses
    """What its pool knows of the addresses of the host; there where ``flow`` is."""
    abort: Abort
    """Wakes whoever is blocked on it; there once it stands."""
    public_only = False
    """Whether it may be made to public addresses alone."""
    address: Any = None
    """Where it leads to, as ``getaddrinfo`` has it."""
    over_tls = False
    is_kernels = True
    """Whether the kernel's own time limit holds for its socket, and the kernel may send a file on it."""
    idle_since = 0.0
    limit: float | None = None
    """How long one call on the socket may block, in seconds, once ``bound`` said so."""
    readable: Any
    """Tells whether something has come that was not read."""
    _twin: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        if self.flow is None:
            by_hand = super()._new_conn()
            with suppress(OSError):  # it may have ended already
                self.address = by_hand.getpeername()
            return by_hand
        self.flow.attach(nobody)
        try:
            sock = self._open(self.flow)
        finally:
            self.flow.detach(nobody)
        with closed_on_error(sock):
            # A second descriptor wakes a handshake: wrap_socket takes the plain one away.
            self._twin = sock.dup()
            self.abort = abort_of(self._twin)
            self.flow.attach(self.abort)
        return sock

    def _open(self, flow: Flow) -> socket.socket:
        def make(info: Info) -> socket.socket:
            sock = socket.socket(*info[:3])
            with closed_on_error(sock):
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                if self.source_address:
                    sock.bind(self.source_address)
            return sock

        host = self._dns_host.strip("[]")
        known = self.addresses.resolve(host, self.port, allowed_gai_family())
        if self.public_only:
            known = public_ones(host, known)
        sock, info = race(known, make, cast(float, self.timeout), flow)
        self.addresses.answered(info)
        self.address = info[4]
        return sock

    def check_public(self) -> None:
        """Raise ProtocolError where it leads to a private address: it was made for somebody else."""
        if self.address is not None and is_private(self.address):
            raise refused(self._dns_host.strip("[]"), self.address)

    def connect(self) -> None:
        try:
            super().connect()
        except OSError as error:
            close_half_made(error)
            raise
        finally:
            twin, self._twin = self._twin, None
            if twin is not None and self.flow is not None:
                self.flow.detach(self.abort)
                twin.close()
        sock = self.sock
        self.over_tls = isinstance(sock, ssl.SSLSocket) or not isinstance(sock, socket.socket)
        self.abort = abort_of(sock if isinstance(sock, socket.socket) else sock.socket)  # TLS within a proxy's TLS
        self.limit = None
        self.is_kernels = not self.over_tls and is_kernels(sock)
        self.readable = new_poll()
        self.readable.register(sock, READ)
        _standing.add(self)

    def _tunnel(self) -> None:
        # http.client reads the answer of a proxy to its end, however slowly it comes.
        with nullcontext() if self.flow is None else alarm(cast(float, self.timeout), self.abort):
            super()._tunnel()

    def request(self, *args: Any, **keywords: Any) -> None:
        """Send a request for whoever uses the session by hand, and who has a time limit of his own."""
        if self.sock is not None and self.limit is not None and self.is_kernels:
            self.bound(0.0)  # which is no bound at all
        self.limit = None
        super().request(*args, **keywords)

    @property
    def is_connected(self) -> bool:
        """Whether it may be used again: it has not ended, and brought nothing that would be taken for an answer.
        urllib3 asks, too, where a session is used by hand."""
        sock: Any = self.sock
        if sock is None:
            return False
        # What is deciphered already came with the last bytes of the body. An SSLTransport keeps it in ``incoming``.
        if self.over_tls and (sock.pending() if isinstance(sock, ssl.SSLSocket) else sock.incoming.pending):
            return False
        if not self.readable.poll(0):
            return True
        if isinstance(sock, ssl.SSLSocket):
            self.limit = None
            try:
                sock.settimeout(0)
                sock.recv(1)
            except ssl.SSLWantReadError:
                return True  # no more than a session ticket, which may come at any time
            except OSError:
                pass
        return False

    def acknowledge(self) -> None:
        """Tell the server now what has come of its answers: where it holds back the last piece of one until it knows
        (Nagle's algorithm, nginx's ``tcp_nopush``), that would take the kernel's 40 ms."""
        if _QUICKACK is not None:
            sock = self.sock if isinstance(self.sock, socket.socket) else self.sock.socket  # TLS within a proxy's TLS
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def bound(self, seconds: float) -> None:
        """Bound how long one call on the socket may block."""
        if self.limit == seconds:
            return
        if not self.is_kernels:
            self.sock.settimeout(seconds)
        else:
            # The kernel's own limit: Python's asks poll() before each call, twice the system calls of a small blob.
            if self.sock.gettimeout() is not None:
                self.sock.settimeout(None)
            interval = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
            for direction in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                self.sock.setsockopt(socket.SOL_SOCKET, direction, interval)
        self.limit = seconds


_standing: weakref.WeakSet[WakeableConnection] = weakref.WeakSet()


def _part_with_parent() -> None:
    """Close the sockets, and no more, of a child's copies: it and its parent would take each other's responses."""
    for connection in list(_standing):
        sock, connection.sock = connection.sock, None
        if sock is not None:
            sock.close()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_part_with_parent)


class WakeableTLSConnection(WakeableConnection, HTTPSConnection):
    """The same over TLS."""


class Pipelines:
    """What is known of how a server deals with requests that come together. Thread-safe."""

    __slots__ = ("_lock", "answered", "are_taken", "broken", "has_answered", "owed")

    def __init__(self) -> None:
        self.has_answered = False
        """Whether a single request was answered as it should be, over a connection that stays."""
        self.are_taken = True
        self.answered = 0
        self.owed = 0
        self.broken = 0
        """How many bundles in a row ended in silence, or without a word."""
        self._lock = threading.Lock()

    @property
    def may_begin(self) -> bool:
        return self.has_answered and self.are_taken

    def ended(self, answered: int, owed: int, *, announced: bool) -> None:
        """Take in how many of some requests were answered; ``announced``: the server said that it would end."""
        with self._lock:  # "+=" on an attribute is not atomic
            self.answered += answered
            self.owed += owed
            self.broken = 0
            if owed and (not announced or self.owed > max(_FEW, self.answered) * _OWED):
                self.are_taken = False

    def broke(self) -> None:
        """Take in that some requests were not answered, and nobody knows why."""
        with self._lock:
            self.broken += 1
            if self.broken == _BROKEN:
                self.are_taken = False


class WakeablePool(HTTPConnectionPool):
    """A pool whose connections can be woken, and whose idle ones are looked at before they are used again."""

    ConnectionCls = WakeableConnection
    QueueCls: Any = IdleConnections
    addresses: Addresses
    """What is known of the addresses of its host, or of the proxy on the way to it."""
    pipelines: Pipelines
    """What is known of how the server deals with requests that come together."""
    ends_soon = False
    """Whether the server closes connections right after a response without announcing it, or sends more than its
    response there; then a request that may not be repeated gets a new connection."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.addresses = Addresses()
        self.pipelines = Pipelines()

    @property
    def is_private(self) -> bool:
        """Whether its host was found at a private address, also by who uses the session by hand."""
        if self.addresses.is_known:
            return self.addresses.is_private
        idle: Any = self.pool  # None once it is closed
        known = () if idle is None else idle.connections()
        return any(each.address is not None and is_private(each.address) for each in known)

    def idle(self) -> WakeableConnection | None:
        """Return an idle connection that is fit to be used again, and part with it."""
        while self.pool:  # None once it is closed
            try:
                connection: WakeableConnection = self.pool.get()
            except (queue.Empty, AttributeError):
                break  # another thread was quicker
            if time.monotonic() - connection.idle_since < IDLE and connection.is_connected:
                return connection
            self.discard(connection)
        return None

    def discard(self, connection: WakeableConnection) -> None:
        """Close a connection that has ended while it was idle, or on our side, or has brought what is no answer."""
        if connection.sock is not None and time.monotonic() - connection.idle_since < _SOON:
            self.ends_soon = True
        connection.close()

    def give_back(self, connection: WakeableConnection) -> None:
        """Keep a connection for the next request."""
        connection.flow = None
        try:
            self.pool.put(connection)  # type: ignore[union-attr]  # None once urllib3 has closed it
        except (queue.Full, AttributeError):
            connection.close()

    def new(self, flow: Flow, timeout: float, *, tunnel: bool, public_only: bool = False) -> WakeableConnection:
        """Make a connection for ``flow``; each step may take ``timeout`` seconds. ``tunnel``: by CONNECT;
        ``public_only``: to public addresses alone."""
        connection = cast(WakeableConnection, self._new_conn())
        connection.public_only = public_only
        connection.flow, connection.timeout, connection.addresses = flow, timeout, self.addresses
        with closed_on_error(connection):
            self._prepare_proxy(connection) if tunnel else connection.connect()
        return connection


class WakeableTLSPool(WakeablePool, HTTPSConnectionPool):
    """The same over TLS."""

    ConnectionCls = WakeableTLSConnection


POOLS: dict[str, Any] = {"http": WakeablePool, "https": WakeableTLSPool}
