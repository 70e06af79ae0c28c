"""Foreign errors: what ``socket``, ``ssl``, urllib3 and requests raise becomes one of ours here, and nowhere else."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import requests.exceptions as theirs
import urllib3.exceptions as urllib3s

from transferkit.content.interfaces import Flow
from transferkit.errors import (
    CertificateError,
    ConnectError,
    ProtocolError,
    ReadError,
    TransferKitError,
    TransportTimeout,
    WriteError,
)
from transferkit.transport.request import RequestBody

_SHOWN = 200  # characters of a foreign message that are repeated
_BROKEN = "the connection to {0.origin} broke: {1}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """Where an error came up: what its text depends on."""

    origin: str
    verify: bool | str | None = None
    """The CA bundle, ``True`` for the default one, ``None`` where there is no TLS."""
    proxy: str | None = None
    """The proxy on the way, without user name and password."""


class Failure(NamedTuple):
    """A foreign error with all that it wraps and came from, innermost last."""

    causes: list[BaseException]
    circumstances: Circumstances
    connecting: bool
    sending: bool

    @property
    def detail(self) -> str:
        """The words of the innermost cause."""
        return str(self.causes[-1])[:_SHOWN] or type(self.causes[-1]).__name__

    @property
    def reason(self) -> str:
        """The system's own words, where there are any."""
        for cause in reversed(self.causes):
            if isinstance(cause, OSError) and cause.strerror:
                return str(cause.strerror)
        return self.detail


def _certificate(cause: BaseException, failure: Failure) -> TransferKitError:
    where = failure.circumstances
    bundle = "the default CA bundle" if where.verify in (True, None) else f"the CA bundle {where.verify}"
    return CertificateError(
        f"the certificate of {where.origin} does not verify against {bundle}: "
        f"{getattr(cause, 'verify_message', failure.detail)}; set REQUESTS_CA_BUNDLE or pass a session with .verify"
    )


def _unresolved(cause: BaseException, failure: Failure) -> TransferKitError:
    # EAI_AGAIN is a name server that did not answer; the others are its answer.
    silent = getattr(cause, "errno", None) == socket.EAI_AGAIN
    who = "the proxy" if failure.circumstances.proxy else "the host"
    text = f"{who} name of {failure.circumstances.proxy or failure.circumstances.origin} does not resolve"
    return ConnectError(f"{text}: {getattr(cause, 'strerror', '')}", retryable=silent)


def _unconnected(cause: BaseException, failure: Failure) -> TransferKitError:
    where = failure.circumstances
    if where.proxy is not None:
        return ConnectError(f"the proxy {where.proxy} on the way to {where.origin} failed: {failure.reason}")
    return ConnectError(f"cannot connect to {where.origin}: {failure.reason}")


def _tls(cause: BaseException, failure: Failure) -> TransferKitError:
    # Without a setting for certificates it is a connection that stood: a damaged record is a broken connection.
    if failure.circumstances.verify is None or not failure.connecting:
        return _broken(cause, failure)
    return ConnectError(f"TLS with {failure.circumstances.origin} failed: {failure.detail}")


def _broken(cause: BaseException, failure: Failure) -> TransferKitError:
    if failure.connecting:
        return _unconnected(cause, failure)
    is_pipe = failure.sending and any(getattr(cause, "errno", None) == errno.EPIPE for cause in failure.causes)
    return (WriteError if is_pipe else ReadError)(_BROKEN.format(failure.circumstances, failure.detail))


def _says(kind: type[TransferKitError], text: str) -> Callable[[BaseException, Failure], TransferKitError]:
    """Return what makes an error of ``kind``.

    ``text`` may name the circumstances {0}, the cause's type {1} and its words {2}.
    """
    return lambda cause, failure: kind(text.format(failure.circumstances, type(cause).__name__, failure.detail))


_unconnected_in_time = _says(TransportTimeout, "no connection to {0.origin} in time")
_late = _says(TransportTimeout, "{0.origin} did not answer in time")

_Build = Callable[[BaseException, Failure], TransferKitError]

# The first row that fits decides. ANY: some cause is of these types; EXACT: and of none derived from them. OUTER: the
# error itself is, for what it wraps may be of a milder kind; CONNECTING: and there is no connection yet.
_ANY, _EXACT, _OUTER, _CONNECTING = "any", "exact", "outer", "connecting"
_TABLE: tuple[tuple[str, tuple[type[BaseException], ...], _Build], ...] = (
    (_ANY, (ssl.SSLCertVerificationError,), _certificate),
    (_ANY, (socket.gaierror,), _unresolved),
    (_ANY, (urllib3s.NewConnectionError,), _unconnected),  # a ConnectTimeoutError, too
    (_ANY, (theirs.ConnectTimeout, urllib3s.ConnectTimeoutError), _unconnected_in_time),
    (_CONNECTING, (TimeoutError,), _unconnected_in_time),
    (_ANY, (theirs.ProxyError, urllib3s.ProxyError), _unconnected),
    # BlockingIOError is how the kernel's own time limit on a socket (SO_RCVTIMEO) shows.
    (_OUTER, (TimeoutError, BlockingIOError, theirs.Timeout, urllib3s.TimeoutError), _late),
    (_OUTER, (ssl.SSLError, theirs.SSLError, urllib3s.SSLError), _tls),
    # PySocks is missing; or the session has no adapter for the URL.
    (_OUTER, (theirs.InvalidSchema,), _says(ProtocolError, "a request to {0.origin} cannot be made: {2}")),
    (
        _OUTER,
        (theirs.InvalidURL, theirs.InvalidHeader, theirs.MissingSchema),
        _says(ProtocolError, "a request to {0.origin} cannot be made: {1}"),
    ),
    (
        # RemoteDisconnected is a BadStatusLine, and a broken connection; HTTPException itself means too many fields.
        _EXACT,
        (http.client.BadStatusLine, http.client.LineTooLong, http.client.UnknownProtocol, http.client.HTTPException),
        _says(ProtocolError, "{0.origin} sent an answer that is not HTTP: {1}"),
    ),
    (
        _ANY,
        (urllib3s.HeaderParsingError, urllib3s.DecodeError),
        _says(ProtocolError, "{0.origin} sent an answer that is not HTTP: {1}"),
    ),
    (_ANY, (BaseException,), _broken),
)  # fmt: skip


def _causes(error: BaseException) -> list[BaseException]:
    """Walk an error, what it wraps and what it came from; requests and urllib3 use all three ways."""
    found: dict[int, BaseException] = {}
    queue: list[Any] = [error]
    while queue:
        current = queue.pop(0)
        if isinstance(current, BaseException) and id(current) not in found:
            found[id(current)] = current
            queue += [*current.args, getattr(current, "reason", None), current.__cause__, current.__context__]
    return list(found.values())


def convert(
    error: BaseException, circumstances: Circumstances, *, sending: bool = False, connecting: bool = False
) -> TransferKitError:
    """Return our exception for a foreign one.

    ``sending`` says that it came while a body was sent, ``connecting`` that there was no connection yet.
    """
    failure = Failure(_causes(error), circumstances, connecting, sending)
    for where, kinds, build in _TABLE:
        if where == _CONNECTING and not connecting:
            continue
        for cause in failure.causes if where in (_ANY, _EXACT) else failure.causes[:1]:
            if type(cause) in kinds if where == _EXACT else isinstance(cause, kinds):
                return build(cause, failure)
    raise AssertionError("the last row takes everything")


def root_of(error: BaseException) -> OSError | None:
    """Return the system's error below those of the libraries, which repeat a URL with its query in every traceback."""
    for cause in reversed(_causes(error)):
        if isinstance(cause, OSError) and not isinstance(cause, theirs.RequestException):
            return cause
    return None


@contextmanager
def foreign_errors(
    flow: Flow, circumstances: Circumstances, *, body: RequestBody | None = None, connecting: bool = False
) -> Iterator[None]:
    """Turn what a library raises into ours: first what the flow says, then what the body's source raised."""
    try:
        yield
    except TransferKitError:
        raise
    except (OSError, ValueError, urllib3s.HTTPError, http.client.HTTPException) as error:
        flow.check()
        if body is not None and body.error is not None:
            raise body.error from body.error.__cause__  # as it was
        raise convert(error, circumstances, sending=body is not None, connecting=connecting) from root_of(error)
