"""Which layers become files, and that each is written whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.remote.rig import Flow
from transferkit.content.manifest import Manifest
from transferkit.errors import InvalidManifestError, InvalidNameError
from transferkit.registry.export import chosen, export, titled_layers
from transferkit.storage.cache import DiskCache

TITLE = "org.opencontainers.image.title"
HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # printf hello | sha256sum


def manifest(*titles: str | None) -> Manifest:
    layers: list[dict[str, Any]] = [
        {"digest": HELLO, "size": 5, **({"annotations": {TITLE: title}} if title is not None else {})}
        for title in titles
    ]
    return Manifest(json.dumps({"layers": layers}).encode())


def test_layers_without_titles_are_left_out() -> None:
    assert list(titled_layers(manifest("a", None, "b/c"))) == ["a", "b/c"]


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (None, True),
        ("*.json", True),
        ("deep/*", True),
        ("a.json", True),
        ("*.JSON", False),
        ("deep", False),
        ("*.bin", False),
        (lambda title: "deep" in title, True),
        (lambda title: 0, False),
    ],
)
def test_a_pattern_is_for_the_path_or_its_last_part(only: Any, expected: bool) -> None:
    assert chosen("deep/a.json", only) is expected


@pytest.mark.parametrize(
    ("only", "exclude", "expected"),
    [
        (["*.bin", "*.json"], None, True),
        (("*.bin",), None, False),
        ([], None, False),
        (None, "*.json", False),
        (None, ["*.bin", "deep/*"], False),
        (None, [], True),
        ("*.json", lambda path: path == "deep/a.json", False),
        (None, lambda path: False, True),
    ],
)
def test_several_patterns_and_what_is_left_out(only: Any, exclude: Any, expected: bool) -> None:
    assert chosen("deep/a.json", only, exclude) is expected


def test_nothing_to_write_is_an_error() -> None:
    with pytest.raises(InvalidManifestError, match="has no layers with titles"):
        titled_layers(manifest(None))
    with pytest.raises(InvalidManifestError, match="it has a, b"):
        titled_layers(manifest("a", "b"), "c")
    with pytest.raises(InvalidNameError):
        titled_layers(manifest("a", "../b"), "a")


def test_files_are_written_and_nothing_else_is_left(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache")
    cache.put(b"hello")
    flow: Any = Flow()
    paths = export(cache, titled_layers(manifest("a", "b/c")), tmp_path / "out", flow)
    cache.close()
    assert paths == {"a": str(tmp_path / "out/a"), "b/c": str(tmp_path / "out/b/c")}
    assert [Path(path).read_bytes() for path in paths.values()] == [b"hello", b"hello"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "b"]
