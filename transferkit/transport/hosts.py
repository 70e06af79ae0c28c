"""What is known of each host, for as long as it is talked to: the session, its tokens, what was found out about it.

A client borrows its host from here, so what one of them learns the next one knows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import requests

from transferkit.content.interfaces import Flow
from transferkit.options import TransportOptions
from transferkit.protocol.origin import Origin, target_of
from transferkit.transport.adapter import PooledAdapter
from transferkit.transport.auth import Authorizer, GetToken
from transferkit.transport.credentials import Auth, credentials_of
from transferkit.transport.exchange import Exchange
from transferkit.transport.request import Request
from transferkit.transport.response import Response


class Traits:
    """What was found out about one registry. Thread-safe: two threads may learn the same at the same time."""

    __slots__ = ("has_chunksums",)

    def __init__(self) -> None:
        self.has_chunksums: bool | None = None
        """Whether it has lists of chunk digests at all, as its first answer says; ``None``: it was not asked."""


class Host:
    """One registry: its tokens, and what is known of it."""

    __slots__ = ("authorizer", "origin", "traits")

    def __init__(self, origin: Origin, authorizer: Authorizer) -> None:
        self.origin = origin
        self.authorizer = authorizer
        self.traits = Traits()

    def __repr__(self) -> str:
        return f"<Host {self.origin}>"


class Hosts:
    """The hosts that one session speaks to. A context manager; thread-safe.

    ``session`` is the user's, who closes it himself; by default there is one of our own, with a ``PooledAdapter`` that
    keeps ``connections`` idle ones an origin at most. ``auth``, ``token`` and ``get_token`` are those of ``download``.
    """

    def __init__(
        self,
        session: requests.Session | None = None,
        *,
        connections: int = 64,
        options: TransportOptions | None = None,
        auth: Auth | None = None,
        token: str | None = None,
        get_token: GetToken | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.options = options or TransportOptions()
        # identity: a blob is compared by its bytes, and a proxy that compresses it changes them.
        self.headers = {"User-Agent": self.options.user_agent, "Accept": "*/*", "Accept-Encoding": "identity"}
        self._own: requests.Session | None = None
        if session is None:
            session = self._own = requests.Session()
            session.headers.clear()  # what a request of ours says about itself is all
            adapter = PooledAdapter(connections=connections)
            session.mount("https://", adapter)
            session.mount("http://", adapter)
        self.exchange = Exchange(session)
        self._credentials = credentials_of(auth)
        self._token = token
        self._get_token = get_token
        self._clock = clock
        self._hosts: dict[Origin, Host] = {}
        self._lock = threading.Lock()

    def at(self, origin: Origin) -> Host:
        """Return the host at ``origin``."""
        with self._lock:
            host = self._hosts.get(origin)
            if host is None:
                host = self._hosts[origin] = Host(origin, self._authorizer(origin))
            return host

    def _authorizer(self, registry: Origin) -> Authorizer:
        def ask(url: str, headers: dict[str, str], flow: Flow) -> Response:
            """Send a request to a token service, whose URL the authorizer has checked."""
            origin = Origin.of(url)
            request = Request(
                method="GET",
                url=url,
                ok=(),
                headers={**self.headers, **headers},
                timeout=self.options.response_timeout,
                connect_timeout=self.options.connect_timeout,
                origin=origin,
                target=target_of(url),
                trusted=origin == registry,
            )
            return self.exchange.send(request, flow)

        return Authorizer(
            registry,
            ask,
            credentials=self._credentials,
            token=self._token,
            get_token=self._get_token,
            options=self.options,
            clock=self._clock,
        )

    def close(self) -> None:
        """Close the connections; those of a user's session stay open."""
        if self._own is not None:
            self._own.close()

    def __enter__(self) -> Hosts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
