"""Fetching and pushing manifests: small bodies, verified before they are parsed."""

from __future__ import annotations

from transferkit.content.digest import Digest
from transferkit.content.interfaces import Flow
from transferkit.content.manifest import MAX_MANIFEST, MEDIA_TYPES, Index, Manifest, parse
from transferkit.errors import DigestMismatchError, InvalidManifestError, ManifestNotFoundError
from transferkit.names import check_reference
from transferkit.protocol import routes
from transferkit.protocol.upload import announced
from transferkit.remote.body import check_response
from transferkit.remote.endpoint import Endpoint
from transferkit.transport.request import BytesBody, RequestBody

_ACCEPT = {"Accept": ", ".join(MEDIA_TYPES)}


def fetch(endpoint: Endpoint, reference: str, flow: Flow) -> Manifest | Index:
    """Fetch the manifest of a tag or a digest, held to that and to the digest that the registry announces.

    Raises:
        ManifestNotFoundError, DigestMismatchError, InvalidManifestError: there is none, it is another, it is malformed.
        ProtocolError: it is encoded, or longer than 4 MiB.
    """
    reference = check_reference(reference, endpoint.grammar)
    url, missing = routes.manifest(endpoint.name, reference), ManifestNotFoundError
    request = endpoint.read(method="GET", url=url, ok=(200,), headers=_ACCEPT, subject=reference, missing=missing)
    with endpoint.client.send(request, flow) as response:
        check_response(response, response.length, reference)
        raw = response.read(MAX_MANIFEST)
    _check(raw, reference, announced(response.headers))
    return parse(raw, media_type=response.headers.get("content-type", "").partition(";")[0].strip())


def push(endpoint: Endpoint, raw: bytes, reference: str, *, media_type: str, flow: Flow) -> Digest:
    """Push a manifest, byte for byte, under a tag or its digest.

    Raises:
        DigestMismatchError: ``reference`` is a digest of other bytes, or the registry stored other bytes.
        InvalidManifestError: it is longer than 4 MiB, which registries refuse.
    """
    reference = check_reference(reference, endpoint.grammar)
    if len(raw) > MAX_MANIFEST:
        raise InvalidManifestError(f"the manifest has {len(raw)} bytes; registries take at most {MAX_MANIFEST}")
    _check(raw, reference)
    body = RequestBody(len(raw), lambda: BytesBody(raw), flow)
    request = endpoint.write(
        method="PUT",
        url=routes.manifest(endpoint.name, reference),
        headers={"Content-Type": media_type},
        body=body,
        ok=(200, 201, 204),
        timeout=endpoint.client.options.commit_timeout,
        subject=f"the manifest {reference}",
    )
    try:
        response = endpoint.client.send(request, flow)
        response.finish()
    finally:
        body.rewind()  # a manifest is not part of the progress
    _check(raw, reference, announced(response.headers))
    return Digest.of(raw)


def _check(raw: bytes, reference: str, said: Digest | None = None) -> None:
    """Hold a manifest to the digest that it is asked for by, and to the one that the registry says it has."""
    for claim in (reference, said):
        if isinstance(claim, Digest) and claim != (actual := Digest.of(raw, claim.algorithm)):
            raise DigestMismatchError(f"the manifest {reference} has the digest {actual.short}, not {claim.short}")
