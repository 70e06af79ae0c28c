"""How a client's requests are really sent: the direct way where it can be, the ordinary one where it must.

The ordinary way is for a session of the user's, for proxies, and for URLs that are not plain ASCII. Knows nothing of
redirects, credentials or refusals.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from transferkit.content.interfaces import Flow
from transferkit.protocol.origin import Origin
from transferkit.transport.dial import Endpoint, tls_context
from transferkit.transport.direct import Direct
from transferkit.transport.request import RequestBody
from transferkit.transport.response import Response

if TYPE_CHECKING:
    import ssl

    import requests

    from transferkit.transport.plain import Plain


class _Route(NamedTuple):
    """What all requests to one origin have in common."""

    place: str
    endpoint: Endpoint | None
    """Where direct connections go; ``None`` for the ordinary way."""


class Sessions:
    """Sends requests to any origin, through the user's session where there is one. Thread-safe."""

    def __init__(self, session: requests.Session | None, *, connections: int, direct: bool = True) -> None:
        self._session = session
        self._connections = connections
        self._direct = Direct() if session is None and direct else None
        self._plain: Plain | None = None
        self._routes: dict[Origin, _Route] = {}
        self._bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        self._context: ssl.SSLContext | None = None
        self._lock = threading.RLock()

    def send(
        self,
        method: str,
        origin: Origin,
        target: str,
        *,
        headers: Mapping[str, str],
        sender: RequestBody | None,
        timeout: tuple[float, float],
        trusted: bool,
        flow: Flow,
    ) -> Response:
        """Send one request and return the answer once its head is there.

        ``target`` is path and query, byte for byte. ``timeout`` is (to connect, to the head of the answer) in seconds;
        ``trusted`` says that ``origin`` is the registry's own.

        Raises:
            TransportError, ProtocolError: no answer came, or none that HTTP knows.
        """
        flow.check()
        route = self._routes.get(origin) or self._plan(origin)
        if self._direct is not None and route.endpoint is not None and target.isascii():
            answer: Response = self._direct.exchange(
                route.endpoint,
                method,
                target,
                host=origin.netloc,
                headers=headers,
                sender=sender,
                timeout=timeout,
                verify=self._bundle or True,
                place=route.place,
                flow=flow,
            )
        else:
            answer = self._ordinary().send(
                method,
                origin,
                target,
                headers=headers,
                sender=sender,
                timeout=timeout,
                trusted=trusted,
                flow=flow,
            )
        answer.timeout = timeout[1]
        return answer

    def _plan(self, origin: Origin) -> _Route:
        with self._lock:  # each thread comes here with its first request, and the first of them does it for all
            route = self._routes.get(origin)
            if route is None:
                direct = self._direct is not None and not (may_have_proxies() and self._ordinary().has_proxy(origin))
                route = _Route(str(origin), self._endpoint(origin) if direct else None)
                self._routes[origin] = route
            return route

    def _endpoint(self, origin: Origin) -> Endpoint:
        if origin.scheme == "https" and self._context is None:
            self._context = tls_context(self._bundle)
        return Endpoint(origin.host, origin.port, self._context if origin.scheme == "https" else None)

    def _ordinary(self) -> Plain:
        with self._lock:
            if self._plain is None:
                from transferkit.transport.plain import Plain

                self._plain = Plain(self._session, connections=self._connections)
            return self._plain

    def close(self) -> None:
        """Close our own connections; the user's session is left as it is."""
        if self._direct is not None:
            self._direct.close()
        if self._plain is not None:
            self._plain.close()


def may_have_proxies() -> bool:
    """Tell whether ``requests`` has to be asked for a proxy: only it knows all the rules, and most have no proxy.

    macOS and Windows keep theirs elsewhere than in the environment.
    """
    if sys.platform in ("darwin", "win32"):
        return True
    return any(
        value and name.lower().endswith("_proxy") and name.lower() != "no_proxy" for name, value in os.environ.items()
    )
