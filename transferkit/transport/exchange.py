"""Which lane a request takes: the adapter's fast one, or ``requests.Session.send``, with the same results.

The fast lane is taken where the session has a ``PooledAdapter`` for the URL and nobody stands between: the session's
``send`` and ``get_adapter`` and the adapter's ``send`` are the libraries' own, it has no hooks, and what it says about
credentials is a pair of texts at most. Everything else gets a ``PreparedRequest``: mocks, tracers, subclasses, and
adapters that are not ours; ``ordinary`` has that lane. Knows no redirects and no tokens.
"""

from __future__ import annotations

import base64
import os
import types
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.request import getproxies_environment

import requests
from requests import adapters, sessions
from requests.structures import CaseInsensitiveDict
from requests.utils import default_headers, select_proxy

from transferkit.content.flow import Flow
from transferkit.content.machine import local_platform
from transferkit.forks import importing
from transferkit.options import OLLAMA_AGENT, USER_AGENT, HostOptions, TransportOptions
from transferkit.protocol.origin import Origin, redact
from transferkit.protocol.upload import is_ollama
from transferkit.transport.adapter import PooledAdapter
from transferkit.transport.failures import foreign_errors
from transferkit.transport.ordinary import send_by_session
from transferkit.transport.pipeline import Refused, Wanted, pipeline
from transferkit.transport.request import Fields, Lane, Request
from transferkit.transport.response import Response
from transferkit.transport.secrets import parts_of_header, parts_of_proxy

_LANES = 64  # origins that are remembered; a registry may redirect each blob to another one
# Every request of the client has these, where they make sense; what is said to a proxy, the registry does not hear.
_OURS_TO_SAY = ("accept", "accept-encoding", "content-length", "transfer-encoding")


def basic(user: str, password: str) -> str:
    """Return the ``Authorization`` of a user name and password (RFC 7617, UTF-8)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")


class Exchange:
    """Sends requests to any origin through one session. Thread-safe.

    A session of the user's keeps its adapters, proxies, CA bundle and client certificate; its headers, cookies and
    ``auth`` go to the registry's own origin alone, and nowhere where that is ``bare``: a mirror, which nobody needs to
    trust. ``hosts`` has what holds for single hosts (``host``, ``host:port``).
    ``headers`` is what every request says; ``patience`` the seconds that a short body may take which the job can do
    without.
    """

    def __init__(
        self,
        session: requests.Session,
        options: TransportOptions,
        *,
        patience: float = 10.0,
        hosts: Mapping[str, HostOptions] | None = None,
        bare: bool = False,
    ) -> None:
        self.options = options
        self._bare = bare
        self._patience = patience
        self._hosts = hosts or {}
        # identity: a blob is compared by its bytes, and a proxy that compresses it changes them.
        self.headers = Fields({"User-Agent": options.user_agent, "Accept": "*/*", "Accept-Encoding": "identity"})
        self._session = session
        _import_socks(session)
        self._lanes: dict[tuple[Origin, bool, bool], Lane] = {}
        self._last: tuple[Origin | None, bool, bool, Lane | None] = None, False, False, None
        self._untouched: tuple[Any, ...] = ()

    @property
    def has_credentials(self) -> bool:
        """Whether the session has credentials of its own for the registry."""
        session = self._session
        return not self._bare and (session.auth is not None or "Authorization" in session.headers)

    def said_to(self, origin: Origin) -> Mapping[str, str]:
        """Return what every request to ``origin`` says; to Ollama's registry in the form that it knows of clients."""
        if self.options.user_agent == USER_AGENT and is_ollama(origin, self.options.ollama_hosts):
            return Fields({**self.headers, "User-Agent": ollama_agent()})
        return self.headers

    def is_private(self, origin: Origin) -> bool:
        """Tell whether ``origin`` was found at a private address. Behind a proxy nobody knows."""
        lanes = [lane for key, lane in list(self._lanes.items()) if key[0] == origin and lane.proxy is None]
        return any(lane.pool is not None and lane.pool.is_private for lane in lanes)

    def secrets(self) -> Iterator[str]:
        """Yield what the session sends, or may send, as a secret: fields, cookies, ``auth``, and those of proxies."""
        session, defaults = self._session, default_headers()
        auth = session.auth
        sent = [str(text) for name, text in session.headers.items() if text != defaults.get(name)]
        if isinstance(auth, tuple) and all(isinstance(part, str) for part in auth):
            sent.append(basic(*auth))
        for value in sent:
            yield from parts_of_header(value)
        yield from (cookie.value for cookie in session.cookies if cookie.value)
        for given in self._hosts.values():
            for value in given.headers.values():
                yield from parts_of_header(value)
        for lane in list(self._lanes.values()):
            for proxy in lane.settings["proxies"].values():
                yield from parts_of_proxy(str(proxy))

    def pipeline(
        self,
        request: Request,
        prefix: str,
        wanted: Sequence[Wanted],
        more: Callable[[], Sequence[Wanted]],
        refused: Refused,
        flow: Flow,
    ) -> Generator[memoryview, None, None] | None:
        """Ask for several paths at once, as ``transport.pipeline`` does; ``None``: not possible."""
        request, lane, adapter = self._travelling(request, flow)
        return None if adapter is None else pipeline(request, prefix, wanted, more, refused, lane, flow)

    def send(self, request: Request, flow: Flow) -> Response:
        """Send one request and return the response once its head is there.

        Raises:
            TransportError, ProtocolError: no response came, or none that HTTP knows.
        """
        flow.check()
        request, lane, adapter = self._travelling(request, flow)
        if adapter is not None:
            return adapter.exchange(request, lane, flow)
        return send_by_session(self._session, request, lane, flow)

    def _travelling(self, request: Request, flow: Flow) -> tuple[Request, Lane, PooledAdapter | None]:
        """Return a request with what the session says, its lane, and the adapter where that is the fast one."""
        origin, trusted, public_only, lane = self._last
        if (
            lane is None
            or origin is not request.origin
            or trusted is not request.trusted
            or public_only is not request.public_only
        ):
            lane = self._lane(request, flow)
        if lane.headers:
            request = request._replace(headers=_merge(lane.headers, request.headers))
        adapter = lane.adapter
        is_fast = adapter is not None and lane.is_plain and self._is_untouched(adapter)
        return request, lane, adapter if is_fast else None

    def _lane(self, request: Request, flow: Flow) -> Lane:
        assert request.origin is not None
        key = request.origin, request.trusted, request.public_only
        lane = self._lanes.get(key)
        if lane is None:
            for oldest in list(self._lanes)[: 1 - _LANES]:
                self._lanes.pop(oldest, None)
            lane = self._lanes[key] = self._find_lane(*key, flow)
        self._last = *key, lane
        return lane

    def _is_untouched(self, adapter: PooledAdapter) -> bool:
        """Tell whether nobody has to see a ``PreparedRequest``: a mock, a tracer, a method of a subclass."""
        session = self._session
        found = type(session).send, type(session).get_adapter, type(adapter).send
        if found != self._untouched:
            if not _are_theirs(*found):
                return False
            self._untouched = found
        attributes = session.__dict__
        is_hooked = "send" in attributes or "get_adapter" in attributes or "send" in adapter.__dict__
        return not (is_hooked or any(session.hooks.values()))

    def _find_lane(self, origin: Origin, trusted: bool, public_only: bool, flow: Flow) -> Lane:
        session, url = self._session, f"{origin}/"
        carries = trusted and not self._bare
        # The session's verify is said again: else REQUESTS_CA_BUNDLE would win over a bundle that the user set.
        merged: Any = session.merge_environment_settings(url, {}, None, session.verify, None)
        given = next((self._hosts[name] for name in origin.names if name in self._hosts), HostOptions())
        verify = False if given.insecure else given.ca_bundle or merged["verify"]
        proxies = dict(merged["proxies"] if given.proxies is None else given.proxies)
        cert = given.client_cert or (merged["cert"] if carries else None)
        proxy = select_proxy(url, proxies)
        # An ``auth`` that is no pair of texts signs a PreparedRequest; cookies depend on the path. Which adapter a path
        # has is for the session to say, where one is mounted for a part of the origin.
        auth: Any = session.auth or ("", "")
        is_pair = isinstance(auth, tuple) and [type(part) for part in auth] == [str, str]
        is_plain = (not carries or (is_pair and not session.cookies)) and not any(
            prefix.lower().startswith(url) and prefix.lower() != url for prefix in session.adapters
        )
        forwarded = proxy is not None and proxy.lower().startswith("http") and origin.scheme == "http"
        lane = Lane(
            origin=str(origin),
            proxy=redact(proxy) if proxy else None,
            proxy_from=_proxy_from(session, url, proxy) if proxy else "",
            connect_timeout=self.options.connect_timeout,
            patience=self._patience,
            carries=carries,
            public_only=public_only and proxy is None,  # a proxy finds the address by itself
            settings={"verify": verify, "cert": cert if trusted else None, "proxies": proxies},
            headers=_merge(
                _headers_of(session, forwarded=forwarded, is_plain=is_plain) if carries else {},
                given.headers if trusted else {},
            ),
            is_plain=is_plain,
        )
        with foreign_errors(flow, lane):
            adapter = session.get_adapter(url)
            return adapter.lane(lane, origin) if isinstance(adapter, PooledAdapter) else lane


def ollama_agent() -> str:
    """Return our name in the form of Ollama's client: its registry tells clients that it does not know to upgrade."""
    system, _, machine = local_platform().partition("/")
    return f"{OLLAMA_AGENT} ({machine} {system}) Go/go1.25 {USER_AGENT}"


def _import_socks(session: requests.Session) -> None:
    """Import what a SOCKS proxy needs, where there is one: the workers may be out of descriptors."""
    proxies = {**(getproxies_environment() if session.trust_env else {}), **session.proxies}
    if any(str(proxy).lower().startswith("socks") for proxy in proxies.values()):
        with suppress(ImportError), importing:  # whoever makes a connection says that PySocks is missing
            import transferkit.transport.socks  # noqa: F401


def _proxy_from(session: requests.Session, url: str, proxy: str) -> str:
    """Return who says that requests to ``url`` go through ``proxy``, as an error names it."""
    if select_proxy(url, session.proxies) == proxy:
        return "from the session's proxies"
    names = (f"{url.partition(':')[0]}_proxy", "all_proxy")
    found = (key for name in names for key in (name, name.upper()) if os.environ.get(key) == proxy)
    return f"from {next(found, 'the system')}"


def _headers_of(session: requests.Session, *, forwarded: bool, is_plain: bool) -> dict[str, str]:
    """Return the fields that a session adds to a request of ours: what its user has said."""
    defaults, left_out = default_headers(), _OURS_TO_SAY if forwarded else (*_OURS_TO_SAY, "proxy-authorization")
    headers = {
        name: text
        for name, text in session.headers.items()
        if isinstance(text, str) and name.lower() not in left_out and text != defaults.get(name)
    }
    if is_plain and isinstance(session.auth, tuple):
        headers["Authorization"] = basic(*session.auth)
    return headers


def _merge(theirs: Mapping[str, str], ours: Mapping[str, str]) -> Mapping[str, str]:
    """Return the fields of both; what a request says itself wins, but for our default name."""
    merged = CaseInsensitiveDict(ours)
    for name, text in theirs.items():
        said = merged.get(name)
        if said in (None, USER_AGENT) or said.startswith(OLLAMA_AGENT):
            merged[name] = text
    return dict(merged.items())


def _are_theirs(send: Any, get_adapter: Any, adapter_send: Any) -> bool:
    """Tell whether three methods are the libraries' own, by their globals: ``functools.wraps`` gives a wrapper the name
    and the module of what it wraps."""
    return (
        type(send) is type(get_adapter) is type(adapter_send) is types.FunctionType
        and send.__globals__ is get_adapter.__globals__ is sessions.__dict__
        and adapter_send.__globals__ is adapters.__dict__
    )
