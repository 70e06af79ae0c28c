"""``index.json`` of an image layout: which manifests it has, and what it calls them.

Source: OCI image specification v1.1, image-layout.md, annotations.md. Knows texts alone, and no file.
"""

from __future__ import annotations

import json
from typing import Any

from transferkit.content.digest import Digest
from transferkit.content.graph import Document
from transferkit.content.manifest import OCI_INDEX, Index
from transferkit.errors import InvalidManifestError, ManifestNotFoundError

REF_NAME = "org.opencontainers.image.ref.name"
VERSION = b'{"imageLayoutVersion": "1.0.0"}'  # the whole of ``oci-layout``
MAX_INDEX = 4 * 1024 * 1024  # bytes (CVE-2023-25153): as for any other index

Entry = dict[str, Any]
"""A descriptor as it stands there: what other tools have written into it stays."""


def check_version(raw: bytes | None, where: str) -> None:
    """See that ``oci-layout``, if it is there, says what can be read here; InvalidManifestError: something else."""
    try:
        version = "1." if raw is None else json.loads(raw)["imageLayoutVersion"]
    except (ValueError, KeyError, TypeError, RecursionError):
        version = None
    if not isinstance(version, str) or not version.startswith("1."):
        raise InvalidManifestError(f"{where} is no image layout of version 1: {str(version)[:40]}")


def entries_of(raw: bytes | None) -> list[Entry]:
    """Return the entries; none where there is no file. InvalidManifestError: it is malformed."""
    if raw is None:
        return []
    Index(raw)  # checks each of them
    found: list[Entry] = json.loads(raw)["manifests"]
    return found


def name_of(entry: Entry) -> str | None:
    """Return what a manifest is called."""
    annotations = entry.get("annotations")
    name = annotations.get(REF_NAME) if isinstance(annotations, dict) else None
    return name if isinstance(name, str) else None


def choose(entries: list[Entry], tag: str | None, where: str) -> tuple[Digest, str]:
    """Return digest and type of the entry for a tag or a digest; without one, of the only one that there is.

    Raises:
        ManifestNotFoundError: there is none, or several to choose from.
    """
    found = [entry for entry in entries if tag is None or tag in (name_of(entry), entry["digest"])]
    if len({entry["digest"] for entry in found}) != 1:
        there = ", ".join(filter(None, map(name_of, entries))) or f"{len(entries)} manifests without names"
        what = f"{len(found)} manifests" if found else "no manifest"
        raise ManifestNotFoundError(f"{where} has {what}{f' called {tag[:200]}' if tag else ''}; it has {there[:300]}")
    (described,) = Index(text_of(found[:1])).manifests
    return described.digest, described.media_type


def with_document(entries: list[Entry], document: Document, name: str | None) -> list[Entry]:
    """Return the entries with one more, under a name, which is taken from another, or under none."""

    def is_replaced(entry: Entry) -> bool:
        return name_of(entry) == name and (name is not None or entry["digest"] == document.digest)

    described: Entry = {"mediaType": document.media_type, "digest": document.digest, "size": len(document.raw)}
    if name is not None:
        described["annotations"] = {REF_NAME: name}
    return [*(entry for entry in entries if not is_replaced(entry)), described]


def text_of(entries: list[Entry]) -> bytes:
    """Return the file's content."""
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
