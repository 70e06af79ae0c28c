"""What a user can do about a refusal, in a few words for the end of its message.

Knows statuses and URLs; who the credentials are from, the transport knows.
"""

from __future__ import annotations

import re

NOT_A_REGISTRY = "is it a registry, or does a proxy or a login page answer in its place?"
_MANIFEST = re.compile(r"[a-z+]+://([^/]+)/v2/(.+)/manifests/([^/]+)$")


def about(status: int, place: str, *, is_page: bool) -> str:
    """Return what to do about an answer with ``status`` to a request for ``place``, a URL without its query.

    ``is_page``: it was an HTML page. Nothing is returned where nothing helps but to try it again.

    >>> about(404, "https://ghcr.io/v2/org/model/manifests/v1", is_page=False)
    "check the name and the tag ('transferkit tags ghcr.io/org/model' lists the tags)"
    """
    if status == 407:
        return "the proxy wants a user name and a password: write them into its URL, http://user:password@host:port"
    if is_page and 500 < status:
        return "a proxy or a balancer before the registry has failed"
    if is_page:
        return NOT_A_REGISTRY
    if status == 403:
        return "who is logged in may not do this: use other credentials, or ask whoever runs the registry"
    if status == 404:
        return _missing(place)
    if status == 429:
        return "many registries allow more to users who are logged in"
    return ""


def _missing(place: str) -> str:
    if "/blobs/uploads" in place:
        return ""
    match = _MANIFEST.match(place)
    if match is None:
        return "check the digest and the repository" if "/blobs/sha" in place else ""
    host, repository, reference = match.groups()
    if ":" in reference:
        return f"check the digest ('transferkit show {host}/{repository}:TAG' tells the one that a tag has now)"
    return f"check the name and the tag ('transferkit tags {host}/{repository}' lists the tags)"
