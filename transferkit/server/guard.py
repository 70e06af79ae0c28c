"""Which requests a server on somebody's own machine answers at all: those that no foreign web page has sent.

A page that the user happens to have open can send requests to 127.0.0.1. Two things keep it out. ``Host`` names what
the browser believes to talk to: a name of the attacker's that was led to this machine (DNS rebinding, as in
CVE-2024-28224) is not one of ours. ``Sec-Fetch-Site`` and ``Origin`` name the page that a request comes from; whatever
changes something is taken from our own page alone, and from clients that are no browsers, which send neither. The
second rule is that of ``CrossOriginProtection`` in Go 1.25's ``net/http``, and both headers are held against it.

No header of CORS is ever sent, so what a foreign page may ask for, it cannot read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from transferkit.server.refusals import is_registry, refuse

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LIMIT = 1024 * 1024  # bytes of a body outside of the registry, where bodies are blobs
_SAFE = ("GET", "HEAD", "OPTIONS")  # RFC 9110, section 9.2.1
_WILDCARDS = ("0.0.0.0", "::")  # listens on every address of the machine
_PORTS = {"http": "80", "https": "443"}


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine, whatever a name server says (RFC 6761, section 6.3).

    >>> hosts = ("a.localhost.", "127.0.0.9", "::1", "localhost.example", "10.0.0.1")
    >>> [is_loopback(host) for host in hosts]
    [True, True, True, False, False]
    """
    host = host.lower().removesuffix(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    return is_address(host) and ip_address(host).is_loopback


def is_address(host: str) -> bool:
    """Tell whether a host is a literal address: one that no name server can lead elsewhere."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def host_of(authority: str) -> str | None:
    """Return the host of a ``Host`` header in lower case, without port and brackets; ``None``: it is malformed.

    >>> [host_of(text) for text in ("LocalHost:80", "[::1]:80", "[::1", "a@b", "")]
    ['localhost', '::1', None, None, None]
    """
    try:
        split = urlsplit(f"//{authority}")
        is_plain = split.netloc == authority and "@" not in authority
        _ = split.port
        return (split.hostname or None) if is_plain else None
    except ValueError:
        return None


class Guard:
    """A WSGI application in front of another one: it lets through what is addressed to this server by no foreign page.

    ``served`` is the host that the server listens on, ``hosts`` are further names by which it may be called. Bodies
    outside of ``/v2/`` have at most ``limit`` bytes.
    """

    def __init__(
        self, application: WSGIApplication, *, served: str, hosts: Iterable[str] = (), limit: int = LIMIT
    ) -> None:
        self._application = application
        self._hosts = {host.lower().removesuffix(".") for host in (served, *hosts)}
        self._is_everywhere = served in _WILDCARDS
        self._limit = limit

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        authority = environ.get("HTTP_HOST", "")
        if not self._is_ours(authority):
            text = "this server is not known by the host of the request; start it with --allow-host to allow that name"
            return refuse(environ, start_response, 403, text)
        if environ["REQUEST_METHOD"] not in _SAFE and is_foreign(environ, authority):
            return refuse(environ, start_response, 403, "the request comes from a page of another site")
        if not is_registry(environ.get("PATH_INFO", "")) and _length(environ) > self._limit:
            return refuse(environ, start_response, 413, f"the body of a request has at most {self._limit} bytes")
        return self._application(environ, start_response)

    def _is_ours(self, authority: str) -> bool:
        host = host_of(authority)
        if host is None:
            return False
        return (
            is_loopback(host)
            or host.removesuffix(".") in self._hosts
            or (self._is_everywhere and is_address(host))  # one of this machine's, else it would not have come here
        )


def is_foreign(environ: WSGIEnvironment, authority: str) -> bool:
    """Tell whether a request was sent by a page that is not of this very server."""
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site is not None and site not in ("same-origin", "none"):
        return True
    origin = environ.get("HTTP_ORIGIN")
    return origin is not None and not _is_same(origin, authority)


def _is_same(origin: str, authority: str) -> bool:
    """Compare host and port. The scheme is not looked at: something in front may have taken the TLS away."""
    try:
        page = urlsplit(origin)
        port = str(page.port or _PORTS.get(page.scheme, ""))
        asked = urlsplit(f"{page.scheme}://{authority}")
        return bool(page.hostname) and (page.hostname, port) == (
            asked.hostname,
            str(asked.port or _PORTS.get(page.scheme, "")),
        )
    except ValueError:
        return False


def _length(environ: WSGIEnvironment) -> int:
    text = environ.get("CONTENT_LENGTH") or "0"
    if not text.isdecimal():
        return 0
    return int(text) if len(text) < 20 else sys.maxsize  # int() raises where there are 4,300 digits and more
