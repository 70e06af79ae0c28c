"""A client of one registry: redirects under the URL policy, challenges, refusals as exceptions."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from transferkit.content.interfaces import Flow
from transferkit.errors import ProtocolError, TransferKitError
from transferkit.options import RetryOptions
from transferkit.protocol import diagnostics
from transferkit.protocol.origin import MAX_HOPS, Origin, check_step, join, redact, target_of
from transferkit.protocol.routes import EXPIRED, check_base_url
from transferkit.transport.hosts import Hosts
from transferkit.transport.request import Request
from transferkit.transport.response import Response

logger = logging.getLogger(__name__)

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# One for a token that is missing, one for a token that ended while the request was under way.
_CHALLENGES = 2


class Client:
    """Sends requests to one registry, and to where it redirects. Thread-safe.

    Redirects are never automatic: each hop is checked by ``protocol.origin``, and only the registry's own origin sees
    anything of the user's, and not even that, where another origin chose the URL. Connections, credentials and what is
    known of the registry belong to ``hosts``.
    """

    def __init__(
        self,
        base_url: str,
        hosts: Hosts,
        *,
        retry: RetryOptions | None = None,
        insecure: bool = False,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.base_url = check_base_url(base_url)
        self.origin = Origin.of(self.base_url)
        self.options = hosts.options
        self._max_retry_after = (retry or RetryOptions()).max_retry_after
        self.host = hosts.at(self.origin, self._max_retry_after, insecure=insecure)
        self._exchange = self.host.exchange
        self._wall_clock = wall_clock
        self._prefix = target_of(self.base_url).rstrip("/")

    def send(self, request: Request, flow: Flow) -> Response:
        """Send a request, follow its redirects, and return the response, whose status is one of ``request.ok``.

        Raises:
            RegistryError, NotFoundError: the response is a refusal.
            TransportError, ProtocolError: there is no response, or none that may be followed.
        """
        outgoing = self._addressed(request, flow)
        hops = challenges = 0
        was_asked_again = False
        while (response := self._exchange.send(outgoing, flow)).status not in request.ok:
            status, is_abroad = response.status, outgoing.origin != self.origin
            if status == 401 and outgoing.trusted and challenges < _CHALLENGES:
                challenges += 1
                refusal = self._refusal(outgoing, response)
                challenge = response.headers.get("www-authenticate", "")
                rejected = outgoing.headers.get("Authorization")
                fresh = self.host.authorizer.after(challenge, request.scope, rejected, flow)
                if fresh is None:
                    raise refusal
                outgoing = outgoing._replace(headers={**outgoing.headers, "Authorization": fresh})
            elif status in EXPIRED and hops and is_abroad and request.body is None and not was_asked_again:
                # The URL of a storage behind a redirect is good for a while only: the registry knows a new one.
                response.finish()
                was_asked_again = True
                outgoing = self._addressed(request, flow)
            elif status in _REDIRECTS and response.headers.get("location"):
                hops += 1
                outgoing = self._redirected(outgoing, response, hops)
            else:
                raise self._refusal(outgoing, response)
            if request.body is not None:
                request.body.rewind()
        return response

    def _addressed(self, request: Request, flow: Flow) -> Request:
        """Return the request as it goes out first: with its origin, and what the registry wants to see."""
        if request.url.startswith("/"):
            # Our own path, on the registry: nothing of it needs to be taken apart.
            url, origin, target = self.base_url + request.url, self.origin, self._prefix + request.url
        else:
            url, origin, target = request.url, Origin.of(request.url), target_of(request.url)
        trusted = (origin is self.origin or origin == self.origin) and not request.anonymous
        fields = {**self._exchange.headers, **request.headers}
        if trusted:
            authorization = self.host.authorizer.header(request.scope, flow)
            if authorization is not None:
                fields["Authorization"] = authorization
        return Request(
            method=request.method,
            url=url,
            ok=request.ok,
            headers=fields,
            body=request.body,
            timeout=request.timeout or self.options.response_timeout,
            subject=request.subject,
            missing=request.missing,
            origin=origin,
            target=target,
            trusted=trusted,
        )

    def _redirected(self, outgoing: Request, response: Response, hops: int) -> Request:
        """Return the request that a redirect leads to."""
        method, origin, subject = outgoing.method, outgoing.origin, outgoing.subject or outgoing.method
        assert origin is not None
        if method not in ("GET", "HEAD") and response.status not in (307, 308):
            response.close()
            raise ProtocolError(f"{origin} redirects a {method} with {response.status}, which would turn it into a GET")
        response.finish()
        if hops > MAX_HOPS:
            raise ProtocolError(f"{subject}: more than {MAX_HOPS} redirects, beginning at {self.origin}")
        url = join(outgoing.url, response.headers["location"])
        following = check_step(self.origin, url, previous=origin, allowed=self.options.storage_hosts)
        logger.debug("%s is redirected to %s", subject, redact(url))
        # Nobody else may choose what is asked with the user's credentials: who has been elsewhere comes back without
        # (CVE-2024-45336, of Go).
        trusted = outgoing.trusted and following == self.origin
        headers = outgoing.headers
        if not trusted:
            headers = {name: text for name, text in headers.items() if name != "Authorization"}
        return outgoing._replace(url=url, origin=following, target=target_of(url), trusted=trusted, headers=headers)

    def _refusal(self, outgoing: Request, response: Response) -> TransferKitError:
        body = response.rest(diagnostics.MAX_ERROR_BODY)  # the status alone says enough
        return diagnostics.refusal(
            method=outgoing.method,
            url=outgoing.url,
            status=response.status,
            headers=response.headers,
            body=body,
            now=self._wall_clock(),
            max_retry_after=self._max_retry_after,
            subject=outgoing.subject,
            missing=outgoing.missing,
        )

    def locate(self, response: Response, location: str | None) -> str:
        """Return the absolute URL of an upload's ``Location``; ProtocolError: there is none, or it is refused."""
        if not location:
            raise ProtocolError(f"{self.origin} began an upload without saying where it goes (no Location)")
        url = self.resolve(response, location)
        if not response.trusted and Origin.of(url) == self.origin:
            # It would be asked with the user's credentials, and who is not the registry does not choose for what.
            raise ProtocolError(f"an upload that has been elsewhere is sent back to {self.origin}; refused")
        return url

    def resolve(self, response: Response, location: str) -> str:
        """Return the absolute URL of a ``location`` in a response; ProtocolError: the URL policy refuses it."""
        url = join(response.url, location)
        check_step(self.origin, url, previous=Origin.of(response.url), allowed=self.options.storage_hosts)
        return url

    def __repr__(self) -> str:
        return f"<Client of {self.origin}>"
