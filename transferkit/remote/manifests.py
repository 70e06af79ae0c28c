"""Fetching and pushing manifests: small bodies, verified before they are parsed."""

from __future__ import annotations

from transferkit.content.digest import Digest
from transferkit.content.flow import Flow
from transferkit.content.manifest import MAX_MANIFEST, MEDIA_TYPES, Index, Manifest, parse
from transferkit.errors import (
    DigestMismatchError,
    InvalidManifestError,
    ManifestNotFoundError,
    NotFoundError,
    ProtocolError,
    ReadError,
    RegistryError,
)
from transferkit.grammar import OLLAMA, check_reference
from transferkit.protocol import routes
from transferkit.protocol.advice import NOT_A_REGISTRY
from transferkit.protocol.upload import announced
from transferkit.remote.body import encoded, encoding_of
from transferkit.remote.endpoint import Endpoint
from transferkit.remote.proof import SUCCESS, WHOLE, is_page, is_stored
from transferkit.transport.request import BytesBody, RequestBody
from transferkit.transport.response import Response

_ACCEPT = {"Accept": ", ".join(MEDIA_TYPES)}


def fetch(endpoint: Endpoint, reference: str, flow: Flow) -> Manifest | Index:
    """Fetch the manifest of a tag or a digest, held to that and to the digest that the registry announces.

    Raises:
        ManifestNotFoundError, DigestMismatchError, InvalidManifestError: there is none, it is another, it is malformed.
        ProtocolError: it is encoded, or longer than 4 MiB.
    """
    reference = check_reference(reference, endpoint.grammar)
    response, raw = _get(endpoint, reference, flow)
    try:
        _check(raw, reference, announced(response.headers))
        return parse(raw, media_type=response.headers.get("content-type", "").partition(";")[0].strip())
    except (DigestMismatchError, InvalidManifestError) as error:
        if encoding_of(response):  # some servers label bytes that are not encoded: those are taken
            raise encoded(response, reference) from error
        if is_page(response) or raw.lstrip()[:1] == b"<":
            what = f"{response.origin} sent an HTML page and no manifest for {reference}"
            raise InvalidManifestError(f"{what}; {NOT_A_REGISTRY}") from error
        raise


def _get(endpoint: Endpoint, reference: str, flow: Flow) -> tuple[Response, bytes]:
    url = routes.manifest(endpoint.name, reference)
    if isinstance(reference, Digest) and endpoint.grammar is OLLAMA:
        url = endpoint.blobs + reference  # a manifest is a blob there, and found by its digest as such
    missing = ManifestNotFoundError
    request = endpoint.read(method="GET", url=url, ok=WHOLE, headers=_ACCEPT, subject=reference, missing=missing)
    with endpoint.client.send(request, flow) as response:
        raw = response.read(MAX_MANIFEST)
        if response.is_cut:
            # The digest of a tag's manifest is that of the bytes that came: nothing else would notice.
            raise ReadError(
                f"{reference}: {response.origin} ended its answer without the end of TLS: it may be cut off"
            )
        return response, raw


def check(raw: bytes | None, reference: str | None, media_type: str | None) -> Manifest | Index | None:
    """Return the manifest that is to be pushed, if there is one.

    Raises:
        InvalidManifestError: it is malformed, too long, or missing where ``reference`` names one.
        DigestMismatchError: ``reference`` is the digest of something else.
    """
    if raw is None:
        if reference is not None:
            raise InvalidManifestError("manifest_ref names a manifest, and there is none: pass manifest= too")
        return None
    if len(raw) > MAX_MANIFEST:
        raise InvalidManifestError(f"the manifest has {len(raw)} bytes; registries take at most {MAX_MANIFEST}")
    asked = check_reference(reference) if reference is not None else None
    if isinstance(asked, Digest) and asked != Digest.of(raw, asked.algorithm):
        raise DigestMismatchError(f"manifest_ref is {asked.short}, and the manifest has another digest")
    return parse(bytes(raw), media_type=media_type or "")


def push(endpoint: Endpoint, raw: bytes, reference: str, *, media_type: str, flow: Flow) -> Digest:
    """Push a manifest, byte for byte, under a tag or its digest.

    Raises:
        DigestMismatchError: ``reference`` is a digest of other bytes, or the registry stored other bytes.
        InvalidManifestError: it is longer than 4 MiB, which registries refuse.
        ProtocolError: the answer does not say that it is stored, and the registry does not have it.
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
        ok=SUCCESS,
        timeout=endpoint.client.options.commit_timeout,
        subject=f"the manifest {reference}",
    )
    try:
        response = endpoint.client.send(request, flow)
        response.finish()
    finally:
        body.rewind()  # a manifest is not part of the progress
    _check(raw, reference, announced(response.headers))
    digest = Digest.of(raw)
    if not is_stored(response, digest) and not _is_there(endpoint, raw, reference, flow):
        what = "a page" if is_page(response) else str(response.status)
        text = f"answered the manifest {reference} with {what}, and does not have it"
        raise ProtocolError(f"{endpoint.client.origin} {text}")
    return digest


def _is_there(endpoint: Endpoint, raw: bytes, reference: str, flow: Flow) -> bool:
    """Tell whether the repository has just this manifest under a tag or digest."""
    try:
        return _get(endpoint, reference, flow)[1] == raw
    except (NotFoundError, RegistryError, ProtocolError) as error:
        if error.retryable:
            raise
        return False


def _check(raw: bytes, reference: str, said: Digest | None = None) -> None:
    """Hold a manifest to the digest that it is asked for by, and to the one that the registry says it has."""
    # docker-registry names the sha256 of what it was asked for by its sha512: the bytes have proved themselves then.
    if isinstance(reference, Digest) and said is not None and said.algorithm != reference.algorithm:
        said = None
    for claim in (reference, said):
        if isinstance(claim, Digest) and claim != (actual := Digest.of(raw, claim.algorithm)):
            raise DigestMismatchError(f"the manifest {reference} has the digest {actual.short}, not {claim.short}")
