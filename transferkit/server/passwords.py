"""Passwords of users, as they are or as hashes: the one judge of them, for all parts of a server.

Knows files of passwords; knows nothing of requests.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping

from transferkit.errors import SourceError

_MOST = 1024 * 1024  # bytes of a file of passwords
_PLAIN = "plain:"  # before a password that is no hash


class Passwords:
    """The users of a server, by their passwords or hashes of them. Thread-safe.

    A hash is bcrypt's, as ``htpasswd -B`` and docker-registry have it (with the package ``bcrypt``), or one of
    werkzeug's ``generate_password_hash``. What was right once is remembered as a keyed digest, in memory alone:
    such hashes take a good part of a second, and a pull has thousands of requests.
    """

    def __init__(self, users: Mapping[str, str]) -> None:
        self._users = dict(users)
        self._key = secrets.token_bytes(32)
        self._known: dict[str, bytes] = {}

    @classmethod
    def plain(cls, users: Mapping[str, str]) -> Passwords:
        """Take the passwords themselves."""
        return cls({user: _PLAIN + password for user, password in users.items()})

    def __repr__(self) -> str:
        return f"<Passwords of {len(self._users)} users>"

    @classmethod
    def read(cls, where: str) -> Passwords:
        """Read ``USER:FILE``, a file with the password of one user, or a file of lines ``user:hash``.

        Raises:
            SourceError: it cannot be read, or has something else in it; the error shows nothing of it.
        """
        user, colon, path = where.partition(":")
        if colon and not os.path.exists(where):
            password = _text(path).partition("\n")[0].removesuffix("\r")
            if not user or not password:
                raise SourceError(f"{path} has no password in its first line, or there is no user before the colon")
            return cls.plain({user: password})
        users = {}
        for number, line in enumerate(_text(where).splitlines(), 1):
            if line.strip() and not line.startswith("#"):
                name, _, hashed = line.strip().partition(":")
                if not name or not hashed.startswith(("$2a$", "$2b$", "$2y$", "scrypt:", "pbkdf2:")):
                    text = "is not user:hash with a hash of bcrypt (htpasswd -B), scrypt or pbkdf2"
                    raise SourceError(f"line {number} of {where} {text}")
                users[name] = hashed
        if not users:
            raise SourceError(f"{where} names no user")
        if any(hashed.startswith("$2") for hashed in users.values()):
            _bcrypt("", "")
        return cls(users)

    def are_right(self, user: str, password: str) -> bool:
        """Tell whether this is the password of this user, in the same time whether there is such a user or not."""
        hashed = self._users.get(user)
        # Digests of one length are compared, for unknown users too: the time tells nothing of either.
        seen = hmac.digest(self._key, f"{user}:{password}".encode(), hashlib.sha256)
        if hashed is not None and hmac.compare_digest(self._known.get(user, b""), seen):
            return True
        is_right = _matches(hashed or next(iter(self._users.values()), _PLAIN), password) and hashed is not None
        if is_right:
            self._known[user] = seen
        return is_right


def _text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            raw = file.read(_MOST + 1)
    except OSError as error:
        raise SourceError(f"the passwords in {path} cannot be read: {error.strerror}", errno=error.errno) from error
    if len(raw) > _MOST:
        raise SourceError(f"{path} has more than {_MOST} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not UTF-8 at byte {error.start}") from None


def _matches(hashed: str, password: str) -> bool:
    if hashed.startswith(_PLAIN):
        rest = hashed.removeprefix(_PLAIN)
        return hmac.compare_digest(_digest(rest), _digest(password))
    if hashed.startswith("$2"):
        return _bcrypt(password, hashed)
    from werkzeug.security import check_password_hash

    return check_password_hash(hashed, password)


def _bcrypt(password: str, hashed: str) -> bool:
    try:
        import bcrypt
    except ImportError as error:
        raise SourceError("bcrypt hashes need the package bcrypt: pip install bcrypt") from error
    # bcrypt looks at 72 bytes, and newer releases raise for more.
    return bool(hashed) and bcrypt.checkpw(password.encode()[:72], hashed.encode())


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
