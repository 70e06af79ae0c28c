"""A repository: where blobs and manifests are fetched from and pushed to."""

from __future__ import annotations

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.interfaces import Body, Fetcher, Flow, Outcome
from transferkit.content.manifest import Manifest
from transferkit.protocol.routes import check_repository
from transferkit.remote import blobs, manifests, upload
from transferkit.transport.client import Client


class Repository:
    """One repository of a registry, as a ``Fetcher``, a ``Pusher`` and a home of manifests. Thread-safe.

    Raises:
        InvalidNameError: ``name`` is not the name of a repository.
    """

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.name = check_repository(name)

    def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Flow) -> Body:
        """Open a blob from ``offset`` on; one request where the registry does not redirect."""
        return blobs.fetch(self.client, self.name, descriptor, offset=offset, flow=flow)

    def exists(self, descriptor: Descriptor, *, flow: Flow) -> bool:
        """Ask whether the repository has the blob. A server error is an error, not an absence."""
        return blobs.exists(self.client, self.name, descriptor, flow=flow)

    def push(self, descriptor: Descriptor, source: Fetcher, *, flow: Flow) -> Outcome:
        """Make one attempt to bring a blob here: it is there already, or mounted, or sent."""
        return upload.push(self.client, self.name, descriptor, source, flow=flow)

    def fetch_manifest(self, reference: str, *, flow: Flow) -> Manifest:
        """Fetch the manifest of a tag or digest, verified."""
        return manifests.fetch(self.client, self.name, reference, flow=flow)

    def push_manifest(self, raw: bytes, reference: str, *, media_type: str, flow: Flow) -> Digest:
        """Push a manifest, byte for byte, and return its digest once the registry has confirmed it."""
        return manifests.push(self.client, self.name, raw, reference, media_type=media_type, flow=flow)

    def __repr__(self) -> str:
        return f"<Repository {self.name} at {self.client.origin}>"
