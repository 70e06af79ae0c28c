"""The rules of an upload: where its next request goes, how far its session is, and Ollama's own additions.

Source: OCI distribution specification v1.1, "Pushing blobs": a ``Location`` may be absolute or relative and may have a
query, which must be kept; the digest is added to it. Ollama's additions: its public client, August 2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from transferkit.content.descriptor import MAX_SIZE
from transferkit.content.digest import Digest
from transferkit.errors import InvalidDigestError, ProtocolError
from transferkit.protocol.origin import Origin

MIB = 1024 * 1024
SMALLEST_PART = MIB  # bytes; nginx takes no larger body where nobody has told it so (client_max_body_size)
_PART = 64 * MIB  # where nobody says: below the 100 MB that the common proxies before registries take
_SHRINK = 4  # a part that is too large is followed by parts of a fourth: 64 MiB, 16, 4, 1

# The specification writes "0-<end>"; some registries put a "bytes=" before it.
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})\Z", re.ASCII)
_LENGTH = re.compile(r"[0-9]{1,18}\Z", re.ASCII)
_OLLAMA = ("ollama.ai", "ollama.com")
_SIGNED = "x-signed-header-"
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z", re.ASCII)
# Never a registry's to choose: the user's secrets, and what frames the request. An S3 signature covers Host and often
# Content-Length; ours are the same ones, or the storage refuses them.
_NEVER_ECHOED = re.compile(
    "authorization|connection|content-length|cookie|expect|host|keep-alive|proxy-authorization|proxy-connection|te|"
    "trailer|transfer-encoding|upgrade"
)


def commit_url(location: str, digest: Digest, *, etag: str = "") -> str:
    """Return the URL whose ``PUT`` ends the session at ``location`` (absolute)."""
    place, _, query = location.partition("#")[0].partition("?")
    return f"{place}?{query}{query and '&'}digest={digest}{etag and f'&etag={etag}'}"


def received(value: str | None, *, sent: int) -> int | None:
    """Return how many bytes the ``Range`` of a session says are there, ``None`` where it says nothing intelligible.

    ``sent`` is the number of bytes that have been sent. Both an empty session and one of a single byte are written
    "0-0". It is taken for empty, unless just one byte was sent; where that is wrong, the next part is out of order
    (416), and nothing is lost but time.

    >>> said = (("bytes=0-9", 10), ("0-0", 10), ("0-0", 1), ("all", 1))
    >>> tuple(received(text, sent=sent) for text, sent in said)
    (10, 0, 1, None)
    """
    match = _RANGE.match(value.strip()) if value is not None else None
    if match is None:
        return None
    count = int(match[1]) + 1
    return 0 if count == 1 and sent != 1 else count


def announced(headers: Mapping[str, str]) -> Digest | None:
    """Return the ``Docker-Content-Digest``; ``None``: there is none that could be compared with one of ours.

    The bytes prove what they are; a field that is malformed, of another algorithm, or names two digests says nothing.
    """
    try:
        return Digest(headers.get("docker-content-digest", ""))
    except InvalidDigestError:
        return None


def smallest_part(value: str | None) -> int:
    """Return what ``OCI-Chunk-Min-Length`` asks for; 0 where it is missing or no number."""
    return int(value) if value is not None and _LENGTH.match(value.strip()) else 0


class PartRules:
    """What is known of the parts that one registry takes. Thread-safe: two threads that learn it learn the same."""

    def __init__(self, wanted: int | None = None) -> None:
        self.wanted = wanted  # bytes that larger blobs are to be cut to; None: not unless the registry demands it
        self.refused = MAX_SIZE + 1  # bytes of the shortest body that it refused with 413
        self.taken = True  # whether it takes parts at all

    def demanded(self, size: int) -> bool:
        """Tell whether a blob is too large for one request."""
        return size >= self.refused

    def length(self, size: int, minimum: int) -> int:
        """Return the length of a blob's parts, at least ``minimum``; 0 for a single request."""
        wanted = self.wanted is not None and size > self.wanted and self.taken
        if not (wanted or self.demanded(size)):
            return 0
        part = self.wanted or _PART
        while part >= self.refused and part > SMALLEST_PART:
            part = max(part // _SHRINK, SMALLEST_PART)
        return max(part, minimum)

    def refuse(self, length: int, minimum: int) -> int:
        """Take in that a body was too long, and return the length of smaller ones; 0: it could not be much smaller."""
        smaller = max(length // _SHRINK, SMALLEST_PART, minimum)
        if smaller >= length:
            return 0
        self.refused = min(length, self.refused)
        return smaller


# -- Ollama's


def is_ollama(origin: Origin, hosts: frozenset[str] = frozenset()) -> bool:
    """Tell whether a registry speaks Ollama's dialect: one of the well-known ones, or one that ``hosts`` names."""
    return any(origin.host == host or origin.host.endswith(f".{host}") for host in _OLLAMA) or origin.in_hosts(hosts)


def signed_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return what a direct upload must repeat: each ``X-Signed-Header-<Name>`` of an answer as ``<Name>``.

    What is the user's own, and what frames the request, is left out. A malformed field is a ProtocolError.
    """
    echoed = {}
    for field, value in headers.items():
        name = field[len(_SIGNED) :]
        if not field.startswith(_SIGNED) or _NEVER_ECHOED.fullmatch(name):
            continue
        if _FIELD_NAME.match(name) is None or any((c < " " and c != "\t") or c == "\x7f" for c in value):
            raise ProtocolError(f"the registry wants a malformed header field to be sent: {name[:60]!r}")
        # One spelling, so that it takes the place of a field of ours.
        echoed["-".join(word.capitalize() for word in name.split("-"))] = value
    return echoed
