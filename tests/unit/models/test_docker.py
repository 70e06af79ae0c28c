"""Docker's own models: files by kind (v0.1) and by name (v0.2)."""

from __future__ import annotations

import pytest

from tests.unit.models.build import layer, manifest
from transferkit.errors import InvalidManifestError
from transferkit.models.reading import files_of
from transferkit.models.values import Packing

AI = "application/vnd.docker.ai."
OLD, NEW = f"{AI}model.config.v0.1+json", f"{AI}model.config.v0.2+json"


def test_an_old_model_is_named_by_kind_even_where_layers_have_names() -> None:
    found = manifest(
        OLD,
        layer(f"{AI}gguf.v3", 1, filepath="Q4.gguf"),
        layer(f"{AI}license", 2),
        layer(f"{AI}license", 3),
        layer(f"{AI}mmproj", 4),
        layer(f"{AI}chat.template.jinja", 5),
        layer(f"{AI}vllm.config.tar", 6),
        layer(f"{AI}model.file", 7, filepath="extra.json"),
    )

    assert "docker" == files_of(found).format
    assert [
        ("", 6, Packing.TAR),
        ("LICENSE", 2, Packing.NONE),
        ("LICENSE-2", 3, Packing.NONE),
        ("extra.json", 7, Packing.NONE),
        ("model.gguf", 1, Packing.NONE),
        ("model.mmproj", 4, Packing.NONE),
        ("template.jinja", 5, Packing.NONE),
    ] == [(entry.path, entry.descriptor.size, entry.packing) for entry in files_of(found).entries]


@pytest.mark.parametrize(("kind", "ending"), [("gguf.v3", "gguf"), ("safetensors", "safetensors"), ("dduf", "dduf")])
def test_several_weights_are_numbered_in_the_order_of_the_layers(kind: str, ending: str) -> None:
    found = manifest(OLD, layer(AI + kind, 9), layer(AI + kind, 4), layer(AI + kind, 7))

    assert [
        (f"model-00001-of-00003.{ending}", 9),
        (f"model-00002-of-00003.{ending}", 4),
        (f"model-00003-of-00003.{ending}", 7),
    ] == [(entry.path, entry.descriptor.size) for entry in files_of(found).entries]


def test_a_newer_model_is_named_by_its_layers() -> None:
    found = manifest(
        NEW,
        layer(f"{AI}safetensors", 1, filepath="text_encoder/model.safetensors"),
        layer(f"{AI}safetensors", 2, filepath="vae/model.safetensors"),
        layer(f"{AI}chat.template.jinja", 3),
        layer(f"{AI}dir.tar", 4, filepath="tokenizer"),
    )

    assert [
        ("", 4, Packing.TAR),
        ("template.jinja", 3, Packing.NONE),
        ("text_encoder/model.safetensors", 1, Packing.NONE),
        ("vae/model.safetensors", 2, Packing.NONE),
    ] == [(entry.path, entry.descriptor.size, entry.packing) for entry in files_of(found).entries]


def test_a_layer_without_name_and_kind_is_refused() -> None:
    with pytest.raises(InvalidManifestError, match="has no file name"):
        files_of(manifest(NEW, layer(f"{AI}model.file", 1)))
