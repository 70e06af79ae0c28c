"""The ordinary lane: a request through ``requests.Session.send``, and the response that it returns.

For whoever wants to see every request (mocks, tracers, subclasses), and for adapters that are not ours. Below a
``PooledAdapter`` the wire is the fast lane's all the same; a foreign adapter hides its sockets until it has a response.
"""

from __future__ import annotations

import io
import math
import socket
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, nullcontext
from typing import Any

import requests
import urllib3

from transferkit.content.interfaces import Abort, Flow
from transferkit.errors import ProtocolError, ReadError
from transferkit.transport.adapter import PooledAdapter, Route
from transferkit.transport.failures import Circumstances, foreign_errors
from transferkit.transport.http11 import visible
from transferkit.transport.request import Request, RequestBody
from transferkit.transport.response import NO_BODY, Response
from transferkit.transport.sockets import abort_of


def send_by_session(
    session: requests.Session,
    request: Request,
    settings: Mapping[str, Any],
    circumstances: Circumstances,
    flow: Flow,
    *,
    adapter: PooledAdapter | None,
    route: Route | None,
) -> Response:
    """Send one request through a session and return the response once its head is there.

    Raises:
        TransportError, ProtocolError: no response came, or none that HTTP knows.
    """
    body = request.body
    with foreign_errors(flow, circumstances):
        prepared = _prepare(session, request)
    if adapter is not None and route is not None:
        prepared.pool = _OneExchange(adapter, request, route, flow)  # the adapter looks for it
    # Closed on every way out: the error would keep the file open that it was sent from.
    sent: Any = closing(_Body(body)) if body is not None and body.length else nullcontext()
    with sent as pieces, foreign_errors(flow, circumstances, body=body):
        if body is not None:
            prepared.headers["Content-Length"] = str(body.length)
            prepared.body = pieces  # urllib3 takes any iterable
        response = session.send(
            prepared,
            stream=True,
            timeout=(request.connect_timeout, request.timeout),
            allow_redirects=False,
            **settings,
        )
    if isinstance(response.raw, _Shown):
        return response.raw.part()
    location = getattr(response, "location", None)
    if location is not None:
        response.headers["Location"] = location
    return SessionResponse(response, request, circumstances, flow)


def _prepare(session: requests.Session, request: Request) -> Any:
    theirs = request.trusted and "authorization" not in {name.lower() for name in request.headers}
    # Not Session.prepare_request: with trust_env it would replace an Authorization of ours by one from ~/.netrc.
    prepared: Any = requests.Request(
        request.method,
        request.url,
        headers=dict(request.headers),
        auth=session.auth if theirs else None,
        cookies=session.cookies if request.trusted and len(session.cookies) else None,
    ).prepare()
    prepared.url = visible(request.url)  # byte for byte as given: requests would re-quote a signed URL
    prepared.register_hook("response", _hide_location)
    return prepared


def _hide_location(response: Any, **_: Any) -> None:
    """Have ``Session.send`` leave a redirect alone: it would read, and decode, all of its body."""
    response.location = response.headers.pop("Location", None)


class _OneExchange:
    """What a ``PooledAdapter`` takes for a pool: one request of ours, sent by the fast lane."""

    def __init__(self, adapter: PooledAdapter, request: Request, route: Route, flow: Flow) -> None:
        self._adapter = adapter
        self._request = request
        self._route = route
        self._flow = flow

    def urlopen(self, *, headers: Mapping[str, str], **_: Any) -> urllib3.HTTPResponse:
        # The fields of the prepared request: a tracer, a cookie jar or an ``auth`` may have added some.
        fields = {name: text for name, text in headers.items() if name.lower() != "content-length"}
        response = self._adapter.exchange(self._request._replace(headers=fields), self._route, self._flow)
        return _Shown(response)


class _Shown(urllib3.HTTPResponse):
    """A response of ours as a ``requests`` session sees it: status and fields, without its body."""

    def __init__(self, response: Response) -> None:
        self._ours: Response | None = response
        super().__init__(
            io.BytesIO(),
            response.headers,
            response.status,
            version=11,
            preload_content=False,
            enforce_content_length=False,
        )

    def part(self) -> Response:
        """Return the response, and part with it."""
        ours, self._ours = self._ours, None
        assert ours is not None
        return ours

    def close(self) -> None:
        """Close the response where nobody will read it: an ``auth`` has answered a challenge by another request."""
        self.release_conn()
        super().close()

    def release_conn(self) -> None:
        if self._ours is not None:
            self.part().close()


class SessionResponse(Response):
    """A response of requests'."""

    __slots__ = ("_abort", "_circumstances", "_flow", "_left", "_raw", "_response")

    def __init__(self, response: requests.Response, request: Request, circumstances: Circumstances, flow: Flow) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = {name.lower(): text for name, text in response.headers.items()}
        self.timeout = request.timeout
        self.origin = circumstances.origin
        self.url = request.url
        self._deadline = math.inf
        self._circumstances = circumstances
        self._response: requests.Response | None = response
        self._raw: Any = response.raw
        self._flow = flow
        self._abort: Abort | None = None
        try:
            self.length = self._left = 0 if request.method == "HEAD" else self._announced()
            self._attach()
        except BaseException:
            self.close()
            raise

    def _attach(self) -> None:
        """Let the flow wake the connection: a foreign adapter hides it, and urllib3's response knows the socket."""
        sock = getattr(getattr(self._raw, "_sock_shutdown", None), "__self__", None)
        if isinstance(sock, socket.socket):
            self._abort = abort_of(sock)
            self._flow.attach(self._abort)

    def _detach(self) -> None:
        if self._abort is not None:
            self._flow.detach(self._abort)
            self._abort = None

    def _announced(self) -> int | None:
        value = self.headers.get("content-length")
        if self.status in NO_BODY:
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
        with foreign_errors(self._flow, self._circumstances):
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

    def peek(self, limit: int) -> bytes:
        if self._abort is None or self.length is not None:
            return super().peek(limit)
        # http.client reads the line before a chunk, and a trailer, to their ends, however slowly they come.
        abort, is_late = self._abort, threading.Event()

        def ring() -> None:
            is_late.set()
            abort()

        alarm = threading.Timer(self.timeout, ring)
        alarm.name = "transferkit-alarm"
        alarm.start()
        try:
            return super().peek(limit)
        finally:
            alarm.cancel()
            alarm.join()
            if is_late.is_set():
                self._flow.check()
                raise self._overdue() from None

    def close(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            self._detach()
            response.close()


class _Body:
    """A body that is sent again from its first byte where the adapter of a user's session tries again by itself."""

    def __init__(self, body: RequestBody) -> None:
        self._body = body
        self._pieces: Generator[memoryview, None, None] | None = None

    def __iter__(self) -> Iterator[memoryview]:
        if self._pieces is not None:
            self.close()
            self._body.rewind()
        self._pieces = self._body.pieces()
        return self._pieces

    def close(self) -> None:
        if self._pieces is not None:
            self._pieces.close()
