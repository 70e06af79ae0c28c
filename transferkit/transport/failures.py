"""Foreign errors: what ``socket``, ``ssl``, urllib3 and requests raise becomes one of ours here, and nowhere else."""

from __future__ import annotations

import errno
import http.client as http
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import requests.exceptions as theirs
import urllib3.exceptions as urllib3s

from transferkit import errors
from transferkit.content.flow import Flow
from transferkit.errors import TransferKitError
from transferkit.protocol.advice import about
from transferkit.transport.request import Lane, RequestBody

# How OpenSSL calls it when what comes is no TLS: an answer, or a request in plain text.
_PLAIN = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "PACKET_LENGTH_TOO_LONG"})
_SHOWN = 200  # characters of a foreign message that are repeated
_TUNNEL = "Tunnel connection failed:"  # how http.client begins what it says of a proxy's answer to CONNECT
_AUTHORITY = "set REQUESTS_CA_BUNDLE or pass a session with .verify, or HostOptions(ca_bundle=...)"
_ANOTHER = "use a name that the certificate has, or ask whoever runs the host for another certificate"
# OpenSSL's X509_V_ERR_... (x509_vfy.h): not yet valid, has expired, of another host, of another address.
_CERTIFICATES = {
    9: "is the clock of this machine right?",
    10: "whoever runs the host has to renew it (or is the clock of this machine wrong?)",
    62: _ANOTHER,
    64: _ANOTHER,
}
_ADVICE = {
    errno.ECONNREFUSED: "; is it running, and is the port right?",
    errno.ENETUNREACH: "; is this machine online?",
    errno.EHOSTUNREACH: "; is this machine online, and the host's network reachable from here?",
}


class _Failure(NamedTuple):
    """A foreign error with all that it wraps and came from, innermost last."""

    causes: list[BaseException]
    detail: str
    """The words of the innermost."""
    lane: Lane
    connecting: bool
    sending: bool


_Build: TypeAlias = "Callable[[Any, _Failure], TransferKitError]"


def _certificate(cause: Any, failure: _Failure) -> TransferKitError:
    verify, code = failure.lane.settings.get("verify"), getattr(cause, "verify_code", 0)
    bundle = "the default CA bundle" if verify in (True, None) else f"the CA bundle {verify}"
    return errors.CertificateError(
        f"the certificate of {failure.lane.origin} does not verify against {bundle}: "
        f"{getattr(cause, 'verify_message', failure.detail).rstrip('.')}; {_CERTIFICATES.get(code, _AUTHORITY)}"
    )


def _unresolved(cause: Any, failure: _Failure) -> TransferKitError:
    who = f"proxy name of {failure.lane.proxy}" if failure.lane.proxy else f"host name of {failure.lane.origin}"
    # EAI_AGAIN is a name server that did not answer; the others are its answer.
    silent = cause.errno == socket.EAI_AGAIN
    advice = "is this machine online?" if silent else "check how it is written"
    if not silent and failure.lane.proxy is None:
        advice += ", and whether this machine is online, or needs a proxy"
    return errors.ConnectError(
        f"the {who} does not resolve: {cause.strerror or ''}{_proxy_from(failure)}; {advice}", retryable=silent
    )


def _unconnected(cause: Any, failure: _Failure) -> TransferKitError:
    # The system's own words, where there are any.
    words = [str(c.strerror) for c in failure.causes if isinstance(c, OSError) and c.strerror] or [failure.detail]
    origin, proxy = failure.lane.origin, failure.lane.proxy
    what = f"cannot connect to {origin}" if proxy is None else f"the proxy {proxy} on the way to {origin} failed"
    tunnel = next((str(c) for c in failure.causes if str(c).startswith(_TUNNEL)), "")
    if tunnel:  # what the proxy has answered to CONNECT
        status = tunnel[len(_TUNNEL) :].strip()[:3]
        is_final = status.startswith("4") and status not in ("408", "429")
        advice = about(407, "", is_page=False) if status == "407" else "ask whoever runs it, or name another"
        return errors.ConnectError(f"{what}: {words[-1]}{_proxy_from(failure)}; {advice}", retryable=not is_final)
    number = next((c.errno for c in failure.causes if isinstance(c, OSError) and c.errno), 0)
    advice = _ADVICE.get(number, "")
    return errors.ConnectError(f"{what}: {words[-1]}{_proxy_from(failure)}{advice}")


def _proxy_from(failure: _Failure) -> str:
    """Return who says that there is a proxy, for the end of a message."""
    return f"; the proxy is {failure.lane.proxy_from}" if failure.lane.proxy_from else ""


def _tls(cause: Any, failure: _Failure) -> TransferKitError:
    # On a connection that stood, a damaged record is a broken connection.
    if not failure.connecting or not failure.lane.origin.startswith("https:"):
        return _broken(cause, failure)
    if any(getattr(each, "reason", None) in _PLAIN for each in failure.causes):
        who = failure.lane.origin if failure.lane.proxy is None else f"{failure.lane.origin}, or {failure.lane.proxy},"
        return errors.ConnectError(
            f"{who} speaks http, not https: use its http:// address, or HostOptions(scheme='http')", retryable=False
        )
    return errors.ConnectError(f"TLS with {failure.lane.origin} failed: {failure.detail}")


def _broken(cause: Any, failure: _Failure) -> TransferKitError:
    if failure.connecting:
        return _unconnected(cause, failure)
    is_pipe = failure.sending and any(getattr(cause, "errno", None) == errno.EPIPE for cause in failure.causes)
    kind = errors.WriteError if is_pipe else errors.ReadError
    return kind(f"the connection to {failure.lane.origin} broke: {failure.detail}")


def _says(kind: type[TransferKitError], text: str) -> _Build:
    """Return what makes an error of ``kind``; ``text`` may name the origin, the cause's type and its words."""
    return lambda cause, failure: kind(
        text.format(origin=failure.lane.origin, type=type(cause).__name__, words=failure.detail)
    )


_unconnected_in_time = _says(
    errors.TransportTimeout,
    "no connection to {origin} in time (TransportOptions.connect_timeout); is a firewall or a VPN in between?",
)
_late = _says(
    errors.TransportTimeout,
    "{origin} did not answer in time (TransportOptions.response_timeout); it may be overloaded",
)
_malformed = _says(errors.ProtocolError, "a request to {origin} cannot be made: {type}")
_not_http = _says(errors.ProtocolError, "{origin} sent an answer that is not HTTP: {type}")

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
    (_OUTER, (theirs.InvalidSchema,), _says(errors.ProtocolError, "a request to {origin} cannot be made: {words}")),
    # Their words hold a part of a proxy's password, where that is not quoted. A ProxySchemeUnknown is one, too.
    (_OUTER, (theirs.InvalidURL, theirs.InvalidHeader, theirs.MissingSchema, urllib3s.LocationValueError), _malformed),
    # RemoteDisconnected is a BadStatusLine, and a broken connection; HTTPException itself means too many fields.
    (_EXACT, (http.BadStatusLine, http.LineTooLong, http.UnknownProtocol, http.HTTPException), _not_http),
    (_ANY, (urllib3s.HeaderParsingError, urllib3s.DecodeError), _not_http),
    (_ANY, (BaseException,), _broken),
)


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


def convert(error: BaseException, lane: Lane, *, sending: bool = False, connecting: bool = False) -> TransferKitError:
    """Return our exception for a foreign one, that came while a body was ``sending`` or there was no connection yet."""
    causes = _causes(error)
    # Who cannot read the size of a chunk quotes it, and a peer may repeat a secret of ours there.
    is_quoting = any(
        isinstance(cause, urllib3s.InvalidChunkLength) or str(cause).startswith("invalid literal") for cause in causes
    )
    detail = "a chunk has no size" if is_quoting else str(causes[-1])[:_SHOWN]
    detail = detail or type(causes[-1]).__name__
    failure = _Failure(causes, detail, lane, connecting, sending)
    for where, kinds, build in _TABLE:
        if where == _CONNECTING and not connecting:
            continue
        for cause in causes if where in (_ANY, _EXACT) else causes[:1]:
            if type(cause) in kinds if where == _EXACT else isinstance(cause, kinds):
                return build(cause, failure)
    raise AssertionError("the last row takes everything")


def root_of(error: BaseException) -> OSError | None:
    """Return the system's error below those of the libraries, which repeat a URL with its query in every traceback."""
    found = [c for c in _causes(error) if isinstance(c, OSError) and not isinstance(c, theirs.RequestException)]
    return found[-1] if found else None


@contextmanager
def foreign_errors(
    flow: Flow, lane: Lane, *, body: RequestBody | None = None, connecting: bool = False
) -> Iterator[None]:
    """Turn what a library raises into ours: first what the flow says, then what the body's source raised."""
    try:
        yield
    except TransferKitError:
        raise
    except (OSError, ValueError, urllib3s.HTTPError, http.HTTPException) as error:
        flow.check()
        if body is not None and body.error is not None:
            raise body.error from body.error.__cause__  # as it was
        raise convert(error, lane, sending=body is not None, connecting=connecting) from root_of(error)
