"""Manifests: raw bytes first, and what they say second.

Source: OCI image specification v1.1 (manifest.md, image-index.md), Docker image manifest V2 schema 2.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from transferkit.content.descriptor import OCTET_STREAM, Descriptor
from transferkit.content.digest import Digest
from transferkit.errors import InvalidDescriptorError, InvalidDigestError, InvalidManifestError

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
_INDEXES = (OCI_INDEX, DOCKER_INDEX)
MEDIA_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST, *_INDEXES)
# One line of visible ASCII: it is sent on as a Content-Type, and may come from another registry's manifest.
_MEDIA_TYPE = re.compile(r"[!-~][ -~]{0,254}\Z", re.ASCII)
MAX_MANIFEST = 4 * 1024 * 1024  # OCI distribution specification v1.1: registries accept at least 4 MiB


@dataclass(frozen=True)
class Manifest:
    """A manifest as it was received: ``raw`` bytes, their digest, and the descriptors in them.

    ``media_type`` is what the server called it, or what the manifest calls itself. Immutable.

    Raises:
        InvalidManifestError: not a JSON object, malformed descriptors, both layers and manifests, or a media type that
            contradicts the server's or the content (GHSA-mc8v-mgrf-8f4m).

    >>> Manifest(b'{"schemaVersion": 2, "layers": []}').layers
    ()
    """

    raw: bytes = field(repr=False)
    media_type: str = ""
    config: Descriptor | None = field(init=False, default=None)
    layers: tuple[Descriptor, ...] = field(init=False, default=())
    annotations: dict[str, str] = field(init=False, default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        data = _parse(self.raw)
        own = data.get("mediaType")
        if own is not None and not isinstance(own, str):
            raise InvalidManifestError("the manifest's mediaType is not a text")
        if "manifests" in data and "layers" in data:
            raise InvalidManifestError(
                "the manifest has both layers and manifests; it may mean two things, and is refused"
            )
        if own and self.media_type in MEDIA_TYPES and own != self.media_type:
            raise InvalidManifestError(f"the server calls the manifest {self.media_type}, it calls itself {own[:100]}")
        declared = self.media_type if self.media_type in MEDIA_TYPES else own
        # What another client reads in it must not depend on whether that one believes the type or the content.
        strange = ("layers", "config") if declared in _INDEXES else ("manifests",) if declared in MEDIA_TYPES else ()
        if any(key in data for key in strange):
            raise InvalidManifestError(f"the manifest is called {declared}, and has {' or '.join(strange)}")
        media_type = declared or self.media_type or OCI_MANIFEST
        if _MEDIA_TYPE.match(media_type) is None:
            raise InvalidManifestError(f"the manifest's media type {media_type[:100]!r} is none")
        config = data.get("config")
        annotations = data.get("annotations")
        values = {
            "media_type": media_type,
            "config": _descriptor(config) if config is not None else None,
            "layers": tuple(_descriptor(layer) for layer in _list(data, "layers")),
            "annotations": _texts(annotations) if isinstance(annotations, dict) else {},
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def digest(self) -> Digest:
        """The digest of exactly the raw bytes."""
        return Digest.of(self.raw)

    @property
    def size(self) -> int:
        """How many bytes all blobs have together, each counted once."""
        blobs = {d.digest: d.size for d in (*self.layers, *([self.config] if self.config else []))}
        return sum(blobs.values())

    def json(self) -> dict[str, Any]:
        """Return the manifest as parsed JSON, anew each time."""
        return _parse(self.raw)


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        data = json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidManifestError(f"the manifest is not JSON: {type(error).__name__}") from error
    if not isinstance(data, dict):
        raise InvalidManifestError(f"the manifest is not a JSON object but {type(data).__name__}")
    return data


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _list(data: dict[str, Any], key: str) -> list[Any]:
    value = data.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidManifestError(f"the manifest's {key} are not a list")
    return value


def _descriptor(data: Any) -> Descriptor:
    if not isinstance(data, dict):
        raise InvalidManifestError("a descriptor in the manifest is not a JSON object")
    media_type = data.get("mediaType", OCTET_STREAM)
    if not isinstance(media_type, str):
        raise InvalidManifestError("a descriptor in the manifest has a mediaType that is not a text")
    try:
        return Descriptor(
            data.get("digest"),  # type: ignore[arg-type]  # checked there, whatever it is
            data.get("size"),  # type: ignore[arg-type]  # as above
            media_type=media_type,
            annotations=tuple(sorted(_texts(data.get("annotations")).items())),
        )
    except (InvalidDigestError, InvalidDescriptorError) as error:
        raise InvalidManifestError(f"a descriptor in the manifest is malformed: {error}") from error


def _texts(value: Any) -> dict[str, str]:
    """Return the pairs of an annotation map; what is no text is left out, as annotations promise nothing."""
    if not isinstance(value, dict):
        return {}
    return {k: v for k, v in value.items() if isinstance(v, str)}
