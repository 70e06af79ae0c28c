"""A client of one registry: redirects under the URL policy, refusals as exceptions, time limits by kind of request.

Knows origins, statuses and redirects. Does not know what a blob is, nor where bytes go.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from transferkit.content.interfaces import Flow
from transferkit.errors import ProtocolError, TransportError
from transferkit.options import RetryOptions, TransportOptions
from transferkit.protocol import diagnostics
from transferkit.protocol.origin import MAX_HOPS, Origin, check_step, join, redact, target_of
from transferkit.protocol.routes import check_base_url
from transferkit.transport.auth import Auth, Authorizer, GetToken
from transferkit.transport.request import Request
from transferkit.transport.response import Response
from transferkit.transport.sessions import Sessions

if TYPE_CHECKING:
    import requests

logger = logging.getLogger(__name__)

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEEPS_METHOD = frozenset({307, 308})
_EXPIRED = frozenset({400, 401, 403})  # how S3, Azure, GCS and R2 say that a signature is too old
# One for a token that is missing, one for a token that ended while the request was under way.
_CHALLENGES = 2


class Client:
    """Sends requests to one registry, and to where it redirects. A context manager; thread-safe.

    Redirects are never automatic: each hop is checked by ``protocol.origin``, and only the registry's own origin sees
    anything of the user's.
    """

    def __init__(
        self,
        base_url: str,
        *,
        options: TransportOptions | None = None,
        retry: RetryOptions | None = None,
        session: requests.Session | None = None,
        connections: int = 64,
        auth: Auth | None = None,
        token: str | None = None,
        get_token: GetToken | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.base_url = check_base_url(base_url)
        self.origin = Origin.of(self.base_url)
        self.options = options or TransportOptions()
        self.learnt: dict[str, Any] = {}
        """What the layers above have found out about this registry; they alone know what it means."""
        self._max_retry_after = (retry or RetryOptions()).max_retry_after
        self._wall_clock = wall_clock
        self._sessions = Sessions(session, connections=connections, direct=self.options.direct)
        self._prefix = self.base_url.partition("://")[2].partition("/")[2]
        self._prefix = f"/{self._prefix}" if self._prefix else ""
        self._auth = Authorizer(
            self.origin,
            self._ask_for_token,
            auth=auth,
            token=token,
            get_token=get_token,
            options=self.options,
            clock=clock,
        )
        # identity: a blob is compared by its bytes, and a proxy that compresses it changes them.
        self._headers = {"User-Agent": self.options.user_agent, "Accept": "*/*", "Accept-Encoding": "identity"}

    def send(self, request: Request, flow: Flow) -> Response:
        """Send a request, follow its redirects, and return the response, whose status is one of ``request.ok``.

        Raises:
            RegistryError, NotFoundError: the response is a refusal.
            TransportError, ProtocolError: there is no response, or none that may be followed.
        """
        method, url, headers, sender = request.method, request.url, request.headers, request.body
        ok, scope, timeout, anonymous = request.ok, request.scope, request.timeout, request.anonymous
        if url.startswith("/"):
            # Our own path, on the registry: nothing of it needs to be taken apart.
            target, origin, path = self.base_url + url, self.origin, self._prefix + url
        else:
            target, origin, path = url, Origin.of(url), target_of(url)
        merged = {**self._headers, **headers} if headers else self._headers
        limit = timeout or self.options.response_timeout
        began = target, origin, path
        hops = challenges = 0
        asked_again = False
        trusted = origin == self.origin and not anonymous
        while True:
            authorization = self._auth.header(scope, flow) if trusted else None
            answer = self._sessions.send(
                method,
                origin,
                path,
                headers={**merged, "Authorization": authorization} if authorization else merged,
                sender=sender,
                timeout=(self.options.connect_timeout, limit),
                trusted=trusted,
                flow=flow,
            )
            if answer.status in ok:
                answer.url = target
                return answer
            if answer.status == 401 and trusted and challenges < _CHALLENGES:
                challenges += 1
                refusal = self._refusal(request, target, answer)
                if self._auth.answer(answer.headers, scope, authorization, flow) is None:
                    raise refusal
            elif answer.status in _EXPIRED and hops and origin != self.origin and sender is None and not asked_again:
                # The URL of a storage behind a redirect is good for a while only: the registry knows a new one.
                answer.finish()
                asked_again = True
                target, origin, path = began
                trusted = origin == self.origin and not anonymous
            else:
                hops += 1
                target, origin = self._follow(request, target, origin, answer, hops)
                path = target_of(target)
                # Nobody else may choose what is asked with the user's credentials: who has been elsewhere comes back
                # without (CVE-2024-45336, of Go).
                trusted = trusted and origin == self.origin
            if sender is not None:
                sender.rewind()

    def _follow(self, request: Request, url: str, origin: Origin, answer: Response, hops: int) -> tuple[str, Origin]:
        """Return where a redirect leads; an answer that is none is a refusal."""
        method, what = request.method, request.subject
        location = answer.headers.get("location")
        if answer.status not in _REDIRECTS or not location:
            raise self._refusal(request, url, answer)
        if method not in ("GET", "HEAD") and answer.status not in _KEEPS_METHOD:
            answer.close()
            raise ProtocolError(f"{origin} redirects a {method} with {answer.status}, which would turn it into a GET")
        answer.finish()
        if hops > MAX_HOPS:
            raise ProtocolError(f"{what or method}: more than {MAX_HOPS} redirects, beginning at {self.origin}")
        target = join(url, location)
        following = check_step(self.origin, target, previous=origin, allowed=self.options.storage_hosts)
        logger.debug("%s is redirected to %s", what or method, redact(target))
        return target, following

    def _ask_for_token(self, url: str, headers: Mapping[str, str], flow: Flow) -> Response:
        """Send a request to a token service, whose URL the authorizer has checked. Its redirects are not followed."""
        origin = Origin.of(url)
        return self._sessions.send(
            "GET",
            origin,
            target_of(url),
            headers={**self._headers, **headers},
            sender=None,
            timeout=(self.options.connect_timeout, self.options.response_timeout),
            trusted=origin == self.origin,
            flow=flow,
        )

    def locate(self, base: str, location: str | None) -> str:
        """Return the absolute URL of an upload's ``Location``, which answered a request to ``base`` (path or URL).

        Raises:
            ProtocolError: there is none, or the URL policy refuses it.
        """
        if not location:
            raise ProtocolError(f"{self.origin} began an upload without saying where it goes (no Location)")
        absolute = self.base_url + base if base.startswith("/") else base
        url = self.resolve(absolute, location)
        if Origin.of(url) == self.origin != Origin.of(absolute):
            # It would be asked with the user's credentials, and who is not the registry does not choose for what.
            raise ProtocolError(f"{Origin.of(absolute)} sends an upload back to {self.origin}; refused")
        return url

    def resolve(self, base: str, location: str) -> str:
        """Return the absolute URL of a ``location`` in an answer to a request to the URL ``base``.

        Raises:
            ProtocolError: the URL policy refuses it.
        """
        url = join(base, location)
        check_step(self.origin, url, previous=Origin.of(base), allowed=self.options.storage_hosts)
        return url

    def _refusal(self, request: Request, url: str, answer: Response) -> Exception:
        with answer:
            try:
                body = answer.peek(diagnostics.MAX_ERROR_BODY)
            except TransportError:
                body = b""  # the status alone says enough
        return diagnostics.refusal(
            method=request.method,
            url=url,
            status=answer.status,
            headers=answer.headers,
            body=body,
            now=self._wall_clock(),
            max_retry_after=self._max_retry_after,
            subject=request.subject,
            missing=request.missing,
        )

    def close(self) -> None:
        """Close the connections; those of a user's session stay open."""
        self._sessions.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client of {self.origin}>"
