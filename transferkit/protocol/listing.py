"""The rules of lists: the tags of a repository, the manifests that refer to another one, and their pages.

Source: OCI distribution specification v1.1, "Content discovery" and "Listing referrers"; RFC 8288 for ``Link``.
"""

from __future__ import annotations

import json
import re
from typing import Any

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.manifest import parse
from transferkit.errors import InvalidManifestError, InvalidNameError, ProtocolError
from transferkit.grammar import check_reference

MAX_PAGE = 4 * 1024 * 1024  # bytes of one page
MAX_PAGES = 1000  # of one list; a registry that sends more is a loop that we have not seen through
_LINK = re.compile(r"\s*<([^>]*)>((?:\s*;\s*[^;,]*)*)\s*(?:,|\Z)")
_NEXT = re.compile(r'(?:^|;)\s*rel\s*=\s*"?next"?\s*(?:;|\Z)', re.I)


def next_page(link: str | None) -> str | None:
    """Return the URL of the next page that a ``Link`` field names, as it stands there; ``None``: this is the last.

    >>> next_page('</v2/a/tags/list?last=b&n=2>; rel="next"')
    '/v2/a/tags/list?last=b&n=2'
    """
    for match in _LINK.finditer((link or "")[:8192]):
        if _NEXT.search(match[2]):
            return match[1]
    return None


def read_tags(raw: bytes) -> list[str]:
    """Return the tags on a page, those that are none left out; ProtocolError: it is no list of tags."""
    try:
        data: Any = json.loads(raw)
        tags = data.get("tags") if isinstance(data, dict) else 0
        if tags is not None and not isinstance(tags, list):
            raise ValueError
    except (ValueError, RecursionError) as error:
        raise ProtocolError("the registry's answer is no list of tags") from error
    return [tag for tag in tags or [] if _is_tag(tag)]


def _is_tag(tag: Any) -> bool:
    try:
        return isinstance(tag, str) and not isinstance(check_reference(tag), Digest)
    except InvalidNameError:
        return False
    except ValueError:  # a digest that is none
        return False


def read_referrers(raw: bytes) -> tuple[Descriptor, ...]:
    """Return the manifests on a page of referrers; ProtocolError: it is no index."""
    try:
        found: tuple[Descriptor, ...] = parse(raw).manifests  # type: ignore[union-attr]  # a manifest has none
        return found
    except (InvalidManifestError, AttributeError) as error:
        raise ProtocolError(f"the registry's list of referrers is no image index: {error}") from error
