"""Where the parts of one blob are asked for: found once for all threads, and once again when it has expired.

Knows URLs and entity tags. Sends no request itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.errors import BlobNotFoundError
from transferkit.protocol.origin import Origin, target_of
from transferkit.remote.endpoint import Endpoint
from transferkit.remote.single_flight import SingleFlight
from transferkit.transport.request import Request
from transferkit.transport.response import Response

_OK = (200, 206, 412, 416)
# RFC 9110 section 8.8.3; a weak one (W/"...") promises nothing about bytes, and If-Match never takes it.
_STRONG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]{1,1024}"\Z')


@dataclass(slots=True, eq=False)
class Target:
    """One URL of the blob. ``foreign``: on another origin than the registry; it may expire."""

    url: str
    foreign: bool
    etag: str | None = None


class BlobURL:
    """The URL of one blob, whichever it is at the moment. Thread-safe: one for all who fetch parts of the blob.

    The storage that the registry redirects to is kept only where it is on another origin: it is asked without
    credentials then. What stays on the registry's own goes through the registry each time.
    """

    def __init__(self, endpoint: Endpoint, descriptor: Descriptor) -> None:
        self.endpoint = endpoint
        self.descriptor = descriptor
        self.subject = descriptor.digest.short
        self.flight = SingleFlight()  # the turn to look for the target
        self.target: Target | None = None  # where the parts are asked for; None while nobody knows
        self.has_ranges = False  # a part has come already
        self.pins = True  # the ETag of the first part has to be that of all
        self._home = endpoint.blobs + descriptor.digest
        self._listed: str | None = None

    def request(self, chunk: Chunk, target: Target | None = None) -> Request:
        """Return the request for a part: to ``target``, else to the registry."""
        headers = {"Range": f"bytes={chunk}"}
        if target is not None and target.etag is not None:
            headers["If-Match"] = target.etag
        url = self._home if target is None else target.url
        return self.endpoint.read(
            method="GET", url=url, ok=_OK, headers=headers, subject=self.subject, missing=BlobNotFoundError
        )

    def found(self, response: Response) -> Target:
        """Take in where the registry has led to, and return it."""
        foreign = Origin.of(response.url) != self.endpoint.client.origin
        target = Target(response.url if foreign else self._home, foreign=foreign)
        if response.status == 206:
            self.check_version(target, response.headers.get("etag"))
        self.target = target
        return target

    def follow(self, url: str) -> None:
        """Ask where the list says. A URL that was followed before is not gone back to: it may have expired."""
        if url == self._listed:
            return
        self._listed = url
        if Origin.of(url) != self.endpoint.client.origin:
            self.target = Target(url, foreign=True)
        elif self._home != target_of(url):
            self._home, self.target = url, None

    def check_version(self, target: Target, etag: str | None) -> bool:
        """Pin the first strong ``ETag`` of a target, and tell whether this one is the same."""
        if etag is None or not self.pins or _STRONG.match(etag) is None:
            return True
        if target.etag is None:
            target.etag = etag
        return target.etag == etag
