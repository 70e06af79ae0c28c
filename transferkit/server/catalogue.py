"""What the cache has, as the read-only calls of Ollama's API tell it: models with sizes and ages, and what they are.

Reads manifests and small blobs; sends no request. One that is malformed hides no other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

from transferkit.content.digest import Digest
from transferkit.content.manifest import Manifest
from transferkit.errors import TransferKitError
from transferkit.names import Name, short
from transferkit.storage.cache import DiskCache

_TYPE = "application/vnd.ollama.image."
_MOST_TEXT = 1024 * 1024  # bytes of a template, a licence or a config that are read


def tags(cache: DiskCache) -> dict[str, Any]:
    """Return all models, the newest first."""
    models = list(_listed(cache))
    return {"models": sorted(models, key=lambda model: str(model["modified_at"]), reverse=True)}


def _listed(cache: DiskCache) -> Iterator[dict[str, Any]]:
    for name in cache.links():
        with suppress(TransferKitError, OSError):
            document = cache.document(name)
            details = _details(cache, document) if isinstance(document, Manifest) else {}
            size = document.size if isinstance(document, Manifest) else len(document.raw)
            yield {
                "name": short(name),
                "model": short(name),
                "modified_at": _modified(cache, name),
                "size": size,
                "digest": document.digest.hex,
                "details": details,
            }


def show(cache: DiskCache, name: Name) -> dict[str, Any]:
    """Return what a model is: its texts, its details and its manifest. ManifestNotFoundError: it is not there."""
    document = cache.document(name)
    found: dict[str, Any] = {"modified_at": _modified(cache, name), "digest": document.digest.hex}
    if not isinstance(document, Manifest):
        return {**found, "details": {}, "model_info": {}, "capabilities": [], "manifest": document.json()}
    texts: dict[str, list[str]] = {}
    for layer in document.layers:
        kind = layer.media_type.removeprefix(_TYPE)
        if kind in ("license", "template", "system", "params") and layer.size <= _MOST_TEXT:
            with suppress(TransferKitError):
                texts.setdefault(kind, []).append(cache.read(layer.digest).decode("utf-8", "replace"))
    details = _details(cache, document)
    weights = [layer for layer in document.layers if layer.media_type == f"{_TYPE}model"] or list(document.layers[:1])
    return {
        "license": "\n".join(texts.get("license", [])),
        "modelfile": _modelfile(cache, name, weights[0].digest if weights else None, texts),
        "parameters": _parameters(texts.get("params", [])),
        "template": "".join(texts.get("template", [])),
        "system": "".join(texts.get("system", [])),
        "details": details,
        "model_info": {"general.architecture": details["family"]} if details.get("family") else {},
        "capabilities": ["completion"] if details.get("format") == "gguf" else [],
        **found,
        "manifest": document.json(),
    }


def _details(cache: DiskCache, manifest: Manifest) -> dict[str, Any]:
    """Return what the config says of a model, in the words of Ollama's, whichever of two wrote it."""
    config: Any = {}
    if manifest.config is not None and manifest.config.size <= _MOST_TEXT:
        with suppress(TransferKitError, ValueError, RecursionError):
            config = json.loads(cache.read(manifest.config.digest))
    config = config if isinstance(config, dict) else {}
    pack = config.get("config") if isinstance(config.get("config"), dict) else {}  # ModelPack's
    family = _text(config, "model_family") or _text(pack, "architecture")
    families = config.get("model_families")
    families = [each for each in families if isinstance(each, str)] if isinstance(families, list) else []
    return {
        "parent_model": "",
        "format": _text(config, "model_format") or _text(pack, "format"),
        "family": family,
        "families": families or ([family] if family else []),
        "parameter_size": _text(config, "model_type") or _text(pack, "paramSize"),
        "quantization_level": _text(config, "file_type") or _text(pack, "quantization") or _text(pack, "precision"),
    }


def _text(document: dict[str, Any], key: str) -> str:
    value = document.get(key)
    return value if isinstance(value, str) else ""


def _modelfile(cache: DiskCache, name: Name, weights: Digest | None, texts: dict[str, list[str]]) -> str:
    lines = [f"# FROM {short(name)}"]
    if weights is not None:
        lines.append(f"FROM {cache.path(weights)}")
    lines += [f'{kind.upper()} """{text}"""' for kind in ("template", "system") for text in texts.get(kind, [])]
    lines += [f"PARAMETER {line}" for line in _parameters(texts.get("params", [])).splitlines()]
    return "\n".join([*lines, *(f'LICENSE """{text}"""' for text in texts.get("license", [])), ""])


def _parameters(texts: list[str]) -> str:
    """Return parameters as Ollama shows them: a name and a value a line."""
    lines = []
    for text in texts:
        with suppress(ValueError, RecursionError):
            for key, value in dict(json.loads(text)).items():
                values = value if isinstance(value, list) else [value]
                lines += [f"{key:<30} {json.dumps(each)}" for each in values]
    return "\n".join(lines)


def _modified(cache: DiskCache, name: Name) -> str:
    """Return when a name was linked, as RFC 3339 has it, in UTC."""
    moment = datetime.fromtimestamp(cache.linked_at(name), timezone.utc)
    return moment.isoformat().replace("+00:00", "Z")
