"""Where the parts of one blob are asked for: found out once for all threads, and once more when it has expired.

Knows URLs and entity tags. Sends no request itself.
"""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Callable
from typing import TypeVar

from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Flow
from transferkit.errors import TransferKitError
from transferkit.protocol import routes
from transferkit.protocol.origin import Origin, target_of
from transferkit.transport.response import Response

T = TypeVar("T")
_WAIT = 0.05  # seconds between two looks at the flow while another thread asks
# RFC 9110 section 8.8.3; a weak one (W/"...") promises nothing about bytes, and If-Match never takes it.
_STRONG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]{1,1024}"\Z')


class SingleFlight:
    """One thread asks, and those that come meanwhile share what it found, or its failure. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self._failure: TransferKitError | None = None

    def run(self, known: Callable[[], T | None], ask: Callable[[], T], flow: Flow) -> T:
        """Return what ``known`` has, else what ``ask`` finds. A wait ends when the flow is cut.

        A failure of the one who asked is raised by those who waited for it, and by nobody who comes later: a server
        that does not answer costs all threads one time limit, not each of them in turn.
        """
        failures = self._failures
        while not self._lock.acquire(timeout=_WAIT):
            flow.check()
        try:
            found = known()
            if found is not None:
                return found
            if self._failure is not None and self._failures != failures:
                raise copy.copy(self._failure)
            try:
                return ask()
            except TransferKitError as error:
                if not _is_cut(flow):
                    self._failures += 1
                    self._failure = copy.copy(error)  # without its frames, and what they hold
                raise
        finally:
            self._lock.release()


def _is_cut(flow: Flow) -> bool:
    try:
        flow.check()
    except TransferKitError:
        return True
    return False


class Place:
    """Where the parts of a blob are asked for. ``foreign``: on another origin than the registry; it may expire."""

    __slots__ = ("etag", "foreign", "url")

    def __init__(self, url: str, *, foreign: bool) -> None:
        self.url = url
        self.foreign = foreign
        self.etag: str | None = None


class BlobLocation:
    """The whereabouts of one blob. Thread-safe: one for all who fetch parts of it.

    The storage that the registry redirects to is kept only where it is on another origin: it is asked without
    credentials then. What stays on the registry's own goes through the registry each time.
    """

    def __init__(self, registry: Origin, repository: str, descriptor: Descriptor) -> None:
        self._registry = registry
        self._home = routes.blob(repository, descriptor.digest)
        self._place: Place | None = None
        self._flight = SingleFlight()
        self._listed: str | None = None
        self._pins = True

    @property
    def place(self) -> Place | None:
        """Where the parts are asked for; ``None`` while nobody knows."""
        return self._place

    def find(self, refused: Place | None, ask: Callable[[str], Response], flow: Flow) -> tuple[Place, Response | None]:
        """Return a place other than ``refused``; with the answer of ``ask`` where it was this thread that asked."""

        def known() -> tuple[Place, Response | None] | None:
            place = self._place
            return None if place is None or place is refused else (place, None)

        def look() -> tuple[Place, Response | None]:
            answer = ask(self._home)
            storage = Origin.of(answer.url) != self._registry
            place = Place(answer.url if storage else self._home, foreign=storage)
            if answer.status == 206:
                self.check_version(place, answer.headers.get("etag"))
            self._place = place
            return place, answer

        return self._flight.run(known, look, flow)

    def follow(self, url: str) -> None:
        """Ask where the list says. A URL that was followed before is not gone back to: it may have expired."""
        if url == self._listed:
            return
        self._listed = url
        if Origin.of(url) != self._registry:
            self._place = Place(url, foreign=True)
        elif self._home != target_of(url):
            self._home, self._place = url, None

    def leave(self, place: Place) -> None:
        """Forget a place that cannot be reached: the registry may know another."""
        if place.foreign and self._place is place:
            self._place = None

    def check_version(self, place: Place, etag: str | None) -> bool:
        """Pin the first strong ``ETag`` of a place, and tell whether this one is not another."""
        if etag is None or not self._pins or _STRONG.match(etag) is None:
            return True
        if place.etag is None:
            place.etag = etag
        return place.etag == etag

    def unpin(self, place: Place) -> None:
        """Ask without ``If-Match`` from now on: mirrors with tags of their own would be refused again and again.

        Whether it was another version, only the digest of the whole tells.
        """
        self._pins = False
        place.etag = None
