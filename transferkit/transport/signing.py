"""Requests that are signed with an Ollama key, as Ollama's own client does it.

Source: Ollama's public client, 2025 and 2026. The key is an Ed25519 one in OpenSSH's format. ``cryptography`` is an
extra (``pip install 'transferkit[ollama]'``), and is imported with the first key.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit, urlunsplit

from transferkit.errors import UnauthorizedError
from transferkit.forks import importing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

logger = logging.getLogger(__name__)

DEFAULT_KEY = "~/.ollama/id_ed25519"
_SITE = "https://ollama.com"
_SENT = 8  # signatures that are remembered: those of requests under way
_MAX_KEY = 16 * 1024  # bytes of a key file
# What stands for the body in each signed text: of a request that has none.
_NO_BODY = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()


class OllamaKey:
    """A user's key. Thread-safe; the private half never leaves it.

    ``clock`` returns the Unix time, ``nonce`` what makes a signed URL unique.
    """

    def __init__(
        self,
        key: Ed25519PrivateKey,
        *,
        clock: Callable[[], float] = time.time,
        nonce: Callable[[], bytes] = lambda: secrets.token_bytes(16),
    ) -> None:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        self._key = key
        self._clock = clock
        self._nonce = nonce
        line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        self.public = line.split()[1].decode("ascii")

    @classmethod
    def load(cls, path: str | os.PathLike[str] = DEFAULT_KEY) -> OllamaKey:
        """Read a key file.

        Raises:
            UnauthorizedError: there is none that can be read, or it is no unencrypted Ed25519 key in OpenSSH's format.
        """
        place = os.path.expanduser(os.fspath(path))
        try:
            with importing:
                from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
                from cryptography.hazmat.primitives.serialization import load_ssh_private_key
        except ImportError as error:
            raise UnauthorizedError(
                f"the key {place} takes the package cryptography: pip install 'transferkit[ollama]'", status=401
            ) from error
        try:
            with open(place, "rb") as file:
                key = load_ssh_private_key(file.read(_MAX_KEY), password=None)
        except OSError as error:
            raise UnauthorizedError(f"the key {place} cannot be read: {error.strerror}", status=401) from error
        except (ValueError, TypeError) as error:  # TypeError: it is encrypted
            raise UnauthorizedError(f"{place} is no key in OpenSSH's format without a password", status=401) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise UnauthorizedError(f"{place} is no Ed25519 key", status=401)
        return cls(key)

    def token(self) -> str:
        """Return a token that is made here, for the registry itself."""
        url = f"{_SITE}?ts={int(self._clock())}"
        return f"{base64.b64encode(url.encode()).decode()}:{self._signed(url)}"

    def sign(self, realm: str, service: str, scopes: list[str]) -> tuple[str, str]:
        """Return the URL to ask a token service at, and the ``Authorization`` of that request."""
        nonce = base64.urlsafe_b64encode(self._nonce()).rstrip(b"=").decode()
        fields = {"nonce": nonce, "scope": scopes, "service": service, "ts": str(int(self._clock()))}
        parts = urlsplit(realm)
        url = urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(fields, doseq=True), ""))
        return url, self._signed(url)

    def _signed(self, url: str) -> str:
        signature = self._key.sign(f"GET,{url},{_NO_BODY}".encode())
        return f"{self.public}:{base64.b64encode(signature).decode()}"

    def __repr__(self) -> str:
        return f"<OllamaKey {self.public[-12:]}>"


class KeyFile:
    """A key that is read when a registry of Ollama's kind is first spoken to. Thread-safe.

    ``is_given``: the user has named it, so it must be there; else a machine without it, or without the package
    ``cryptography``, does without. ``makes_tokens``: the tokens that it makes by itself are good at ollama.com for
    whoever sees them, so not every registry is shown one; what a token service is sent is good for that one alone.
    """

    def __init__(
        self, path: str | os.PathLike[str] = DEFAULT_KEY, *, is_given: bool = False, makes_tokens: bool = True
    ) -> None:
        self.path = os.fspath(path)
        self.is_given = is_given
        self.makes_tokens = makes_tokens
        self.problem = ""
        """Why there is no key, where one was expected."""
        self.sent: tuple[str, ...] = ()
        """What went out lately, as secrets."""
        self._key: OllamaKey | None = None
        self._is_read = False
        self._lock = threading.Lock()

    def load(self) -> OllamaKey | None:
        """Return the key; ``None``: there is none. UnauthorizedError: it was given, and cannot be used."""
        if not self._is_read:
            if self.is_given or os.path.exists(os.path.expanduser(self.path)):
                try:
                    self._key = OllamaKey.load(self.path)
                except UnauthorizedError as error:
                    if self.is_given:
                        raise
                    self.problem = str(error)
                    logger.warning("requests to Ollama's registry are not signed: %s", error)
            self._is_read = True
        return self._key

    def header(self) -> str | None:
        """Return the ``Authorization`` that the key makes by itself, if it may be shown."""
        key = self.load() if self.makes_tokens else None
        if key is None:
            return None
        token = f"Bearer {key.token()}"
        if token not in self.sent:
            self._note(token)
        return token

    def sign(self, realm: str, service: str, scopes: list[str]) -> tuple[str, str] | None:
        """Return what :meth:`OllamaKey.sign` does, if there is a key."""
        key = self.load()
        if key is None:
            return None
        url, authorization = key.sign(realm, service, scopes)
        self._note(authorization)
        return url, authorization

    def _note(self, secret: str) -> None:
        with self._lock:
            self.sent = (*self.sent[1 - _SENT :], secret)

    def blame(self, what: str) -> str:
        """Return what to do where something of the key's is refused: ``what``, with its path for the braces."""
        return f"it refused {what.format(self.path)}; add its public half to your account at {_SITE}"
