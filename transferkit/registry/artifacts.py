"""Artifacts without a config of their own, and contents in memory that are pushed beside files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.flow import Flow
from transferkit.content.interfaces import Body, Fetcher, Judge
from transferkit.content.manifest import OCI_MANIFEST, Manifest
from transferkit.errors import TransferKitError
from transferkit.transport.request import BytesBody

# Source: OCI image specification v1.1, "Guidance for an empty descriptor".
EMPTY_CONFIG = b"{}"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
EMPTY = {Digest.of(EMPTY_CONFIG): EMPTY_CONFIG}


def artifact(
    artifact_type: str,
    layers: Sequence[Descriptor],
    annotations: Mapping[str, str],
    subject: Manifest | None = None,
) -> Manifest:
    """Return the manifest of an artifact that has these layers in their order, and refers to ``subject``."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": _entry(Descriptor(Digest.of(EMPTY_CONFIG), len(EMPTY_CONFIG), media_type=EMPTY_TYPE)),
        "layers": [_entry(layer) for layer in layers],
    }
    if subject is not None:
        document["subject"] = _entry(Descriptor(subject.digest, len(subject.raw), media_type=subject.media_type))
    if annotations:
        document["annotations"] = dict(annotations)
    return Manifest(json.dumps(document, separators=(",", ":")).encode(), media_type=OCI_MANIFEST)


def _entry(descriptor: Descriptor) -> dict[str, Any]:
    entry = {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}
    return {**entry, **({"annotations": dict(descriptor.annotations)} if descriptor.annotations else {})}


@dataclass(frozen=True, slots=True)
class InMemory:
    """Small contents as a source of blobs, and another source for all others. Thread-safe as that is."""

    contents: Mapping[Digest, bytes]
    others: Fetcher

    def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Flow) -> Body:
        content = self.contents.get(descriptor.digest)
        return self.others.fetch(descriptor, offset=offset, flow=flow) if content is None else BytesBody(content)

    def concerns_all(self, error: TransferKitError) -> bool:
        return isinstance(self.others, Judge) and self.others.concerns_all(error)
