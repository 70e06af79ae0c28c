"""Who may use a server, and for what: Basic authorization, and a mode in which nothing is changed.

Knows passwords and methods; knows nothing of what is served behind.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from transferkit.errors import SourceError
from transferkit.server.refusals import is_registry, refuse

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_READS = ("GET", "HEAD", "OPTIONS")
_READING_POST = "/api/show"  # asks for a document, with the name in the body
_MOST = 1024 * 1024  # bytes of a file of passwords
_CHALLENGE = ("WWW-Authenticate", 'Basic realm="transferkit", charset="UTF-8"')


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
            return cls({user: f"plain:{password}"})
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
        seen = hmac.digest(self._key, f"{user}:{password}".encode(), hashlib.sha256)
        if hashed is not None and hmac.compare_digest(self._known.get(user, b""), seen):
            return True
        is_right = _matches(hashed or next(iter(self._users.values())), password) and hashed is not None
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
    kind, _, rest = hashed.partition(":")
    if kind == "plain":
        return hmac.compare_digest(rest.encode(), password.encode())
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


class Access:
    """A WSGI application in front of another one: it asks for a password, and refuses changes where there are none.

    ``passwords`` is ``None`` where everybody may come in. With ``read_only``, what would change something is refused:
    403 by the local API, 405 by the registry, as docker-registry does it.
    """

    def __init__(
        self, application: WSGIApplication, *, passwords: Passwords | None = None, read_only: bool = False
    ) -> None:
        self._application = application
        self._passwords = passwords
        self._read_only = read_only

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self._passwords is not None:
            found = _basic(environ.get("HTTP_AUTHORIZATION", ""))
            if found is None or not self._passwords.are_right(*found):
                text = "a user and a password are needed" if found is None else "the user or the password is wrong"
                return refuse(environ, start_response, 401, text, [_CHALLENGE])
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        if self._read_only and method not in _READS and path != _READING_POST:
            if is_registry(path):
                return refuse(environ, start_response, 405, "this registry is read-only", [("Allow", "GET, HEAD")])
            return refuse(environ, start_response, 403, "this server is read-only")
        return self._application(environ, start_response)


def _basic(header: str) -> tuple[str, str] | None:
    """Return user and password of an ``Authorization`` header (RFC 7617), or ``None`` where it has none."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if colon else None
