"""Token services: what one is asked, with whose credentials, and what its answer is good for.

Sources: the Docker token specification, and Docker's OAuth2 one for identity tokens. Who may see a secret is decided by
``protocol.origin``; everybody else is asked anonymously.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlencode

from transferkit.content.flow import Flow
from transferkit.errors import ProtocolError, UnauthorizedError
from transferkit.protocol.challenge import AuthChallenge, merge_scopes
from transferkit.protocol.diagnostics import read_retry_after
from transferkit.protocol.origin import (
    Origin,
    check_step,
    join,
    may_see_credentials,
    must_be_public,
    redact,
    target_of,
)
from transferkit.transport.credentials import Credential
from transferkit.transport.exchange import Exchange, basic
from transferkit.transport.request import FormBody, Request
from transferkit.transport.response import Response
from transferkit.transport.signing import KeyFile

logger = logging.getLogger(__name__)

MAX_TOKEN_ANSWER = 64 * 1024
ANEW = "check it, or log in again: it may have expired"
CLIENT_ID = "transferkit"  # how we call ourselves where an identity token is shown

_LIFETIME = 60.0  # seconds: the Docker token specification, where an answer does not say
_EARLY = 0.25  # of its lifetime before a token ends it is renewed, so that no long body is sent for a 401


class Issued(NamedTuple):
    """A token as the header that shows it; ``ends`` is on the clock, ``blame`` what to do where it is refused."""

    header: str
    ends: float
    blame: str

    def __repr__(self) -> str:
        return "<Issued>"  # and no secret


class TokenService:
    """Asks the token services that one registry names. Thread-safe.

    ``led_by`` is who has led to this registry, where that is not the user: nothing of the user's is shown then.
    """

    def __init__(
        self,
        registry: Origin,
        exchange: Exchange,
        led_by: Origin | None,
        max_retry_after: float,
        clock: Callable[[], float],
    ) -> None:
        self.registry = registry
        self.exchange = exchange
        self.led_by = led_by
        self.max_retry_after = max_retry_after
        self.clock = clock

    def ask(
        self,
        challenge: AuthChallenge,
        scope: str,
        credential: Credential | None,
        key: KeyFile | None,
        advice: str,
        flow: Flow,
    ) -> Issued:
        """Return a token that answers a challenge; ``advice`` is what a refusal says besides.

        Raises:
            UnauthorizedError: the token service refuses.
            ProtocolError: it may not be asked, or its answer is malformed.
        """
        options = self.exchange.options
        realm = join(f"{self.registry}/", challenge.realm)
        # Who may see the password may be asked, also at a private address.
        allowed = options.storage_hosts | options.token_realms
        origin = check_step(self.registry, realm, previous=self.registry, allowed=allowed)
        is_trusted = may_see_credentials(self.registry, origin, options.token_realms)
        shown = credential if is_trusted else None
        # What is asked of a registry abroad, only that knows.
        scopes = list(merge_scopes(*challenge.scopes, *(scope.split() if self.led_by is None else [])))
        method, url, body = "GET", realm.partition("#")[0], None
        headers: dict[str, str] = {}
        refused, blame = self._blames(origin, credential, is_trusted, advice)
        signed = None
        if credential is None and key is not None and origin == self.registry:
            signed = key.sign(url, challenge.service, scopes)
        if signed is not None and key is not None:
            url, headers["Authorization"] = signed
            refused, blame = key.blame("what the key {} signed"), key.blame("the token that the key {} brought")
        elif shown is not None and shown.identity_token:
            method, body = "POST", self._form(challenge.service, scopes, shown.identity_token, flow)
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        else:
            # An empty list takes no part in the query.
            query = urlencode({"service": challenge.service or [], "scope": scopes}, doseq=True)
            url += f"{'&' if '?' in url else '?'}{query}" if query else ""
            if shown is not None:
                headers["Authorization"] = basic(shown.user, shown.password)
        must = must_be_public(self.registry, origin, allowed)
        request = Request(
            method=method,
            url=url,
            ok=(),
            headers={**self.exchange.said_to(origin), **headers},
            body=body,
            timeout=options.response_timeout,
            origin=origin,
            target=target_of(url),
            trusted=origin == self.registry and self.led_by is None,
            public_only=must and not self.exchange.is_private(self.registry),
        )
        began = self.clock()
        with self.exchange.send(request, flow) as response:
            if response.status != 200:
                raise self._refused(response, origin, refused)
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise ProtocolError(f"the token service {origin} sent an encoded answer")
            text, lifetime = read_token(response.read(MAX_TOKEN_ANSWER), str(origin))
        logger.debug("a token of %s for %s, %.0f s", redact(realm), scope[:200], lifetime)
        return Issued(bearer(text), began + lifetime * (1 - _EARLY), blame)

    def _form(self, service: str, scopes: list[str], identity_token: str, flow: Flow) -> FormBody:
        """Return the body that asks for a token for an identity token.

        Source: https://distribution.github.io/distribution/spec/auth/oauth/, "Getting a token".
        """
        fields = {"grant_type": "refresh_token", "service": service, "client_id": CLIENT_ID}
        data = urlencode({**fields, "scope": " ".join(scopes), "refresh_token": identity_token}).encode("ascii")
        return FormBody(data, flow)

    def _blames(self, origin: Origin, credential: Credential | None, is_trusted: bool, advice: str) -> tuple[str, str]:
        """Return what to do where the token service refuses, and where the registry refuses what it has given."""
        if credential is None:
            anybody = f"a token for anybody is not enough; {advice}"
            if self.led_by is None:
                return advice, anybody
            return f"{self.led_by.netloc} leads there, and credentials for it are not sent to another host", anybody
        if not is_trusted:
            unseen = _unseen(credential, origin)
            return unseen, f"a token for anybody is not enough; {unseen}"
        besides = f"; {advice}" if advice else ""
        return (
            f"it refused the {credential.what}; {ANEW}{besides}",
            f"it refused the token that the {credential.what} brought; {ANEW}{besides}",
        )

    def _refused(self, response: Response, origin: Origin, blame: str) -> UnauthorizedError:
        status = response.status
        text = f"the token service {origin} of {self.registry.netloc} answered {status}"
        is_trouble = status >= 500 or status == 429  # its own, not the credentials': worth another try
        wait = read_retry_after(response.headers.get("retry-after"), now=time.time()) if is_trouble else None
        is_final = not is_trouble or (wait or 0.0) > self.max_retry_after
        if not is_trouble:
            text += f"; {blame}"
        elif is_final:
            text += f"; it asks to come back in {wait:.0f} s, more than RetryOptions(max_retry_after)"
        return UnauthorizedError(text, url=str(origin), status=status, retry_after=wait, retryable=not is_final)


def _unseen(credential: Credential, origin: Origin) -> str:
    return (
        f"the {credential.what} was not sent to it, because it is on another host than the registry. If that is right, "
        f"allow it with TransportOptions(token_realms={{{origin.netloc!r}}})"
    )


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
