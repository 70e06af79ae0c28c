"""Whether a registry can be reached, is one, and takes the credentials that there are for it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from transferkit.content.flow import Flow
from transferkit.errors import InvalidNameError
from transferkit.names import Reference
from transferkit.registry.job import Job
from transferkit.transport.request import Request

_ROOT = "/v2/"  # OCI distribution specification v1.1, end-1: whoever answers it with 200 is a registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The answer of a registry: its ``url``, and after how many ``seconds`` it was here.

    ``shown``: it asked for credentials, and has seen some; ``False``: a token for anybody was enough; ``None``: it
    asked for none. ``realm`` is the host of its token service, where it has one. ``is_page``: it answered with a page
    for people, as web sites do, and proxies that want a login.
    """

    url: str
    seconds: float
    shown: bool | None
    realm: str = ""
    is_page: bool = False


def reference_of(host: str) -> Reference:
    """Return a reference to some model of a host. InvalidNameError: it is no host."""
    bare = host.strip().rstrip("/").removesuffix("/v1").removesuffix("/v2").rstrip("/")
    try:
        return Reference.parse(f"{bare}/library/model:latest")
    except InvalidNameError as error:
        _, at, shown = bare.rpartition("@")  # what is before it may be a password
        more = ", without a user name and password" if at else ""
        raise InvalidNameError(f'"{shown}" is no registry: write host, or host:port{more}') from error


def ping(job: Job, reference: Reference) -> Answered:
    """Ask the registry of a reference for its root."""
    client, began = job.site(reference).repository.client, time.monotonic()
    request = Request(method="GET", url=_ROOT, ok=(200,), subject=f"{reference.name.host} as a registry")
    kinds: list[str] = []

    def ask(flow: Flow) -> None:
        response = client.send(request, flow)
        kinds.append(response.headers.get("content-type", ""))
        response.finish()

    job.operation.call(ask)
    seconds, authorizer = time.monotonic() - began, client.host.authorizer
    shown, realm = authorizer.has_shown(request.scope), authorizer.realm(request.scope)
    its_host, is_page = "" if realm is None else realm.netloc, "html" in kinds[-1].lower()
    return Answered(url=client.base_url, seconds=seconds, shown=shown, realm=its_host, is_page=is_page)
