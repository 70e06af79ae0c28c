"""A client of one registry: redirects under the URL policy, challenges, refusals as exceptions."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from transferkit.content.flow import Flow
from transferkit.errors import ProtocolError, TransferKitError
from transferkit.options import RetryOptions
from transferkit.protocol import diagnostics
from transferkit.protocol.advice import NOT_A_REGISTRY
from transferkit.protocol.challenge import parse_all
from transferkit.protocol.origin import MAX_HOPS, Origin, check_step, join, must_be_public, redact, target_of
from transferkit.protocol.routes import EXPIRED, check_base_url
from transferkit.transport.auth import Authorizer
from transferkit.transport.hosts import Hosts
from transferkit.transport.pipeline import Wanted
from transferkit.transport.request import Request
from transferkit.transport.response import Response

if TYPE_CHECKING:
    from transferkit.transport.hub import HubToken

logger = logging.getLogger(__name__)

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# One for a token that is missing, one for a token that ended while the request was under way.
_CHALLENGES = 2


def may_ask_abroad(request: Request, is_abroad: bool, response: Response) -> bool:
    """Tell whether an origin that the registry leads to may be asked for an anonymous token of its own.

    lscr.io and the like lead to another registry, which gives anybody a token (go-containerregistry#2333). Nothing of
    the user's goes there, and nothing is sent to it: only what is read is asked for once more.
    """
    challenge = response.headers.get("www-authenticate", "")
    is_plain = is_abroad and request.body is None and not request.anonymous and request.method in ("GET", "HEAD")
    return is_plain and any(each.scheme == "bearer" and each.realm for each in parse_all(challenge))


@contextmanager
def _told(step: str) -> Iterator[None]:
    """Say in a refusal of the URL policy which step it was."""
    try:
        yield
    except ProtocolError as error:
        raise ProtocolError(f"{step}: {error}") from None


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
        mirror: bool = False,
        hub: HubToken | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.base_url = check_base_url(base_url)
        self.origin = Origin.of(self.base_url)
        self.options = hosts.options
        self._hosts = hosts
        self._max_retry_after = (retry or RetryOptions()).max_retry_after
        self.host = hosts.at(self.origin, self._max_retry_after, insecure=insecure, mirror=mirror, hub=hub)
        self._signed = self.host.signed
        self._exchange = self.host.exchange
        self._said = self._exchange.said_to(self.origin)
        self._wall_clock = wall_clock
        self._prefix = target_of(self.base_url).rstrip("/")

    def send(self, request: Request, flow: Flow) -> Response:
        """Send a request, follow its redirects, and return the response, whose status is one of ``request.ok``.

        Raises:
            RegistryError, NotFoundError: the response is a refusal.
            TransportError, ProtocolError: there is no response, or none that may be followed.
        """
        try:
            outgoing = self._addressed(request, flow)
            hops = challenges = 0
            was_asked_again = was_asked_abroad = False
            while (response := self._exchange.send(outgoing, flow)).status not in request.ok:
                status, is_abroad = response.status, outgoing.origin != self.origin
                if status == 401 and outgoing.trusted and challenges < _CHALLENGES:
                    challenges += 1
                    outgoing = self._answered(self.host.authorizer, request.scope, outgoing, response, flow)
                elif status == 401 and not was_asked_abroad and may_ask_abroad(request, is_abroad, response):
                    was_asked_abroad = True
                    assert outgoing.origin is not None
                    stranger = self._hosts.stranger(outgoing.origin, self.origin)
                    outgoing = self._answered(stranger, request.scope, outgoing, response, flow)
                elif status in EXPIRED and hops and is_abroad and request.body is None and not was_asked_again:
                    # The URL of a storage behind a redirect is good for a while only: the registry knows a new one.
                    response.finish()
                    was_asked_again = True
                    outgoing = self._addressed(request, flow)
                elif status in _REDIRECTS and response.headers.get("location"):
                    hops += 1
                    outgoing = self._redirected(request, outgoing, response, hops, flow)
                else:
                    # The status alone says enough.
                    raise self._refusal(outgoing, response, response.rest(diagnostics.MAX_ERROR_BODY))
                if request.body is not None:
                    request.body.rewind()
            return response
        except TransferKitError as error:
            self.clean(error)
            raise

    def pipeline(
        self, request: Request, wanted: Sequence[Wanted], more: Callable[[], Sequence[Wanted]], flow: Flow
    ) -> Generator[memoryview, None, None] | None:
        """Ask for several paths of the registry at once, as ``request`` does for its own, and yield their contents.

        They may end early, and that is no error: ``send`` is for the rest. ``None``: nothing was asked. ``more`` says
        what to ask for next (``transport.pipeline``). RegistryError: the registry refuses one of them for now.
        """

        def refused(response: Response, one: Wanted) -> bool:
            asked = outgoing._replace(url=self.base_url + one.path, subject=one.subject)
            with self.cleaned():
                body = response.rest(diagnostics.MAX_ERROR_BODY)
                if response.status != 401 or not outgoing.trusted:
                    raise self._refusal(asked, response, body)
                # Another token is here before the rest is asked for: so no blob is refused twice.
                challenge, rejected = response.headers.get("www-authenticate", ""), asked.headers.get("Authorization")
                return self.host.authorizer.after(challenge, request.scope, rejected, flow) is not None

        outgoing = self._addressed(request, flow)
        return self._exchange.pipeline(outgoing, self._prefix, wanted, more, refused, flow)

    def _answered(
        self, authorizer: Authorizer, scope: str, outgoing: Request, response: Response, flow: Flow
    ) -> Request:
        """Return the request with an answer to its challenge; raise the refusal where there is none."""
        body = response.rest(diagnostics.MAX_ERROR_BODY)
        challenge, rejected = response.headers.get("www-authenticate", ""), outgoing.headers.get("Authorization")
        fresh = authorizer.after(challenge, scope, rejected, flow)
        if fresh is None:
            raise self._refusal(outgoing, response, body)
        return outgoing._replace(headers={**outgoing.headers, "Authorization": fresh})

    def _addressed(self, request: Request, flow: Flow) -> Request:
        """Return the request as it goes out first: with its origin, and what the registry wants to see."""
        if request.url.startswith("/"):
            # Our own path, on the registry: nothing of it needs to be taken apart.
            url, origin, target = self.base_url + request.url, self.origin, self._prefix + request.url
            said, public_only = self._said, False
        else:
            url, origin, target = request.url, Origin.of(request.url), target_of(request.url)
            said, public_only = self._exchange.said_to(origin), self._must_be_public(origin)
            self._signed.append(url)
        trusted = (origin is self.origin or origin == self.origin) and not request.anonymous
        fields = {**said, **request.headers} if request.headers else said
        if trusted:
            authorizer = self.host.authorizer
            authorization = authorizer.header(request.scope, flow)
            if authorization is None and authorizer.key is not None and not request.is_content:
                authorization = authorizer.signed()
            if authorization is not None:
                fields = {**fields, "Authorization": authorization}
        elif origin in self._hosts.strangers:
            fields = {**fields, **self._for_stranger(request, origin, flow)}
        timeout = request.timeout or self.options.response_timeout
        asked = request.method, url, request.ok, fields, request.body, timeout, "", request.subject, request.missing
        # In the order of its fields: by their names it takes three times as long, for each blob.
        return Request._make((*asked, False, False, origin, target, trusted, public_only))

    def _must_be_public(self, origin: Origin) -> bool:
        """Tell whether no private address may be connected to at ``origin``, which the registry leads to."""
        must = must_be_public(self.origin, origin, self.options.storage_hosts)
        return must and not self._exchange.is_private(self.origin)

    def _for_stranger(self, request: Request, origin: Origin, flow: Flow) -> dict[str, str]:
        """Return the field with the anonymous token of an origin abroad, for a request that only reads."""
        stranger = self._hosts.strangers.get(origin)
        if stranger is None or request.body is not None or request.anonymous:
            return {}
        authorization = stranger.header(request.scope, flow)
        return {} if authorization is None else {"Authorization": authorization}

    def _redirected(self, request: Request, outgoing: Request, response: Response, hops: int, flow: Flow) -> Request:
        """Return the request that a redirect leads to."""
        method, origin, subject = outgoing.method, outgoing.origin, outgoing.subject or outgoing.method
        assert origin is not None
        if method not in ("GET", "HEAD") and response.status not in (307, 308):
            response.close()
            raise ProtocolError(f"{origin} redirects a {method} with {response.status}, which would turn it into a GET")
        response.finish()
        if hops > MAX_HOPS:
            raise ProtocolError(f"{subject}: more than {MAX_HOPS} redirects, beginning at {self.origin}")
        with _told(f"{subject}: {origin} redirects it"):
            url = join(outgoing.url, response.headers["location"])
            following = check_step(self.origin, url, previous=origin, allowed=self.options.storage_hosts)
        self._signed.append(url)
        logger.debug("%s is redirected to %s", subject, redact(url))
        # Nobody else may choose what is asked with the user's credentials: who has been elsewhere comes back without
        # (CVE-2024-45336, of Go).
        trusted = outgoing.trusted and following == self.origin
        headers = outgoing.headers
        if not trusted:
            headers = {name: text for name, text in headers.items() if name != "Authorization"}
            headers["User-Agent"] = self._exchange.said_to(following)["User-Agent"]
            headers.update(self._for_stranger(request, following, flow))
        return outgoing._replace(
            url=url,
            origin=following,
            target=target_of(url),
            trusted=trusted,
            headers=headers,
            public_only=self._must_be_public(following),
        )

    def _refusal(self, outgoing: Request, response: Response, body: bytes) -> TransferKitError:
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
            hint=self._hint(outgoing) if response.status == 401 else "",
        )

    def _hint(self, outgoing: Request) -> str:
        """Return what to do about a 401."""
        if outgoing.trusted:
            return self.host.authorizer.blame(outgoing.headers.get("Authorization"))
        if outgoing.origin == self.origin:
            return "no credentials were sent, because another host chose the URL"
        return f"{self.origin.netloc} leads there, and credentials for it are not sent to another host"

    def clean(self, error: TransferKitError) -> None:
        """Take what was sent as a secret out of an error, whose text may quote the peer."""
        self._hosts.clean(error)

    def cleaned(self) -> AbstractContextManager[None]:
        """Clean what is raised within."""
        return self._hosts.cleaned()

    def locate(self, response: Response, location: str | None) -> str:
        """Return the absolute URL of an upload's ``Location``; ProtocolError: there is none, or it is refused."""
        if not location:
            raise ProtocolError(
                f"{self.origin} began an upload without saying where it goes (no Location); {NOT_A_REGISTRY}"
            )
        url = self.resolve(response, location, "where an upload goes (Location)")
        if not response.trusted and Origin.of(url) == self.origin:
            # It would be asked with the user's credentials, and who is not the registry does not choose for what.
            raise ProtocolError(f"an upload that has been elsewhere is sent back to {self.origin}; refused")
        return url

    def resolve(self, response: Response, location: str, what: str = "where it is") -> str:
        """Return the absolute URL of a ``location`` in a response, which says ``what`` is there; ProtocolError: the URL
        policy refuses it."""
        previous = Origin.of(response.url)
        with _told(f"{previous} says {what}"):
            url = join(response.url, location)
            check_step(self.origin, url, previous=previous, allowed=self.options.storage_hosts)
        self._signed.append(url)
        return url

    def __repr__(self) -> str:
        return f"<Client of {self.origin}>"
