"""Safetensors files, written byte by byte, and models of them in a registry; nothing of the library is used."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

from tests.functional.models import OCI_MANIFEST, described, host, put_blob, put_manifest

EMPTY = b"{}"
TITLE = "org.opencontainers.image.title"

Written = Mapping[str, tuple[str, list[int], bytes]]
"""Tensors by name: dtype, shape, and the bytes."""


def safetensors_of(tensors: Written, **metadata: str) -> bytes:
    """Return a file: 8 bytes of length, the header, and the tensors one behind the other."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + b"".join(data for _, _, data in tensors.values())


def data_start(file: bytes) -> int:
    """Return where the tensors of a file begin."""
    return 8 + int(struct.unpack("<Q", file[:8])[0])


def manifest_of(files: Mapping[str, bytes], **more: Any) -> bytes:
    """Return the manifest that ``oras push`` writes for some files."""
    layers = [described(data, annotations={TITLE: path}) for path, data in files.items()]
    config = described(EMPTY, "application/vnd.oci.empty.v1+json")
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers, **more}
    return json.dumps(document).encode()


def put_model(url: str, files: Mapping[str, bytes], *, repository: str = "team/model", tag: str = "v1") -> str:
    """Put files into a registry as a model; return its name."""
    for data in (EMPTY, *files.values()):
        put_blob(url, repository, data)
    put_manifest(url, repository, tag, manifest_of(files))
    return f"oci://{host(url)}/{repository}:{tag}"
