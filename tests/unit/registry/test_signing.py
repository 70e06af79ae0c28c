"""Signatures are artifacts that refer to what they sign."""

from __future__ import annotations

import json

import pytest

from transferkit.content.manifest import OCI_MANIFEST, Manifest
from transferkit.registry.signing import sign_manifest

SIGNED = Manifest(b'{"schemaVersion":2,"layers":[]}', media_type=OCI_MANIFEST)
DIGEST = "sha256:6ece6defe7067e1c5455a7720c1189ad30f7f8efe78587bd7c06e64a80fe7770"  # of those bytes, sha256sum
KIND = "application/vnd.dev.sigstore.bundle.v0.3+json"


def test_a_signature_is_a_bundle_that_refers_to_the_manifest() -> None:
    seen: list[Manifest] = []

    def sign(manifest: Manifest) -> bytes:
        seen.append(manifest)
        return b"hello"

    signature = sign_manifest(SIGNED, sign)
    hello = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # printf hello | sha256sum
    assert ([SIGNED], b"hello", DIGEST) == (seen, signature.bundle, signature.subject)
    assert {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": KIND,
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "size": 2,
        },
        "layers": [{"mediaType": KIND, "digest": hello, "size": 5}],
        "subject": {"mediaType": OCI_MANIFEST, "digest": DIGEST, "size": 31},
    } == json.loads(signature.manifest.raw)


@pytest.mark.parametrize("bundle", ["a text", None, b"", {}])
def test_what_is_no_bundle_is_refused(bundle: object) -> None:
    with pytest.raises(TypeError, match="sign returns the bytes of a Sigstore bundle"):
        sign_manifest(SIGNED, lambda _: bundle)  # type: ignore[arg-type, return-value]
