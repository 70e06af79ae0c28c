"""How much a registry takes from its clients. Knows numbers alone."""

from __future__ import annotations

from dataclasses import dataclass

from transferkit.content.manifest import MAX_MANIFEST


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of an :class:`~transferkit.server.OCIRegistry`.

    >>> Limits(uploads=64).page
    1000
    """

    manifest: int = MAX_MANIFEST
    """Bytes of a manifest: the least that the specification wants taken, and what other registries take at most."""
    page: int = 1000
    """Tags in one answer; the next ones are behind its ``Link``."""
    tags: int = 64
    """Tags that one manifest may be pushed with; the specification wants ten taken."""
    uploads: int = 10_000
    """Uploads that are open at once; who begins one more is answered with 429."""
    idle: float = 24 * 3600.0
    """Seconds without a byte, after which an upload is removed."""
