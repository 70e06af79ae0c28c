"""Authentication, in one place: challenges in, an ``Authorization`` header for the registry's own origin out.

Knows the token dance and who may see which secret. Tokens are kept per scope, and the cache itself lets one thread
fetch while the others wait, so no caller can forget to.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias
from urllib.parse import urlencode

from transferkit.content.interfaces import Flow
from transferkit.errors import ProtocolError, UnauthorizedError
from transferkit.protocol.challenge import AuthChallenge, merge_scopes, parse_all
from transferkit.protocol.diagnostics import read_retry_after
from transferkit.protocol.origin import Origin, check_step, join, may_see_credentials, redact, target_of
from transferkit.transport.exchange import Exchange, basic
from transferkit.transport.flight import SingleFlight
from transferkit.transport.request import Request
from transferkit.transport.response import Response
from transferkit.transport.secrets import parts_of_header

logger = logging.getLogger(__name__)

Pair: TypeAlias = "tuple[str, str]"
Auth: TypeAlias = "Pair | Callable[[str], Pair | None] | Credentials"
GetToken: TypeAlias = "Callable[[AuthChallenge], str]"

MAX_TOKEN_ANSWER = 64 * 1024
_LIFETIME = 60.0  # seconds: the Docker token specification, where an answer does not say
_EARLY = 0.25  # of its lifetime before a token ends it is renewed, so that no long body is sent for a 401
_REFUSED = 60.0  # seconds for which a refusal of user name and password stands


class Credentials(Protocol):
    """A source of user names and passwords. Thread-safe."""

    def for_(self, host: str, repository: str) -> Pair | None:
        """Return user name and password for a repository of ``host`` (``host`` or ``host:port``), if there are any."""


@dataclass(frozen=True, slots=True, repr=False)
class _Token:
    header: str
    ends: float
    challenge: str
    """What it answers: how the next one is had."""


@dataclass(eq=False, repr=False)
class Authorizer:
    """The credentials for one registry, as ``download`` takes them, and the tokens that they brought. Thread-safe."""

    registry: Origin
    exchange: Exchange
    """Over which token services are asked."""
    auth: Auth | None = None
    token: str | None = None
    get_token: GetToken | None = None
    led_by: Origin | None = None
    """Who has led to this registry, where that is not the user: it is asked for anonymous tokens alone."""
    max_retry_after: float = math.inf
    """Seconds that a token service may ask to wait; longer is final."""
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._given = bearer(self.token) if self.token is not None else None
        self._tokens: dict[str, _Token] = {}
        self._refusals: dict[str, tuple[Pair, float, UnauthorizedError]] = {}
        self._pairs: set[Pair] = set()
        self._flights: dict[str, SingleFlight] = {}

    def header(self, scope: str, flow: Flow) -> str | None:
        """Return the ``Authorization`` for a request that needs ``scope``; ``None`` while none is known to be wanted.
        A token is renewed before it ends."""
        token = self._tokens.get(scope)
        if token is None:
            return self._given
        if self.clock() < token.ends:
            return token.header
        return self.after(token.challenge, scope, token.header, flow)

    def after(self, challenge: str, scope: str, rejected: str | None, flow: Flow) -> str | None:
        """Return a new ``Authorization`` after a 401 with this challenge, ``None`` where there is no other to be had.

        ``rejected`` is what the refused request had. However many threads come with the same one, one asks.

        Raises:
            UnauthorizedError: the token service refuses.
            ProtocolError: the challenge or the token service's answer is malformed, or may not be followed.
        """
        with self._flights.setdefault(scope, SingleFlight()).turn(flow):
            token = self._tokens.get(scope)
            if token is not None and token.header != rejected:
                return token.header  # another thread was here first
            header, ends = self._fetch(challenge, scope, flow)
            if header is None or (header == rejected and ends == math.inf):
                return None
            self._tokens[scope] = _Token(header, ends, challenge)
            return header

    def blame(self, sent: str | None) -> str:
        """Return what to do about a 401 to a request that had ``sent`` as its ``Authorization``: whose was refused."""
        if sent is None:
            if self.exchange.has_credentials:
                return "it refused the credentials of the session (its auth, or its Authorization header)"
            return "pass auth=, token= or get_token="
        if sent == self._given:
            return "it refused the token of token="
        if sent.startswith("Basic "):
            return "it refused the user name and password of auth="
        if self.get_token is not None:
            return "it refused the token that get_token= brought"
        if self.auth is None:
            return "a token for anybody is not enough; pass auth=, token= or get_token="
        return "it refused the token that the user name and password of auth= brought"

    def secrets(self) -> Iterator[str]:
        """Yield what was sent as a secret, or may have been."""
        sent = [self._given, *(token.header for token in tuple(self._tokens.values()))]
        sent += [basic(*pair) for pair in tuple(self._pairs)]
        for header in filter(None, sent):
            yield from parts_of_header(header)

    def _fetch(self, challenge: str, scope: str, flow: Flow) -> tuple[str | None, float]:
        """Return an ``Authorization`` that answers a challenge, and when it ends."""
        by_scheme = {each.scheme: each for each in reversed(parse_all(challenge))}
        wanted = by_scheme.get("bearer")
        if wanted is not None and self.get_token is not None:
            return bearer(self.get_token(wanted)), math.inf
        if wanted is None and "basic" not in by_scheme:
            return None, math.inf
        pair = self._pair(scope)
        if wanted is not None and wanted.realm and (pair is not None or self._given is None):
            return self._dance(wanted, scope, pair, flow)
        return basic(*pair) if "basic" in by_scheme and pair is not None else None, math.inf

    def _pair(self, scope: str) -> Pair | None:
        """Return user name and password for what ``scope`` names, if there are any."""
        kind, _, rest = scope.partition(":")
        auth, host = self.auth, self.registry.netloc
        if auth is None or isinstance(auth, tuple):
            pair = auth
        elif callable(auth):
            pair = auth(host)
        else:
            pair = auth.for_(host, rest.partition(":")[0] if kind == "repository" else "")
        if pair is not None and (len(pair) != 2 or not all(isinstance(part, str) for part in pair)):
            raise UnauthorizedError("auth is (user, password), or a function that returns that or None")
        if pair is not None:
            self._pairs.add(pair)
        return pair

    def _dance(self, challenge: AuthChallenge, scope: str, pair: Pair | None, flow: Flow) -> tuple[str, float]:
        """Ask the token service of a challenge; with the user's name and password only where it may see them."""
        refused, until, refusal = self._refusals.get(scope, (None, 0.0, None))
        if refusal is not None and refused == pair and self.clock() < until:
            raise copy.copy(refusal)  # a pair is not offered again at once: accounts are locked for that
        options = self.exchange.options
        realm = join(f"{self.registry}/", challenge.realm)
        # Who may see the password may be asked, also at a private address.
        allowed = options.storage_hosts | options.token_realms
        origin = check_step(self.registry, realm, previous=self.registry, allowed=allowed)
        trusted = may_see_credentials(self.registry, origin, options.token_realms)
        # What is asked of a registry abroad, only that knows.
        wanted = scope.split() if self.led_by is None else []
        url, scopes = realm.partition("#")[0], merge_scopes(*challenge.scopes, *wanted)
        # An empty list takes no part in the query.
        query = urlencode({"service": challenge.service or [], "scope": scopes}, doseq=True)
        if query:
            url += f"{'&' if '?' in url else '?'}{query}"
        request = Request(
            method="GET",
            url=url,
            ok=(),
            headers={**self.exchange.headers, **({"Authorization": basic(*pair)} if pair and trusted else {})},
            timeout=options.response_timeout,
            origin=origin,
            target=target_of(url),
            trusted=origin == self.registry and self.led_by is None,
        )
        began = self.clock()
        with self.exchange.send(request, flow) as response:
            if response.status != 200:
                error = self._refused(response, origin, pair is not None, trusted)
                if pair is not None and not error.retryable:
                    self._refusals[scope] = pair, self.clock() + _REFUSED, copy.copy(error)
                raise error
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise ProtocolError(f"the token service {origin} sent an encoded answer")
            text, lifetime = read_token(response.read(MAX_TOKEN_ANSWER), str(origin))
        logger.debug("a token of %s for %s, %.0f s", redact(realm), scope[:200], lifetime)
        return bearer(text), began + lifetime * (1 - _EARLY)

    def _refused(self, response: Response, origin: Origin, has_credentials: bool, trusted: bool) -> UnauthorizedError:
        status = response.status
        text = f"the token service {origin} of {self.registry.netloc} answered {status}"
        is_trouble = status >= 500 or status == 429  # its own, not the credentials': worth another try
        wait = read_retry_after(response.headers.get("retry-after"), now=time.time()) if is_trouble else None
        is_final = not is_trouble or (wait or 0.0) > self.max_retry_after
        if is_trouble and is_final:
            text += f"; it asks to come back in {wait:.0f} s, more than RetryOptions(max_retry_after)"
        elif not is_trouble and has_credentials and not trusted:
            text += (
                "; user name and password were not sent to it, because it is on another host than the registry. If "
                f"that is right, allow it with TransportOptions(token_realms={{{origin.netloc!r}}})"
            )
        elif not is_trouble and has_credentials:
            text += "; it refused the user name and password of auth="
        elif not is_trouble and self.led_by is not None:
            text += f"; {self.led_by.netloc} leads there, and credentials for it are not sent to another host"
        elif not is_trouble:
            text += "; pass auth=, token= or get_token="
        return UnauthorizedError(text, url=str(origin), status=status, retry_after=wait, retryable=not is_final)


def read_token(raw: bytes, origin: str) -> tuple[str, float]:
    """Return the token in a token service's answer, and how many seconds it is good for."""
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
    """Return the header of a token; one that could smuggle in another header is refused."""
    if not isinstance(token, str) or not token or not all("!" <= c <= "~" for c in token):
        raise ProtocolError("a token is a text of printable ASCII characters without blanks; this one is not")
    return f"Bearer {token}"
