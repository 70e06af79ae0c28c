"""Where the parts of one blob are asked for: found once for all threads, and once again when it has expired.

Knows URLs and entity tags. Sends no request itself.
"""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Flow
from transferkit.errors import BlobNotFoundError, TransferKitError
from transferkit.protocol.origin import Origin, target_of
from transferkit.remote.endpoint import Endpoint
from transferkit.transport.request import Request
from transferkit.transport.response import Response

_LOOK = 0.05  # seconds between two tries to get the turn
_OK = (200, 206, 412, 416)
# RFC 9110 section 8.8.3; a weak one (W/"...") promises nothing about bytes, and If-Match never takes it.
_STRONG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]{1,1024}"\Z')


class SingleFlight:
    """The turn to ask, for all threads that would ask the same. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self._failure: TransferKitError | None = None

    @contextmanager
    def turn(self, flow: Flow) -> Iterator[None]:
        """Wait for the turn, and hold it; who gets it looks first whether another thread has found the answer.

        A failure is raised by those who waited for it, and by nobody who comes later: a server that does not answer
        costs all threads one time limit, not each of them in turn.
        """
        failures = self._failures
        while not self._lock.acquire(blocking=False):
            flow.wait(_LOOK)
        try:
            if self._failure is not None and self._failures != failures:
                raise copy.copy(self._failure)
            try:
                yield
                self._failure = None
            except TransferKitError as error:
                flow.check()  # a thread that was cut says nothing about the server
                self._failures += 1
                self._failure = copy.copy(error)  # without its frames, and what they hold
                raise
        finally:
            self._lock.release()


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
