"""Fetching and pushing manifests: small bodies, verified before they are parsed."""

from __future__ import annotations

from transferkit.content.digest import Digest
from transferkit.content.interfaces import Flow
from transferkit.content.manifest import MAX_MANIFEST, MEDIA_TYPES, Manifest
from transferkit.errors import (
    DigestMismatchError,
    InvalidDigestError,
    InvalidManifestError,
    ManifestNotFoundError,
    ProtocolError,
)
from transferkit.protocol import routes
from transferkit.transport.client import Client
from transferkit.transport.request import BytesBody, Request, RequestBody

_ACCEPT = {"Accept": ", ".join(MEDIA_TYPES)}


def fetch(client: Client, repository: str, reference: str, *, flow: Flow) -> Manifest:
    """Fetch the manifest of a tag or a digest.

    Raises:
        ManifestNotFoundError: there is none.
        DigestMismatchError: the bytes are not what the digest asked for, or the one that the registry announced, says.
        ProtocolError: it is encoded, or longer than 4 MiB.
    """
    reference = routes.check_reference(reference)
    request = Request(
        method="GET",
        url=routes.manifest(repository, reference),
        headers=_ACCEPT,
        ok=(200,),
        scope=routes.pull_scope(repository),
        subject=reference,
        missing=ManifestNotFoundError,
    )
    with client.send(request, flow) as answer:
        encoding = answer.headers.get("content-encoding", "identity")
        if encoding.lower() != "identity":
            raise ProtocolError(
                f"{reference}: {client.origin} sent the manifest with Content-Encoding {encoding[:40]!r}"
            )
        raw = answer.read(MAX_MANIFEST)
        said = answer.headers.get("docker-content-digest")
        media_type = answer.headers.get("content-type", "").partition(";")[0].strip()
    for claim in (reference if isinstance(reference, Digest) else None, said):
        if claim is not None:
            _check(raw, claim, client, reference)
    return Manifest(raw, media_type=media_type)


def push(client: Client, repository: str, raw: bytes, reference: str, *, media_type: str, flow: Flow) -> Digest:
    """Push a manifest, byte for byte, under a tag or its digest.

    Raises:
        DigestMismatchError: ``reference`` is a digest of other bytes, or the registry stored other bytes.
        InvalidManifestError: it is longer than 4 MiB, which registries refuse.
    """
    reference = routes.check_reference(reference)
    if len(raw) > MAX_MANIFEST:
        raise InvalidManifestError(f"the manifest has {len(raw)} bytes; registries take at most {MAX_MANIFEST}")
    if isinstance(reference, Digest):
        _check(raw, reference, client, reference)
    sender = RequestBody(len(raw), lambda: BytesBody(raw), flow)
    try:
        request = Request(
            method="PUT",
            url=routes.manifest(repository, reference),
            headers={"Content-Type": media_type},
            body=sender,
            ok=(200, 201, 204),
            timeout=client.options.commit_timeout,
            scope=routes.push_scope(repository),
            subject=f"the manifest {reference}",
        )
        with client.send(request, flow) as answer:
            said = answer.headers.get("docker-content-digest")
            answer.finish()
    finally:
        sender.rewind()  # a manifest is not part of the progress
    if said is not None:
        _check(raw, said, client, reference)
    return Digest.of(raw)


def _check(raw: bytes, claim: str, client: Client, reference: str) -> None:
    try:
        digest = Digest(claim)
    except InvalidDigestError as error:
        raise ProtocolError(
            f"{reference}: {client.origin} announces the digest {claim[:80]!r}, which is none"
        ) from error
    actual = Digest.of(raw, digest.algorithm)
    if actual != digest:
        raise DigestMismatchError(
            f"the manifest {reference} has the digest {actual.short}, and {client.origin} says {digest.short}"
        )
