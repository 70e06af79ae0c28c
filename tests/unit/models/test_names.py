"""How layers are named and packed, and the names of shards."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.errors import InvalidManifestError
from transferkit.models.names import numbered, packing_of, path_of, shard_of, shards
from transferkit.models.values import Packing

DIGEST = Digest("sha256:" + 64 * "a")
FILEPATH, OLD = "org.cncf.model.filepath", "org.cnai.model.filepath"
TITLE, METADATA = "org.opencontainers.image.title", "org.cncf.model.file.metadata+json"


def described(media_type: str = "application/octet-stream", **annotations: str) -> Descriptor:
    return Descriptor(DIGEST, 1, media_type=media_type, annotations=tuple(annotations.items()))


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({TITLE: "t", FILEPATH: "f", OLD: "o", METADATA: '{"name": "m"}'}, "f"),
        ({TITLE: "t", OLD: "o"}, "o"),
        ({TITLE: "t", METADATA: '{"name": "m"}'}, "t"),
        ({METADATA: '{"name": "m", "mode": 420}'}, "m"),
        ({"org.cnai.model.file.metadata+json": '{"name": "m"}'}, "m"),
        ({FILEPATH: "", TITLE: "t"}, "t"),
        ({METADATA: '{"name": 5}'}, None),
        ({METADATA: "[" * 100_000}, None),
        ({METADATA: "no json"}, None),
        ({}, None),
    ],
)
def test_filepath_else_title_else_the_name_in_the_metadata(annotations: dict[str, str], expected: str | None) -> None:
    assert expected == path_of(described(**annotations))


@pytest.mark.parametrize(
    ("media_type", "expected"),
    [
        ("application/octet-stream", Packing.NONE),
        ("application/vnd.cncf.model.weight.v1.raw", Packing.NONE),
        ("application/vnd.cncf.model.weight.v1.tar", Packing.TAR),
        ("application/vnd.cnai.model.weight.config.v1.tar+gzip", Packing.TAR_GZIP),
        ("application/vnd.kitops.modelkit.model.v1.tar+gzip", Packing.TAR_GZIP),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", Packing.TAR_GZIP),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar", Packing.TAR),
        ("application/vnd.docker.ai.dir.tar", Packing.TAR),
        ("application/vnd.docker.ai.vllm.config.tar", Packing.TAR),
        ("application/vnd.example.target", Packing.NONE),
    ],
)
def test_how_a_layer_is_packed(media_type: str, expected: Packing) -> None:
    assert expected is packing_of(described(media_type))


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
        "application/vnd.kitops.modelkit.model.v1.raw+gzip",
        "application/vnd.cncf.model.weight.v1.tar+zstd",
    ],
)
def test_a_packing_that_is_not_read_is_said(media_type: str) -> None:
    with pytest.raises(InvalidManifestError, match=r"only tar and tar\+gzip are read"):
        packing_of(described(media_type))


def test_names_of_shards() -> None:
    assert ["model.gguf"] == shards(".gguf", 1)
    assert ["model-00001-of-00002.gguf", "model-00002-of-00002.gguf"] == shards(".gguf", 2)
    assert ("a/model", 2, 3) == shard_of("a/model-00002-of-00003.safetensors")
    assert shard_of("model-2-of-3.gguf") is None


def test_names_of_several_of_a_kind() -> None:
    assert ["license", "license-2", "license-3"] == numbered("license", 3)
    assert ["projector.gguf", "projector-2.gguf"] == numbered("projector.gguf", 2)
    assert [] == numbered("license", 0)


@given(st.text(max_size=30), st.dictionaries(st.sampled_from([FILEPATH, OLD, TITLE, METADATA]), st.text(max_size=30)))
def test_nothing_but_the_documented_error(media_type: str, annotations: dict[str, str]) -> None:
    layer = Descriptor(DIGEST, 1, media_type=media_type, annotations=tuple(annotations.items()))
    path = path_of(layer)
    assert path is None or path
    try:
        packing_of(layer)
    except InvalidManifestError:
        pass
