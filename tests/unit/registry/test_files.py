"""Files as the layers of an artifact: hashed once, read as they were, never two under one title."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.unit.remote.rig import Flow
from tests.unit.transport.rig import everything
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.errors import BlobNotFoundError, InvalidNameError, ReadError, SourceError
from transferkit.registry.files import EMPTY_CONFIG, FileSet, titled

HELLO = Digest("sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")  # printf hello | sha256sum


@pytest.fixture
def files(tmp_path: Path) -> FileSet:
    (tmp_path / "hello").write_bytes(b"hello")
    files = FileSet()
    files.add("greetings/hello", str(tmp_path / "hello"), Flow())
    return files


def test_a_file_is_hashed_and_titled(files: FileSet) -> None:
    (layer,) = files.layers
    assert (layer.digest, layer.size) == (HELLO, 5)
    assert dict(layer.annotations) == {"org.opencontainers.image.title": "greetings/hello"}


def test_a_large_file_is_hashed_piece_by_piece(tmp_path: Path) -> None:
    data, files = bytes(range(256)) * 1000, FileSet()
    (tmp_path / "large").write_bytes(data)
    files.add("large", str(tmp_path / "large"), Flow())
    assert files.layers[0].digest == f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.mark.parametrize("offset", [0, 2, 5])
def test_its_content_can_be_read_from_anywhere(files: FileSet, offset: int) -> None:
    with files.fetch(files.layers[0], offset=offset, flow=Flow()) as body:
        assert (body.offset, everything(body)) == (offset, b"hello"[offset:])  # type: ignore[arg-type]


def test_the_empty_config_is_there_without_a_file(files: FileSet) -> None:
    config = files.manifest(None, {}).config
    assert config is not None
    with files.fetch(config, flow=Flow()) as body:
        assert everything(body) == EMPTY_CONFIG  # type: ignore[arg-type]


def test_what_is_none_of_the_files_is_not_there(files: FileSet) -> None:
    with pytest.raises(BlobNotFoundError, match="is none of the files"):
        files.fetch(Descriptor(f"sha256:{64 * 'a'}", 1), flow=Flow())  # type: ignore[arg-type]


def test_a_file_that_is_missing_or_none_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(SourceError, match=str(path)):
            FileSet().add("x", str(path), Flow())


@pytest.mark.parametrize("title", ["", "../x", "/x", "C:x"])
def test_a_title_that_is_no_path_of_a_file_is_refused(tmp_path: Path, title: str) -> None:
    with pytest.raises(InvalidNameError):
        FileSet().add(title, str(tmp_path), Flow())


def test_two_files_with_one_title_are_refused(files: FileSet, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"other")
    files.add("Greetings/Hello", str(tmp_path / "other"), Flow())
    with pytest.raises(InvalidNameError, match="they would be one file"):
        files.manifest(None, {})


def test_a_manifest_says_what_they_are(files: FileSet) -> None:
    document = json.loads(files.manifest(None, {}).raw)
    assert document["artifactType"] == "application/vnd.transferkit.files.v1"
    assert "annotations" not in document
    manifest = files.manifest("application/vnd.example", {"a": "b"})
    assert (manifest.json()["artifactType"], manifest.annotations) == ("application/vnd.example", {"a": "b"})
    assert [layer.digest for layer in manifest.layers] == [HELLO]


def test_a_missing_file_ends_all_and_a_broken_network_does_not(files: FileSet) -> None:
    assert files.concerns_all(SourceError("changed"))
    assert not files.concerns_all(ReadError("broken"))


def test_cleared_there_are_none(files: FileSet) -> None:
    files.clear()
    assert (files.layers, files.paths) == ([], {})


def test_a_files_title_is_its_name_unless_another_is_given() -> None:
    assert titled(["a/b.bin", Path("c") / "d"]) == [("b.bin", "a/b.bin"), ("d", "c/d")]
    assert titled({"x/y": Path("z")}) == [("x/y", "z")]
    assert titled([]) == []
