"""Paths of the registry API, and the base URL that they are appended to.

Source: OCI distribution specification v1.1, "Endpoints". The names in the paths were checked by ``transferkit.names``.
"""

from __future__ import annotations

from urllib.parse import quote

from transferkit.content.digest import Digest
from transferkit.errors import InvalidNameError, ProtocolError
from transferkit.protocol.origin import Origin

# What a storage behind a redirect answers when the signature in its URL has expired: S3, Azure, GCS and R2.
EXPIRED = frozenset({400, 401, 403})


def check_base_url(url: str) -> str:
    """Return a registry's URL without a trailing slash, and without the ``/v2`` that every path begins with.

    Raises:
        InvalidNameError: not ``http(s)://host[:port][/prefix]``. The error repeats no password that stands in it.
    """
    example = "it should look like https://registry.example.com"
    if not isinstance(url, str) or not url.isascii() or any(c <= " " or c in "\x7f\\" for c in url):
        raise InvalidNameError(f"a base URL is one ASCII text without blanks and backslashes; {example}")
    # Anywhere: without its scheme, or with a slash in the password, the user name would read as something else.
    if "@" in url:
        raise InvalidNameError("the base URL holds a user name; leave it out and pass auth=(user, password)")
    if "?" in url or "#" in url:
        raise InvalidNameError(f"the base URL takes no query and no fragment; {example}")
    refusal = f"{url[:200]!r} is not the base URL of a registry"
    try:
        origin = Origin.of(url)
    except ProtocolError as error:
        raise InvalidNameError(f"{refusal}: {error}; {example}") from error
    if origin.port == 0:
        raise InvalidNameError(f"{refusal}; {example}")
    return url.rstrip("/").removesuffix("/v2").rstrip("/")


def pull_scope(repository: str) -> str:
    """Return the permission to read, as the Docker token specification writes it."""
    return f"repository:{repository}:pull"


def push_scope(repository: str, source: str | None = None) -> str:
    """Return the permission to write, and to read from the repository that a blob is mounted from."""
    scope = f"repository:{repository}:pull,push"
    return f"{scope} {pull_scope(source)}" if source else scope


def blobs(repository: str) -> str:
    """Return what the digest of a blob is appended to."""
    return f"/v2/{repository}/blobs/"


def chunksums(repository: str, digest: Digest) -> str:
    """Ollama's: the digests of a blob's parts. No part of the specification."""
    return f"/v2/{repository}/chunksums/{digest}"


def uploads(repository: str, digest: Digest, source: str | None) -> str:
    """Return where an upload begins; with a ``source``, the blob is mounted from there if the registry can."""
    path = f"{blobs(repository)}uploads/"
    return f"{path}?mount={digest}&from={quote(source, safe='')}" if source else path


def manifest(repository: str, reference: str) -> str:
    return f"/v2/{repository}/manifests/{reference}"
