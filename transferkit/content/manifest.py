"""Manifests: raw bytes first, and what they say second.

Source: OCI image specification v1.1 (manifest.md, image-index.md), Docker image manifest V2 schema 2.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

from transferkit.content.descriptor import OCTET_STREAM, Descriptor, HasBlobs
from transferkit.content.digest import Digest
from transferkit.content.title import TITLE
from transferkit.errors import InvalidDescriptorError, InvalidDigestError, InvalidManifestError
from transferkit.tables import human_bytes, listing

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
INDEXES = (OCI_INDEX, DOCKER_INDEX)
MEDIA_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST, *INDEXES)
# One line of visible ASCII: it is sent on as a Content-Type, and may come from another registry's manifest.
_MEDIA_TYPE = re.compile(r"[!-~][ -~]{0,254}\Z", re.ASCII)
NO_CONFIG = f"sha256:{64 * '0'}"  # Ollama writes it, with a size of 0, where there is no config
_MOST_URLS = 8  # of one foreign layer
_LONGEST_URL = 4096  # characters
MAX_MANIFEST = 4 * 1024 * 1024  # OCI distribution specification v1.1: registries accept at least 4 MiB


@dataclass(frozen=True)
class _Document(HasBlobs):
    """What manifests and indexes have in common: the bytes as they were received, their type and their annotations."""

    raw: bytes = field(repr=False)
    media_type: str = ""
    annotations: dict[str, str] = field(init=False, default_factory=dict, compare=False)

    @property
    def digest(self) -> Digest:
        """The digest of exactly the raw bytes."""
        return Digest.of(self.raw)

    def json(self) -> dict[str, Any]:
        """Return the document as parsed JSON, anew each time."""
        return _parse(self.raw)

    def _read(self, *keys: str) -> dict[str, Any]:
        """Set type and annotations, and return the document as JSON; it has to have one of ``keys``."""
        data = _parse(self.raw)
        object.__setattr__(self, "media_type", _media_type(data, self.media_type))
        object.__setattr__(self, "annotations", _texts(data.get("annotations")))
        if any(key in data for key in keys):
            return data
        text = f"it is no manifest of the kind that was expected: it has no {' and no '.join(keys)}"
        if errors := data.get("errors") or data.get("error"):
            text = f"it is an error and no manifest, though sent as one: {json.dumps(errors)[:300]}"
        elif data.get("schemaVersion") == 1:
            text = "it is a manifest of Docker's schema 1, which tells no sizes: push it again with a newer tool"
        raise InvalidManifestError(text)


@dataclass(frozen=True)
class Manifest(_Document):
    """A manifest as it was received: ``raw`` bytes, their digest, and the descriptors in them.

    ``media_type`` is what the server called it, or what the manifest calls itself. Immutable.

    Raises:
        InvalidManifestError: not a JSON object, neither layers nor config, malformed descriptors, an index, or a media
            type that contradicts the server's or the content (GHSA-mc8v-mgrf-8f4m).
    """

    config: Descriptor | None = field(init=False, default=None)
    layers: tuple[Descriptor, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        data = self._read("layers", "config")
        config = data.get("config")
        if config is not None and not (isinstance(config, dict) and config.get("digest") == NO_CONFIG):
            object.__setattr__(self, "config", _descriptor(config))
        object.__setattr__(self, "layers", _descriptors(data, "layers"))
        sizes: dict[Digest, int] = {}
        for blob in self.blobs:
            if sizes.setdefault(blob.digest, blob.size) != blob.size:
                raise InvalidManifestError(f"the manifest gives {blob.digest.short} two sizes; one of them is a lie")

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """All that the manifest names: its config, if it has one, and its layers. A registry wants them all."""
        return (self.config, *self.layers) if self.config else self.layers

    @property
    def size(self) -> int:
        """How many bytes all blobs have together, each counted once."""
        return sum({blob.digest: blob.size for blob in self.blobs}.values())

    def _repr_html_(self) -> str:
        caption = f"Manifest {self.digest.short}: {_counted(len(self.layers), 'layer')}, {human_bytes(self.size)}"
        rows = [
            (dict(each.annotations).get(TITLE, ""), human_bytes(each.size), each.digest.short, each.media_type)
            for each in self.layers
        ]
        return listing(caption, ("title", "size", "digest", "type"), rows)


@dataclass(frozen=True)
class Index(_Document):
    """An image index (OCI) or manifest list (Docker): ``manifests``, each for a ``platform``.

    Raises:
        InvalidManifestError: as for :class:`Manifest`; and always where layers are asked for: it has none itself.
    """

    manifests: tuple[Descriptor, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "manifests", _descriptors(self._read("manifests"), "manifests"))

    @property
    def layers(self) -> NoReturn:
        """None of its own: whoever asks for them is told to choose a manifest."""
        platforms = ", ".join(dict.fromkeys(entry.platform for entry in self.manifests if entry.platform))
        choice = f"one of its {len(self.manifests)} .manifests by digest ({platforms[:200]})"
        raise InvalidManifestError(f"an index has no layers; fetch {choice}")

    blobs = config = size = layers

    def _repr_html_(self) -> str:
        caption = f"Index {self.digest.short}: {_counted(len(self.manifests), 'manifest')}"
        rows = [
            (each.platform or "", each.digest.short, each.artifact_type or each.media_type) for each in self.manifests
        ]
        return listing(caption, ("platform", "digest", "type"), rows)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def parse(raw: bytes, *, media_type: str = "") -> Manifest | Index:
    """Return the manifest or index that ``raw`` is, or raise InvalidManifestError; ``media_type`` is the server's."""
    data = _parse(raw)
    is_index = "manifests" in data or media_type in INDEXES or data.get("mediaType") in INDEXES
    return (Index if is_index else Manifest)(raw, media_type=media_type)


def _media_type(data: dict[str, Any], said: str) -> str:
    """Return what a document is, or refuse one that another client may take for something else."""
    own = data.get("mediaType")
    if own is not None and not isinstance(own, str):
        raise InvalidManifestError("the manifest's mediaType is not a text")
    if "manifests" in data and "layers" in data:
        raise InvalidManifestError("the manifest has both layers and manifests; it may mean two things, and is refused")
    if own and said in MEDIA_TYPES and own != said:
        raise InvalidManifestError(f"the server calls the manifest {said}, it calls itself {own[:100]}")
    declared = said if said in MEDIA_TYPES else own
    # What another client reads in it must not depend on whether that one believes the type or the content.
    strange = ("layers", "config") if declared in INDEXES else ("manifests",) if declared in MEDIA_TYPES else ()
    if any(key in data for key in strange):
        raise InvalidManifestError(f"the manifest is called {declared}, and has {' or '.join(strange)}")
    media_type = declared or said or (OCI_INDEX if "manifests" in data else OCI_MANIFEST)
    if _MEDIA_TYPE.match(media_type) is None:
        raise InvalidManifestError(f"the manifest's media type {media_type[:100]!r} is none")
    return media_type


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        data = json.loads(raw, parse_constant=no_constant, parse_float=finite)
    except (ValueError, RecursionError) as error:
        raise InvalidManifestError(f"the manifest is not JSON: {type(error).__name__}") from error
    if not isinstance(data, dict):
        raise InvalidManifestError(f"the manifest is not a JSON object but {type(data).__name__}")
    return data


def no_constant(name: str) -> Any:
    """Refuse ``NaN`` and ``Infinity``, which Python takes for JSON: a ``parse_constant`` of ``json.loads``."""
    raise ValueError(f"{name} is not JSON")


def finite(text: str) -> float:
    """Return a number, as a ``parse_float`` of ``json.loads``.

    ValueError: no float holds it. Go refuses it, too; Python makes an infinity of it, and would write ``Infinity``.
    """
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:20]} is more than a number may be")
    return number


def _descriptors(data: dict[str, Any], key: str) -> tuple[Descriptor, ...]:
    entries = data.get(key, [])
    if not isinstance(entries, list):
        raise InvalidManifestError(f"the manifest's {key} are {'null' if entries is None else 'not a list'}")
    return tuple(map(_descriptor, entries))


def _descriptor(data: Any) -> Descriptor:
    if not isinstance(data, dict):
        raise InvalidManifestError("a descriptor in the manifest is not a JSON object")
    media_type, platform = data.get("mediaType", OCTET_STREAM), _texts(data.get("platform"))
    if not isinstance(media_type, str):
        raise InvalidManifestError("a descriptor in the manifest has a mediaType that is not a text")
    try:
        return Descriptor(
            data.get("digest"),  # type: ignore[arg-type]  # checked there, whatever it is
            data.get("size"),  # type: ignore[arg-type]  # as above
            media_type=media_type,
            artifact_type=data["artifactType"] if isinstance(data.get("artifactType"), str) else None,
            annotations=tuple(sorted(_texts(data.get("annotations")).items())),
            platform="/".join(filter(None, map(platform.get, ("os", "architecture", "variant")))) or None,
            urls=_urls(data["urls"]) if "urls" in data else (),
        )
    except (InvalidDigestError, InvalidDescriptorError) as error:
        raise InvalidManifestError(f"a descriptor in the manifest is malformed: {error}") from error


def _texts(value: Any) -> dict[str, str]:
    """Return the pairs of a map of texts; what is no text is left out, as annotations promise nothing."""
    return {k: v for k, v in value.items() if isinstance(v, str)} if isinstance(value, dict) else {}


def _urls(value: Any) -> tuple[str, ...]:
    """Return where a foreign layer is; what cannot be a URL is left out, and so is what nobody would try."""
    texts = value if isinstance(value, list) else []
    return tuple(text for text in texts[:_MOST_URLS] if isinstance(text, str) and 0 < len(text) <= _LONGEST_URL)
