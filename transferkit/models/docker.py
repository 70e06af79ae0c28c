"""Docker's own format of models: its media types, the names of files that have none, and the config.

Source: docker/model-runner, pkg/distribution (types/config.go, internal/bundle/unpack.go, builder/from_directory.go),
November 2026. A config of v0.2 comes with layers that name their files; one of v0.1 names them by kind.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from transferkit.content.descriptor import Descriptor
from transferkit.content.manifest import Manifest
from transferkit.errors import InvalidManifestError
from transferkit.models.facts import Facts
from transferkit.models.kinds import DOC, WEIGHT, kind_of
from transferkit.models.names import numbered, packing_of, path_of, shards
from transferkit.models.values import Entry, ModelFile, Packing

PREFIX = "application/vnd.docker.ai."
CONFIG = f"{PREFIX}model.config.v0.2+json"
_BY_KIND = f"{PREFIX}model.config.v0.1+json"  # its layers have no names, or such that Docker passes over
_GGUF, _SAFETENSORS, _DDUF = f"{PREFIX}gguf.v3", f"{PREFIX}safetensors", f"{PREFIX}dduf"
_PROJECTOR, _TEMPLATE = f"{PREFIX}mmproj", f"{PREFIX}chat.template.jinja"
_LICENSE, _FILE = f"{PREFIX}license", f"{PREFIX}model.file"
_WEIGHTS = {_GGUF: ".gguf", _SAFETENSORS: ".safetensors", _DDUF: ".dduf"}
_NAMES = {_PROJECTOR: "model.mmproj", _TEMPLATE: "template.jinja", _LICENSE: "LICENSE"}


def entries(manifest: Manifest) -> list[Entry]:
    """Return the files of a model of Docker's; InvalidManifestError: a layer has no name and no known kind."""
    by_kind = manifest.config is not None and manifest.config.media_type == _BY_KIND
    names = {kind: iter(_names_of(kind, manifest.layers)) for kind in (*_WEIGHTS, *_NAMES)}
    found = []
    for layer in manifest.layers:
        if (packing := packing_of(layer)) is not Packing.NONE:
            found.append(Entry(path="", descriptor=layer, packing=packing))
            continue
        name = next(names[layer.media_type]) if layer.media_type in names else None
        path = (name if by_kind else None) or path_of(layer) or name
        if path is None:
            raise InvalidManifestError(f"the layer {layer.digest.short} ({layer.media_type[:100]}) has no file name")
        found.append(Entry(path=path, descriptor=layer))
    return found


def media_types(files: Sequence[ModelFile]) -> list[str]:
    """Return the type of each file's layer; Docker takes one projector and one chat template, the first of each."""
    singles = {_PROJECTOR, _TEMPLATE}
    taken: set[str] = set()
    found = []
    for file in files:
        kind = _kind(file.path)
        found.append(_FILE if kind in taken else kind)
        taken |= {kind} & singles
    return found


def config(files: Sequence[ModelFile], facts: Facts, created: str | None) -> bytes:
    """Return the config blob of a model whose layers are ``files``, in their order."""
    weights = sum(file.size for file in files if kind_of(file.path) == WEIGHT)
    described = {
        "format": facts.format,
        "quantization": facts.quantization,
        "parameters": facts.param_size,
        "architecture": facts.architecture,
        "size": f"{weights / 1e6:.2f}MB" if weights else None,
    }
    document = {
        "config": {key: value for key, value in described.items() if value is not None},
        "descriptor": {"created": created} if created else {},
        "rootfs": {"type": "rootfs", "diff_ids": [file.digest for file in files]},
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _names_of(kind: str, layers: Sequence[Descriptor]) -> list[str]:
    count = sum(layer.media_type == kind for layer in layers)
    return shards(_WEIGHTS[kind], count) if kind in _WEIGHTS else numbered(_NAMES[kind], count)


def _kind(path: str) -> str:
    name = path.rpartition("/")[2].lower()
    if name.endswith((".gguf", ".mmproj")) and "mmproj" in name:
        return _PROJECTOR
    for kind, ending in _WEIGHTS.items():
        if name.endswith(ending):
            return kind
    if name.endswith(".jinja"):
        return _TEMPLATE
    return _LICENSE if kind_of(path) == DOC and name.startswith(("license", "licence")) else _FILE
