"""How a client's requests are really sent: the direct way where it can be, the ordinary one where it must.

The ordinary way is for a session of the user's, for proxies, and for URLs that are not plain ASCII. Knows nothing of
redirects, credentials or refusals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests
from urllib3 import HTTPConnectionPool

from transferkit.content.interfaces import Flow
from transferkit.protocol.origin import Origin
from transferkit.transport.body import Answer, Sender
from transferkit.transport.connections import WakeableAdapter
from transferkit.transport.direct import Direct
from transferkit.transport.plain import send_plain


@dataclass(frozen=True, slots=True)
class _Route:
    """What all requests to one origin have in common."""

    place: str
    settings: dict[str, Any]
    pool: HTTPConnectionPool | None
    """Where direct connections come from; ``None`` for the ordinary way."""


class Sessions:
    """Sends requests through one session, our own or the user's. Thread-safe.

    A session of the user's keeps its adapters, proxies, CA bundle and client certificate; its headers, cookies and
    ``auth`` go to the registry's own origin alone.
    """

    def __init__(self, session: requests.Session | None, *, connections: int, direct: bool = True) -> None:
        self._own = session is None
        self._session = session or requests.Session()
        self._direct = Direct() if self._own and direct else None
        if self._own:
            self._adapter = WakeableAdapter(connections=connections)
            self._session.mount("https://", self._adapter)
            self._session.mount("http://", self._adapter)
        self._routes: dict[tuple[Origin, bool], _Route] = {}

    def send(
        self,
        method: str,
        origin: Origin,
        target: str,
        *,
        headers: Mapping[str, str],
        sender: Sender | None,
        timeout: tuple[float, float],
        trusted: bool,
        flow: Flow,
    ) -> Answer:
        """Send one request and return the answer once its head is there.

        ``target`` is path and query, byte for byte. ``timeout`` is (to connect, to the head of the answer) in seconds;
        ``trusted`` says that ``origin`` is the registry's own.

        Raises:
            TransportError, ProtocolError: no answer came, or none that HTTP knows.
        """
        flow.check()
        route = self._routes.get((origin, trusted))
        if route is None:
            route = self._routes[origin, trusted] = self._plan(origin, trusted)
        if self._direct is not None and route.pool is not None and target.isascii():
            answer: Answer = self._direct.exchange(
                route.pool,
                method,
                target,
                host=origin.netloc,
                headers=headers,
                sender=sender,
                timeout=timeout,
                verify=route.settings["verify"],
                place=route.place,
                flow=flow,
            )
        else:
            answer = send_plain(
                self._session,
                self._own,
                method,
                route.place + target,
                headers=headers,
                sender=sender,
                timeout=timeout,
                trusted=trusted,
                settings=route.settings,
                place=route.place,
                flow=flow,
            )
        answer.patience = timeout[1]
        return answer

    def _plan(self, origin: Origin, trusted: bool) -> _Route:
        """Find proxies, CA bundle and certificate for an origin: from the session, then from the environment."""
        place = str(origin)
        url = f"{place}/"
        # requests types the values of this dictionary as a union of all that may be in it.
        # Its verify is said again: else REQUESTS_CA_BUNDLE would win over a bundle that the user set.
        verify = self._session.verify
        merged: dict[str, Any] = dict(self._session.merge_environment_settings(url, {}, None, verify, None))
        settings = {
            "verify": merged["verify"],
            "cert": merged["cert"] if trusted else None,
            "proxies": dict(merged["proxies"]),
        }
        pool: Any = None
        if self._direct is not None and requests.utils.select_proxy(url, settings["proxies"]) is None:
            request = requests.Request("GET", url).prepare()
            adapter: Any = self._adapter
            pool = adapter.get_connection_with_tls_context(request, settings["verify"], cert=settings["cert"])
            adapter.cert_verify(pool, url, settings["verify"], settings["cert"])
        return _Route(place, settings, pool)

    def close(self) -> None:
        """Close our own session; the user's is left as it is."""
        if self._direct is not None:
            self._direct.close()
        if self._own:
            self._session.close()
