"""A model of five bytes, for scripted servers."""

from __future__ import annotations

import json

HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # printf hello | sha256sum


def manifest_of(media_type: str, config_type: str, layer_type: str) -> bytes:
    """Return the manifest of a model whose config and whose one layer are ``hello``."""
    config, layer = ({"mediaType": kind, "digest": HELLO, "size": 5} for kind in (config_type, layer_type))
    return json.dumps({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer]}).encode()


MANIFEST = manifest_of(
    "application/vnd.oci.image.manifest.v1+json", "application/vnd.example", "application/vnd.example"
)
