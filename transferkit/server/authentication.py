"""Who may ask a registry: credentials in each request, or a token that was handed out for them.

Knows Basic (RFC 7617) and Bearer (RFC 6750) as the clients of registries have them. Source of the token's dialogue: the
Docker token specification (https://distribution.github.io/distribution/spec/auth/token/). Knows nothing of the store.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

from werkzeug.datastructures import Authorization
from werkzeug.wrappers import Request

from transferkit.server.answers import Answer, Refusal, json_answer
from transferkit.server.passwords import Passwords

Auth: TypeAlias = "Mapping[str, str] | Callable[[str, str], bool]"

TOKENS = "/v2/token"  # no repository's: those have one more slash
LIFE = 300  # seconds that a token is good for; the specification's default is 60

_NAME = re.compile(r"/v2/([a-z0-9/._-]+)/(?:blobs|manifests|tags|referrers|chunksums)/")
_TOKEN = re.compile(r"([0-9]{1,12})\.([0-9a-f]{64})\Z", re.ASCII)


def authorization_of(header: str | None) -> Authorization | None:
    """Return what an ``Authorization`` header says, ``None`` where it is malformed."""
    try:
        return Authorization.from_header(header)
    except ValueError:  # werkzeug 3.1 lets one through where what should be base64 is not even ASCII
        return None


class Authentication:
    """The judge of a registry's requests. Thread-safe.

    ``auth`` maps users to their passwords, or judges a user and a password. With ``tokens`` clients are sent to
    ``TOKENS``; their credentials are good in each request, too. Tokens are good for ``LIFE`` seconds, and until the
    process ends.
    """

    def __init__(self, auth: Auth, *, tokens: bool = False, clock: Callable[[], float] = time.time) -> None:
        self._is_right = auth if callable(auth) else Passwords.plain(auth).are_right
        self._tokens = tokens
        self._clock = clock
        self._key = os.urandom(32)

    def __repr__(self) -> str:
        return f"Authentication(tokens={self._tokens})"

    def check(self, request: Request) -> None:
        """Let a request pass, or refuse it.

        Raises:
            Refusal: 401, with the challenge.
        """
        given = authorization_of(request.headers.get("Authorization"))
        if given is None:
            raise self._refusal(request, "authentication is required")
        if given.type == "bearer" and self._tokens:
            if not self._is_good(given.token or ""):
                raise self._refusal(request, "the token is not good any more", error="invalid_token")
        elif not self._knows(given):
            raise self._refusal(request, "the user name or the password is wrong")

    def hand_out(self, request: Request) -> Answer:
        """``GET`` of a token, for a user's credentials.

        Raises:
            Refusal: 401, they are wrong; 404, there are no tokens here.
        """
        if not self._tokens:
            raise Refusal(404, "UNSUPPORTED", "there is nothing at this path")
        if request.method not in ("GET", "HEAD"):
            raise Refusal(405, "UNSUPPORTED", "a token is asked for with GET", headers={"Allow": "GET, HEAD"})
        given = authorization_of(request.headers.get("Authorization"))
        if given is None or not self._knows(given):
            raise Refusal(401, "UNAUTHORIZED", "the user name or the password is wrong", headers=_BASIC)
        now = self._clock()
        ends = str(int(now) + LIFE)
        token = f"{ends}.{self._sign(ends)}"
        issued = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
        document = {"token": token, "access_token": token, "expires_in": LIFE, "issued_at": issued}
        return json_answer(document, headers={"Cache-Control": "no-store"})

    def _knows(self, given: Authorization) -> bool:
        return given.type == "basic" and bool(self._is_right(given.username or "", given.password or ""))

    def _is_good(self, token: str) -> bool:
        match = _TOKEN.match(token)
        return (
            match is not None and hmac.compare_digest(self._sign(match[1]), match[2]) and self._clock() < int(match[1])
        )

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode("ascii"), hashlib.sha256).hexdigest()

    def _refusal(self, request: Request, message: str, *, error: str = "") -> Refusal:
        if not self._tokens:
            return Refusal(401, "UNAUTHORIZED", message, headers=_BASIC)
        challenge = f'Bearer realm="{request.host_url.rstrip("/")}{TOKENS}",service="{request.host}"'
        match = _NAME.match(request.path)
        if match is not None:
            actions = "pull" if request.method in ("GET", "HEAD") else "pull,push"
            challenge += f',scope="repository:{match[1]}:{actions}"'
        challenge += f',error="{error}"' if error else ""
        return Refusal(401, "UNAUTHORIZED", message, headers={"WWW-Authenticate": challenge})


_BASIC = {"WWW-Authenticate": 'Basic realm="registry", charset="UTF-8"'}
