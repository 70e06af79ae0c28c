"""Files of models, written byte by byte as the documents of their formats say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from struct import pack
from typing import Any

from transferkit.content.digest import Digest
from transferkit.content.manifest import Manifest
from transferkit.models.values import ModelFile, ReadAt

OCI = "application/vnd.oci.image.manifest.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"


def reader(content: bytes) -> tuple[ReadAt, int]:
    """Return how a file of that content is read, and its size."""
    return lambda offset, count: content[offset : offset + count], len(content)


def safetensors_file(header: Mapping[str, Any] | bytes, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return pack("<Q", len(raw)) + raw + data


def tensor(dtype: str, shape: Sequence[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def text(value: str | bytes) -> bytes:
    """Return a text as GGUF has it: its length, and its bytes."""
    raw = value if isinstance(value, bytes) else value.encode()
    return pack("<Q", len(raw)) + raw


def pair(key: str, kind: int, value: bytes) -> bytes:
    """Return a pair of GGUF's metadata, its value already in bytes."""
    return text(key) + pack("<I", kind) + value


def gguf_file(
    pairs: Sequence[bytes] = (),
    tensors: Sequence[tuple[str, Sequence[int], int, int]] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    alignment: int = 32,
) -> bytes:
    """Return a GGUF file; a tensor is its name, shape, type and offset."""
    head = b"GGUF" + pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pairs)
    for name, shape, kind, offset in tensors:
        head += text(name) + pack("<I", len(shape)) + b"".join(pack("<Q", size) for size in shape)
        head += pack("<IQ", kind, offset)
    return head + bytes(-len(head) % alignment) + data


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def model_file(path: str, content: bytes | None = None) -> ModelFile:
    content = path.encode() if content is None else content
    return ModelFile(path=path, digest=Digest(digest_of(content)), size=len(content))


def layer(
    media_type: str, number: int = 0, *, more: Mapping[str, Any] | None = None, **annotations: str
) -> dict[str, Any]:
    """Return a descriptor as a manifest has it: ``title=``, ``filepath=``, ``old=`` and others by their short names."""
    named = {
        "title": "org.opencontainers.image.title",
        "filepath": "org.cncf.model.filepath",
        "old": "org.cnai.model.filepath",
        "metadata": "org.cncf.model.file.metadata+json",
        "unpack": "io.deis.oras.content.unpack",
        "subtype": "ml.kitops.modelkit.layer-subtype",
    }
    described: dict[str, Any] = {"mediaType": media_type, "digest": f"sha256:{number:064x}", "size": number}
    if annotations:
        described["annotations"] = {named[key]: value for key, value in annotations.items()}
    return {**described, **(more or {})}


def manifest(
    config: str | None, *layers: Mapping[str, Any], artifact: str | None = None, media_type: str = OCI
) -> Manifest:
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": media_type, "layers": list(layers)}
    if config:
        document["config"] = {"mediaType": config, "digest": f"sha256:{'c' * 64}", "size": 2}
    if artifact:
        document["artifactType"] = artifact
    return Manifest(json.dumps(document).encode(), media_type=media_type)
