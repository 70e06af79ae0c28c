"""Which files a manifest describes, whatever tool wrote it: found by what the manifest is, never by guess.

No bytes are read here but the manifest's and, where :func:`wants_config` says so, the config's.
"""

from __future__ import annotations

from collections.abc import Callable

from transferkit.content.descriptor import Descriptor
from transferkit.content.manifest import Manifest
from transferkit.content.title import TITLE, check_paths
from transferkit.errors import InvalidManifestError
from transferkit.models import docker, kitops, ollama
from transferkit.models.names import DOCKER_CONFIG, IMAGE_CONFIG, UNPACK, packing_of, path_of
from transferkit.models.values import Contents, Entry, Packing

_FOLDER = "application/vnd.oci.image.layer.v1.tar+gzip"
_MODELPACK = ("application/vnd.cncf.model.", "application/vnd.cnai.model.")


def files_of(manifest: Manifest, config: bytes | None = None, *, format: str | None = None) -> Contents:
    """Return the files that a manifest describes, sorted by path, and the format that it has.

    ``config`` has the bytes of its config blob, for the formats that want them. ``format`` reads it as that one,
    whatever it looks like: ``modelpack``, ``oras``, ``docker``, ``kitops``, ``ollama`` or ``image``. Layers that are
    packed come in the order of the manifest, as later ones replace the files of earlier ones.

    Raises:
        InvalidManifestError: nothing in it can be read as files, or a layer has no name; the message has the reason.
        InvalidNameError: a path is not one that may become a file, or two layers would be one file.
        ValueError: there is no such ``format``.
    """
    if format is not None and format not in _READERS:
        raise ValueError(f"the formats are {', '.join(_READERS)}, not {format!r}")
    chosen = format or format_of(manifest)
    entries = _READERS[chosen](manifest, config) if chosen else []
    if not chosen or not entries:
        raise InvalidManifestError(_complaint(manifest))
    return Contents(chosen, tuple(sorted(_checked(entries), key=lambda entry: entry.path)))


def wants_config(manifest: Manifest) -> bool:
    """Tell whether the bytes of the config are needed to name the files: those of older ModelKits are."""
    return format_of(manifest) == "kitops" and kitops.wants_config(manifest)


def format_of(manifest: Manifest) -> str | None:
    """Return the name of the format that a manifest has, ``None`` if it names no files in any that is known."""
    config = manifest.config.media_type if manifest.config else ""
    artifact = manifest.json().get("artifactType")
    types = [config, *(layer.media_type for layer in manifest.layers)]
    if isinstance(artifact, str):
        types.append(artifact)
    for format, prefixes in _PREFIXES.items():
        if any(media_type.startswith(prefixes) for media_type in types):
            return format
    if any(TITLE in dict(layer.annotations) for layer in manifest.layers):
        return "oras"
    return "image" if config in (IMAGE_CONFIG, DOCKER_CONFIG) else None


# In this order: a ModelPack artifact of KitOps may have a Kitfile among its layers.
_PREFIXES: dict[str, tuple[str, ...]] = {
    "modelpack": _MODELPACK,
    "docker": (docker.PREFIX,),
    "kitops": (kitops.PREFIX,),
    "ollama": (ollama.PREFIX,),
}


def _of_modelpack(manifest: Manifest) -> list[Entry]:
    found = []
    for layer in manifest.layers:
        path, packing = path_of(layer), packing_of(layer)
        if packing is not Packing.NONE:
            # modctl and KitOps both put the whole path into the tar, and look at no annotation.
            found.append(Entry(path="", descriptor=layer, packing=packing))
        elif path is not None:
            found.append(Entry(path=path, descriptor=layer))
        elif layer.media_type != kitops.CONFIG:
            raise InvalidManifestError(f"the layer {layer.digest.short} ({layer.media_type[:100]}) has no file name")
    return found


def _of_oras(manifest: Manifest) -> list[Entry]:
    found = []
    for layer in manifest.layers:
        annotations = dict(layer.annotations)
        path = annotations.get(TITLE)
        if path is None:
            continue  # as ORAS does
        if annotations.get(UNPACK) == "true" or _is_folder_of_oras_py(layer, path):
            # The names in the tar begin with the title.
            found.append(Entry(path=path, descriptor=layer, packing=Packing.TAR_GZIP, inside=path))
        else:
            found.append(Entry(path=path, descriptor=layer))
    return found


def _is_folder_of_oras_py(layer: Descriptor, path: str) -> bool:
    """Tell whether a layer is a folder that the Python oras has pushed: it says so by the media type alone.

    Source: oras-py 0.2, ``Registry.push`` and ``pull``. A file that is such an archive itself has the name of one.
    """
    return layer.media_type == _FOLDER and not path.lower().endswith((".tar.gz", ".tgz"))


def _of_image(manifest: Manifest) -> list[Entry]:
    packings = [(layer, packing_of(layer)) for layer in manifest.layers]
    return [
        Entry(path="", descriptor=layer, packing=packing, inside="models")
        for layer, packing in packings
        if packing is not Packing.NONE
    ]


_READERS: dict[str, Callable[[Manifest, bytes | None], list[Entry]]] = {
    "modelpack": lambda manifest, config: _of_modelpack(manifest),
    "oras": lambda manifest, config: _of_oras(manifest),
    "docker": lambda manifest, config: docker.entries(manifest),
    "kitops": kitops.entries,
    "ollama": lambda manifest, config: ollama.entries(manifest),
    "image": lambda manifest, config: _of_image(manifest),
}


def _checked(entries: list[Entry]) -> list[Entry]:
    """Return the entries, each file once, if every path may become one on a disk."""
    packed = [entry for entry in entries if entry.packing is not Packing.NONE]
    named = [(entry.path, entry.descriptor) for entry in entries if entry.packing is Packing.NONE]
    files = check_paths(named)
    # A folder that a layer is unpacked into is no file: something in it stands for it.
    check_paths([*named, *((f"{e.path}/layer-{i}", e.descriptor) for i, e in enumerate(packed) if e.path)])
    return [*packed, *(Entry(path=path, descriptor=descriptor) for path, descriptor in files.items())]


def _complaint(manifest: Manifest) -> str:
    config = manifest.config.media_type if manifest.config else "none"
    types = ", ".join(dict.fromkeys(layer.media_type for layer in manifest.layers)) or "none"
    return (
        f"nothing in the manifest can be read as files: its config is {config[:100]}, its layers are {types[:200]}; "
        "its blobs can be fetched by digest"
    )
