"""Connections that can be woken: urllib3's, taught to tell a flow where they are blocked.

Connecting, TLS, proxies and pooling stay urllib3's. Knows sockets; requests, answers and refusals it does not.
"""

from __future__ import annotations

import http.client
import math
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast
from urllib.parse import quote

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import allowed_gai_family

from transferkit.content.interfaces import Abort, Flow
from transferkit.transport.dial import abort_of, close_half_made, open_socket, watched

BLOCK = 256 * 1024  # http.client sends 16 KiB at a time by default: 16 times the calls, and a third of the speed
_VISIBLE = "".join(map(chr, range(0x21, 0x7F)))

# Which flow a connection made by this thread belongs to. urllib3 hands nothing of ours down to where the socket is
# made, and a pool's connections are shared by threads, so the thread is the only thing that links the two.
_thread = threading.local()


@contextmanager
def connecting_for(flow: Flow) -> Iterator[None]:
    """Say that the connections which this thread makes or uses in the block are the flow's."""
    _thread.flow = flow
    try:
        yield
    finally:
        _thread.flow = None


def _current() -> Flow | None:
    return getattr(_thread, "flow", None)


class _Lines:
    """A file that is read line by line until a deadline, and remembers the last line."""

    def __init__(self, file: Any, deadline: float) -> None:
        self._file = file
        self._deadline = deadline
        self.last = b""

    def readline(self, limit: int) -> bytes:
        line = b""
        while not line.endswith(b"\n") and len(line) < limit:
            arrived = self._file.peek()[: limit - len(line)]  # waits for the first byte of it only
            if not arrived:
                break
            line += self._file.read(arrived.find(b"\n") + 1 or len(arrived))
            if time.monotonic() > self._deadline:
                raise TimeoutError("timed out")
        self.last = line
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _StrictResponse(http.client.HTTPResponse):
    """Refuses a head that is cut off, and one that comes byte by byte for ever.

    http.client takes the end of the connection for the end of the head, and has as much patience with each byte.
    """

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        patience = sock.gettimeout()
        self._deadline = math.inf if patience is None else time.monotonic() + patience

    def begin(self) -> None:
        file: Any = self.fp
        lines: Any = _Lines(file, self._deadline)
        self.fp = lines
        try:
            super().begin()
        finally:
            if self.fp is lines:
                self.fp = file
        if not lines.last:
            raise http.client.RemoteDisconnected("closed within the head of the answer")


class _Wakeable:
    """Mixed into urllib3's connections: from connect to the end of the answer, the flow knows how to wake us."""

    sock: Any
    timeout: Any
    response_class: Any = _StrictResponse
    send_timeout = 60.0
    held: tuple[Flow, Abort] | None = None
    abort: Abort
    """Wakes whoever is blocked on this connection; there from ``connect`` on."""

    def hold(self, flow: Flow) -> None:
        """Let ``flow`` wake whoever is blocked on this connection."""
        self.release()
        self.held = (flow, self.abort)
        flow.attach(self.abort)

    def release(self) -> None:
        """Forget the flow: the connection is done with it, and another one may get it next."""
        if self.held is not None:
            flow, abort = self.held
            self.held = None
            flow.detach(abort)

    def close(self) -> None:
        self.release()
        super().close()  # type: ignore[misc]  # the mixed-in connection has it

    def _new_conn(self) -> socket.socket:
        flow = _current()
        if flow is None:
            return cast(socket.socket, super()._new_conn())  # type: ignore[misc]  # the mixed-in connection has it
        connection = cast(HTTPConnection, self)
        host, port = connection._dns_host, connection.port
        try:
            return open_socket(
                host.strip("[]"),
                port,
                timeout=float(self.timeout),
                flow=flow,
                family=allowed_gai_family(),
                options=connection.socket_options or (),
                source_address=connection.source_address,
            )
        except socket.gaierror as error:
            raise NameResolutionError(host, connection, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(connection, f"no connection to {host} within {self.timeout} s") from error
        except OSError as error:
            raise NewConnectionError(connection, f"cannot connect to {host}: {error}") from error

    def connect(self) -> None:
        flow = _current()
        if flow is None:
            super().connect()  # type: ignore[misc]  # the mixed-in connection has it
            return
        make = self._new_conn
        with ExitStack() as stack:

            def watch() -> socket.socket:
                sock = make()
                try:
                    stack.enter_context(watched(sock, flow))
                except BaseException:
                    sock.close()  # nobody else knows it yet
                    raise
                return sock

            self._new_conn = watch  # type: ignore[method-assign]  # for this one call
            try:
                super().connect()  # type: ignore[misc]  # as above
            except OSError as error:
                close_half_made(error)
                if isinstance(error, (ssl.SSLError, TimeoutError)):
                    raise
                # A reset within the handshake; else urllib3 would say that a connection which stood has broken.
                raise NewConnectionError(cast(HTTPConnection, self), str(error)) from error
            finally:
                del self._new_conn
        self.abort = abort_of(self.sock)
        self.hold(flow)
        self.sock.settimeout(self.send_timeout)

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        flow = _current()
        if flow is not None and self.sock is not None:
            self.hold(flow)
            # The pool has just set the connect timeout here; sendall() takes it as the limit for a whole block.
            self.timeout = self.send_timeout
        target = getattr(_thread, "target", None) or url
        super().request(method, target, *args, **kwargs)  # type: ignore[misc]  # as above


class _Connection(_Wakeable, HTTPConnection):
    pass


class _TLSConnection(_Wakeable, HTTPSConnection):
    pass


class _DiscreetPool:
    """Mixed into urllib3's pools: they keep neither a connection's flow nor the query of a URL.

    A connection forgets its flow before another thread can have it.
    """

    def urlopen(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        # urllib3 repeats the URL in its debug log and in its errors, and the query of a signed one is a secret. So it
        # gets the path alone, and the connection sends the whole: byte for byte, where urllib3 would re-quote it.
        _thread.target = url if url.isascii() else quote(url, safe=_VISIBLE)
        try:
            return super().urlopen(method, url.partition("?")[0], *args, **kwargs)  # type: ignore[misc]  # as above
        finally:
            _thread.target = None

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.release()
        super()._put_conn(conn)  # type: ignore[misc]  # the mixed-in pool has it


class _Pool(_DiscreetPool, HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(_DiscreetPool, HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


_POOLS = {"http": _Pool, "https": _TLSPool}


class WakeableAdapter(HTTPAdapter):
    """A ``requests`` adapter whose pool is shared by all threads, blocks when it is used up, and can be woken."""

    def __init__(self, *, connections: int) -> None:
        # max_retries=0: there is one retry loop, and it is not here.
        super().__init__(pool_connections=16, pool_maxsize=connections, max_retries=0, pool_block=True)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, blocksize=BLOCK, **pool_kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def close(self) -> None:
        # urllib3 leaves the connections of a pool to the garbage collector, and the error of an attempt that was made
        # again keeps the pool alive until that runs.
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 - it is no dictionary, and cannot be iterated over
                manager.pools[key].close()
        super().close()

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOLS
        return manager
