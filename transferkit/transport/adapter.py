"""The pooled adapter: what is mounted on a ``requests`` session, with two lanes on one pool.

``send`` is ``HTTPAdapter``'s own, for whoever uses the session by hand. ``exchange`` is the fast lane: no
``PreparedRequest`` and no ``requests.Response``, which take most of the 1,200 Python calls that a small blob costs.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import requests
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import DEFAULT_CA_BUNDLE_PATH, select_proxy
from urllib3.util.proxy import connection_requires_http_tunnel
from urllib3.util.ssl_ import create_urllib3_context

from transferkit.content.flow import Flow
from transferkit.errors import CertificateError, ProtocolError, ReadError
from transferkit.protocol.origin import Origin
from transferkit.transport import http11
from transferkit.transport.connections import POOLS, WakeablePool
from transferkit.transport.failures import foreign_errors
from transferkit.transport.idle import Idle
from transferkit.transport.request import Lane, Request
from transferkit.transport.response import Response

BLOCK = 256 * 1024  # http.client sends 16 KiB at a time by default: 16 times the calls, and a third of the speed
MAX_IDLE = 128  # idle connections over all origins; far below the 1,024 descriptors that a process usually may have
_ORIGINS = 64  # pools that are kept; the least recently used one goes
_SAFE = frozenset({"GET", "HEAD"})


class PooledAdapter(HTTPAdapter):
    """An adapter for ``requests`` sessions whose pool all threads share, and whose connections can be woken.

    Mount it on a session of your own, and transfers through that session have their full speed::

        session = requests.Session()
        session.mount("https://", tk.PooledAdapter())
        tk.download(blobs, "model", base_url=..., repository=..., session=session)

    ``connections`` is how many idle ones an origin keeps at most; over all origins at most 128 are kept, and none for
    more than 90 seconds. Used by hand (``session.get``), it behaves as ``HTTPAdapter`` does, without retries of its
    own. Thread-safe.
    """

    def __init__(self, *, connections: int = 64) -> None:
        # max_retries=0: there is one retry loop, and it is not here.
        super().__init__(pool_connections=_ORIGINS, pool_maxsize=connections, max_retries=0, pool_block=False)

    def lane(self, lane: Lane, origin: Origin) -> Lane:
        """Return ``lane`` with how requests to ``origin`` travel under its settings, where those make sense."""
        prepared = requests.Request("GET", f"{origin}/").prepare()
        try:
            pool = self.get_connection_with_tls_context(prepared, **lane.settings)
        except _UnreadableError as error:
            raise CertificateError(str(error)) from error.__cause__
        tunnel = connection_requires_http_tunnel(pool.proxy, pool.proxy_config, origin.scheme)
        forwards = pool.proxy is not None and not tunnel
        ours = {"Host": origin.netloc, **(pool.proxy_headers if forwards else {})}
        # What the session says itself takes the place of ours: of two Hosts, each server would take another one.
        fields = {name: text for name, text in ours.items() if name not in CaseInsensitiveDict(lane.headers)}
        return replace(
            lane,
            adapter=self,
            pool=pool,
            tunnel=tunnel,
            before_target=str(origin) if forwards else "",
            fields="".join(f"{name}: {text}\r\n" for name, text in fields.items()),
        )

    def exchange(self, request: Request, lane: Lane, flow: Flow) -> Response:
        """Send one request and return the response once its head is there; ``Exchange.send`` says what it raises."""
        head = http11.head_of(request, lane)
        pool = lane.pool
        assert pool is not None
        is_safe = request.method in _SAFE
        connection = None if flow.fresh or (pool.ends_soon and not is_safe) else pool.idle()
        while True:
            is_used = connection is not None
            if connection is None:
                with foreign_errors(flow, lane, connecting=True):
                    connection = pool.new(flow, lane.connect_timeout, tunnel=lane.tunnel, public_only=lane.public_only)
            try:
                if lane.public_only:
                    connection.check_public()
                return http11.converse(connection, head, request, lane, flow)
            except http11.StaleConnection as error:
                # Closed by the server while it was idle, and nothing of a response came: that is no failure of the
                # blob. A fresh one, once; a body that was begun may have been acted upon, so only what is safe.
                pool.discard(connection) if is_used else connection.close()
                if not is_used or not is_safe:
                    raise ReadError(_unanswered(lane)) from error.__cause__
                connection = None
            except http11.StrayBytes as stray:
                # What follows an answer that had no body (a late one to HEAD) was taken for the next answer.
                connection.close()
                if not is_used or not is_safe:
                    # It may have been acted upon, and is for the caller to try again: on a new connection.
                    pool.ends_soon = pool.ends_soon or is_used
                    raise ProtocolError(str(stray), retryable=is_used) from None
                connection = None
            except BaseException:
                connection.close()
                raise

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any) -> None:
        # Here and not in __init__: an adapter that is unpickled begins here.
        self._contexts: dict[tuple[tuple[str, Any], ...], ssl.SSLContext] = {}
        self._idle = Idle(MAX_IDLE)
        self._lock = threading.Lock()
        super().init_poolmanager(connections, maxsize, block, blocksize=BLOCK, **pool_kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)  # which says so where PySocks is missing
        manager.pool_classes_by_scheme = POOLS
        if proxy.lower().startswith("socks"):
            from transferkit.transport.socks import SOCKS_POOLS  # PySocks is needed here alone

            manager.pool_classes_by_scheme = SOCKS_POOLS
        return manager

    def get_connection_with_tls_context(
        self, request: Any, verify: Any, proxies: Any = None, cert: Any = None
    ) -> WakeablePool:
        if hasattr(request, "pool"):  # a request of ours that a session has to see
            return cast(WakeablePool, request.pool)
        proxy = select_proxy(request.url, proxies)
        with self._lock:  # else each of the first threads would make a context, and with it a pool
            if proxy is not None and proxy.lower().startswith("https:"):
                # The proxy's own certificate is judged as the registry's: by the bundle of the session.
                _, settings = super().build_connection_pool_key_attributes(request, verify, None)
                self.proxy_manager_for(proxy, proxy_ssl_context=self._context(settings))
            found: Any = super().get_connection_with_tls_context(request, verify, proxies=proxies, cert=cert)
            found.pool.shared = self._idle
        return cast(WakeablePool, found)

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> tuple[Any, Any]:
        host, settings = super().build_connection_pool_key_attributes(request, verify, cert)
        if host["scheme"] == "https":
            # One context for all connections: to read a CA bundle takes 10 ms, for each of 64 connections.
            return host, {"ssl_context": self._context(settings), "cert_reqs": settings["cert_reqs"]}
        return host, settings

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Nothing is left to do: the context has the certificates."""

    def _context(self, settings: Mapping[str, Any]) -> ssl.SSLContext:
        key = tuple(sorted(settings.items()))
        if key in self._contexts:
            return self._contexts[key]
        is_verified = settings["cert_reqs"] != "CERT_NONE"
        bundle = settings.get("ca_certs") or settings.get("ca_cert_dir") or DEFAULT_CA_BUNDLE_PATH
        certificate = settings.get("cert_file")
        context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED if is_verified else ssl.CERT_NONE)
        what = f"CA bundle {bundle}"
        hint = "set REQUESTS_CA_BUNDLE to a file in PEM format, or to a folder of such files"
        try:
            if is_verified:
                context.load_verify_locations(**{"capath" if os.path.isdir(bundle) else "cafile": bundle})
            if certificate is not None:
                what, hint = f"client certificate {certificate}", "see the session's cert, or HostOptions(client_cert)"
                context.load_cert_chain(certificate, settings.get("key_file"))
        except OSError as error:
            raise _UnreadableError(f"the {what} cannot be read: {error.strerror or error}; {hint}") from error
        self._contexts[key] = context
        return context

    def close(self) -> None:
        # urllib3 leaves the connections of a pool to the garbage collector, and the error of an attempt that was made
        # again keeps the pool alive until that runs.
        idle, self._idle = self._idle, Idle(MAX_IDLE)
        idle.close()
        super().close()


class _UnreadableError(OSError):
    """A file with certificates cannot be read; an ``OSError`` as requests itself raises it."""


def _unanswered(lane: Lane) -> str:
    # That is how many servers end it when they want TLS and get a request in plain text.
    advice = "; if it speaks https, use its https:// address" if lane.origin.startswith("http:") else ""
    return f"{lane.origin} closed the connection without an answer{advice}"
