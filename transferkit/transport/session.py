"""The ordinary lane: a request through ``requests.Session.send``, and the response that it returns.

For whoever wants to see every request (mocks, tracers, subclasses), and for adapters that are not ours. Below a
``PooledAdapter`` the wire is the fast lane's all the same; a foreign adapter hides its sockets until it has a response.
"""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import requests
import urllib3

from transferkit.content.interfaces import Abort, Flow
from transferkit.errors import ProtocolError, ReadError
from transferkit.transport.failures import foreign_errors
from transferkit.transport.http11 import visible
from transferkit.transport.request import Lane, Request
from transferkit.transport.response import NO_BODY, Response
from transferkit.transport.sockets import abort_of, closed_on_error


def send_by_session(session: requests.Session, request: Request, lane: Lane, flow: Flow) -> Response:
    """Send one request through a session and return the response once its head is there.

    Raises:
        TransportError, ProtocolError: no response came, or none that HTTP knows.
    """
    body = request.body
    with foreign_errors(flow, lane):
        prepared = _prepare(session, request)
    if lane.adapter is not None:
        prepared.pool = _pool_for_one(request, lane, flow)  # the adapter looks for it
    # Closed on every way out: the error would keep the file open that it was sent from.
    with body or nullcontext(), foreign_errors(flow, lane, body=body):
        if body is not None:
            prepared.headers["Content-Length"] = str(body.length)
            prepared.body = body if body.length else None  # urllib3 takes any iterable
        timeouts = lane.connect_timeout, request.timeout
        response = session.send(prepared, stream=True, timeout=timeouts, allow_redirects=False, **lane.settings)
    if isinstance(response.raw, _Shown):
        return response.raw.part()
    location = getattr(response, "location", None)
    if location is not None:
        response.headers["Location"] = location
    return SessionResponse(response, request, lane, flow)


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


def _pool_for_one(request: Request, lane: Lane, flow: Flow) -> Any:
    """Return what a ``PooledAdapter`` takes for a pool: one request of ours, sent by the fast lane."""

    def urlopen(*, headers: Mapping[str, str], **_: Any) -> urllib3.HTTPResponse:
        assert lane.adapter is not None
        # The fields of the prepared request: a tracer, a cookie jar or an ``auth`` may have added some.
        fields = {name: text for name, text in headers.items() if name.lower() != "content-length"}
        return _Shown(lane.adapter.exchange(request._replace(headers=fields), lane, flow))

    return SimpleNamespace(urlopen=urlopen)


class _Shown(urllib3.HTTPResponse):
    """A response of ours as a ``requests`` session sees it: status and fields, without its body."""

    def __init__(self, response: Response) -> None:
        self._ours: Response | None = response
        fields, status = response.headers, response.status
        super().__init__(io.BytesIO(), fields, status, version=11, preload_content=False, enforce_content_length=False)

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

    __slots__ = ("_abort", "_left", "_raw", "_response")

    def __init__(self, response: requests.Response, request: Request, lane: Lane, flow: Flow) -> None:
        headers = {name.lower(): text for name, text in response.headers.items()}
        super().__init__(response.status_code, headers, None, request, lane, flow)
        self._response = response
        self._raw: Any = response.raw
        self._abort: Abort | None = None
        with closed_on_error(self):
            if request.method == "HEAD" or self.status in NO_BODY:
                self.length = 0  # whatever it announces
            elif "content-length" in headers and "transfer-encoding" not in headers:
                self.length = self._announced(headers["content-length"])
            # A foreign adapter hides its connection, and urllib3's response knows the socket.
            sock = getattr(getattr(self._raw, "_sock_shutdown", None), "__self__", None)
            if isinstance(sock, socket.socket):
                self._abort = abort_of(sock)
                flow.attach(self._abort)
        self._left = self.length

    def _announced(self, value: str) -> int:
        # urllib3 joins a repeated field with a comma: "5, 5" is one length said twice, "5, 6" is two.
        text, *others = {part.strip() for part in value.split(",")}
        if others or not (text.isascii() and text.isdigit()):
            raise ProtocolError(f"{self.origin} sent an answer with the Content-Length {value[:60]!r}")
        return int(text)

    def readinto(self, buffer: memoryview, /) -> int:
        with foreign_errors(self._flow, self._lane):
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

    def _detach(self) -> None:
        if self._abort is not None:
            self._flow.detach(self._abort)
            self._abort = None

    def close(self) -> None:
        self._detach()
        self._response.close()
