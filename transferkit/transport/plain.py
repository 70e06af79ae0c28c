"""The ordinary way: a request through a ``requests`` session, and the answer that it returns.

For sessions of the user's, for proxies, and for whatever the direct way leaves alone. With ``connections`` it is all
that imports ``requests`` and ``urllib3``, which takes as long as a download of 100 MB: who does not need it is spared.
"""

from __future__ import annotations

import socket
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from typing import Any

import requests
import urllib3
from requests import exceptions
from requests.structures import CaseInsensitiveDict
from requests.utils import default_user_agent

from transferkit.content.interfaces import Abort, Flow
from transferkit.errors import ProtocolError, ReadError
from transferkit.options import USER_AGENT
from transferkit.protocol.origin import Origin
from transferkit.transport.connections import WakeableAdapter, connecting_for
from transferkit.transport.dial import abort_of
from transferkit.transport.failures import SOCKETS, Foreign, foreign_errors
from transferkit.transport.request import RequestBody
from transferkit.transport.response import NO_BODY, Response

_REQUESTS = Foreign(
    caught=(*SOCKETS.caught, urllib3.exceptions.HTTPError),  # RequestException is an OSError
    unconnected=(urllib3.exceptions.NewConnectionError,),
    proxy=(exceptions.ProxyError, urllib3.exceptions.ProxyError),
    connect_timeout=(exceptions.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError),
    timeout=(*SOCKETS.timeout, exceptions.Timeout, urllib3.exceptions.TimeoutError),
    tls=(exceptions.SSLError, urllib3.exceptions.SSLError),
    bad_request=(
        exceptions.InvalidURL,
        exceptions.InvalidHeader,
        exceptions.InvalidSchema,
        exceptions.MissingSchema,
    ),
    bad_answer=(urllib3.exceptions.HeaderParsingError, urllib3.exceptions.DecodeError),
    wrapper=(requests.RequestException,),
)


class PlainResponse(Response):
    """An answer of requests'."""

    __slots__ = ("_abort", "_flow", "_left", "_raw", "_response")

    def __init__(self, response: requests.Response, *, place: str, flow: Flow) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
        self.origin = place
        self._response: requests.Response | None = response
        self._raw: Any = response.raw
        self._flow = flow
        self._abort: Abort | None = None
        try:
            self.length = self._left = self._announced()
            self._attach()
        except BaseException:
            self.close()
            raise

    def _attach(self) -> None:
        """Let the flow wake a connection that it does not know yet.

        A session of the user's hides its connections, and one that ends with this answer has let go of its flow
        already; urllib3's answer still knows the socket.
        """
        connection = getattr(self._raw, "_connection", None)
        sock = getattr(getattr(self._raw, "_sock_shutdown", None), "__self__", None)
        if getattr(connection, "held", None) is None and isinstance(sock, socket.socket):
            self._abort = abort_of(sock)
            self._flow.attach(self._abort)

    def _detach(self) -> None:
        if self._abort is not None:
            self._flow.detach(self._abort)
            self._abort = None

    def _announced(self) -> int | None:
        value = self.headers.get("content-length")
        if self._request_method() == "HEAD" or self.status in NO_BODY:
            return 0  # whatever it announces
        if value is None or "transfer-encoding" in self.headers:
            return None
        # urllib3 joins a repeated field with a comma: "5, 5" is one length said twice, "5, 6" is two.
        values = {part.strip() for part in value.split(",")}
        text = values.pop()
        if values or not (text.isascii() and text.isdigit()):
            raise ProtocolError(f"{self.origin} sent an answer with the Content-Length {value[:60]!r}")
        return int(text)

    def readinto(self, buffer: memoryview, /) -> int:
        with foreign_errors(self._flow, self.origin, None, None, foreign=_REQUESTS):
            data: bytes = self._raw.read1(len(buffer))
        self._flow.check()
        count = len(data)
        if not count:
            self._detach()
        if count > len(buffer):
            raise ProtocolError(f"{self.origin} sent an encoded body")
        buffer[:count] = data
        if self._left is not None:
            self._left -= count
            if not count and self._left > 0:
                raise ReadError(f"{self.origin} closed the connection {self._left} bytes before the end")
        return count

    def _request_method(self) -> str | None:
        request = self._response.request if self._response is not None else None
        return request.method if request is not None else None

    def close(self) -> None:
        if self._response is None:
            return
        self._detach()
        self._response.close()
        self._response = None


class _Body:
    """A body that is sent again from its first byte where the adapter of a user's session tries again by itself."""

    def __init__(self, sender: RequestBody) -> None:
        self._sender = sender
        self._pieces: Generator[memoryview, None, None] | None = None

    def __iter__(self) -> Iterator[memoryview]:
        if self._pieces is not None:
            self.close()
            self._sender.rewind()
        self._pieces = self._sender.pieces()
        return self._pieces

    def close(self) -> None:
        if self._pieces is not None:
            self._pieces.close()


class Plain:
    """One session, our own or the user's, and what its environment says about each origin. Thread-safe.

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
        self._settings: dict[tuple[Origin, bool], dict[str, Any]] = {}

    def has_proxy(self, origin: Origin) -> bool:
        """Tell whether requests to an origin go through a proxy."""
        return requests.utils.select_proxy(f"{origin}/", self._settings_for(origin, False)["proxies"]) is not None

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
    ) -> PlainResponse:
        """Send one request and return the answer once its head is there; the arguments are those of ``Sessions.send``.

        Raises:
            TransportError, ProtocolError: no answer came, or none that HTTP knows.
        """
        place = str(origin)
        url = place + target
        settings = self._settings_for(origin, trusted)
        theirs = trusted and not self._own
        with foreign_errors(flow, place, settings["verify"], None, foreign=_REQUESTS):
            request = _prepare(self._session, method, url, headers, theirs)
        with ExitStack() as stack:
            if sender is not None:
                request.headers["Content-Length"] = str(sender.length)
                if sender.length:
                    # Closed on every way out: the error would keep the file open that it was sent from.
                    body: Any = stack.enter_context(closing(_Body(sender)))
                    request.body = body  # urllib3 takes any iterable
            stack.enter_context(connecting_for(flow))
            stack.enter_context(foreign_errors(flow, place, settings["verify"], sender, foreign=_REQUESTS))
            if self._own:
                response = self._session.get_adapter(url).send(request, stream=True, timeout=timeout, **settings)
            else:
                response = self._session.send(request, stream=True, timeout=timeout, allow_redirects=False, **settings)
        return PlainResponse(response, place=place, flow=flow)

    def _settings_for(self, origin: Origin, trusted: bool) -> dict[str, Any]:
        """Find proxies, CA bundle and certificate for an origin: from the session, then from the environment."""
        settings = self._settings.get((origin, trusted))
        if settings is None:
            # requests types the values of this dictionary as a union of all that may be in it.
            # Its verify is said again: else REQUESTS_CA_BUNDLE would win over a bundle that the user set.
            verify = self._session.verify
            merged: Any = self._session.merge_environment_settings(f"{origin}/", {}, None, verify, None)
            settings = {
                "verify": merged["verify"],
                "cert": merged["cert"] if trusted else None,
                "proxies": dict(merged["proxies"]),
            }
            self._settings[origin, trusted] = settings
        return settings

    def close(self) -> None:
        """Close our own session; the user's is left as it is."""
        if self._own:
            self._session.close()


def _prepare(
    session: requests.Session,
    method: str,
    url: str,
    headers: Mapping[str, str],
    theirs: bool,
) -> requests.PreparedRequest:
    merged: CaseInsensitiveDict[str] = CaseInsensitiveDict()
    if theirs:
        merged.update({k: v for k, v in session.headers.items() if isinstance(v, str)})
    name = merged.get("User-Agent")
    merged.update(headers)
    if name not in (None, default_user_agent()) and headers.get("User-Agent") == USER_AGENT:
        merged["User-Agent"] = name  # the user's own, where it is not said with the call
    # Not Session.prepare_request: with trust_env it would replace an Authorization of ours by one from ~/.netrc.
    request = requests.Request(
        method,
        url,
        headers=merged,
        auth=session.auth if theirs and "authorization" not in merged else None,
        cookies=session.cookies if theirs else None,
    ).prepare()
    request.url = url  # byte for byte as given: requests would re-quote a signed URL
    return request
