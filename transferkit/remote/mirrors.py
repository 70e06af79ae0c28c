"""Mirrors before a registry: asked first, never trusted, and left in the middle of a blob where they fail.

What a mirror sends is held to the digest, as everything is. Its errors are its own: the next mirror is asked, and in
the end the registry, whose errors count. A blob whose content was wrong comes from the registry the second time.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import TypeVar

from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.flow import Flow
from transferkit.errors import CancelledError, NotFoundError, TransferKitError, VerificationError
from transferkit.remote.body import BlobBody
from transferkit.remote.repository import Repository

logger = logging.getLogger(__name__)

T = TypeVar("T")

_ENOUGH = 3  # failures in a row that no blob came between: a mirror is not asked any more


class MirroredRepository:
    """A repository and its mirrors, as a source: a ``RangeFetcher``, ``Pipeliner`` and ``ChunkLister``. Thread-safe.

    ``mirrors`` are asked in their order.
    """

    def __init__(self, mirrors: Sequence[Repository], registry: Repository) -> None:
        self._sources = (*mirrors, registry)
        self.registry = registry
        """The one that is trusted: for what no digest is known of."""
        self._first: dict[Digest, int] = {}  # the first source that a blob may still come from
        self._served: set[tuple[Digest, int]] = set()  # where bodies of mirrors began that came to their end
        self._failures = [0] * len(mirrors)
        self._lock = threading.Lock()

    def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Flow) -> BlobBody:
        return self._body(descriptor, offset, lambda source: source.fetch(descriptor, offset=offset, flow=flow))

    def fetch_range(self, descriptor: Descriptor, chunk: Chunk, *, flow: Flow) -> BlobBody:
        return self._body(descriptor, chunk.start, lambda source: source.fetch_range(descriptor, chunk, flow=flow))

    def pipeline(
        self, descriptors: Sequence[Descriptor], *, more: Callable[[], Sequence[Descriptor]], flow: Flow
    ) -> Generator[memoryview, None, None] | None:
        """Ask the first source that all of some blobs may still come from, as ``Pipeliner`` has it.

        What a mirror does not answer as it should ends the contents, and is asked for in the ordinary way.
        """
        first, last = max(self._first.get(each.digest, 0) for each in descriptors), len(self._failures)
        number = next((n for n in range(first, last) if self._failures[n] < _ENOUGH), last)
        owed = deque(descriptors)

        def more_of_it() -> Sequence[Descriptor]:
            further = more()
            if any(self._first.get(each.digest, 0) > number for each in further):
                return ()
            owed.extend(further)
            return further

        contents = self._sources[number].pipeline(descriptors, more=more_of_it, flow=flow)
        return contents if contents is None or number == last else self._heard(contents, number, owed, flow)

    def _heard(
        self, contents: Generator[memoryview, None, None], number: int, owed: deque[Descriptor], flow: Flow
    ) -> Generator[memoryview, None, None]:
        """Yield what a mirror sends, and take in how it does; its errors only end that."""
        with closing(contents):
            while owed:
                try:
                    content = next(contents, None)
                except CancelledError:
                    raise
                except TransferKitError as error:
                    self._failed(number, owed[0].digest, error)
                    flow.check()  # what was cut is for the whole attempt
                    return
                if content is None:
                    return
                # First: who reads it may find that it is another content, and ask for it again.
                self._served.add((owed.popleft().digest, 0))
                with self._lock:
                    self._failures[number] = 0
                try:
                    yield content
                except VerificationError as wrong:
                    contents.throw(wrong)  # which raises it again
            next(contents, None)  # it has its end, and keeps its connection

    def chunksums(self, descriptor: Descriptor, *, flow: Flow) -> Generator[tuple[Chunk, Digest], None, None]:
        """Yield what the registry says: a list decides what is right, so it is not a mirror's to give."""
        return self.registry.chunksums(descriptor, flow=flow)

    def concerns_all(self, error: TransferKitError) -> bool:
        return self.registry.concerns_all(error)

    def _body(self, descriptor: Descriptor, start: int, fetch: Callable[[Repository], BlobBody]) -> BlobBody:
        """Open a body at the first source that has it; where it breaks off, another one is asked for the rest."""
        digest = descriptor.digest
        if (digest, start) in self._served:  # it came, and is asked for again: it was not the content
            with self._lock:
                self._first[digest] = len(self._failures)
        for number in range(self._first.get(digest, 0), len(self._failures)):
            if self._failures[number] >= _ENOUGH:
                continue
            try:
                return self._watched(fetch(self._sources[number]), number, digest, start)
            except CancelledError:
                raise
            except TransferKitError as error:
                self._failed(number, digest, error)
        return fetch(self.registry)

    def _watched(self, body: BlobBody, number: int, digest: Digest, start: int) -> BlobBody:
        inner, left = body.readinto, body.length

        def readinto(buffer: memoryview) -> int:
            nonlocal left
            try:
                count = inner(buffer)
            except CancelledError:
                raise
            except TransferKitError as error:
                self._failed(number, digest, error)
                raise
            left = None if left is None else left - count
            if left == 0 or (left is None and not count):
                with self._lock:
                    self._failures[number] = 0
                self._served.add((digest, start))
            return count

        return BlobBody(readinto, body.close, body.offset, body.length)

    def _failed(self, number: int, digest: Digest, error: TransferKitError) -> None:
        """Take in that a mirror failed at a blob, which goes on at the next source."""
        origin = self._sources[number].client.origin
        with self._lock:
            self._first[digest] = max(self._first.get(digest, 0), number + 1)
            if isinstance(error, NotFoundError):
                logger.debug("the mirror %s does not have %s", origin, digest.short)
                return
            self._failures[number] += 1
            is_last = self._failures[number] == _ENOUGH
        say = logger.warning if is_last else logger.debug
        say("the mirror %s failed%s: %s", origin, ", and is not asked any more" if is_last else "", error)
