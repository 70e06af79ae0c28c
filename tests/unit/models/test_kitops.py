"""KitOps' ModelKits: old and new, packed and raw, and the Kitfile."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.models.build import layer, manifest
from transferkit.content.manifest import Manifest
from transferkit.errors import InvalidManifestError
from transferkit.models.reading import files_of, wants_config
from transferkit.models.values import Packing

KIT = "application/vnd.kitops.modelkit."
CONFIG = f"{KIT}config.v1+json"
KITFILE = ("Kitfile", 2, Packing.NONE)


def kit(*layers: dict[str, Any]) -> Manifest:
    return manifest(CONFIG, *layers)


def rows(found: Manifest, kitfile: dict[str, Any] | None = None) -> list[tuple[str, int, Packing]]:
    config = None if kitfile is None else json.dumps(kitfile).encode()
    contents = files_of(found, config)
    assert "kitops" == contents.format
    return [(entry.path, entry.descriptor.size, entry.packing) for entry in contents.entries]


def test_a_new_modelkit_needs_nothing_but_its_manifest() -> None:
    found = kit(
        layer(f"{KIT}model.v1.raw", 11, filepath="model.gguf"),
        layer(f"{KIT}docs.v1.tar", 12, filepath="docs"),
        layer(f"{KIT}code.v1.tar+gzip", 13, filepath="."),
    )

    assert not wants_config(found)
    assert [("", 12, Packing.TAR), ("", 13, Packing.TAR_GZIP), KITFILE, ("model.gguf", 11, Packing.NONE)] == rows(found)


def test_an_older_modelkit_has_whole_paths_in_its_tars() -> None:
    found = kit(layer(f"{KIT}model.v1.tar", 11), layer(f"{KIT}dataset.v1.tar+gzip", 12))
    kitfile = {
        "model": {"path": "models/a", "digest": "sha256:1", "diffId": "sha256:2"},
        "datasets": [{"path": "data", "digest": "sha256:3"}],
    }

    assert wants_config(found)
    assert [("", 11, Packing.TAR), ("", 12, Packing.TAR_GZIP), KITFILE] == rows(found, kitfile)


def test_the_oldest_ones_have_names_in_the_folders_of_the_kitfile() -> None:
    found = kit(
        layer(f"{KIT}model.v1.tar+gzip", 11),
        layer(f"{KIT}modelpart.v1.tar", 12),
        layer(f"{KIT}modelpart.v1.tar", 13),
        layer(f"{KIT}dataset.v1.tar", 14),
        layer(f"{KIT}code.v1.tar", 15),
        layer(f"{KIT}code.v1.tar", 16, subtype="prompt"),
        layer(f"{KIT}docs.v1.tar", 17),
    )
    kitfile = {
        "model": {"path": "./models/small/m.gguf", "parts": [{"path": "parts/one"}, {"path": "two"}]},
        "datasets": [{"path": "s3://elsewhere/data"}, {"path": "data/train/a.csv"}],
        "code": [{"path": "src/main.py"}],
        "prompts": [{"path": "prompts/a.txt"}],
        "docs": [{"path": "README.md"}],
    }

    assert [
        ("", 13, Packing.TAR),
        ("", 17, Packing.TAR),
        KITFILE,
        ("data/train", 14, Packing.TAR),
        ("models/small", 11, Packing.TAR_GZIP),
        ("parts", 12, Packing.TAR),
        ("prompts", 16, Packing.TAR),
        ("src", 15, Packing.TAR),
    ] == rows(found, kitfile)


def test_parts_are_counted_also_for_layers_with_names() -> None:
    found = kit(
        layer(f"{KIT}model.v1.raw", 11, filepath="m.gguf"),
        layer(f"{KIT}docs.v1.raw", 12, filepath="a.md"),
        layer(f"{KIT}docs.v1.raw", 13),
    )

    assert [KITFILE, ("a.md", 12, Packing.NONE), ("b.md", 13, Packing.NONE), ("m.gguf", 11, Packing.NONE)] == rows(
        found, {"docs": [{"path": "a.md"}, {"path": "b.md"}]}
    )


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (None, "named in its config, which is needed"),
        (b"manifestVersion: 1.0.0", "is not JSON: JSONDecodeError"),
        (b"[" * 99_999, "is not JSON: RecursionError"),
        (b"\xff\xff", "is not JSON: UnicodeDecodeError"),
        (b"[]", "is no Kitfile"),
        (b"{}", "has no path, neither itself nor in the Kitfile"),
        (b'{"model": 5}', "has no path"),
        (b'{"model": {"path": 5}}', "has no path"),
    ],
)
def test_a_kitfile_that_names_nothing(config: bytes | None, reason: str) -> None:
    with pytest.raises(InvalidManifestError, match=reason):
        files_of(kit(layer(f"{KIT}model.v1.tar", 11)), config)


def test_more_layers_than_the_kitfile_has_parts() -> None:
    with pytest.raises(InvalidManifestError, match="has no path"):
        rows(kit(layer(f"{KIT}model.v1.tar", 11), layer(f"{KIT}model.v1.tar", 12)), {"model": {"path": "m"}})


def test_a_model_in_another_modelkit_is_said() -> None:
    found = kit(layer(f"{KIT}docs.v1.raw", 12, filepath="a.md"))

    assert wants_config(found)
    with pytest.raises(InvalidManifestError, match=r"is in another, 'ghcr\.io/team/base:v1'; pull that one"):
        rows(found, {"model": {"path": "ghcr.io/team/base:v1"}})
    assert [KITFILE, ("a.md", 12, Packing.NONE)] == rows(found, {})
