"""Ollama's format of models: its kinds of layers, the names they get as files, and the manifest that its client takes.

Source: ollama/ollama, manifest/layer.go, types/model/config.go, server/create.go, server/create_split_gguf.go,
November 2026. A layer's descriptor may have ``name`` and ``from``, which OCI does not know.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.manifest import DOCKER_MANIFEST, Manifest
from transferkit.errors import InvalidManifestError, InvalidModelError
from transferkit.models.facts import Facts
from transferkit.models.names import DOCKER_CONFIG, numbered, shard_of, shards
from transferkit.models.values import Entry, ModelFile, ReadAt

PREFIX = "application/vnd.ollama.image."
_WEIGHTS = ("projector", "adapter", "draft")  # GGUF files beside the model
_TEXTS = ("template", "system", "params", "messages")  # files that Ollama has under these names
_NAMED = ("tensor", "json")  # one file each, called by the descriptor's own field
_KIND = re.compile(r"[a-z][a-z0-9._-]{0,40}\Z", re.ASCII)
_MAGIC = b"GGUF"  # https://github.com/ggml-org/ggml, docs/gguf.md
_SHARDS_SINCE = "0.35.0"  # the first Ollama that reads a model in shards; server/create_split_gguf.go


def entries(manifest: Manifest) -> list[Entry]:
    """Return the files of a model of Ollama's; InvalidManifestError: a tensor has no name, or a layer no kind."""
    raw = manifest.json().get("layers", [])
    kinds = [_kind_of(layer) for layer in manifest.layers]
    counts = Counter(kinds)
    names = {kind: iter(_names_of(kind, count)) for kind, count in counts.items() if kind not in _NAMED}
    found = []
    for kind, layer, described in zip(kinds, manifest.layers, raw, strict=True):
        path = described.get("name") if kind in _NAMED else next(names[kind])
        if not isinstance(path, str):
            raise InvalidManifestError(f"the {kind} {layer.digest.short} has no name, which would be that of its file")
        found.append(Entry(path=path, descriptor=layer))
    return found


def layout(files: Sequence[ModelFile], facts: Facts) -> tuple[Manifest, bytes]:
    """Return manifest and config of a model for Ollama's client; the layers are those files that it knows.

    Raises:
        InvalidModelError: there is no GGUF file, or there are several that are not the shards of one.
    """
    kinds = {file.path: _kind_for(file.path) for file in files}
    models = [file for file in files if kinds[file.path] == "model"]
    _check(models)
    rest = [file for file in files if kinds[file.path] not in (None, "model")]
    layers = [(kinds[file.path], file) for file in [*models, *rest]]
    described = {
        "model_format": "gguf",
        "model_family": facts.architecture,
        "model_families": [facts.architecture] if facts.architecture else None,
        "model_type": facts.param_size,
        "file_type": facts.quantization,
        "requires": _SHARDS_SINCE if len(models) > 1 else None,
        "architecture": "amd64",  # Docker's image specification wants both; Ollama has always written these
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [file.digest for _, file in layers]},
    }
    config = json.dumps({k: v for k, v in described.items() if v is not None}, separators=(",", ":")).encode()
    document = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {"mediaType": DOCKER_CONFIG, "digest": Digest.of(config), "size": len(config)},
        "layers": [{"mediaType": f"{PREFIX}{kind}", "digest": file.digest, "size": file.size} for kind, file in layers],
    }
    return Manifest(json.dumps(document, separators=(",", ":")).encode(), media_type=DOCKER_MANIFEST), config


def check_weights(files: Mapping[str, tuple[ReadAt, int]]) -> None:
    """See that the files which become weights are GGUF; InvalidModelError: one is not, and its client would fail."""
    for path, (read, _) in files.items():
        if _kind_for(path) in ("model", *_WEIGHTS) and (start := read(0, len(_MAGIC))) != _MAGIC:
            found = f"begins with {start!r}" if start else "is empty"
            raise InvalidModelError(f"{path[:200]!r} {found}, and is no GGUF file; Ollama takes no other weights")


def _kind_of(layer: Descriptor) -> str:
    kind = layer.media_type.removeprefix(PREFIX)
    if not layer.media_type.startswith(PREFIX) or _KIND.match(kind) is None:
        raise InvalidManifestError(
            f"the layer {layer.digest.short} is {layer.media_type[:100]!r}, no layer of Ollama's"
        )
    return kind


def _names_of(kind: str, count: int) -> list[str]:
    if kind == "model":
        return shards(".gguf", count)
    return numbered(f"{kind}.gguf" if kind in _WEIGHTS else kind, count)


def _kind_for(path: str) -> str | None:
    """Return the kind of layer that a file becomes, ``None`` for what Ollama has no use for."""
    name = path.rpartition("/")[2].lower()
    if name.endswith((".gguf", ".mmproj")):
        stem = name.removesuffix(".gguf")
        return "projector" if "mmproj" in name else stem if stem in _WEIGHTS else "model"
    if name.startswith(("license", "licence")):
        return "license"
    return path if path in _TEXTS else None


def _check(models: Sequence[ModelFile]) -> None:
    if not models:
        raise InvalidModelError("there is no GGUF file, and Ollama takes no other weights")
    known = [shard_of(file.path) for file in models]
    first, count = known[0], len(models)
    if known != ([None] if first is None else [(first[0], number, count) for number in range(1, count + 1)]):
        shown = ", ".join(file.path for file in models)[:200]
        raise InvalidModelError(f"Ollama takes one model, or all shards of one, not {shown}; choose one with only=")
