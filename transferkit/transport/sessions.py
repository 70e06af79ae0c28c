"""Sending one request over a requests session, so that it can be woken.

Two ways in: our own adapter, a ``requests`` one on a shared, sized, blocking pool whose connections tell the flow how
to wake them; and a session of the user's, which is used as it is. Knows nothing of redirects, credentials or refusals.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, cast

import requests
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import allowed_gai_family

from transferkit.content.interfaces import Abort, Flow
from transferkit.transport.body import Answer, Sender, abort_of, foreign_errors

BLOCK = 256 * 1024  # http.client sends 16 KiB at a time by default: 16 times the calls, and a third of the speed
_SLICE = 0.1  # seconds between two looks at the flow while a connection is being made

# Which flow a connection made by this thread belongs to. urllib3 hands nothing of ours down to where the socket is
# made, and a pool's connections are shared by threads, so the thread is the only thing that links the two.
_thread = threading.local()


def _current() -> Flow | None:
    return getattr(_thread, "flow", None)


class _Wakeable:
    """Mixed into urllib3's connections: from connect to the end of the answer, the flow knows how to wake us."""

    sock: Any
    timeout: Any
    send_timeout = 60.0
    held: tuple[Flow, Abort] | None = None

    def hold(self, flow: Flow) -> None:
        """Let ``flow`` wake whoever is blocked on this connection."""
        self.release()
        abort = abort_of(self.sock)
        self.held = (flow, abort)
        flow.attach(abort)

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
            addresses = socket.getaddrinfo(host.strip("[]"), port, allowed_gai_family(), socket.SOCK_STREAM)
        except OSError as error:
            raise NameResolutionError(host, connection, cast(socket.gaierror, error)) from error
        last: OSError = OSError(f"{host} has no address")
        for family, kind, protocol, _, address in addresses:
            sock = socket.socket(family, kind, protocol)
            try:
                for option in connection.socket_options or ():
                    sock.setsockopt(*option)
                if connection.source_address:
                    sock.bind(connection.source_address)
                self._connect(sock, address, flow)
            except OSError as error:
                sock.close()
                last = error
                continue
            except BaseException:
                sock.close()
                raise
            return sock
        if isinstance(last, TimeoutError):
            raise ConnectTimeoutError(connection, f"no connection to {host} within {self.timeout} s") from last
        raise NewConnectionError(connection, f"cannot connect to {host}: {last}") from last

    def _connect(self, sock: socket.socket, address: Any, flow: Flow) -> None:
        """Connect in slices: shutting a connecting socket down wakes it on Linux alone, so the flow is asked."""
        deadline = time.monotonic() + float(self.timeout)
        sock.setblocking(False)
        # 115 EINPROGRESS, 36 on macOS; anything else that is not 0 has failed already and says so below.
        sock.connect_ex(address)
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        while not poll.poll(_SLICE * 1000):
            flow.check()
            if time.monotonic() >= deadline:
                raise TimeoutError(f"timed out after {self.timeout} s")
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        sock.settimeout(float(self.timeout))

    def connect(self) -> None:
        flow = _current()
        if flow is None:
            super().connect()  # type: ignore[misc]  # the mixed-in connection has it
            return
        # wrap_socket() takes the descriptor out of the plain socket, so a handshake is woken by a second one.
        twins: list[tuple[socket.socket, Abort]] = []
        make = self._new_conn

        def remember() -> socket.socket:
            sock = make()
            twin = sock.dup()
            abort = abort_of(twin)
            twins.append((twin, abort))
            try:
                flow.attach(abort)
            except BaseException:
                sock.close()  # nobody else knows it yet
                raise
            return sock

        self._new_conn = remember  # type: ignore[method-assign]  # for this one call
        try:
            super().connect()  # type: ignore[misc]  # as above
        finally:
            del self._new_conn
            for twin, abort in twins:
                flow.detach(abort)
                twin.close()
        self.hold(flow)
        self.sock.settimeout(self.send_timeout)

    def request(self, *args: Any, **kwargs: Any) -> None:
        flow = _current()
        if flow is not None and self.sock is not None:
            self.hold(flow)
            # The pool has just set the connect timeout here; sendall() takes it as the limit for a whole block.
            self.timeout = self.send_timeout
        super().request(*args, **kwargs)  # type: ignore[misc]  # as above


class _Connection(_Wakeable, HTTPConnection):
    pass


class _TLSConnection(_Wakeable, HTTPSConnection):
    pass


class _ReleasingPool:
    """Mixed into urllib3's pools: a connection forgets its flow before another thread can have it."""

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.release()
        super()._put_conn(conn)  # type: ignore[misc]  # the mixed-in pool has it


class _Pool(_ReleasingPool, HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(_ReleasingPool, HTTPSConnectionPool):
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

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOLS
        return manager


Settings = dict[str, Any]


class Sessions:
    """Sends requests through one session, our own or the user's. Thread-safe.

    A session of the user's keeps its adapters, proxies, CA bundle and client certificate; its headers, cookies and
    ``auth`` go to the registry's own origin alone.
    """

    def __init__(self, session: requests.Session | None, *, connections: int) -> None:
        self._own = session is None
        self._session = session or requests.Session()
        if self._own:
            adapter = WakeableAdapter(connections=connections)
            self._session.mount("https://", adapter)
            self._session.mount("http://", adapter)
        self._settings: dict[tuple[str, bool], Settings] = {}

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        sender: Sender | None,
        timeout: tuple[float, float],
        trusted: bool,
        origin: str,
        flow: Flow,
    ) -> Answer:
        """Send one request and return the answer once its head is there.

        ``timeout`` is (to connect, to the head of the answer) in seconds; ``origin`` names where ``url`` goes, and
        ``trusted`` says that this is the registry's own origin.

        Raises:
            TransportError, ProtocolError: no answer came, or none that HTTP knows.
        """
        flow.check()
        request = self._prepare(method, url, headers, sender, trusted)
        settings = self._settings.get((origin, trusted))
        if settings is None:
            settings = self._settings[origin, trusted] = self._merge(url, trusted)
        _thread.flow = flow
        try:
            with foreign_errors(flow, origin, settings["verify"], sender):
                if self._own:
                    adapter = self._session.get_adapter(url)
                    response = adapter.send(request, stream=True, timeout=timeout, **settings)
                else:
                    response = self._session.send(
                        request, stream=True, timeout=timeout, allow_redirects=False, **settings
                    )
        finally:
            _thread.flow = None
        return Answer(response, origin=origin, flow=flow)

    def _prepare(
        self, method: str, url: str, headers: Mapping[str, str], sender: Sender | None, trusted: bool
    ) -> requests.PreparedRequest:
        merged: CaseInsensitiveDict[str] = CaseInsensitiveDict()
        if trusted and not self._own:
            merged.update({k: v for k, v in self._session.headers.items() if isinstance(v, str)})
        merged.update(headers)
        # Not Session.prepare_request: with trust_env it would replace an Authorization of ours by one from ~/.netrc.
        request = requests.Request(
            method,
            url,
            headers=merged,
            auth=self._session.auth if trusted and not self._own and "authorization" not in merged else None,
            cookies=self._session.cookies if trusted and not self._own else None,
        ).prepare()
        request.url = url  # byte for byte as given: requests would re-quote a signed URL
        if sender is not None:
            request.headers["Content-Length"] = str(sender.length)
            request.body = iter(sender) if sender.length else None  # type: ignore[assignment]  # urllib3 takes any iterable
        return request

    def _merge(self, url: str, trusted: bool) -> Settings:
        """Return proxies, CA bundle and certificate for an origin: from the session, then from the environment."""
        settings = self._session.merge_environment_settings(url, {}, None, None, None)
        return {
            "verify": settings["verify"],
            "cert": settings["cert"] if trusted else None,
            "proxies": dict(settings["proxies"]),
        }

    def close(self) -> None:
        """Close our own session; the user's is left as it is."""
        if self._own:
            self._session.close()
