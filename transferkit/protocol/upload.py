"""The session URL of an upload: where the next request of it goes.

Source: OCI distribution specification v1.1, "Pushing blobs": a ``Location`` may be absolute or relative and may have a
query, which must be kept; the digest is added to it.
"""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from transferkit.content.digest import Digest


def commit_url(location: str, digest: Digest) -> str:
    """Return the URL whose ``PUT`` ends the session at ``location`` (absolute).

    >>> commit_url("http://r/v2/a/blobs/uploads/1?_state=x%3D", Digest("sha256:" + 64 * "a"))[-83:-64]
    'x%3D&digest=sha256:'
    """
    parts = urlsplit(location)
    query = f"{parts.query}&digest={digest}" if parts.query else f"digest={digest}"
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))
