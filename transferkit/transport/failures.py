"""Foreign errors: what ``socket``, ``ssl`` and the HTTP libraries raise becomes one of ours here, and nowhere else.

It knows the libraries' exceptions by what they mean; whoever uses a library brings them.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

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

Kinds = tuple[type[BaseException], ...]


class Foreign(NamedTuple):
    """The exceptions of a library, by what they mean; those of ``socket`` and ``ssl`` are known besides."""

    caught: Kinds = (OSError, ValueError)
    """All that it raises."""
    unconnected: Kinds = ()
    proxy: Kinds = ()
    connect_timeout: Kinds = ()
    # BlockingIOError is how the kernel's own time limit on a socket (SO_RCVTIMEO) shows.
    timeout: Kinds = (TimeoutError, BlockingIOError)
    tls: Kinds = ()
    bad_request: Kinds = ()
    bad_answer: Kinds = ()
    wrapper: Kinds = ()
    """Errors that repeat a URL, and say nothing that their cause does not say."""


SOCKETS = Foreign()


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


def convert(
    error: BaseException,
    origin: str,
    verify: object,
    *,
    sending: bool,
    connecting: bool = False,
    foreign: Foreign = SOCKETS,
) -> TransferKitError:
    """Return our exception for a foreign one.

    ``verify`` is the CA bundle, ``True`` for the default one, ``None`` where the connection stood already. ``sending``
    says that it came while a body was sent, ``connecting`` that there was no connection yet.
    """
    import ssl  # here: most processes meet no error, and many no TLS

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
    for cause in causes:
        if isinstance(cause, foreign.unconnected):
            return ConnectError(f"cannot connect to {origin}: {_os_reason(causes)}")
        if isinstance(cause, foreign.proxy):
            return ConnectError(f"the proxy on the way to {origin} failed: {_os_reason(causes)}")
    if isinstance(error, foreign.connect_timeout) or (connecting and isinstance(error, TimeoutError)):
        return TransportTimeout(f"no connection to {origin} in time")
    if isinstance(error, foreign.timeout):
        return TransportTimeout(f"{origin} did not answer in time")
    # Without a setting for certificates it is a connection that stood: a damaged record is a broken connection.
    if verify is not None and isinstance(error, (ssl.SSLError, *foreign.tls)):
        return ConnectError(f"TLS with {origin} failed: {detail}")
    if isinstance(error, foreign.bad_request):
        return ProtocolError(f"a request to {origin} cannot be made: {type(error).__name__}")
    for cause in causes:
        # HTTPException itself is what http.client raises for too many fields.
        if isinstance(cause, foreign.bad_answer) or type(cause).__name__ in _NOT_HTTP:
            return ProtocolError(f"{origin} sent an answer that is not HTTP: {type(cause).__name__}")
    if connecting:
        return ConnectError(f"cannot connect to {origin}: {_os_reason(causes)}")
    kind = WriteError if sending and any(isinstance(cause, BrokenPipeError) for cause in causes) else ReadError
    return kind(f"the connection to {origin} broke: {detail}")


_NOT_HTTP = ("BadStatusLine", "LineTooLong", "UnknownProtocol", "HTTPException")


def _root(error: BaseException, foreign: Foreign) -> OSError | None:
    """Return the system's error below those of the libraries, which repeat a URL with its query in every traceback."""
    for cause in reversed(list(_causes(error))):
        if isinstance(cause, OSError) and not isinstance(cause, foreign.wrapper):
            return cause
    return None


def _os_reason(causes: list[BaseException]) -> str:
    for cause in reversed(causes):
        if isinstance(cause, OSError) and cause.strerror:
            return str(cause.strerror)
    return str(causes[-1])[:_SHOWN]


@contextmanager
def foreign_errors(
    flow: Flow,
    origin: str,
    verify: object,
    sender: RequestBody | None,
    *,
    connecting: bool = False,
    foreign: Foreign = SOCKETS,
) -> Iterator[None]:
    """Turn what a library raises into ours: first what the flow says, then what the body's source raised."""
    try:
        yield
    except TransferKitError:
        raise
    except foreign.caught as error:
        flow.check()
        if sender is not None and sender.error is not None:
            raise sender.error from sender.error.__cause__  # as it was
        raise convert(
            error, origin, verify, sending=sender is not None, connecting=connecting, foreign=foreign
        ) from _root(error, foreign)
