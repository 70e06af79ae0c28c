"""Names that the formats give to things: media types, annotations, and how a layer says what its file is called.

Sources: modelpack/model-spec 0.0.7 (specs-go/v1), its predecessor under ``org.cnai``, OCI image specification v1.1.
"""

from __future__ import annotations

import json
import re

from transferkit.content.descriptor import Descriptor
from transferkit.content.title import TITLE
from transferkit.errors import InvalidManifestError
from transferkit.models.values import Packing

MODEL_MANIFEST = "application/vnd.cncf.model.manifest.v1+json"
MODEL_CONFIG = "application/vnd.cncf.model.config.v1+json"
FILEPATH = "org.cncf.model.filepath"
UNTESTED = "org.cncf.model.file.mediatype.untested"
UNPACK = "io.deis.oras.content.unpack"  # ORAS: the layer is a folder, as tar+gzip
IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"  # of Docker's images, and of Ollama's models
EMPTY_CONFIG = "application/vnd.oci.empty.v1+json"

_PATHS = (FILEPATH, "org.cnai.model.filepath", TITLE)
_METADATA = ("org.cncf.model.file.metadata+json", "org.cnai.model.file.metadata+json")
# "...v1.tar+gzip", "...diff.tar.gzip", "...dir.tar", "...v1.raw": what is behind tar or raw is the compression.
_PACKED = re.compile(r"[.+](tar|raw)(?:[.+](.+))?\Z", re.ASCII)
_SHARD = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})\.[a-z0-9]+\Z", re.ASCII | re.IGNORECASE)


def path_of(layer: Descriptor) -> str | None:
    """Return the path that a layer's annotations give to its file, ``None`` where they give none.

    The order is that of the field: the model's filepath, else the title, else the name in the file's metadata.
    """
    annotations = dict(layer.annotations)
    for key in _PATHS:
        if path := annotations.get(key):
            return path
    for key in _METADATA:
        try:
            metadata = json.loads(annotations.get(key, "null"))
        except (ValueError, RecursionError):
            continue  # it promises nothing: the layer has no name then
        if isinstance(metadata, dict) and isinstance(name := metadata.get("name"), str) and name:
            return name
    return None


def packing_of(layer: Descriptor) -> Packing:
    """Return how a layer is packed, by its media type.

    Raises:
        InvalidManifestError: it is compressed in a way that is not read here.
    """
    match = _PACKED.search(layer.media_type)
    if match is None or match.groups() == ("raw", None):
        return Packing.NONE
    if match[1] == "tar" and match[2] in (None, "gzip"):
        return Packing.TAR_GZIP if match[2] else Packing.TAR
    raise InvalidManifestError(
        f"the layer {layer.digest.short} is {layer.media_type[:100]!r}; of packed layers only tar and tar+gzip are read"
    )


def shard_of(path: str) -> tuple[str, int, int] | None:
    """Return prefix, number and count of a file that is one of several shards, ``None`` of any other.

    >>> shard_of("big/model-00002-of-00003.gguf")
    ('big/model', 2, 3)
    """
    match = _SHARD.match(path)
    return (match[1], int(match[2]), int(match[3])) if match else None


def shards(ending: str, count: int) -> list[str]:
    """Return the names of so many weight files that have none of their own, as llama.cpp and Docker name them."""
    if count == 1:
        return [f"model{ending}"]
    return [f"model-{number:05}-of-{count:05}{ending}" for number in range(1, count + 1)]


def numbered(name: str, count: int) -> list[str]:
    """Return names for so many files of one kind: ``license``, ``license-2``, ``license-3``."""
    stem, dot, ending = name.partition(".")
    return [name, *(f"{stem}-{number}{dot}{ending}" for number in range(2, count + 1))][:count]
