"""What is told of the files and folders of an artifact, as ``fsspec`` has it."""

from __future__ import annotations

import errno
from typing import Any

from transferkit.filesystem.artifacts import Artifact
from transferkit.filesystem.paths import Path


def folder(name: str) -> dict[str, Any]:
    return {"name": name, "size": 0, "type": "directory"}


def entry(parsed: Path, artifact: Artifact, inside: str) -> dict[str, Any]:
    """Describe a file or folder of an artifact. FileNotFoundError: it has none of that path."""
    name = f"{parsed.name}/{inside}" if inside else parsed.name
    if inside in artifact.folders:
        return folder(name)
    if inside not in artifact.files:
        raise missing(name, complaint(artifact))
    info = artifact.files[inside]
    return {
        "name": name,
        "size": info.size,
        "type": "file",
        "digest": str(info.digest),
        "media_type": info.media_type,
        "packing": info.packing,
    }


def complaint(artifact: Artifact) -> str:
    paths = list(artifact.files)
    more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
    return f"the artifact has no such file; it has {', '.join(paths[:5])}{more}"


def missing(path: str, reason: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, reason, path)
