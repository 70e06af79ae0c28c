"""KitOps' ModelKits: tar layers, raw ones since 1.15, and the Kitfile in the config.

Source: kitops-ml/kitops, pkg/artifact/kitfile.go and pkg/lib/filesystem (unpack/core.go, tar.go, raw.go), 2024 to 2026.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from transferkit.content.descriptor import Descriptor
from transferkit.content.manifest import Manifest
from transferkit.errors import InvalidManifestError
from transferkit.models.names import packing_of, path_of
from transferkit.models.values import Entry, Packing

PREFIX = "application/vnd.kitops.modelkit."
CONFIG = f"{PREFIX}config.v1+json"
_SUBTYPE = "ml.kitops.modelkit.layer-subtype"  # of a layer of code that is a prompt
_LISTS = {"code": "code", "prompt": "prompts", "dataset": "datasets", "docs": "docs"}  # kind: key of a Kitfile


def wants_config(manifest: Manifest) -> bool:
    """Tell whether the Kitfile has to be read: it alone names the layers of older ModelKits, and a model elsewhere."""
    return any(path_of(layer) is None for layer in manifest.layers) or not _has_model(manifest)


def entries(manifest: Manifest, config: bytes | None) -> list[Entry]:
    """Return the files of a ModelKit, with its Kitfile: the config is JSON, which is YAML as well.

    Raises:
        InvalidManifestError: its config is needed and not given, or is no Kitfile; its model is in another ModelKit.
    """
    kitfile: dict[str, Any] = {}
    if wants_config(manifest):
        if config is None:
            raise InvalidManifestError("the files of this ModelKit are named in its config, which is needed")
        kitfile = _parse(config)
    if not _has_model(manifest) and (parent := _model(kitfile).get("path")):
        raise InvalidManifestError(f"the model of this ModelKit is in another, {str(parent)[:200]!r}; pull that one")
    named = _Named(kitfile)
    found = [named.entry(layer) for layer in manifest.layers if layer.media_type != CONFIG]
    if manifest.config is not None and manifest.config.media_type == CONFIG:
        found.append(Entry(path="Kitfile", descriptor=manifest.config))
    return found


class _Named:
    """The parts of a Kitfile, each given out once, in the order in which KitOps writes the layers of its kind."""

    def __init__(self, kitfile: Mapping[str, Any]) -> None:
        model = _model(kitfile)
        self.parts: dict[str, Iterator[dict[str, Any]]] = {
            "model": iter([model]),
            "modelpart": _listed(model, "parts"),
            **{kind: _listed(kitfile, key) for kind, key in _LISTS.items()},
        }

    def entry(self, layer: Descriptor) -> Entry:
        """Return what a layer is: a file by its name, or a tar of paths that begin at the folder of the ModelKit."""
        packing, own = packing_of(layer), path_of(layer)
        part = next(self.parts.get(_kind_of(layer), iter(())), {})
        path = own or part.get("path")
        if not isinstance(path, str) or not path:
            raise InvalidManifestError(f"the layer {layer.digest.short} has no path, neither itself nor in the Kitfile")
        path = path.removeprefix("./")
        if packing is Packing.NONE:
            return Entry(path=path, descriptor=layer)
        # Layers that KitOps knows by digest have whole paths in the tar; older ones have a name in their part's folder.
        is_whole = own is not None or "digest" in part
        return Entry(path="" if is_whole else path.rpartition("/")[0], descriptor=layer, packing=packing)


def _kind_of(layer: Descriptor) -> str:
    kind = layer.media_type.removeprefix(PREFIX).partition(".")[0]
    return "prompt" if kind == "code" and dict(layer.annotations).get(_SUBTYPE) == "prompt" else kind


def _has_model(manifest: Manifest) -> bool:
    return any(_kind_of(layer) == "model" for layer in manifest.layers)


def _model(kitfile: Mapping[str, Any]) -> dict[str, Any]:
    model = kitfile.get("model")
    return model if isinstance(model, dict) else {}


def _listed(kitfile: Mapping[str, Any], key: str) -> Iterator[dict[str, Any]]:
    """Return the parts of one kind; those that lie elsewhere, such as ``s3://``, have no layer."""
    parts = kitfile.get(key)
    parts = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return iter([part for part in parts if "://" not in str(part.get("path"))])


def _parse(config: bytes) -> dict[str, Any]:
    try:
        kitfile = json.loads(config)
    except (ValueError, RecursionError) as error:
        raise InvalidManifestError(f"the ModelKit's config is not JSON: {type(error).__name__}") from error
    if not isinstance(kitfile, dict):
        raise InvalidManifestError("the ModelKit's config is no Kitfile")
    return kitfile
