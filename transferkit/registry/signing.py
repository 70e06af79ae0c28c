"""Signatures of manifests as Sigstore bundles: artifacts that refer to what they sign.

What signs is the user's: a function that gets a manifest, and returns a bundle over its digest. Source: Sigstore bundle
specification, cosign's "OCI 1.1 referrers" (``--new-bundle-format``), November 2026.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.manifest import Manifest
from transferkit.registry.artifacts import artifact
from transferkit.remote.repository import Repository
from transferkit.transfer.flow import WorkerFlow

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"

Sign = Callable[[Manifest], bytes]


@dataclass(frozen=True, slots=True)
class Signature:
    """A bundle, and the artifact that has it."""

    subject: Digest
    bundle: bytes
    manifest: Manifest

    def entering(self, repository: Repository) -> Callable[[WorkerFlow], None]:
        """Return what has a repository list the signature, once it is there, if it does not do that by itself."""
        return lambda flow: repository.refer(self.subject, [self.manifest], flow=flow)


def sign_manifest(manifest: Manifest, sign: Sign) -> Signature:
    """Have a manifest signed. TypeError: the function returned something else than bytes."""
    bundle = sign(manifest)
    if not isinstance(bundle, bytes) or not bundle:
        raise TypeError(f"sign returns the bytes of a Sigstore bundle, not {type(bundle).__name__}")
    layer = Descriptor(Digest.of(bundle), len(bundle), media_type=BUNDLE)
    return Signature(manifest.digest, bundle, artifact(BUNDLE, [layer], {}, subject=manifest))
