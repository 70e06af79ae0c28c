"""Helpers of the functional tests: the whole stack over loopback."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

import transferkit as tk


@pytest.fixture
def contents() -> Callable[[Path], dict[str, str]]:
    """Return, for each blob in a folder, its file name and the digest that ``hashlib`` finds."""

    def look(folder: Path) -> dict[str, str]:
        return {
            file.name: "sha256-" + hashlib.sha256(file.read_bytes()).hexdigest()
            for file in folder.iterdir()
            if file.is_file()
        }

    return look


@pytest.fixture
def assert_exactly(contents: Callable[[Path], dict[str, str]]) -> Callable[[Path, list[tk.Blob]], None]:
    """Assert that a folder holds just these blobs, each with the right bytes, and nothing unfinished."""

    def check(folder: Path, blobs: list[tk.Blob]) -> None:
        expected = {blob.digest.replace(":", "-"): blob.digest.replace(":", "-") for blob in blobs}
        assert expected == contents(folder)
        leftovers = [file.name for file in (folder / ".partial").iterdir() if file.name != "verified"]
        assert leftovers == []

    return check
