"""Files of a folder are small blobs like others: they are asked for together, wherever they go."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import transferkit as tk
from transferkit.remote.repository import Repository
from transferkit.testing import running_registry

FILES = 120


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The name of a model in a registry, and the folder with its files."""
    folder, rng = tmp_path_factory.mktemp("model"), random.Random(1)
    for number in range(FILES):
        (folder / f"file-{number:03}.bin").write_bytes(rng.randbytes(500 + number))
    with running_registry() as registry:
        name = f"{registry.url}/team/model:v1"
        with tk.Registry(cache=tk.DiskCache(tmp_path_factory.mktemp("cache"))) as registries:
            registries.push(name, folder=folder)
        yield name, folder


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many contents each bundle brought."""
    counts: list[int] = []
    real = Repository.pipeline

    def pipeline(self: Repository, descriptors: Sequence[tk.Descriptor], **given: Any) -> Any:
        contents = real(self, descriptors, **given)
        return None if contents is None else counted(contents)

    def counted(contents: Any) -> Any:
        counts.append(0)
        at = len(counts) - 1
        for content in contents:
            counts[at] += 1
            yield content

    monkeypatch.setattr(Repository, "pipeline", pipeline)
    return counts


WAYS: dict[str, Callable[[tk.Registry, str, Path], object]] = {
    "into a cache": lambda registries, name, to: registries.pull(name),
    "by way of a cache": lambda registries, name, to: registries.pull(name, to=to),
    "straight into a folder": lambda registries, name, to: registries.pull(name, to=to, cache=None),
    "some files, straight": lambda registries, name, to: registries.pull(name, to=to, cache=None, only="file-0*"),
    "some files, by way of a cache": lambda registries, name, to: registries.pull(name, to=to, only="file-0*"),
    "a snapshot": lambda registries, name, to: to.symlink_to(registries.snapshot(name)),
    "a layout": lambda registries, name, to: registries.copy(name, tk.OCILayout(to).at("v1")),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_files_of_a_folder_are_asked_for_together(
    way: str, model: tuple[str, Path], together: list[int], tmp_path: Path
) -> None:
    name, folder = model
    with tk.Registry(cache=tk.DiskCache(tmp_path / "cache"), options=tk.TransferOptions(durable=False)) as registries:
        WAYS[way](registries, name, tmp_path / "to")

    files = 100 if way.startswith("some") else FILES
    assert sum(together) > files / 2
    if way not in ("into a cache", "a layout"):
        found = {file.name: file.read_bytes() for file in (tmp_path / "to").iterdir() if file.is_file()}
        wanted = {file.name: file.read_bytes() for file in sorted(folder.iterdir())[:files]}
        assert wanted == found
