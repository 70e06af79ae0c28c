"""Files of manifests: every format of MODELS, by what the manifest is, and fuzz."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.models.build import OCI, layer, manifest
from transferkit.content.manifest import Manifest
from transferkit.errors import InvalidManifestError, InvalidNameError
from transferkit.models.reading import files_of, format_of, wants_config
from transferkit.models.values import Packing

RAW, TAR = "application/vnd.cncf.model.weight.v1.raw", "application/vnd.cncf.model.weight.v1.tar"
MODELPACK = "application/vnd.cncf.model.config.v1+json"
EMPTY, OCTETS = "application/vnd.oci.empty.v1+json", "application/octet-stream"
IMAGE, DOCKER_IMAGE = "application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"

Rows = list[tuple[str, int, Packing, str]]


def rows(found: Manifest, config: bytes | None = None, *, format: str | None = None) -> Rows:
    """Return path, size, packing and inside of each entry; the sizes are the numbers of the layers."""
    entries = files_of(found, config, format=format).entries
    return [(entry.path, entry.descriptor.size, entry.packing, entry.inside) for entry in entries]


def file(path: str, number: int) -> tuple[str, int, Packing, str]:
    return path, number, Packing.NONE, ""


def test_modelpack() -> None:
    found = manifest(
        MODELPACK,
        layer(RAW, 1, filepath="b/model.gguf", title="ignored"),
        layer(RAW, 2, title="a.json"),
        layer(RAW, 3, metadata='{"name": "c.txt"}'),
        layer(TAR, 4, filepath="d.bin"),
        layer(TAR + "+gzip", 5),
        artifact="application/vnd.cncf.model.manifest.v1+json",
    )

    assert "modelpack" == files_of(found).format
    assert [
        ("", 4, Packing.TAR, ""),
        ("", 5, Packing.TAR_GZIP, ""),
        file("a.json", 2),
        file("b/model.gguf", 1),
        file("c.txt", 3),
    ] == rows(found)


def test_the_predecessor_of_modelpack() -> None:
    old = "application/vnd.cnai.model."
    found = manifest(f"{old}config.v1+json", layer(f"{old}weight.v1.raw", 1, old="m.bin"), layer(f"{old}doc.v1.tar", 2))

    assert "modelpack" == files_of(found).format
    assert [("", 2, Packing.TAR, ""), file("m.bin", 1)] == rows(found)


def test_a_kitfile_among_the_layers_of_modelpack() -> None:
    found = manifest(MODELPACK, layer(RAW, 1, filepath="m"), layer("application/vnd.kitops.modelkit.config.v1+json", 2))

    assert [file("m", 1)] == rows(found)


@pytest.mark.parametrize("inline", [{}, {"data": "e30="}])
def test_oras(inline: dict[str, str]) -> None:
    raw = manifest(
        EMPTY,
        layer(OCTETS, 1, title="a/b.txt"),
        layer(OCTETS, 2),
        layer(GZIP, 3, title="folder", unpack="true"),
        layer(GZIP, 4, title="archive.tar.gz"),
        layer(GZIP, 5, title="other.tgz", unpack="false"),
    ).json()
    raw["config"].update(inline)
    found = Manifest(json.dumps(raw).encode())

    assert "oras" == files_of(found).format
    assert [
        file("a/b.txt", 1),
        file("archive.tar.gz", 4),
        ("folder", 3, Packing.TAR_GZIP, "folder"),
        file("other.tgz", 5),
    ] == rows(found)


@pytest.mark.parametrize("config", [None, "application/vnd.unknown.config.v1+json", IMAGE])
def test_anything_with_titles_is_read_by_title(config: str | None) -> None:
    assert [file("a", 1)] == rows(manifest(config, layer("application/vnd.oci.image.layer.v1.tar", 1, title="a")))


@pytest.mark.parametrize("config", [IMAGE, DOCKER_IMAGE])
def test_an_image_keeps_the_order_of_its_layers(config: str) -> None:
    found = manifest(
        config, layer(GZIP, 9), layer("application/vnd.docker.image.rootfs.diff.tar.gzip", 2), layer(TAR, 5)
    ).json()
    found["layers"][2]["mediaType"] = "application/vnd.oci.image.layer.v1.tar"
    image = Manifest(json.dumps(found).encode())

    assert "image" == files_of(image).format
    assert [
        ("", 9, Packing.TAR_GZIP, "models"),
        ("", 2, Packing.TAR_GZIP, "models"),
        ("", 5, Packing.TAR, "models"),
    ] == rows(image)


def test_a_format_can_be_named() -> None:
    found = manifest(MODELPACK, layer(RAW, 1, filepath="by-path", title="by-title"))

    assert [file("by-title", 1)] == rows(found, format="oras")
    with pytest.raises(ValueError, match="the formats are modelpack, oras, docker, kitops, ollama, image, not 'zip'"):
        files_of(found, format="zip")


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (
            manifest(EMPTY, layer(OCTETS, 1)),
            "its config is application/vnd.oci.empty.v1.json, its layers are application/",
        ),
        (manifest(None), "its config is none, its layers are none"),
        (
            manifest("application/vnd.cncf.helm.config.v1+json", layer(GZIP, 1)),
            "nothing in the manifest can be read as files",
        ),
        (manifest(MODELPACK), "nothing in the manifest can be read as files"),
        (manifest(IMAGE, layer(OCTETS, 1)), "nothing in the manifest can be read as files"),
        (manifest(MODELPACK, layer(RAW, 1)), "has no file name"),
        (manifest(MODELPACK, layer(TAR + "+zstd", 1, filepath="a")), r"only tar and tar\+gzip are read"),
        (manifest(IMAGE, layer("application/vnd.oci.image.layer.v1.tar+zstd", 1)), r"only tar and tar\+gzip are read"),
    ],
)
def test_what_cannot_be_read_as_files_is_said_with_the_reason(found: Manifest, reason: str) -> None:
    with pytest.raises(InvalidManifestError, match=reason):
        files_of(found)


@pytest.mark.parametrize(
    "paths",
    [
        ["../a"],
        ["/etc/passwd"],
        ["C:/a"],
        ["a\\b"],
        ["a\x00"],
        ["nul"],
        ["\ud800"],
        ["a", "A"],
        ["a", "a"],
        ["a", "a/b"],
        ["caf\u00e9", "cafe\u0301"],
    ],
)
@pytest.mark.parametrize("key", ["filepath", "title"])
def test_one_path_policy(paths: list[str], key: str) -> None:
    layers = [layer(RAW, number, **{key: path}) for number, path in enumerate(paths)]

    for config in (MODELPACK, EMPTY):
        with pytest.raises(InvalidNameError):
            files_of(manifest(config, *layers), format="modelpack")


def test_a_folder_of_a_layer_is_no_file_of_another() -> None:
    folder = layer(GZIP, 1, title="a", unpack="true")
    for path in ("a", "A"):
        with pytest.raises(InvalidNameError, match="is a file and a folder"):
            files_of(manifest(EMPTY, folder, layer(OCTETS, 2, title=path)))
    assert [("a", 1, Packing.TAR_GZIP, "a"), file("a/b", 2)] == rows(
        manifest(EMPTY, folder, layer(OCTETS, 2, title="a/b"))
    )
    with pytest.raises(InvalidNameError, match=r"\.\./a"):
        files_of(manifest(EMPTY, layer(GZIP, 1, title="../a", unpack="true")))


def test_a_layer_that_is_listed_twice_is_one_file() -> None:
    assert [file("a", 1)] == rows(manifest(EMPTY, layer(OCTETS, 1, title="a"), layer(OCTETS, 1, title="a")))


def test_only_modelkits_want_their_config() -> None:
    kit = "application/vnd.kitops.modelkit."
    assert not wants_config(manifest(MODELPACK, layer(RAW, 1)))
    assert not wants_config(manifest(None, layer(OCTETS, 1)))
    assert wants_config(manifest(f"{kit}config.v1+json", layer(f"{kit}model.v1.tar", 1)))
    assert not wants_config(manifest(f"{kit}config.v1+json", layer(f"{kit}model.v1.tar", 1, filepath="m")))


types = st.sampled_from(
    [
        RAW,
        TAR,
        TAR + "+zstd",
        OCTETS,
        GZIP,
        EMPTY,
        IMAGE,
        DOCKER_IMAGE,
        MODELPACK,
        "application/vnd.cnai.model.weight.v1.raw",
        "application/vnd.docker.ai.model.config.v0.1+json",
        "application/vnd.docker.ai.gguf.v3",
        "application/vnd.docker.ai.model.file",
        "application/vnd.kitops.modelkit.config.v1+json",
        "application/vnd.kitops.modelkit.model.v1.tar",
        "application/vnd.kitops.modelkit.code.v1.raw",
        "application/vnd.ollama.image.model",
        "application/vnd.ollama.image.tensor",
        "application/vnd.ollama.image.",
    ]
)
paths = st.sampled_from(["a", "A", "a/b", "../x", "", "con", "\ud800", "é", "x.gguf", "{", '{"name": "n"}', "true"])
keys = st.sampled_from(["title", "filepath", "old", "metadata", "unpack", "subtype"])
numbers = st.integers(0, 3)
layers = st.builds(
    lambda kind, number, annotations, more: layer(kind, number, more=more, **annotations),
    types,
    numbers,
    st.dictionaries(keys, paths, max_size=3),
    st.fixed_dictionaries({}, optional={"name": paths | st.none() | st.integers(), "from": paths}),
)
kitfiles = st.recursive(
    st.none() | st.text(max_size=3) | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["model", "path", "parts", "code", "docs", "digest"]), inner, max_size=3)
    ),
    max_leaves=8,
)
FORMAT = st.sampled_from([None, "modelpack", "oras", "docker", "kitops", "ollama", "image"])


@given(types | st.none(), st.lists(layers, max_size=4), types | st.none(), kitfiles | st.binary(max_size=5), FORMAT)
@settings(max_examples=300)
def test_any_manifest_has_files_or_the_documented_errors(
    config: str | None, layers: list[dict[str, Any]], artifact: str | None, kitfile: Any, format: str | None
) -> None:
    found = manifest(config, *layers, artifact=artifact, media_type=OCI)
    assert format_of(found) is None or not wants_config(found) or format_of(found) == "kitops"
    raw = kitfile if isinstance(kitfile, bytes) else json.dumps(kitfile).encode()
    for body in (None, raw):
        try:
            contents = files_of(found, body, format=format)
        except (InvalidManifestError, InvalidNameError):
            continue
        assert contents.entries
        assert contents.format == (format or format_of(found))
        assert [entry.path for entry in contents.entries] == sorted(entry.path for entry in contents.entries)
