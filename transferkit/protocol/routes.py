"""Paths of the registry API, and the names that may stand in them.

Source: OCI distribution specification v1.1, "Endpoints". Repository names are taken a little wider than there: Ollama's
names keep their case.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

from transferkit.content.digest import Digest
from transferkit.errors import InvalidNameError, ProtocolError
from transferkit.protocol.origin import Origin

_COMPONENT = r"[A-Za-z0-9]+(?:[._-]+[A-Za-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z", re.ASCII)
_MAX_REPOSITORY = 255  # the specification's advice: host and name together in 255 characters


def check_base_url(url: str) -> str:
    """Return a registry's URL without a trailing slash.

    Raises:
        InvalidNameError: not ``http(s)://host[:port][/prefix]``. The error repeats no password that stands in it.
    """
    example = "it should look like https://registry.example.com"
    if not isinstance(url, str) or not url.isascii() or any(c <= " " or c in "\x7f\\" for c in url):
        raise InvalidNameError(
            f"the base URL of a registry is one ASCII text without blanks and backslashes; {example}"
        )
    # Anywhere: without its scheme, or with a slash in the password, the user name would read as something else.
    if "@" in url:
        raise InvalidNameError("the base URL holds a user name; leave it out and pass auth=(user, password)")
    if "?" in url or "#" in url:
        raise InvalidNameError(f"the base URL takes no query and no fragment; {example}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidNameError(f"the base URL does not parse; {example}") from error
    if parts.scheme not in ("http", "https") or not (parts.hostname or "").strip(".") or port == 0:
        raise InvalidNameError(f"{url[:200]!r} is not the base URL of a registry; {example}")
    try:
        Origin.of(url)
    except ProtocolError as error:
        raise InvalidNameError(f"{url[:200]!r} is not the base URL of a registry: {error}") from error
    return url.rstrip("/")


def check_repository(name: str) -> str:
    """Return ``name`` if it is the name of a repository, such as ``library/model``.

    Raises:
        InvalidNameError: it is not.
    """
    if not isinstance(name, str) or len(name) > _MAX_REPOSITORY or _REPOSITORY.match(name) is None:
        raise InvalidNameError(f"{str(name)[:200]!r} is not a repository name; it should look like library/model")
    return name


def check_reference(reference: str) -> str:
    """Return ``reference`` if it is a tag or a digest.

    Raises:
        InvalidNameError, InvalidDigestError: it is neither.
    """
    if isinstance(reference, str) and ":" in reference:
        return Digest(reference)
    if not isinstance(reference, str) or _TAG.match(reference) is None:
        raise InvalidNameError(
            f"{str(reference)[:200]!r} is neither a tag nor a digest; a tag looks like latest or v1.2"
        )
    return reference


def pull_scope(repository: str) -> str:
    """Return the permission to read, as the Docker token specification writes it."""
    return f"repository:{repository}:pull"


def push_scope(repository: str, source: str | None = None) -> str:
    """Return the permission to write, and to read from the repository that a blob is mounted from."""
    scope = f"repository:{repository}:pull,push"
    return f"{scope} {pull_scope(source)}" if source else scope


def blob(repository: str, digest: Digest) -> str:
    return f"/v2/{repository}/blobs/{digest}"


def chunksums(repository: str, digest: Digest) -> str:
    """Ollama's: the digests of a blob's parts. No part of the specification."""
    return f"/v2/{repository}/chunksums/{digest}"


def uploads(repository: str) -> str:
    return f"/v2/{repository}/blobs/uploads/"


def mount(repository: str, digest: Digest, source: str) -> str:
    return f"/v2/{repository}/blobs/uploads/?mount={digest}&from={quote(source, safe='')}"


def manifest(repository: str, reference: str) -> str:
    return f"/v2/{repository}/manifests/{reference}"
