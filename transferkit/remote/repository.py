"""A repository: where blobs and manifests are fetched from and pushed to."""

from __future__ import annotations

from collections.abc import Generator

from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.interfaces import Body, Fetcher, Flow, Outcome
from transferkit.content.manifest import Manifest
from transferkit.protocol.routes import check_repository
from transferkit.remote import blobs, chunks, manifests
from transferkit.remote.location import BlobLocation, SingleFlight
from transferkit.remote.upload import Uploads
from transferkit.transport.client import Client


class Repository:
    """One repository of a registry, as a ``Fetcher``, a ``Pusher`` and a home of manifests. Thread-safe.

    It is a ``RangeFetcher`` and a ``ChunkLister`` besides, and remembers where the parts of a blob are to be had.
    ``part_size`` (bytes) makes larger blobs go up in parts.

    Raises:
        InvalidNameError: ``name`` is not the name of a repository.
    """

    def __init__(self, client: Client, name: str, *, part_size: int | None = None) -> None:
        self.client = client
        self.name = check_repository(name)
        self._uploads = Uploads(client, name, part_size=part_size)
        self._locations: dict[Digest, BlobLocation] = {}
        self._flight = SingleFlight()

    def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Flow) -> Body:
        """Open a blob from ``offset`` on; one request where the registry does not redirect."""
        return blobs.fetch(self.client, self.name, descriptor, offset=offset, flow=flow)

    def fetch_range(self, descriptor: Descriptor, chunk: Chunk, *, flow: Flow) -> Body:
        """Open a part of a blob, or all of it (``offset`` 0) where the server has no ranges."""
        state = self._location(descriptor)
        return chunks.fetch_range(self.client, self.name, descriptor, chunk, flow=flow, state=state)

    def chunksums(self, descriptor: Descriptor, *, flow: Flow) -> Generator[tuple[Chunk, Digest], None, None]:
        """Yield a blob's chunks and their digests as they arrive; nothing where the registry has no such list."""
        state = self._location(descriptor)
        return chunks.list_chunksums(self.client, self.name, descriptor, flow=flow, state=state, flight=self._flight)

    def _location(self, descriptor: Descriptor) -> BlobLocation:
        location = self._locations.get(descriptor.digest)
        if location is None:
            fresh = BlobLocation(self.client.origin, self.name, descriptor)
            location = self._locations.setdefault(descriptor.digest, fresh)
        return location

    def exists(self, descriptor: Descriptor, *, flow: Flow) -> bool:
        """Ask whether the repository has the blob. A server error is an error, not an absence."""
        return blobs.exists(self.client, self.name, descriptor, flow=flow)

    def push(self, descriptor: Descriptor, source: Fetcher, *, flow: Flow) -> Outcome:
        """Make one attempt to bring a blob here: it is there already, or mounted, or sent."""
        return self._uploads.push(descriptor, source, flow=flow)

    def fetch_manifest(self, reference: str, *, flow: Flow) -> Manifest:
        """Fetch the manifest of a tag or digest, verified."""
        return manifests.fetch(self.client, self.name, reference, flow=flow)

    def push_manifest(self, raw: bytes, reference: str, *, media_type: str, flow: Flow) -> Digest:
        """Push a manifest, byte for byte, and return its digest once the registry has confirmed it."""
        return manifests.push(self.client, self.name, raw, reference, media_type=media_type, flow=flow)

    def __repr__(self) -> str:
        return f"<Repository {self.name} at {self.client.origin}>"
