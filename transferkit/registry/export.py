"""Titled layers of a model in the cache, as files in a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from transferkit.content.descriptor import Descriptor
from transferkit.content.manifest import Manifest
from transferkit.content.title import check_titles
from transferkit.errors import InvalidManifestError
from transferkit.storage.cache import DiskCache
from transferkit.storage.tree import Tree
from transferkit.transfer.flow import WorkerFlow

Only = str | Iterable[str] | Callable[[str], bool] | None
"""Which files: those that agree with a pattern, or with one of several, or of whose path a function says so."""


def titled_layers(manifest: Manifest, only: Only = None) -> dict[str, Descriptor]:
    """Return the layers of a manifest that are files, by their titles.

    Raises:
        InvalidManifestError: it has none, or none that is wanted.
        InvalidNameError: a title leads elsewhere, or two are one file.
    """
    layers = check_titles(manifest.layers)
    if not layers:
        raise InvalidManifestError(f"{manifest.digest.short} has no layers with titles, and so no files to export")
    wanted = {title: layer for title, layer in layers.items() if chosen(title, only)}
    if not wanted:
        raise InvalidManifestError(f"no file of {manifest.digest.short} is wanted; it has {', '.join(layers)[:300]}")
    return wanted


def chosen(path: str, only: Only = None, exclude: Only = None) -> bool:
    """Tell whether a file is wanted: it agrees with ``only``, if that is given, and not with ``exclude``.

    A pattern is one of ``fnmatch``, for the whole path or for its last part.

    >>> chosen("deep/a.json", ["*.json", "*.md"], exclude="deep/*")
    False
    """
    return (only is None or _agrees(path, only)) and (exclude is None or not _agrees(path, exclude))


def _agrees(path: str, only: str | Iterable[str] | Callable[[str], bool]) -> bool:
    if callable(only):
        return bool(only(path))
    name, patterns = path.rpartition("/")[2], [only] if isinstance(only, str) else only
    return any(fnmatchcase(path, pattern) or fnmatchcase(name, pattern) for pattern in patterns)


def export(
    cache: DiskCache, layers: dict[str, Descriptor], directory: str | os.PathLike[str], flow: WorkerFlow
) -> dict[str, str]:
    """Write the files, each whole or not at all, and return their paths by titles.

    Raises:
        StorageError: a folder or file cannot be made, or a link stands in the way.
        SourceError: a blob of the cache is not what its digest says.
    """
    tree = Tree(Path(directory), cache.disk)
    paths: dict[str, str] = {}
    with cache.pinned([layer.digest for layer in layers.values()]):
        for title, layer in layers.items():
            with cache.fetch(layer, flow=flow) as body:
                paths[title] = tree.write(title, body, flow)
    with suppress(OSError):
        os.rmdir(tree.unfinished)
    return paths
