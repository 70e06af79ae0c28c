"""Ollama's models: files by kind, and tensors by the descriptor's own name."""

from __future__ import annotations

import pytest

from tests.unit.models.build import DOCKER, layer, manifest
from transferkit.errors import InvalidManifestError, InvalidNameError
from transferkit.models.reading import files_of

KIND = "application/vnd.ollama.image."
CONFIG = "application/vnd.docker.container.image.v1+json"


def paths(*layers: dict[str, object]) -> list[tuple[str, int]]:
    contents = files_of(manifest(CONFIG, *layers, media_type=DOCKER))
    assert "ollama" == contents.format
    return [(entry.path, entry.descriptor.size) for entry in contents.entries]


def test_files_by_kind() -> None:
    kinds = ["model", "projector", "adapter", "template", "system", "params", "messages", "license", "license", "draft"]

    assert [
        ("adapter.gguf", 2),
        ("draft.gguf", 9),
        ("license", 7),
        ("license-2", 8),
        ("messages", 6),
        ("model.gguf", 0),
        ("params", 5),
        ("projector.gguf", 1),
        ("system", 4),
        ("template", 3),
    ] == paths(*(layer(KIND + kind, number) for number, kind in enumerate(kinds)))


def test_several_models_are_shards() -> None:
    assert [("model-00001-of-00002.gguf", 5), ("model-00002-of-00002.gguf", 4)] == paths(
        layer(KIND + "model", 5, more={"from": "/old/place"}), layer(KIND + "model", 4)
    )


def test_tensors_and_json_have_the_name_of_their_descriptor() -> None:
    assert [("config.json", 1), ("text_encoder/embed.weight", 2), ("vae/decoder.weight", 3)] == paths(
        layer(KIND + "json", 1, more={"name": "config.json"}),
        layer(KIND + "tensor", 2, more={"name": "text_encoder/embed.weight"}),
        layer(KIND + "tensor", 3, more={"name": "vae/decoder.weight", "from": "x"}),
    )


def test_a_kind_of_a_later_version_is_a_file_of_that_name() -> None:
    assert [("embed", 1)] == paths(layer(KIND + "embed", 1))


@pytest.mark.parametrize("name", [{}, {"name": None}, {"name": 5}])
def test_a_tensor_without_name_is_refused(name: dict[str, object]) -> None:
    with pytest.raises(InvalidManifestError, match=r"the tensor sha256:0000000.* has no name"):
        paths(layer(KIND + "tensor", 1, more=name))


@pytest.mark.parametrize("kind", [KIND, KIND + "a/b", KIND + "A", "application/octet-stream"])
def test_a_layer_that_is_none_of_its_kinds_is_refused(kind: str) -> None:
    with pytest.raises(InvalidManifestError, match="no layer of Ollama's"):
        paths(layer(KIND + "model", 1), layer(kind, 2))


def test_a_name_that_leads_elsewhere_is_refused() -> None:
    with pytest.raises(InvalidNameError):
        paths(layer(KIND + "tensor", 1, more={"name": "../../etc/passwd"}))
