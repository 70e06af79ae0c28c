"""The ordinary lane: a request as ``requests.Session.send`` sends it, for whoever has to see a ``PreparedRequest``.

Below an adapter of ours the wire is the fast lane's; another one hides its sockets until it has a response.
Which lane a request takes, ``exchange`` decides.
"""

from __future__ import annotations

import io
import socket
import types
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import requests
import urllib3

from transferkit.content.flow import Abort, Flow
from transferkit.errors import ProtocolError
from transferkit.transport.adapter import PooledAdapter
from transferkit.transport.failures import foreign_errors
from transferkit.transport.http11 import visible
from transferkit.transport.request import Lane, Request
from transferkit.transport.response import NO_BODY, Response
from transferkit.transport.sockets import abort_of, alarm, closed_on_error, nobody


def send_by_session(session: requests.Session, request: Request, lane: Lane, flow: Flow) -> Response:
    """Send one request, as ``Exchange.send`` does."""
    body = request.body
    theirs = lane.carries and "authorization" not in {name.lower() for name in request.headers}
    with foreign_errors(flow, lane):
        # Not Session.prepare_request: with trust_env it would replace an Authorization of ours by one from ~/.netrc.
        prepared: Any = requests.Request(
            request.method,
            request.url,
            headers=dict(request.headers),
            auth=session.auth if theirs else None,
            cookies=session.cookies if lane.carries and len(session.cookies) else None,
        ).prepare()
        prepared.url = visible(request.url)  # byte for byte as given: requests would re-quote a signed URL
        for hook in (*session.hooks.get("response", ()), _hide_location):
            prepared.register_hook("response", hook)
    if lane.adapter is not None:
        # The adapter looks for it: a pool that sends this request alone, by the fast lane.
        prepared.pool = types.SimpleNamespace(urlopen=partial(_exchange, lane.adapter, request, lane, flow))
    # Closed on every way out: the error would keep the file open that it was sent from.
    with body or nullcontext(), foreign_errors(flow, lane, body=body):
        if body is not None:
            prepared.headers["Content-Length"] = str(body.length)
            prepared.body = body if body.length else None  # urllib3 takes any iterable
        timeouts = lane.connect_timeout, request.timeout
        # Until there is a response, an adapter that is not ours hides what could be woken.
        flow.attach(nobody)
        try:
            response: Any = session.send(
                prepared, stream=True, timeout=timeouts, allow_redirects=False, **lane.settings
            )
        finally:
            flow.detach(nobody)
    if isinstance(response.raw, _Shown) and response.raw.ours is not None:
        ours, response.raw.ours = response.raw.ours, None
        return ours
    if getattr(response, "location", None) is not None:
        response.headers["Location"] = response.location
    return SessionResponse(response, request, lane, flow)


def _hide_location(response: Any, **_: Any) -> None:
    """Have ``Session.send`` leave a redirect alone: it would read, and decode, all of its body."""
    response.location = response.headers.pop("Location", None)


def _exchange(
    adapter: PooledAdapter, request: Request, lane: Lane, flow: Flow, *, headers: Mapping[str, str], **_: Any
) -> urllib3.HTTPResponse:
    # The fields of the prepared request: a tracer, a cookie jar or an ``auth`` may add some. None goes twice.
    said = {line.partition(":")[0].lower() for line in lane.fields.splitlines()}
    if request.body is not None:
        said.add("content-length")  # it comes with the body
    fields = {name: text for name, text in headers.items() if name.lower() not in said}
    return _Shown(adapter.exchange(request._replace(headers=fields), lane, flow))


class _Shown(urllib3.HTTPResponse):
    """A response of ours as a ``requests`` session sees it: status and fields, without its body."""

    def __init__(self, response: Response) -> None:
        self.ours: Response | None = response
        fields, status = response.headers, response.status
        super().__init__(io.BytesIO(), fields, status, version=11, preload_content=False, enforce_content_length=False)

    def close(self) -> None:
        self.release_conn()
        super().close()

    def release_conn(self) -> None:
        """Close the response where nobody will read it: an ``auth`` has answered a challenge by another request."""
        if self.ours is not None:
            self.ours.close()


class SessionResponse(Response):
    """A response of requests'."""

    __slots__ = ("_abort", "_response")

    def __init__(self, response: requests.Response, request: Request, lane: Lane, flow: Flow) -> None:
        headers = {name.lower(): text for name, text in response.headers.items()}
        super().__init__(response.status_code, headers, None, request, lane, flow)
        self._response = response
        self._abort: Abort | None = None
        with closed_on_error(self):
            if request.method == "HEAD" or self.status in NO_BODY:
                self.length = 0  # whatever it announces
            elif "content-length" in headers and "transfer-encoding" not in headers:
                # urllib3 joins a repeated field with a comma: "5, 5" is one length said twice, "5, 6" is two.
                announced = headers["content-length"]
                text, *others = {part.strip() for part in announced.split(",")}
                if others or not (text.isascii() and text.isdigit()):
                    raise ProtocolError(f"{self.origin} sent an answer with the Content-Length {announced[:60]!r}")
                self.length = int(text)
            # A foreign adapter hides its connection, and urllib3's response knows the socket.
            sock = getattr(getattr(response.raw, "_sock_shutdown", None), "__self__", None)
            if isinstance(sock, socket.socket):
                self._abort = abort_of(sock)
                flow.attach(self._abort)

    def readinto(self, buffer: memoryview, /) -> int:
        with foreign_errors(self._flow, self._lane):
            data: bytes = self._response.raw.read1(len(buffer))
        self._flow.check()
        count = len(data)
        if not count:
            self._detach()
        if count > len(buffer):
            raise ProtocolError(f"{self.origin} sent an encoded body")
        buffer[:count] = data
        return count

    def peek(self, limit: int, *, partly: bool = False) -> bytes:
        if self._abort is None or self.length == 0:
            return super().peek(limit, partly=partly)
        # http.client reads the line before a chunk, and a trailer, to their ends, however slowly they come; and one
        # read may block for as long as the head may.
        try:
            with alarm(self.timeout, self._abort):
                return super().peek(limit, partly=partly)
        except TimeoutError:
            self._flow.check()
            raise self._overdue() from None

    def _detach(self) -> None:
        if self._abort is not None:
            self._flow.detach(self._abort)
            self._abort = None

    def close(self) -> None:
        self._detach()
        self._response.close()
