"""A repository: where blobs and manifests are fetched from and pushed to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any

from transferkit import errors
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.flow import Flow
from transferkit.content.interfaces import Fetcher, Notes, Outcome
from transferkit.content.manifest import Index, Manifest
from transferkit.protocol.upload import PartRules
from transferkit.remote import listing, manifests, upload_oci, upload_ollama
from transferkit.remote.blobs import RepositoryBlobs
from transferkit.remote.upload import StartAgain, Upload, Uploads, UploadSession
from transferkit.transport.client import Client

_WRONG = 400  # DIGEST_INVALID among others: OCI distribution specification v1.1, "Error Codes"


class Repository(RepositoryBlobs):
    """One repository of a registry: its blobs, which it takes as a ``PartPusher``, too, and home of manifests.

    Thread-safe. ``part_size`` (bytes) makes larger blobs go up in parts; ``notes`` lets another process go on with an
    upload. A ``name`` that is none is an InvalidNameError.
    """

    def __init__(self, client: Client, name: str, *, part_size: int | None = None, notes: Notes | None = None) -> None:
        super().__init__(client, name)
        rules = PartRules(part_size)
        start: Callable[[Upload], UploadSession | Outcome] = upload_ollama.start_session
        restore: Callable[[Upload, dict[str, Any]], UploadSession | None] = upload_ollama.restore_session
        if not self._is_ollama:
            start = partial(upload_oci.start_session, rules=rules)
            restore = partial(upload_oci.restore_session, rules=rules)
        self._uploads = Uploads(self._endpoint, start, restore, notes)

    def exists(self, descriptor: Descriptor, *, flow: Flow) -> bool:
        """Ask whether the repository has the blob. A server error is an error, not an absence."""
        return self._endpoint.exists(descriptor, flow)

    def describe(self, digest: Digest, *, flow: Flow) -> Descriptor:
        """Ask how large a blob is. BlobNotFoundError: there is none; ProtocolError: the registry does not say it."""
        with self.client.cleaned():
            return self._endpoint.describe(digest, flow)

    def may_have(self, descriptor: Descriptor, *, flow: Flow) -> bool:
        """Ask whether the repository has the blob; who does not say may have it."""
        try:
            return self.exists(descriptor, flow=flow)
        except errors.TransferKitError as error:
            if error.retryable or not isinstance(error, (errors.RegistryError, errors.ProtocolError)):
                raise
            return True

    def parts(self, descriptors: Collection[Descriptor]) -> int:
        """Return how many workers the uploads of these may keep busy: the parts of Ollama's dialect go side by side."""
        if not self._is_ollama:
            return len(descriptors)
        return sum(upload_ollama.parts_at_once(descriptor.size) for descriptor in descriptors)

    def push(self, descriptor: Descriptor, source: Fetcher, *, flow: Flow) -> Outcome:
        """Make one attempt to bring a blob here; another goes on from what the registry has.

        A file that is not what its digest says is a SourceError, and the registry never hears that it is complete.
        """
        with Upload(self._uploads, descriptor, source, flow) as upload:
            session = upload.session()
            while not isinstance(session, Outcome):
                try:
                    session = session.send(upload)
                except StartAgain as again:
                    session = upload.session(again.args[0])
                except errors.RegistryError as error:
                    if error.status == _WRONG:
                        upload.doubt()
                    raise
        return session

    def concerns_all(self, error: errors.TransferKitError) -> bool:
        """Tell whether an error would be the same for every other content; who may begin no upload may not push."""
        return (self._uploads.is_denied and isinstance(error, errors.DeniedError)) or super().concerns_all(error)

    def fetch_manifest(self, reference: str, *, flow: Flow) -> Manifest | Index:
        """Fetch the manifest of a tag or digest, verified."""
        with self.client.cleaned():
            return manifests.fetch(self._endpoint, reference, flow)

    def tags(self, *, flow: Flow) -> Iterator[str]:
        """Yield the tags of the repository, page by page."""
        with self.client.cleaned():
            yield from listing.tags(self._endpoint, flow)

    def referrers(self, digest: Digest, *, flow: Flow) -> Iterator[Descriptor]:
        """Yield the manifests that name ``digest`` as their subject."""
        with self.client.cleaned():
            yield from listing.referrers(self._endpoint, digest, flow)

    def refer(self, subject: Digest, documents: Sequence[Manifest | Index], *, flow: Flow) -> None:
        """See that the repository lists manifests that were pushed, and have ``subject`` as theirs."""
        with self.client.cleaned():
            listing.refer(self._endpoint, subject, documents, flow)

    def push_manifest(self, raw: bytes, reference: str, *, media_type: str, flow: Flow) -> Digest:
        """Push a manifest, byte for byte, and return its digest once the registry has confirmed it."""
        return manifests.push(self._endpoint, raw, reference, media_type=media_type, flow=flow)
