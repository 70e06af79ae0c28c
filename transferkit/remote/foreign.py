"""Foreign layers: blobs that a registry does not have, and whose manifest says where else they are.

The base layers of Windows images are such. A manifest may name any host, so nothing of the user's goes there, not even
where that is the registry itself; the URL policy holds as for a redirect, and the digest decides what is right.

Source: OCI image specification v1.1, descriptor.md (``urls``) and layer.md (non-distributable layers).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from weakref import WeakSet

from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.flow import Flow
from transferkit.errors import BlobNotFoundError, CancelledError, TransferKitError
from transferkit.protocol.origin import check_step, redact
from transferkit.remote.body import BlobBody, open_body
from transferkit.remote.mirrors import MirroredRepository
from transferkit.remote.repository import Repository
from transferkit.transport.request import Request

logger = logging.getLogger(__name__)


class ForeignLayers:
    """A repository as a source that also asks where manifests say that layers are. Thread-safe.

    The registry, or what stands before it, is asked first.
    """

    def __init__(self, source: Repository | MirroredRepository, registry: Repository) -> None:
        self._source = source
        self._registry = registry
        self._abroad: set[Digest] = set()  # blobs that the registry does not have
        self._served: dict[tuple[Digest, int], str] = {}  # which URL a body came from, by where that began
        self._failures: dict[tuple[Digest, str], int] = {}
        self._theirs: WeakSet[TransferKitError] = WeakSet()  # errors of foreign hosts
        self._lock = threading.Lock()

    def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Flow) -> BlobBody:
        if descriptor.digest not in self._abroad:
            try:
                return self._source.fetch(descriptor, offset=offset, flow=flow)
            except BlobNotFoundError as error:
                self._leave(descriptor, error)
        return self._ask(descriptor, Chunk(offset, max(offset, descriptor.size - 1)), flow)

    def fetch_range(self, descriptor: Descriptor, chunk: Chunk, *, flow: Flow) -> BlobBody:
        if descriptor.digest not in self._abroad:
            try:
                return self._source.fetch_range(descriptor, chunk, flow=flow)
            except BlobNotFoundError as error:
                self._leave(descriptor, error)
        return self._ask(descriptor, chunk, flow)

    def pipeline(
        self, descriptors: Sequence[Descriptor], *, more: Callable[[], Sequence[Descriptor]], flow: Flow
    ) -> Generator[memoryview, None, None] | None:
        """Ask the registry, as ``Pipeliner`` has it, where it may have all of some blobs."""

        def are_at_home(descriptors: Sequence[Descriptor]) -> bool:
            return not any(each.digest in self._abroad for each in descriptors)

        def more_at_home() -> Sequence[Descriptor]:
            return further if are_at_home(further := more()) else ()

        return self._source.pipeline(descriptors, more=more_at_home, flow=flow) if are_at_home(descriptors) else None

    def chunksums(self, descriptor: Descriptor, *, flow: Flow) -> Generator[tuple[Chunk, Digest], None, None]:
        return self._source.chunksums(descriptor, flow=flow)

    def concerns_all(self, error: TransferKitError) -> bool:
        """Tell whether an error would be the same for every other content: never that of a foreign host."""
        is_theirs = error in self._theirs or error.__cause__ in self._theirs
        return not is_theirs and self._source.concerns_all(error)

    def _leave(self, descriptor: Descriptor, error: BlobNotFoundError) -> None:
        """Take in that the registry does not have a blob; without another place to ask, that is the end."""
        if not descriptor.urls:
            raise error
        self._abroad.add(descriptor.digest)

    def _ask(self, descriptor: Descriptor, chunk: Chunk, flow: Flow) -> BlobBody:
        """Open a part of a blob, or all of it where there are no ranges, at the first place that has it.

        Places that have failed for this blob come last, however they did: refused, cut, or with other bytes.
        """
        digest, refused = descriptor.digest, list[TransferKitError]()
        with self._lock:
            before = self._served.pop((digest, chunk.start), None)
        if before is not None:  # it came, and is asked for again: it was not the content
            self._failed(digest, before)
        for url in sorted(descriptor.urls, key=lambda url: self._failures.get((digest, url), 0)):
            try:
                body = self._open(descriptor, url, chunk, flow)
            except CancelledError:
                raise
            except TransferKitError as error:
                flow.check()
                logger.debug("the foreign layer %s is not to be had at %s: %s", digest.short, redact(url), error)
                self._failed(digest, url)
                refused.append(error)
                continue
            with self._lock:
                self._served[digest, chunk.start] = url
            return self._watched(body, digest, url)
        # Where one of them may have it later, that is tried.
        theirs = next((error for error in refused if error.retryable), refused[0])
        self._theirs.add(theirs)
        raise theirs

    def _open(self, descriptor: Descriptor, url: str, chunk: Chunk, flow: Flow) -> BlobBody:
        client = self._registry.client
        check_step(client.origin, url, previous=client.origin, allowed=client.options.storage_hosts)
        whole = chunk.start == 0 and chunk.end >= descriptor.size - 1
        request = Request(
            method="GET",
            url=url,
            ok=(200,) if whole else (200, 206),
            headers={} if whole else {"Range": f"bytes={chunk}"},
            subject=f"the foreign layer {descriptor.digest.short}",
            missing=BlobNotFoundError,
            is_content=True,
            anonymous=True,
        )
        return open_body(client.send(request, flow), chunk.start, chunk.end, descriptor)

    def _watched(self, body: BlobBody, digest: Digest, url: str) -> BlobBody:
        inner = body.readinto

        def readinto(buffer: memoryview) -> int:
            try:
                return inner(buffer)
            except TransferKitError:
                self._failed(digest, url)
                raise

        return replace(body, readinto=readinto)

    def _failed(self, digest: Digest, url: str) -> None:
        """Take in that a place failed for a blob."""
        with self._lock:
            self._failures[digest, url] = self._failures.get((digest, url), 0) + 1
