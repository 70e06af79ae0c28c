"""What is known of each host, for as long as it is talked to: the session, its tokens, what was found out about it.

A client borrows its host from here, so what one of them learns the next one knows.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import requests

from transferkit.content.flow import Closing
from transferkit.errors import ConnectError, TransferKitError
from transferkit.grammar import API_HOSTS
from transferkit.options import HostOptions, TransportOptions, check_hosts
from transferkit.protocol.origin import Origin
from transferkit.protocol.routes import check_base_url
from transferkit.protocol.upload import is_ollama
from transferkit.transport.adapter import PooledAdapter
from transferkit.transport.auth import Auth, Authorizer, GetToken
from transferkit.transport.credentials import StoredCredentials
from transferkit.transport.exchange import Exchange
from transferkit.transport.secrets import clean_error, parts_of_query
from transferkit.transport.signing import KeyFile

if TYPE_CHECKING:
    from transferkit.transport.hub import HubToken

_SIGNED = 256  # URLs; more requests than run at once


@dataclass(slots=True, eq=False)
class Host:
    """What is known of one registry. Thread-safe: two threads may learn the same at the same time."""

    exchange: Exchange
    authorizer: Authorizer
    has_chunksums: bool | None = None
    """Whether it has lists of chunk digests at all, as its first answer says; ``None``: it was not asked."""
    signed: deque[str] = field(default_factory=lambda: deque(maxlen=_SIGNED), repr=False)
    """Absolute URLs that were asked for, whose queries may be signatures: a peer may repeat them."""


class Hosts(Closing):
    """The hosts that one session speaks to. A context manager; thread-safe.

    ``session`` is the user's, who closes it himself; by default there is one of our own, with a ``PooledAdapter`` that
    keeps ``connections`` idle ones an origin at most. ``stall_timeout`` (seconds), ``auth``, ``token`` and
    ``get_token`` are those of ``download``; without them a registry that challenges is shown what the machine has for
    it, and one of Ollama's what a key signs. ``hosts`` has what holds for single hosts. ``offline``: none is spoken to.
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
        offline: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._offline = offline
        self._own: requests.Session | None = None
        if session is None:
            session = self._own = requests.Session()
            session.headers.clear()  # what a request of ours says about itself is all
            adapter = PooledAdapter(connections=connections)
            session.mount("https://", adapter)
            session.mount("http://", adapter)
        self.options = options or TransportOptions()
        self._given = {API_HOSTS.get(host, host): given for host, given in check_hosts(hosts).items()}
        self._exchange = partial(Exchange, session, self.options, patience=stall_timeout)
        self._is_given = auth is not None or token is not None or get_token is not None
        self._clock = clock
        stored = None if self._is_given else StoredCredentials()
        self._authorizer = partial(Authorizer, auth=auth, token=token, get_token=get_token, stored=stored, clock=clock)
        # Nobody needs to trust a mirror: it is shown what is for its host alone.
        by_host = None if isinstance(auth, tuple) else auth
        mirrored = None if self._is_given else StoredCredentials(for_hosts_alone=True)
        self._mirroring = partial(Authorizer, auth=by_host, stored=mirrored, clock=clock)
        self._hosts: dict[tuple[Origin, bool, bool, HubToken | None], Host] = {}
        self.proven: dict[str, int] = {}
        """How many requests at once were of most use, by the name that a call has for who it speaks to."""
        self._ordinary = self._exchange(hosts=self._given)
        self.strangers: dict[Origin, Authorizer] = {}
        """The origins that registries have led to and that want tokens of their own."""
        self._lock = threading.Lock()

    def options_of(self, url: str) -> HostOptions:
        """Return what holds for the host of a base URL. InvalidNameError: it is none."""
        return self._options_at(Origin.of(check_base_url(url)))

    def _options_at(self, origin: Origin) -> HostOptions:
        return next((self._given[name] for name in origin.names if name in self._given), HostOptions())

    def at(
        self,
        origin: Origin,
        max_retry_after: float = math.inf,
        *,
        insecure: bool = False,
        mirror: bool = False,
        hub: HubToken | None = None,
    ) -> Host:
        """Return the host at ``origin``; of the clients that share it, the first says how long it may have us wait.

        ``insecure``: its certificate is not looked at, by those who ask for it so; nothing else is shared with them.
        ``mirror``: it stands for another registry, and sees nothing that is not for its host alone.
        ``hub``: it is the Hugging Face hub, and sees this token and what is for its host alone.

        Raises:
            ConnectError: nobody is to be spoken to.
        """
        if self._offline:
            raise ConnectError(
                f"{origin} is not asked: offline (TRANSFERKIT_OFFLINE, or offline=True)", retryable=False
            )
        with self._lock:
            host = self._hosts.get((origin, insecure, mirror, hub))
            if host is None:
                exchange = self._ordinary
                authorizer: Callable[..., Authorizer] = self._mirroring if mirror else self._authorizer
                is_bare = mirror or hub is not None
                if insecure or is_bare:
                    given = replace(self._options_at(origin), insecure=True) if insecure else self._options_at(origin)
                    exchange = self._exchange(hosts={**self._given, origin.names[0]: given}, bare=is_bare)
                if hub is not None:
                    from transferkit.transport.hub import HubAuthorizer  # it is there: who made the token has it

                    authorizer = partial(HubAuthorizer, shown=hub, clock=self._clock)
                key = None if hub is not None else self._key_of(origin)
                if key is not None and key.is_given:  # what is said of one host beats what is said of all
                    authorizer = partial(Authorizer, clock=self._clock)
                found = authorizer(origin, exchange, key=key, max_retry_after=max_retry_after)
                host = self._hosts[origin, insecure, mirror, hub] = Host(exchange, found)
            return host

    def _key_of(self, origin: Origin) -> KeyFile | None:
        """Return the key for a registry: one that was given for it, or that of the machine.

        What a key signs by itself is good at ollama.com, for whoever sees it: by default only that is shown one, and
        only over TLS.
        """
        if path := self._options_at(origin).ollama_key:
            return KeyFile(path, is_given=True)
        if self._is_given or not is_ollama(origin, self.options.ollama_hosts):
            return None
        return KeyFile(makes_tokens=origin.scheme == "https" and is_ollama(origin))

    def stranger(self, origin: Origin, led_by: Origin) -> Authorizer:
        """Return who gets anonymous tokens for an origin that ``led_by`` leads to: nothing of the user's goes there."""
        with self._lock:
            if origin not in self.strangers:
                self.strangers[origin] = Authorizer(origin, self._ordinary, led_by=led_by, clock=self._clock)
            return self.strangers[origin]

    def clean(self, error: TransferKitError) -> None:
        """Take what any host was sent as a secret out of an error, whose text may quote a peer."""
        hosts = list(self._hosts.values())
        sent = [secret for host in hosts for secret in (*host.authorizer.secrets(), *host.exchange.secrets())]
        sent += [secret for stranger in list(self.strangers.values()) for secret in stranger.secrets()]
        # By their numbers: it never becomes shorter, and who iterates over it fails where another thread adds one.
        urls = [host.signed[number] for host in hosts for number in range(len(host.signed))]
        sent += [part for url in urls for part in parts_of_query(url)]
        clean_error(error, sent)

    @contextmanager
    def cleaned(self) -> Iterator[None]:
        """Clean what is raised within."""
        try:
            yield
        except TransferKitError as error:
            self.clean(error)
            raise

    def close(self) -> None:
        """Close the connections; those of a user's session stay open."""
        if self._own is not None:
            self._own.close()
