"""What a repository has: its tags, and the manifests that refer to another one, page by page; and how these get in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.flow import Flow
from transferkit.content.graph import Document
from transferkit.content.manifest import OCI_INDEX, Index
from transferkit.errors import NotFoundError, ProtocolError, RegistryError
from transferkit.protocol.listing import MAX_PAGE, MAX_PAGES, next_page, read_referrers, read_tags
from transferkit.protocol.origin import Origin
from transferkit.remote import manifests
from transferkit.remote.endpoint import Endpoint
from transferkit.transport.client import Client
from transferkit.transport.response import Response

_PAGE = 1000  # tags that are asked for at once


def tags(endpoint: Endpoint, flow: Flow) -> Iterator[str]:
    """Yield the tags of a repository in the registry's order, each once.

    Raises:
        NotFoundError: there is no such repository.
        ProtocolError: an answer is no list, a page leads elsewhere or back, or the list has no end.
    """
    seen: set[str] = set()
    for page in _pages(endpoint, f"/v2/{endpoint.name}/tags/list?n={_PAGE}", flow):
        for tag in read_tags(page):
            if tag not in seen:
                seen.add(tag)
                yield tag


def referrers(endpoint: Endpoint, digest: Digest, flow: Flow) -> Iterator[Descriptor]:
    """Yield the manifests that name ``digest`` as their subject, each once.

    A registry that has no such list keeps an index under the tag ``sha256-<hex>``, which clients write.
    """
    seen: set[Digest] = set()
    has_list = False
    try:
        for page in _pages(endpoint, f"/v2/{endpoint.name}/referrers/{digest}", flow, accept=OCI_INDEX):
            found = read_referrers(page)
            has_list = True
            for descriptor in found:
                if descriptor.digest not in seen:
                    seen.add(descriptor.digest)
                    yield descriptor
    except (NotFoundError, RegistryError, ProtocolError) as error:
        if has_list or error.retryable:
            raise
        try:
            index = manifests.fetch(endpoint, digest.file_name, flow)
        except NotFoundError:
            return
        if isinstance(index, Index):
            yield from dict.fromkeys(index.manifests)


def refer(endpoint: Endpoint, subject: Digest, documents: Sequence[Document], flow: Flow) -> None:
    """Enter manifests into the index of a registry that has no list of referrers; one that has, lists them itself.

    Source: OCI distribution specification v1.1, "Pushing manifests with subject", and "Referrers tag schema".
    """
    known = {descriptor.digest for descriptor in referrers(endpoint, subject, flow)}
    fresh = [document for document in documents if document.digest not in known]
    if not fresh:
        return
    entries: list[dict[str, Any]] = []
    with suppress(NotFoundError):
        there = manifests.fetch(endpoint, subject.file_name, flow)
        entries = there.json()["manifests"] if isinstance(there, Index) else []
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*entries, *map(_entry, fresh)]}
    manifests.push(endpoint, json.dumps(index).encode(), subject.file_name, media_type=OCI_INDEX, flow=flow)


def _entry(document: Document) -> dict[str, Any]:
    content = document.json()
    kind = content.get("artifactType") or (content.get("config") or {}).get("mediaType")
    entry = {"mediaType": document.media_type, "digest": document.digest, "size": len(document.raw)}
    return {**entry, **({"artifactType": kind} if kind else {}), "annotations": document.annotations}


def _pages(endpoint: Endpoint, url: str, flow: Flow, accept: str = "application/json") -> Iterator[bytes]:
    """Yield the pages of a list; the next one is asked for only on the registry itself, and never one twice."""
    client, seen = endpoint.client, {url}
    for _ in range(MAX_PAGES):
        request = endpoint.read(
            method="GET", url=url, ok=(200,), headers={"Accept": accept}, subject=f"a list of {endpoint.name}"
        )
        with client.send(request, flow) as response:
            page = response.read(MAX_PAGE)
        yield page
        link = following(client, response, seen)
        if link is None:
            return
        url = link
    raise ProtocolError(f"{client.origin} sends a list of more than {MAX_PAGES} pages")


def following(client: Client, response: Response, seen: set[str], *, known_as: str = "") -> str | None:
    """Return the URL of the next page of a list, if there is one, and take it into those that were ``seen``.

    ``known_as`` is a base URL that means the client's own: who stands for a server may repeat what that has said.

    Raises:
        ProtocolError: it is on another server, or was seen before.
    """
    link = next_page(response.headers.get("link"))
    if link is None:
        return None
    if known_as and link.startswith(f"{known_as}/"):
        link = client.base_url + link[len(known_as) :]
    url = client.resolve(response, link)
    if Origin.of(url) != client.origin or not response.trusted:
        raise ProtocolError(f"{client.origin} has the next page of a list elsewhere; refused")
    if url in seen:
        raise ProtocolError(f"{client.origin} sends a list that begins again and again")
    seen.add(url)
    return url
