"""Authentication, in one place: challenges in, an ``Authorization`` header for the registry's own origin out.

Knows the token dance and who may see which secret. Tokens are kept per scope, and the cache itself lets one thread
fetch while the others wait, so no caller can forget to. A request is sent at most twice more for a 401, then it is
final.
"""

from __future__ import annotations

import copy
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlencode, urlsplit, urlunsplit

from transferkit.content.interfaces import Flow
from transferkit.errors import ProtocolError, UnauthorizedError
from transferkit.options import TransportOptions
from transferkit.protocol.challenge import AuthChallenge, merge_scopes, parse_all
from transferkit.protocol.origin import Origin, check_step, join, may_see_credentials, redact
from transferkit.transport.credentials import Credentials, Pair, basic
from transferkit.transport.response import Response

logger = logging.getLogger(__name__)

GetToken: TypeAlias = "Callable[[AuthChallenge], str]"
Ask: TypeAlias = "Callable[[str, dict[str, str], Flow], Response]"

MAX_TOKEN_ANSWER = 64 * 1024
_LIFETIME = 60.0  # seconds: the Docker token specification, where an answer does not say
_EARLY = 0.25  # of its lifetime before a token ends it is renewed, so that no long body is sent for a 401
_REFUSED = 60.0  # seconds for which a refusal of user name and password stands
_WAIT = 0.05  # seconds between two looks while another thread fetches the token


@dataclass(slots=True)
class _Token:
    header: str
    ends: float


class Authorizer:
    """The credentials for one registry, and the tokens that they have brought. Thread-safe.

    ``ask`` sends a request to a token service; ``token`` is sent from the first request on; ``get_token(challenge)`` is
    called, from a worker thread, when a token is needed.
    """

    def __init__(
        self,
        registry: Origin,
        ask: Ask,
        *,
        credentials: Credentials,
        token: str | None = None,
        get_token: GetToken | None = None,
        options: TransportOptions | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._ask = ask
        self._credentials = credentials
        self._given = bearer(token) if token is not None else None
        self._get_token = get_token
        self._options = options or TransportOptions()
        self._clock = clock
        self._tokens: dict[str, _Token] = {}
        self._challenges: dict[str, list[AuthChallenge]] = {}
        self._refusals: dict[str, tuple[Pair, float, UnauthorizedError]] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def header(self, scope: str, flow: Flow) -> str | None:
        """Return the ``Authorization`` for a request that needs ``scope``, ``None`` while none is known to be wanted.

        A token that is about to end is renewed first.
        """
        token = self._tokens.get(scope)
        if token is None:
            return self._given
        if self._clock() < token.ends:
            return token.header
        return self._renew(self._challenges[scope], scope, token.header, flow)

    def after(self, refusal: Mapping[str, str], scope: str, rejected: str | None, flow: Flow) -> str | None:
        """Return a new ``Authorization`` after a 401 with these headers, ``None`` where there is no other to be had.

        ``rejected`` is what the refused request had. However many threads come with the same one, one asks.

        Raises:
            UnauthorizedError: the token service refuses.
            ProtocolError: the challenge or the token service's answer is malformed, or may not be followed.
        """
        challenges = parse_all(refusal.get("www-authenticate", ""))
        if not any(challenge.scheme in ("bearer", "basic") for challenge in challenges):
            return None
        return self._renew(challenges, scope, rejected, flow)

    def _renew(self, challenges: list[AuthChallenge], scope: str, rejected: str | None, flow: Flow) -> str | None:
        with self._lock:
            lock = self._locks.setdefault(scope, threading.Lock())
        while not lock.acquire(blocking=False):
            flow.wait(_WAIT)
        try:
            token = self._tokens.get(scope)
            if token is not None and token.header != rejected:
                return token.header  # another thread was here first
            fresh = self._fetch(challenges, scope, flow)
            if fresh is None or (fresh.header == rejected and fresh.ends == float("inf")):
                return None
            self._challenges[scope] = challenges  # first: whoever finds the token may have to renew it
            self._tokens[scope] = fresh
            return fresh.header
        finally:
            lock.release()

    def _fetch(self, challenges: list[AuthChallenge], scope: str, flow: Flow) -> _Token | None:
        by_scheme = {challenge.scheme: challenge for challenge in reversed(challenges)}
        wanted = by_scheme.get("bearer")
        if wanted is not None:
            if self._get_token is not None:
                return _Token(bearer(self._get_token(wanted)), float("inf"))
            credentials = self._pair(scope)
            if wanted.realm and (credentials is not None or self._given is None):
                return self._dance_once(wanted, scope, credentials, flow)
        credentials = self._pair(scope)
        if "basic" in by_scheme and credentials is not None:
            return _Token(basic(*credentials), float("inf"))
        return None

    def _dance_once(self, challenge: AuthChallenge, scope: str, credentials: Pair | None, flow: Flow) -> _Token:
        """Do not offer a name and password again that have just been refused: accounts are locked for that."""
        pair, until, refusal = self._refusals.get(scope, (None, 0.0, None))
        if refusal is not None and pair == credentials and self._clock() < until:
            raise copy.copy(refusal)
        try:
            return self._dance(challenge, scope, credentials, flow)
        except UnauthorizedError as error:
            if credentials is not None and not error.retryable:
                self._refusals[scope] = credentials, self._clock() + _REFUSED, copy.copy(error)
            raise

    def _pair(self, scope: str) -> Pair | None:
        kind, _, rest = scope.partition(":")
        repository = rest.partition(":")[0] if kind == "repository" else ""
        return self._credentials.for_(self._registry.netloc, repository)

    def _dance(self, challenge: AuthChallenge, scope: str, credentials: Pair | None, flow: Flow) -> _Token:
        """Ask the token service of a challenge; with the user's name and password only where it may see them."""
        realm = join(f"{self._registry}/", challenge.realm)
        # Who may see the password may be asked, also at a private address.
        allowed = self._options.storage_hosts | self._options.token_realms
        origin = check_step(self._registry, realm, previous=self._registry, allowed=allowed)
        trusted = may_see_credentials(self._registry, origin, self._options.token_realms)
        headers = {"Authorization": basic(*credentials)} if credentials is not None and trusted else {}
        began = self._clock()
        url = _token_url(realm, challenge.service, merge_scopes(*challenge.scopes, *scope.split()))
        with self._ask(url, headers, flow) as response:
            if response.status != 200:
                raise self._refused(response.status, origin, credentials is not None, trusted)
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise ProtocolError(f"the token service {origin} sent an encoded answer")
            text, lifetime = read_token(response.read(MAX_TOKEN_ANSWER), str(origin))
        logger.debug("a token of %s for %s, %.0f s", redact(realm), challenge.scope[:200], lifetime)
        return _Token(bearer(text), began + lifetime * (1 - _EARLY))

    def _refused(self, status: int, origin: Origin, has_credentials: bool, trusted: bool) -> Exception:
        text = f"the token service {origin} of {self._registry.netloc} answered {status}"
        if status >= 500 or status == 429:
            # Its trouble, not the credentials': worth another try.
            return UnauthorizedError(text, url=str(origin), status=status, retryable=True)
        if has_credentials and not trusted:
            text += (
                "; user name and password were not sent to it, because it is on another host than the registry. If "
                f"that is right, allow it with TransportOptions(token_realms={{{origin.netloc!r}}})"
            )
        elif not has_credentials:
            text += "; pass auth=, token= or get_token="
        return UnauthorizedError(text, url=str(origin), status=status)

    def __repr__(self) -> str:
        return f"<Authorizer for {self._registry}>"


def _token_url(realm: str, service: str, scopes: tuple[str, ...]) -> str:
    parts = urlsplit(realm)
    pairs = [("service", service)] if service else []
    pairs += [("scope", scope) for scope in scopes]
    query = "&".join(part for part in (parts.query, urlencode(pairs)) if part)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def read_token(raw: bytes, origin: str) -> tuple[str, float]:
    """Return the token in a token service's answer, and how many seconds it is good for.

    Raises:
        ProtocolError: there is none in it.
    """
    try:
        data: Any = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the token service {origin} sent an answer that is not JSON") from error
    text = (data.get("token") or data.get("access_token")) if isinstance(data, dict) else None
    if not isinstance(text, str) or not text:
        raise ProtocolError(f"the token service {origin} sent an answer without a token")
    lifetime = data.get("expires_in")
    if isinstance(lifetime, bool) or not isinstance(lifetime, (int, float)) or not 0 < lifetime < 10**9:
        lifetime = _LIFETIME
    return text, float(lifetime)


def bearer(token: str) -> str:
    """Return the header of a token.

    Raises:
        ProtocolError: it holds blanks or control characters; it could smuggle in another header.
    """
    if not isinstance(token, str) or not token or not all("!" <= c <= "~" for c in token):
        raise ProtocolError("a token is a text of printable ASCII characters without blanks; this one is not")
    return f"Bearer {token}"
