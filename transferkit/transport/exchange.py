"""Which lane a request takes: the adapter's fast one, or ``requests.Session.send``, with the same results.

The fast lane is taken where the session has a ``PooledAdapter`` for the URL and nobody stands between: the session's
``send`` and ``get_adapter`` and the adapter's ``send`` are the libraries' own, and what the session says about
credentials is a pair of texts at most. Everything else gets a ``PreparedRequest``. Knows no redirects and no tokens.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any

import requests
from requests import adapters, sessions
from requests.structures import CaseInsensitiveDict
from requests.utils import default_headers, select_proxy

from transferkit.content.interfaces import Flow
from transferkit.options import USER_AGENT, TransportOptions
from transferkit.protocol.origin import Origin, redact
from transferkit.transport.adapter import PooledAdapter
from transferkit.transport.credentials import basic
from transferkit.transport.failures import foreign_errors
from transferkit.transport.request import Lane, Request
from transferkit.transport.response import Response
from transferkit.transport.session import send_by_session

_LANES = 64  # origins that are remembered; a registry may redirect each blob to another one
_OURS_TO_SAY = ("accept", "accept-encoding")  # every request of the client has these


class Exchange:
    """Sends requests to any origin through one session. Thread-safe.

    A session of the user's keeps its adapters, proxies, CA bundle and client certificate; its headers, cookies and
    ``auth`` go to the registry's own origin alone. ``headers`` is what every request says.
    """

    def __init__(self, session: requests.Session, options: TransportOptions) -> None:
        self.options = options
        # identity: a blob is compared by its bytes, and a proxy that compresses it changes them.
        self.headers = {"User-Agent": options.user_agent, "Accept": "*/*", "Accept-Encoding": "identity"}
        self._session = session
        self._lanes: dict[tuple[Origin, bool], Lane] = {}

    def send(self, request: Request, flow: Flow) -> Response:
        """Send one request and return the response once its head is there.

        Raises:
            TransportError, ProtocolError: no response came, or none that HTTP knows.
        """
        assert request.origin is not None
        flow.check()
        lane = self._lanes.get((request.origin, request.trusted))
        if lane is None:
            lane = self._find_lane(request.origin, request.trusted, flow)
            for oldest in list(self._lanes)[: 1 - _LANES]:
                self._lanes.pop(oldest, None)
            self._lanes[request.origin, request.trusted] = lane
        if lane.headers:
            request = request._replace(headers=_merge(lane.headers, request.headers))
        adapter = lane.adapter
        if adapter is not None and lane.is_plain and _is_untouched(self._session, adapter):
            return adapter.exchange(request, lane, flow)
        return send_by_session(self._session, request, lane, flow)

    def _find_lane(self, origin: Origin, trusted: bool, flow: Flow) -> Lane:
        session, url = self._session, f"{origin}/"
        # The session's verify is said again: else REQUESTS_CA_BUNDLE would win over a bundle that the user set.
        merged: Any = session.merge_environment_settings(url, {}, None, session.verify, None)
        verify, proxies = merged["verify"], dict(merged["proxies"])
        proxy = select_proxy(url, proxies)
        # An ``auth`` that is no pair signs a PreparedRequest; cookies depend on the path. Which adapter a path has is
        # for the session to say, where one is mounted for a part of the origin.
        is_plain = (not trusted or (_is_pair(session.auth) and not len(session.cookies))) and not any(
            prefix.lower().startswith(url) and len(prefix) > len(url) for prefix in session.adapters
        )
        lane = Lane(
            origin=str(origin),
            verify=verify if origin.scheme == "https" else None,
            proxy=redact(proxy) if proxy else None,
            connect_timeout=self.options.connect_timeout,
            settings={"verify": verify, "cert": merged["cert"] if trusted else None, "proxies": proxies},
            headers=_headers_of(session, is_plain=is_plain) if trusted else {},
            is_plain=is_plain,
        )
        with foreign_errors(flow, lane):
            adapter = session.get_adapter(url)
            return adapter.lane(lane, origin) if isinstance(adapter, PooledAdapter) else lane


def _is_pair(auth: object) -> bool:
    return auth is None or (isinstance(auth, tuple) and len(auth) == 2 and all(isinstance(part, str) for part in auth))


def _headers_of(session: requests.Session, *, is_plain: bool) -> dict[str, str]:
    """Return the fields that a session adds to a request of ours: what its user has said."""
    defaults = default_headers()
    headers = {
        name: text
        for name, text in session.headers.items()
        if isinstance(text, str) and name.lower() not in _OURS_TO_SAY and text != defaults.get(name)
    }
    if is_plain and isinstance(session.auth, tuple):
        headers["Authorization"] = basic(*session.auth)
    return headers


def _merge(theirs: Mapping[str, str], ours: Mapping[str, str]) -> Mapping[str, str]:
    """Return the fields of both; what a request says itself wins, but for our default name."""
    merged = CaseInsensitiveDict(ours)
    for name, text in theirs.items():
        if merged.get(name) in (None, USER_AGENT):
            merged[name] = text
    return dict(merged.items())


def _is_untouched(session: requests.Session, adapter: PooledAdapter) -> bool:
    """Tell whether nobody has to see a ``PreparedRequest``: a mock, a tracer, a method of a subclass."""
    kind: Any = type(session)
    lane: Any = type(adapter)
    own = session.__dict__
    send, get_adapter, adapter_send = kind.send, kind.get_adapter, lane.send
    # By their globals: functools.wraps gives a wrapper the name and the module of what it wraps.
    return (
        type(send) is type(get_adapter) is type(adapter_send) is types.FunctionType
        and send.__globals__ is get_adapter.__globals__ is sessions.__dict__
        and adapter_send.__globals__ is adapters.__dict__
        and "send" not in own
        and "get_adapter" not in own
        and "send" not in adapter.__dict__
    )
