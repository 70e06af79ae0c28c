"""Digests: the one gate between a text and a path or a URL.

Every path and every URL in this library is built from a :class:`Digest`, never from a ``str`` of somebody else's:
CVE-2024-37032 and CVE-2026-7020 were exactly that.
"""

from __future__ import annotations

import hashlib
import re
from typing import Protocol, TypeAlias

from transferkit.errors import InvalidDigestError

Bytes: TypeAlias = "bytes | bytearray | memoryview"

HEX_LENGTHS = {"sha256": 64, "sha512": 128}
_HASHERS = {"sha256": hashlib.sha256, "sha512": hashlib.sha512}  # half of what hashlib.new takes

# re.ASCII and \Z on purpose: "$" lets a newline through and "\d" lets in unicode digits.
_GRAMMAR = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z", re.ASCII)
_SHOWN = 80  # characters of a rejected text that an error repeats


class Hasher(Protocol):
    """What ``hashlib`` hands out, as far as it is used here."""

    def update(self, data: Bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class Digest(str):
    """A digest that has passed the grammar: ``sha256:`` with 64 lower-case hex digits, or ``sha512:`` with 128.

    It is a ``str``, so it compares, hashes, sorts and prints as one. Immutable and safe to share between threads.

    Raises:
        InvalidDigestError: the text is anything else.

    Source: OCI image specification v1.1, descriptor.md, "Digests". Upper-case hex is refused as there.

    >>> Digest("sha256:" + 64 * "a").short
    'sha256:aaaaaaaaaaaa'
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Digest:
        if type(text) is cls:
            return text
        match = _GRAMMAR.match(text) if isinstance(text, str) else None
        if match is None:
            raise InvalidDigestError(_complaint(text))
        # What was matched, not str(text): a str that is an enum's member prints as something else.
        return super().__new__(cls, match[0])

    @classmethod
    def of(cls, data: Bytes, algorithm: str = "sha256") -> Digest:
        """Return the digest of ``data``, which is in memory."""
        return cls(f"{algorithm}:{hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()}")

    @classmethod
    def from_file_name(cls, name: str) -> Digest:
        """Return the digest that a file ``sha256-<hex>`` is named after; InvalidDigestError: that is no such name."""
        if name[6:7] == "-":
            return cls(f"{name[:6]}:{name[7:]}")
        raise InvalidDigestError(f"{name[:_SHOWN]!r} is not the file name of a blob; it should look like sha256-<hex>")

    @property
    def algorithm(self) -> str:
        return self[:6]

    @property
    def hex(self) -> str:
        return self[7:]

    @property
    def file_name(self) -> str:
        """The name of the file that holds this content: ``sha256-<hex>``, as Ollama's store has it."""
        return f"{self[:6]}-{self[7:]}"

    @property
    def short(self) -> str:
        """Twelve hex digits: enough to find it in a log."""
        return self[:19]

    def hasher(self) -> Hasher:
        """Return a fresh hash object of this digest's algorithm."""
        return _HASHERS[self[:6]](usedforsecurity=False)

    def matches(self, hasher: Hasher) -> bool:
        """Tell whether what ``hasher`` has seen is the content of this digest."""
        return hasher.hexdigest() == self[7:]

    def __repr__(self) -> str:
        return f"Digest({str(self)!r})"


def _complaint(text: object) -> str:
    if not isinstance(text, str):
        return f"a digest is a text such as sha256:<64 hex digits>, not {type(text).__name__}"
    shown = f"{text[:_SHOWN]!r}{'...' if len(text) > _SHOWN else ''}"
    algorithm, colon, rest = text.partition(":")
    length = HEX_LENGTHS.get(algorithm)
    if not colon or length is None:
        return f"{shown} is not a digest: it should start with sha256: or sha512:"
    if len(rest) != length:
        return f"{shown} is not a digest: {algorithm} takes {length} hex digits, this has {len(rest)} characters"
    return f"{shown} is not a digest: only the lower-case hex digits 0-9 a-f may follow {algorithm}:"


def digest_to_path(digest: str) -> str:
    """Return the file name of a blob: ``sha256-<hex>``.

    Raises:
        InvalidDigestError: ``digest`` is anything but a digest.

    >>> digest_to_path("sha256:" + 64 * "a") == "sha256-" + 64 * "a"
    True
    """
    return Digest(digest).file_name
