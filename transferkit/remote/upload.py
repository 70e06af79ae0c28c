"""Pushing one blob: is it there, can it be mounted, else one session and one streamed request.

At most three requests for a blob that has to be sent: HEAD, POST, PUT.
"""

from __future__ import annotations

from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Fetcher, Flow, Outcome
from transferkit.errors import ProtocolError
from transferkit.protocol import routes
from transferkit.protocol.upload import commit_url
from transferkit.remote import blobs
from transferkit.transport.body import Sender
from transferkit.transport.client import Client

_EMPTY = {"Content-Length": "0"}


def push(client: Client, repository: str, descriptor: Descriptor, source: Fetcher, *, flow: Flow) -> Outcome:
    """Make one attempt to bring ``descriptor``'s content from ``source`` into ``repository``.

    Raises:
        SourceError: the source is a local file that is not what its digest says; the registry never gets the last byte.
        RegistryError, TransportError, ProtocolError: the registry refused, or the connection did not hold.
    """
    # One token serves the whole upload: HEAD, POST and PUT ask for the same scope.
    scope = routes.push_scope(repository)
    if blobs.exists(client, repository, descriptor, flow=flow, scope=scope):
        flow.settle(descriptor.size)
        return Outcome.PRESENT
    session = _begin(client, repository, descriptor, flow)
    if session is None:
        flow.settle(descriptor.size)
        return Outcome.MOUNTED
    sender = Sender(descriptor.size, lambda: source.fetch(descriptor, flow=flow), flow)
    try:
        _commit(client, session, descriptor, sender, scope, flow)
    except BaseException:
        sender.rewind()
        raise
    return Outcome.MOVED


def _begin(client: Client, repository: str, descriptor: Descriptor, flow: Flow) -> str | None:
    """Begin a session and return its URL, or ``None`` where the registry mounted the blob instead."""
    digest = descriptor.digest
    if descriptor.source:
        path = routes.mount(repository, digest, routes.check_repository(descriptor.source))
    else:
        path = routes.uploads(repository)
    scope = routes.push_scope(repository, descriptor.source)
    with client.open("POST", path, headers=_EMPTY, flow=flow, ok=(201, 202), scope=scope, what=digest.short) as answer:
        location = answer.headers.get("location")
        answer.finish()
        if answer.status == 201:
            if not descriptor.source:
                raise ProtocolError(f"{digest.short}: {client.origin} says 201 to an upload that was only begun")
            return None
    return client.locate(path, location)


def _commit(client: Client, session: str, descriptor: Descriptor, sender: Sender, scope: str, flow: Flow) -> None:
    with client.open(
        "PUT",
        commit_url(session, descriptor.digest),
        headers={"Content-Type": "application/octet-stream"},
        sender=sender,
        flow=flow,
        # 204 and 200 come from registries before the specification, and from storage behind a redirect.
        ok=(200, 201, 204),
        timeout=client.options.commit_timeout,
        scope=scope,
        what=descriptor.digest.short,
    ) as answer:
        said = answer.headers.get("docker-content-digest", descriptor.digest)
        answer.finish()
    if said != descriptor.digest:
        raise ProtocolError(f"{descriptor.digest.short}: {client.origin} stored it as {said[:80]!r}")
