"""What we send as secrets, and how a text from a peer is cleaned of it before anybody gets to see that.

A registry may repeat our request in its status line, in an error or in a header field: a token, a password, a signed
query. Errors quote such texts, cut to some length, so a part of a secret from its beginning on is taken out as well.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from urllib.parse import parse_qsl, unquote, urlsplit

from transferkit.errors import IncompleteError, RegistryError, TransferKitError

_MASK = "***"
_PREFIX = 8  # characters of a secret that give it away
_SHORTEST = 4  # characters; what is shorter stands in many a word
# Parameters of queries that are no secrets: what is asked for, and by whom.
_HARMLESS = frozenset({"digest", "from", "last", "mount", "n", "scope", "service"})


def parts_of_header(value: str) -> Iterator[str]:
    """Yield what is secret in the value of a header field: all of it, the token, and what a Basic one encodes."""
    yield value
    scheme, _, token = value.partition(" ")
    if not token:
        return
    yield token
    if scheme.lower() == "basic":
        try:
            pair = base64.b64decode(token, validate=True).decode("utf-8", "replace")
        except (ValueError, binascii.Error):
            return
        yield pair
        yield pair.partition(":")[2]


def parts_of_query(url: str) -> Iterator[str]:
    """Yield what is secret in the query of a URL: all of it, and the values of its parameters."""
    query = url.partition("?")[2].partition("#")[0]
    if not query:
        return
    secret = [part for part in query.split("&") if part.partition("=")[0].lower() not in _HARMLESS]
    if len(secret) == query.count("&") + 1:
        yield query
    for part in secret:
        value = part.partition("=")[2]
        yield value
        yield unquote(value)
    yield from (value for name, value in parse_qsl(query) if name.lower() not in _HARMLESS)


def parts_of_proxy(url: str) -> Iterator[str]:
    """Yield what is secret in the URL of a proxy: its user name and password together, and the password."""
    try:
        netloc = urlsplit(url if "://" in url else f"http://{url}").netloc
    except ValueError:
        return
    pair, at, _ = netloc.rpartition("@")
    if at:
        for text in (pair, pair.partition(":")[2]):
            yield text
            yield unquote(text)


def clean(text: str, secrets: Iterable[str]) -> str:
    """Return ``text`` without the secrets, and without what begins one of them.

    >>> clean("no: Bearer abcdefghijkl, and abcdefghij", ["abcdefghijkl"])
    'no: Bearer ***, and ***'
    """
    # Those that hold others come first. A quoted text may have them escaped.
    for secret in sorted({form for each in secrets for form in (each, repr(each)[1:-1])}, key=len, reverse=True):
        if len(secret) < _SHORTEST:
            continue
        begin, at = secret[:_PREFIX], 0
        while (at := text.find(begin, at)) >= 0:
            end = at + len(begin)
            while end - at < len(secret) and text[end : end + 1] == secret[end - at]:
                end += 1
            text = text[:at] + _MASK + text[end:]
            at += len(_MASK)
    return text


def clean_error(error: TransferKitError, secrets: Iterable[str]) -> None:
    """Take the secrets out of an error, and out of those that it came from."""
    secrets, seen = list(secrets), set[int]()
    left: list[BaseException | None] = [error]
    while left:
        current = left.pop()
        if not isinstance(current, TransferKitError) or id(current) in seen:
            continue
        seen.add(id(current))
        current.args = tuple(clean(arg, secrets) if isinstance(arg, str) else arg for arg in current.args)
        if isinstance(current, RegistryError):
            for name in ("code", "message", "detail", "url"):
                setattr(current, name, clean(getattr(current, name), secrets))
        if isinstance(current, IncompleteError):
            left += current.failures.values()
        left.append(current.__cause__ or current.__context__)
