"""What is known of each host, for as long as it is talked to: the session, its tokens, what was found out about it.

A client borrows its host from here, so what one of them learns the next one knows.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import requests

from transferkit.content.interfaces import Closing
from transferkit.options import HostOptions, TransportOptions
from transferkit.protocol.origin import Origin
from transferkit.transport.adapter import PooledAdapter
from transferkit.transport.auth import Auth, Authorizer, GetToken
from transferkit.transport.exchange import Exchange


@dataclass(slots=True, eq=False)
class Host:
    """What is known of one registry. Thread-safe: two threads may learn the same at the same time."""

    exchange: Exchange
    authorizer: Authorizer
    has_chunksums: bool | None = None
    """Whether it has lists of chunk digests at all, as its first answer says; ``None``: it was not asked."""


class Hosts(Closing):
    """The hosts that one session speaks to. A context manager; thread-safe.

    ``session`` is the user's, who closes it himself; by default there is one of our own, with a ``PooledAdapter`` that
    keeps ``connections`` idle ones an origin at most. ``stall_timeout`` (seconds), ``auth``, ``token`` and
    ``get_token`` are those of ``download``; ``hosts`` has what holds for single hosts.
    """

    def __init__(
        self,
        session: requests.Session | None = None,
        *,
        connections: int = 64,
        options: TransportOptions | None = None,
        hosts: Mapping[str, HostOptions] | None = None,
        stall_timeout: float = 10.0,
        auth: Auth | None = None,
        token: str | None = None,
        get_token: GetToken | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own: requests.Session | None = None
        if session is None:
            session = self._own = requests.Session()
            session.headers.clear()  # what a request of ours says about itself is all
            adapter = PooledAdapter(connections=connections)
            session.mount("https://", adapter)
            session.mount("http://", adapter)
        self.options = options or TransportOptions()
        self.given = {host.lower(): given for host, given in (hosts or {}).items()}
        self._exchange = partial(Exchange, session, self.options, patience=stall_timeout)
        self._authorizer = partial(Authorizer, auth=auth, token=token, get_token=get_token, clock=clock)
        self._hosts: dict[tuple[Origin, bool], Host] = {}
        self._ordinary = self._exchange(hosts=self.given)
        self.strangers: dict[Origin, Authorizer] = {}
        """The origins that registries have led to and that want tokens of their own."""
        self._lock = threading.Lock()

    def at(self, origin: Origin, max_retry_after: float = math.inf, *, insecure: bool = False) -> Host:
        """Return the host at ``origin``; of the clients that share it, the first says how long it may have us wait.

        ``insecure``: its certificate is not looked at, by those who ask for it so; nothing else is shared with them.
        """
        with self._lock:
            host = self._hosts.get((origin, insecure))
            if host is None:
                exchange = self._ordinary
                if insecure:
                    given = self.given.get(origin.netloc) or self.given.get(origin.host) or HostOptions()
                    exchange = self._exchange(hosts={**self.given, origin.netloc: replace(given, insecure=True)})
                authorizer = self._authorizer(origin, exchange=exchange, max_retry_after=max_retry_after)
                host = self._hosts[origin, insecure] = Host(exchange, authorizer)
            return host

    def stranger(self, origin: Origin, led_by: Origin) -> Authorizer:
        """Return who gets anonymous tokens for an origin that ``led_by`` leads to: nothing of the user's goes there."""
        with self._lock:
            if origin not in self.strangers:
                self.strangers[origin] = Authorizer(
                    origin, self._ordinary, led_by=led_by, clock=self._authorizer.keywords["clock"]
                )
            return self.strangers[origin]

    def close(self) -> None:
        """Close the connections; those of a user's session stay open."""
        if self._own is not None:
            self._own.close()
