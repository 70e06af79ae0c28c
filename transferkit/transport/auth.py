"""Authentication, in one place: challenges in, an ``Authorization`` header for the registry's own origin out.

Knows whose credentials are shown: what the user has given, else what the machine has (``transport.credentials``), else
an Ollama key. Tokens are kept per scope, and the cache itself lets one thread fetch while the others wait, so no caller
can forget to.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from transferkit.content.flow import Flow
from transferkit.errors import UnauthorizedError
from transferkit.protocol.challenge import AuthChallenge, parse_all
from transferkit.protocol.origin import Origin, join, may_see_credentials
from transferkit.transport.credentials import Credential, StoredCredentials
from transferkit.transport.exchange import Exchange, basic
from transferkit.transport.flight import SingleFlight
from transferkit.transport.secrets import parts_of_header
from transferkit.transport.signing import KeyFile
from transferkit.transport.tokens import ANEW, Issued, TokenService, bearer

Pair: TypeAlias = "tuple[str, str]"
Auth: TypeAlias = "Pair | Callable[[str], Pair | None] | Credentials"
GetToken: TypeAlias = "Callable[[AuthChallenge], str]"

_REFUSED = 60.0  # seconds for which a refusal of user name and password stands


class Credentials(Protocol):
    """A source of user names and passwords. Thread-safe."""

    def for_(self, host: str, repository: str) -> Pair | None:
        """Return user name and password for a repository of ``host`` (``host`` or ``host:port``), if there are any."""


@dataclass(eq=False, repr=False)
class Authorizer:
    """The credentials for one registry, as ``download`` takes them, and the tokens that they brought. Thread-safe."""

    registry: Origin
    exchange: Exchange
    """Over which token services are asked."""
    auth: Auth | None = None
    token: str | None = None
    get_token: GetToken | None = None
    stored: StoredCredentials | None = None
    """Those of the machine, where the user has given none; a registry that challenges is shown them."""
    key: KeyFile | None = None
    """The key for a registry of Ollama's kind."""
    led_by: Origin | None = None
    """Who has led to this registry, where that is not the user: it is asked for anonymous tokens alone."""
    max_retry_after: float = math.inf
    """Seconds that a token service may ask to wait; longer is final."""
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._given = bearer(self.token) if self.token is not None else None
        # By scope, with the challenge that each answers: how the next one is had.
        self._tokens: dict[str, tuple[Issued, str]] = {}
        self._refusals: dict[str, tuple[Credential, float, UnauthorizedError]] = {}
        self._shown: set[Credential] = set()
        self._problems: list[str] = []
        self._flights: dict[str, SingleFlight] = {}
        self._service = TokenService(self.registry, self.exchange, self.led_by, self.max_retry_after, self.clock)

    def header(self, scope: str, flow: Flow) -> str | None:
        """Return the ``Authorization`` for a request that needs ``scope``; ``None`` while none is known to be wanted.
        A token is renewed before it ends."""
        found = self._tokens.get(scope)
        if found is None:
            return self._given
        token, challenge = found
        if self.clock() < token.ends:
            return token.header
        return self.after(challenge, scope, token.header, flow)

    def has_shown(self, scope: str) -> bool | None:
        """Tell whether a challenge for ``scope`` was answered with a credential; ``None``: there was no challenge."""
        if scope not in self._tokens:
            return None
        realm, allowed = self.realm(scope), self.exchange.options.token_realms
        return bool(self._shown) and (realm is None or may_see_credentials(self.registry, realm, allowed))

    def realm(self, scope: str) -> Origin | None:
        """Return the token service that a challenge for ``scope`` has named, if one has."""
        _, challenge = self._tokens.get(scope, (None, ""))
        bearers = [each for each in parse_all(challenge) if each.scheme == "bearer"]
        return Origin.of(join(f"{self.registry}/", bearers[0].realm)) if bearers and bearers[0].realm else None

    def signed(self) -> str | None:
        """Return the ``Authorization`` that an Ollama key makes by itself, where there is one for this registry."""
        if self.key is None or (self.exchange.has_credentials and not self.key.is_given):
            return None
        return self.key.header()

    def after(self, challenge: str, scope: str, rejected: str | None, flow: Flow) -> str | None:
        """Return a new ``Authorization`` after a 401 with this challenge, ``None`` where there is no other to be had.

        ``rejected`` is what the refused request had. However many threads come with the same one, one asks.

        Raises:
            UnauthorizedError: the token service refuses.
            ProtocolError: the challenge or the token service's answer is malformed, or may not be followed.
        """
        with self._flights.setdefault(scope, SingleFlight()).turn(flow):
            found = self._tokens.get(scope)
            if found is not None and found[0].header != rejected:
                return found[0].header  # another thread was here first
            issued = self._fetch(challenge, scope, flow)
            if issued is None or (issued.header == rejected and issued.ends == math.inf):
                return None
            self._tokens[scope] = issued, challenge
            return issued.header

    def blame(self, sent: str | None) -> str:
        """Return what to do about a 401 to a request that had ``sent`` as its ``Authorization``: whose was refused."""
        if sent is None:
            if self.exchange.has_credentials:
                return "it refused the credentials of the session (its auth, or its Authorization header)"
            return self._advice()
        if sent == self._given:
            return "it refused the token of token=; it may have expired"
        for token, _ in list(self._tokens.values()):
            if token.header == sent:
                return token.blame
        return self._advice() if self.key is None else self.key.blame("the token that the key {} made")

    def secrets(self) -> Iterator[str]:
        """Yield what was sent as a secret, or may have been."""
        sent = [self._given, *(token.header for token, _ in list(self._tokens.values()))]
        for each in self._shown.copy():
            yield from filter(None, (each.identity_token, each.registry_token))
            if each.password:
                sent.append(basic(each.user, each.password))
        if self.key is not None:
            sent += self.key.sent
        for header in filter(None, sent):
            yield from parts_of_header(header)

    def _advice(self) -> str:
        """Return what to do where nobody has credentials, and where they were looked for."""
        advice = (
            f"check the name, log in ('transferkit login {self.registry.netloc}'), or pass auth=, token= or get_token="
        )
        if self.stored is None or self.exchange.has_credentials:
            return advice
        problems = [*self._problems, *([self.key.problem] if self.key is not None and self.key.problem else [])]
        none = "none that it takes" if self._problems else "none"
        return "; ".join([advice, f"there are {none} in {self.stored.searched}", *problems])

    def _fetch(self, challenge: str, scope: str, flow: Flow) -> Issued | None:
        """Return an ``Authorization`` that answers a challenge, and when it ends."""
        by_scheme = {each.scheme: each for each in reversed(parse_all(challenge))}
        wanted = by_scheme.get("bearer")
        if wanted is not None and self.get_token is not None:
            return Issued(bearer(self.get_token(wanted)), math.inf, "it refused the token that get_token= brought")
        if wanted is None and "basic" not in by_scheme:
            return None
        credential = self._credential(scope, flow)
        if wanted is not None and credential is not None and credential.registry_token:
            return Issued(bearer(credential.registry_token), math.inf, f"it refused the {credential.what}; {ANEW}")
        if wanted is not None and wanted.realm and (credential is not None or self._given is None):
            return self._ask(wanted, scope, credential, flow)
        if "basic" in by_scheme and credential is not None and credential.is_pair:
            header = basic(credential.user, credential.password)
            blame = [f"it refused the {credential.what}", ANEW, *self._problems]
            return Issued(header, math.inf, "; ".join(blame))
        if credential is not None and self.auth is None:
            self._problems = [*self._problems, f"the {credential.what} is no answer to what it asks for"]
        return None

    def _ask(self, challenge: AuthChallenge, scope: str, credential: Credential | None, flow: Flow) -> Issued:
        """Ask the token service of a challenge, but for what it has refused a moment ago."""
        refused, until, refusal = self._refusals.get(scope, (None, 0.0, None))
        if refusal is not None and refused == credential and self.clock() < until:
            raise copy.copy(refusal)  # a pair is not offered again at once: accounts are locked for that
        try:
            advice = self._advice() if credential is None else "; ".join(self._problems)
            return self._service.ask(challenge, scope, credential, self.key, advice, flow)
        except UnauthorizedError as error:
            if credential is not None and not error.retryable:
                self._refusals[scope] = credential, self.clock() + _REFUSED, copy.copy(error)
            raise

    def _credential(self, scope: str, flow: Flow) -> Credential | None:
        """Return the credential for what ``scope`` names, if there is one."""
        kind, _, rest = scope.partition(":")
        auth, host = self.auth, self.registry.netloc
        repository = rest.partition(":")[0] if kind == "repository" else ""
        if auth is None:
            found = self._stored(host, repository, flow)
        else:
            if isinstance(auth, tuple):
                pair: Pair | None = auth
            else:
                pair = auth(host) if callable(auth) else auth.for_(host, repository)
            if pair is None:
                return None
            if len(pair) != 2 or not all(isinstance(part, str) for part in pair):
                raise UnauthorizedError("auth is (user, password), or a function that returns that or None")
            found = Credential("auth=", *pair)
        if found is not None:
            self._shown.add(found)
        return found

    def _stored(self, host: str, repository: str, flow: Flow) -> Credential | None:
        """Return the credential that the machine has, where the session has none."""
        if self.stored is None or self.exchange.has_credentials:
            return None
        found, self._problems = self.stored.find(host, repository, flow)
        return found
