"""Manifest and config of a folder of files, in the formats of the field; the same files give the same bytes always.

Sources: modelpack/model-spec 0.0.7 (docs/config.md, schema/config-schema.json), OCI image specification v1.1, and
those that :mod:`~transferkit.models.docker` and :mod:`~transferkit.models.ollama` name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transferkit.content.descriptor import OCTET_STREAM, Descriptor
from transferkit.content.digest import Digest
from transferkit.content.manifest import MAX_MANIFEST, OCI_MANIFEST, Manifest
from transferkit.content.title import TITLE, check_paths
from transferkit.errors import InvalidModelError
from transferkit.models import docker, ollama
from transferkit.models.facts import UNKNOWN, Facts
from transferkit.models.kinds import kind_of
from transferkit.models.names import EMPTY_CONFIG, FILEPATH, MODEL_CONFIG, MODEL_MANIFEST, UNTESTED
from transferkit.models.values import ModelFile

FORMATS = ("modelpack", "oras", "docker")
_ORAS_TYPE = "application/vnd.unknown.artifact.v1"  # what the oras client writes where its user names none
_CREATED = "org.opencontainers.image.created"
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)\Z", re.ASCII)  # RFC 3339
# What model-spec's descriptor says of a model, by the annotations that OCI has for the same.
_DESCRIBED = {
    "title": "org.opencontainers.image.title",
    "docURL": "org.opencontainers.image.documentation",
    "sourceURL": "org.opencontainers.image.source",
    "version": "org.opencontainers.image.version",
    "revision": "org.opencontainers.image.revision",
    "vendor": "org.opencontainers.image.vendor",
    "description": "org.opencontainers.image.description",
}
_LISTED = {"authors": "org.opencontainers.image.authors", "licenses": "org.opencontainers.image.licenses"}


@dataclass(frozen=True, slots=True)
class Draft:
    """A manifest that is to be pushed, and the bytes of the config that it names."""

    manifest: Manifest
    config: bytes


def draft(
    files: Sequence[ModelFile],
    *,
    format: str = "modelpack",
    facts: Facts = UNKNOWN,
    annotations: Mapping[str, str] | None = None,
    created: str | None = None,
) -> Draft:
    """Return manifest and config of a folder of files; its layers are the files as they are, sorted by path.

    ``annotations`` are the manifest's; ModelPack's config repeats those that it has fields for, such as
    ``org.opencontainers.image.version``. ``created`` is a moment as RFC 3339 has it; nothing else is a date here.

    Raises:
        InvalidModelError: there are no files, or more than a manifest has room for.
        InvalidNameError: a path is not one that every system can have, or two would be one file.
        ValueError: there is no such ``format``, or ``created`` is no moment.
    """
    if format not in FORMATS:
        raise ValueError(f"the formats are {', '.join(FORMATS)}, not {format!r}")
    if created is not None and _MOMENT.match(created) is None:
        raise ValueError(f"created is a moment such as 2026-11-26T00:00:00Z, not {created!r}")
    files, notes = _sorted(files), dict(annotations or {})
    types = [kind_of(file.path).media_type for file in files]
    artifact: str | None = None
    if format == "modelpack":
        config, config_type, artifact = _config(files, facts, notes, created), MODEL_CONFIG, MODEL_MANIFEST
    elif format == "docker":
        config, config_type = docker.config(files, facts, created), docker.CONFIG
        types = docker.media_types(files)
    else:
        config, config_type, artifact = b"{}", EMPTY_CONFIG, _ORAS_TYPE
        types = [OCTET_STREAM for _ in files]
        notes = {**({_CREATED: created} if created else {}), **notes}
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        **({"artifactType": artifact} if artifact else {}),
        "config": {"mediaType": config_type, "digest": Digest.of(config), "size": len(config)},
        "layers": [
            {
                "mediaType": media_type,
                "digest": file.digest,
                "size": file.size,
                "annotations": _annotations(file.path, format),
            }
            for file, media_type in zip(files, types, strict=True)
        ],
        **({"annotations": dict(sorted(notes.items()))} if notes else {}),
    }
    raw = json.dumps(document, separators=(",", ":")).encode()
    if len(raw) > MAX_MANIFEST:
        raise InvalidModelError(
            f"the manifest of {len(files)} files has {len(raw)} bytes, and registries take {MAX_MANIFEST}; "
            "leave files out with exclude=, or pack folders"
        )
    return Draft(Manifest(raw, media_type=OCI_MANIFEST), config)


def ollama_draft(files: Sequence[ModelFile], facts: Facts = UNKNOWN) -> Draft:
    """Return manifest and config of the same files for Ollama's client: over the same blobs, those that it knows.

    Raises:
        InvalidModelError: there is no GGUF file, or there are several that are not the shards of one.
        InvalidNameError: as :func:`draft`.
    """
    return Draft(*ollama.layout(_sorted(files), facts))


def _sorted(files: Sequence[ModelFile]) -> list[ModelFile]:
    if not files:
        raise InvalidModelError("there are no files")
    check_paths((file.path, Descriptor(file.digest, file.size)) for file in files)
    return sorted({file.path: file for file in files}.values(), key=lambda file: file.path)


def _annotations(path: str, format: str) -> dict[str, str]:
    """Return what a layer says of its file: ORAS, podman and CRI-O read the title, the others the filepath."""
    named = {TITLE: path} if format == "oras" else {FILEPATH: path, TITLE: path}
    return {**({UNTESTED: "true"} if format != "oras" and kind_of(path).is_guessed else {}), **named}


def _config(files: Sequence[ModelFile], facts: Facts, notes: Mapping[str, str], created: str | None) -> bytes:
    """Return ModelPack's config: its three parts are required, and nothing unknown may be in them."""
    descriptor = {
        "createdAt": created,
        "family": facts.architecture,
        **{key: notes.get(note) or None for key, note in _DESCRIBED.items()},
        **{key: [notes[note]] if notes.get(note) else None for key, note in _LISTED.items()},
    }
    config = {
        "architecture": facts.architecture,
        "format": facts.format,
        "paramSize": facts.param_size,
        "precision": facts.precision,
        "quantization": facts.quantization,
    }
    document = {
        "descriptor": {key: value for key, value in descriptor.items() if value is not None},
        "config": {key: value for key, value in config.items() if value is not None},
        "modelfs": {"type": "layers", "diffIds": [file.digest for file in files]},
    }
    return json.dumps(document, separators=(",", ":")).encode()
