"""What goes out and what comes in on one request, and what foreign errors mean.

An answer's head is plain data; its body is read as it arrives. Every error of requests, urllib3, ``ssl`` and ``socket``
becomes one of ours here and nowhere else.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import requests
import urllib3
from requests import exceptions as failures

from transferkit.content.interfaces import Abort, Body, Flow
from transferkit.errors import (
    CertificateError,
    ConnectError,
    ProtocolError,
    ReadError,
    TransferKitError,
    TransportTimeout,
    WriteError,
)

_SHOWN = 200
# Bytes between two counts of what was sent. A slow link must be seen to move: 256 KiB in the 10 s of a stall would ask
# for 26 KB/s of every connection.
PIECE = 64 * 1024


def abort_of(sock: socket.socket) -> Abort:
    """Return what wakes every thread that is blocked on ``sock``, in whatever it does there.

    Closing a socket wakes nobody. ``SSLSocket.shutdown`` wakes, and drops the TLS layer on the way: the next read would
    hand out ciphertext as if it were content. So it is the base class's, which leaves the TLS layer alone.
    """

    def abort() -> None:
        try:
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
        except OSError:
            pass  # not connected any more: nobody is blocked on it

    return abort


class Sender:
    """The body of a request: ``length`` bytes that can be produced again when a redirect asks for it. One thread's."""

    def __init__(self, length: int, open_body: Callable[[], Body], flow: Flow) -> None:
        self.length = length
        self.error: BaseException | None = None
        self._open = open_body
        self._flow = flow

    def rewind(self) -> None:
        """Take back what was sent: the body starts again from its first byte."""
        self._flow.settle(0)

    def __iter__(self) -> Iterator[memoryview]:
        # urllib3 takes every OSError for the connection's; what the source raised is kept to be raised again as it was.
        try:
            yield from self._pieces()
        except GeneratorExit:
            raise
        except BaseException as error:
            self.error = error
            raise
        finally:
            self._flow.end_body()

    def _pieces(self) -> Iterator[memoryview]:
        flow = self._flow
        buffer = flow.buffer
        with self._open() as body:
            flow.begin_body()
            left = self.length
            while left:
                filled = 0
                room = min(len(buffer), left)
                while filled < room:
                    count = body.readinto(buffer[filled:room])
                    if not count:
                        raise ReadError(f"the source ended {left - filled} bytes early")
                    filled += count
                for start in range(0, filled, PIECE):
                    piece = buffer[start : min(start + PIECE, filled)]
                    yield piece
                    flow.moved(len(piece))
                left -= filled


class BytesBody:
    """A short body that is in memory."""

    def __init__(self, data: bytes) -> None:
        self.offset = 0
        self._left = memoryview(data)

    def readinto(self, buffer: memoryview, /) -> int:
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def close(self) -> None:
        self._left = self._left[:0]

    def __enter__(self) -> BytesBody:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


class Answer:
    """An answer whose head has arrived. A context manager; not thread-safe.

    ``headers`` has lower-case names. ``length`` is the announced length of the body, ``None`` where there is none.
    """

    def __init__(self, response: requests.Response, *, origin: str, flow: Flow) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
        self._response = response
        self._raw = response.raw
        self._origin = origin
        self._flow = flow
        self._abort: Abort | None = None
        try:
            self.length = self._announced()
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
        if value is None or "transfer-encoding" in self.headers:
            return None
        # urllib3 joins a repeated field with a comma: "5, 5" is one length said twice, "5, 6" is two.
        values = {part.strip() for part in value.split(",")}
        text = values.pop()
        if values or not (text.isascii() and text.isdigit()):
            raise ProtocolError(f"{self._origin} sent an answer with the Content-Length {value[:60]!r}")
        return int(text)

    def readinto(self, buffer: memoryview, /) -> int:
        """Read what has arrived into ``buffer``, at most its size; 0 at the end of the body."""
        with foreign_errors(self._flow, self._origin, None, None):
            data: bytes = self._raw.read1(len(buffer))
        self._flow.check()
        count = len(data)
        if not count:
            self._detach()
        if count > len(buffer):
            raise ProtocolError(f"{self._origin} sent an encoded body")
        buffer[:count] = data
        return count

    def read(self, limit: int) -> bytes:
        """Return the whole body.

        Raises:
            ProtocolError: it is longer than ``limit`` bytes.
        """
        data = self.peek(limit + 1)
        if len(data) > limit:
            raise ProtocolError(f"{self._origin} sent more than the {limit} bytes that this answer may have")
        return data

    def peek(self, limit: int) -> bytes:
        """Return at most the first ``limit`` bytes of the body."""
        parts: list[bytes] = []
        size = 0
        with foreign_errors(self._flow, self._origin, None, None):
            while size < limit:
                data: bytes = self._raw.read1(limit - size)
                self._flow.check()
                if not data:
                    break
                parts.append(data)
                size += len(data)
        return b"".join(parts)

    def close(self) -> None:
        """Let go of the connection: to the pool where the body was read to its end, else it is closed."""
        if self._response is None:
            return
        self._detach()
        self._response.close()
        self._response = None  # type: ignore[assignment]  # closed for good

    def finish(self) -> None:
        """Read a short rest, so that the connection can be used again, and close."""
        try:
            if self.length is not None and self.length <= _WORTH_DRAINING:
                self.peek(_WORTH_DRAINING)
        finally:
            self.close()

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


_WORTH_DRAINING = 64 * 1024  # bytes; a new connection costs less than reading more than this


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Walk an error, what it wraps and what it came from; requests and urllib3 use all three ways."""
    seen: set[int] = set()
    queue: list[Any] = [error]
    while queue:
        current = queue.pop(0)
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        queue += [*current.args, getattr(current, "reason", None), current.__cause__, current.__context__]


def _convert(error: BaseException, origin: str, verify: object, sending: bool) -> TransferKitError:
    causes = list(_causes(error))
    detail = str(causes[-1])[:_SHOWN] or type(causes[-1]).__name__
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            bundle = "the default CA bundle" if verify in (True, None) else f"the CA bundle {verify}"
            return CertificateError(
                f"the certificate of {origin} does not verify against {bundle}: {cause.verify_message}; "
                "set REQUESTS_CA_BUNDLE or pass a session with .verify"
            )
        if isinstance(cause, socket.gaierror):
            # EAI_AGAIN is a name server that did not answer; the others are its answer.
            silent = cause.errno == socket.EAI_AGAIN
            return ConnectError(f"the host name of {origin} does not resolve: {cause.strerror}", retryable=silent)
    if isinstance(error, (failures.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError)):
        return TransportTimeout(f"no connection to {origin} in time")
    for cause in causes:
        if isinstance(cause, urllib3.exceptions.NewConnectionError):
            return ConnectError(f"cannot connect to {origin}: {_os_reason(causes)}")
        if isinstance(cause, (failures.ProxyError, urllib3.exceptions.ProxyError)):
            return ConnectError(f"the proxy on the way to {origin} failed: {_os_reason(causes)}")
    if isinstance(error, (failures.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)):
        return TransportTimeout(f"{origin} did not answer in time")
    if isinstance(error, (failures.SSLError, urllib3.exceptions.SSLError, ssl.SSLError)):
        return ConnectError(f"TLS with {origin} failed: {detail}")
    if isinstance(error, (failures.InvalidURL, failures.InvalidHeader, failures.InvalidSchema, failures.MissingSchema)):
        return ProtocolError(f"a request to {origin} cannot be made: {type(error).__name__}")
    for cause in causes:
        if isinstance(cause, (urllib3.exceptions.HeaderParsingError, urllib3.exceptions.DecodeError)):
            return ProtocolError(f"{origin} sent an answer that is not HTTP: {type(cause).__name__}")
        if type(cause).__name__ in ("BadStatusLine", "LineTooLong", "UnknownProtocol"):
            return ProtocolError(f"{origin} sent an answer that is not HTTP: {type(cause).__name__}")
    kind = WriteError if sending and any(isinstance(cause, BrokenPipeError) for cause in causes) else ReadError
    return kind(f"the connection to {origin} broke: {detail}")


def _os_reason(causes: list[BaseException]) -> str:
    for cause in reversed(causes):
        if isinstance(cause, OSError) and cause.strerror:
            return str(cause.strerror)
    return str(causes[-1])[:_SHOWN]


_FOREIGN = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ssl.SSLError, ValueError)


@contextmanager
def foreign_errors(flow: Flow, origin: str, verify: object, sender: Sender | None) -> Iterator[None]:
    """Turn what the HTTP libraries raise into ours: first what the flow says, then what the body's source raised."""
    try:
        yield
    except TransferKitError:
        raise
    except _FOREIGN as error:
        flow.check()
        if sender is not None and sender.error is not None:
            raise sender.error from error
        raise _convert(error, origin, verify, sender is not None) from error
