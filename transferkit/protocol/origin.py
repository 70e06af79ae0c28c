"""The one URL policy: what may be sent where, and what may be asked for at all.

A registry steers its client at five points: a redirect, the ``Location`` of an upload, the realm of a token, a ``Link``
and a ``Content-Location``. Each of them comes here. The rules:

1. Only http and https; never from https to http.
2. Another origin (scheme, host, port) than the registry's own gets no Authorization, cookie, custom header or client
   certificate.
3. A host that is a literal address which the public Internet does not route (``protocol.addresses``) is refused, unless
   the registry itself is a private literal or ``localhost``, or the host is the registry's own, or ``storage_hosts``
   names it. A name that leads to such an address is refused by who connects (``must_be_public``).
4. Ten hops at most; no user name in a URL.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from transferkit.errors import ProtocolError
from transferkit.protocol.addresses import kind_of

MAX_HOPS = 10  # as curl and oras have it; a chain that is longer is a loop
_PORTS = {"http": 80, "https": 443}
_AUTHORITY = re.compile(r"[^/?]*")
_BEFORE_PATH = re.compile(r"[^/?#]*//[^/?#]*")
_ASCII = "".join(map(chr, range(0x80)))
_FORBIDDEN = re.compile(r"[\x00- \x7f\\]")
# No other spelling than what DNS knows: who judges a host and who connects to it must read it alike. Two IDNA versions
# do not ("\u00df" is "ss" in one and "xn--zca" in the other), so an internationalised name is taken as xn-- only.
_LABEL = r"[a-z0-9_-]{1,63}"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: what decides who may see a secret. The host is lower case, without a trailing dot."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """Return the origin of ``url``; ProtocolError: it is no well-formed http or https URL, or has a user name."""
        if _FORBIDDEN.search(url):
            raise ProtocolError("a URL with blanks, control characters or backslashes is refused")
        # Each upload has a URL of its own, at one of few origins.
        before_path = _BEFORE_PATH.match(url)
        try:
            return _origin_of(url if before_path is None else before_path[0])
        except ValueError:  # its text repeats the user name
            raise ProtocolError(f"a URL that does not parse is refused: {redact(url)}") from None

    @property
    def netloc(self) -> str:
        host = self._bracketed
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    def in_hosts(self, hosts: frozenset[str]) -> bool:
        """Tell whether ``hosts`` names this one, as ``host`` or ``host:port``; with brackets or without for IPv6."""
        return not hosts.isdisjoint(self.names)

    @property
    def names(self) -> tuple[str, str, str]:
        """How a user may name its host: the most specific way first."""
        return f"{self._bracketed}:{self.port}", self._bracketed, self.host

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"


@lru_cache(maxsize=64)  # of those alone that are none of the refused
def _origin_of(url: str) -> Origin:
    parts = urlsplit(url)
    port = parts.port
    if parts.scheme not in _PORTS:
        raise ProtocolError(f"only http and https URLs are followed, not {parts.scheme[:20]!r}")
    if "@" in parts.netloc:
        raise ProtocolError("a URL with a user name in it is refused")
    host = (parts.hostname or "").rstrip(".")
    if not host:
        raise ProtocolError("a URL without a host is refused")
    if not (_is_ipv6(host) if "[" in parts.netloc else _NAME.match(host)):
        raise ProtocolError("a URL whose host is not a valid name is refused")
    return Origin(parts.scheme, host, _PORTS[parts.scheme] if port is None else port)


def redact(url: str) -> str:
    """Return ``url`` without user name, query and fragment: what may stand in an error or a log.

    >>> redact("https://u:p@host/blob?X-Signature=secret")
    'https://host/blob'
    """
    try:
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))[:500]
    except ValueError:
        return "<a URL that does not parse>"


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def check_step(registry: Origin, url: str, *, previous: Origin, allowed: frozenset[str] = frozenset()) -> Origin:
    """Return the origin of ``url`` if a request may go there.

    ``registry`` is where the user pointed us, ``previous`` who named the URL, ``allowed`` the user's ``storage_hosts``.

    Raises:
        ProtocolError: refused; the message says which rule and, where there is one, which option allows it.
    """
    origin = Origin.of(url)
    if previous.scheme == "https" and origin.scheme == "http":
        raise ProtocolError(f"{previous.host} sends us from https to http ({redact(url)}); refused")
    kind = "public" if origin.host == registry.host else kind_of(origin.host)
    if kind in ("public", "name") or kind_of(registry.host) == "private" or origin.in_hosts(allowed):
        return origin
    option = f"TransportOptions(storage_hosts={{{origin.netloc!r}}})"
    text = f"{registry.host} sends us to the {kind} address {origin.netloc}; refused"
    raise ProtocolError(f"{text}. If that is right, allow it with {option}")


def must_be_public(registry: Origin, origin: Origin, allowed: frozenset[str] = frozenset()) -> bool:
    """Tell whether ``origin``, where ``registry`` leads to, is a name that may lead to no private address.

    A name passes ``check_step``; its addresses are judged by who connects (CVE-2026-85180). Of a registry that is at a
    private address itself, however it is named, nobody is asked this.
    """
    if origin.host == registry.host or origin.in_hosts(allowed):
        return False
    return kind_of(origin.host) == "name" and kind_of(registry.host) != "private"


# Registries whose token service has another name: the pairs that everybody meets.
_WELL_KNOWN_REALMS = {
    "registry-1.docker.io": "auth.docker.io",
    "index.docker.io": "auth.docker.io",
    "docker.io": "auth.docker.io",
    "registry.gitlab.com": "gitlab.com",
    "registry.redhat.io": "sso.redhat.com",
    "registry.connect.redhat.com": "sso.redhat.com",
}


def may_see_credentials(registry: Origin, realm: Origin, allowed: frozenset[str] = frozenset()) -> bool:
    """Tell whether a token service may see the user name and password of a registry.

    On the registry's own host it may, on any port and with the same or a safer scheme; of the others only the
    well-known pairs, and those that ``token_realms`` names (``host`` or ``host:port``).
    """
    if registry.scheme == "https" and realm.scheme != "https":
        return False
    if realm.host == registry.host or realm.in_hosts(allowed):
        return True
    return realm.scheme == "https" and _WELL_KNOWN_REALMS.get(registry.host) == realm.host


def target_of(url: str) -> str:
    """Return path and query of an absolute URL, byte for byte: what stands in a request line. A signature covers it.

    >>> target_of("https://host/a%2Fb?X=%20#part"), target_of("http://host?a=b")
    ('/a%2Fb?X=%20', '/?a=b')
    """
    target = _AUTHORITY.sub("", url.partition("://")[2].partition("#")[0], count=1)
    return target if target.startswith("/") else f"/{target}"


def join(base: str, location: str) -> str:
    """Return the absolute URL of a ``Location`` that may be relative to the URL ``base``; ProtocolError: it is none."""
    try:
        if not location.isascii():
            # It comes from a head, which is read as Latin-1: so each byte is quoted as it came, whatever it encodes.
            location = quote(location, safe=_ASCII, encoding="latin-1")
        return location if location.startswith(("http://", "https://")) else urljoin(base, location)
    except ValueError:
        raise ProtocolError(f"a URL that does not parse is refused: {redact(location)}") from None
