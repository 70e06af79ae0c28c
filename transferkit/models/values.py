"""The values that the formats share: a file that is to be described, and one that a manifest describes."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest

ReadAt = Callable[[int, int], bytes]
"""Returns so many bytes of a file from an offset on, fewer only at its end: ``read(offset, count)``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A file of a folder: its relative path, with slashes, and what it contains."""

    path: str
    digest: Digest
    size: int


class Packing(enum.Enum):
    """How the files of a layer are packed."""

    NONE = "none"
    """The layer is the file."""
    TAR = "tar"
    TAR_GZIP = "tar+gzip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One layer as files: the file at ``path``, or, packed, the files in it, which go to the folder ``path``.

    Of a packed layer only what lies below ``inside`` counts, and that part of the path goes; "" is all of it.
    """

    path: str
    descriptor: Descriptor
    packing: Packing = Packing.NONE
    inside: str = ""


@dataclass(frozen=True, slots=True)
class Contents:
    """The files of a manifest, sorted by path, and the name of the format that it has."""

    format: str
    entries: tuple[Entry, ...]
