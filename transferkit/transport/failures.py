"""Foreign errors: what requests, urllib3, ``ssl`` and ``socket`` raise becomes one of ours here, and nowhere else."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests
import urllib3
from requests import exceptions as failures

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
from transferkit.transport.body import Sender

_SHOWN = 200  # characters of a foreign message that are repeated


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
    error: BaseException, origin: str, verify: object, *, sending: bool, connecting: bool = False
) -> TransferKitError:
    """Return our exception for a foreign one.

    ``sending`` says that it came while a body was sent, ``connecting`` that there was no connection yet.
    """
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
        if isinstance(cause, urllib3.exceptions.NewConnectionError):
            return ConnectError(f"cannot connect to {origin}: {_os_reason(causes)}")
        if isinstance(cause, (failures.ProxyError, urllib3.exceptions.ProxyError)):
            return ConnectError(f"the proxy on the way to {origin} failed: {_os_reason(causes)}")
    if isinstance(error, (failures.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError)):
        return TransportTimeout(f"no connection to {origin} in time")
    # BlockingIOError is how the kernel's own time limit on a socket (SO_RCVTIMEO) shows.
    if isinstance(error, (failures.Timeout, urllib3.exceptions.TimeoutError, TimeoutError, BlockingIOError)):
        return TransportTimeout(f"{origin} did not answer in time")
    # Without a setting for certificates it is a connection that stood: a damaged record is a broken connection.
    if verify is not None and isinstance(error, (failures.SSLError, urllib3.exceptions.SSLError, ssl.SSLError)):
        return ConnectError(f"TLS with {origin} failed: {detail}")
    if isinstance(error, (failures.InvalidURL, failures.InvalidHeader, failures.InvalidSchema, failures.MissingSchema)):
        return ProtocolError(f"a request to {origin} cannot be made: {type(error).__name__}")
    for cause in causes:
        if isinstance(cause, (urllib3.exceptions.HeaderParsingError, urllib3.exceptions.DecodeError)):
            return ProtocolError(f"{origin} sent an answer that is not HTTP: {type(cause).__name__}")
        # HTTPException itself is what http.client raises for too many fields.
        if type(cause).__name__ in ("BadStatusLine", "LineTooLong", "UnknownProtocol", "HTTPException"):
            return ProtocolError(f"{origin} sent an answer that is not HTTP: {type(cause).__name__}")
    if connecting:
        return ConnectError(f"cannot connect to {origin}: {detail}")
    kind = WriteError if sending and any(isinstance(cause, BrokenPipeError) for cause in causes) else ReadError
    return kind(f"the connection to {origin} broke: {detail}")


def _root(error: BaseException) -> OSError | None:
    """Return the system's error below those of the libraries, which repeat a URL with its query in every traceback."""
    for cause in reversed(list(_causes(error))):
        if isinstance(cause, OSError) and not isinstance(cause, requests.RequestException):
            return cause
    return None


def _os_reason(causes: list[BaseException]) -> str:
    for cause in reversed(causes):
        if isinstance(cause, OSError) and cause.strerror:
            return str(cause.strerror)
    return str(causes[-1])[:_SHOWN]


_FOREIGN = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ssl.SSLError, ValueError)


@contextmanager
def foreign_errors(
    flow: Flow, origin: str, verify: object, sender: Sender | None, *, connecting: bool = False
) -> Iterator[None]:
    """Turn what the HTTP libraries raise into ours: first what the flow says, then what the body's source raised."""
    try:
        yield
    except TransferKitError:
        raise
    except _FOREIGN as error:
        flow.check()
        if sender is not None and sender.error is not None:
            raise sender.error from sender.error.__cause__  # as it was
        raise convert(error, origin, verify, sending=sender is not None, connecting=connecting) from _root(error)
