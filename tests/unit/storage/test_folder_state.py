"""The state of a folder: what does not parse is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from transferkit.content.digest import Digest
from transferkit.storage.disk import Disk
from transferkit.storage.folder import OpenFolder
from transferkit.storage.folder_state import FolderState

DIGEST = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # of b"hello"
STATE: dict[str, Any] = {
    "format": 1,
    "version": "v",
    "files": {"a": [DIGEST, 5, 1, 2, 3, "-"], "b": [DIGEST, 5, 1, 2, 3, "another"]},
    "placing": {"c": DIGEST},
    "begun": "w",
    "layers": {"layer": {"d": DIGEST, "e": ""}},
    "config": "e30=",
}


def load(tmp_path: Path, state: Any) -> FolderState:
    (tmp_path / "state.json").write_text(json.dumps(state))
    with OpenFolder(str(tmp_path), Disk()) as folder:
        return FolderState.load(folder, "this")


def test_rows_of_another_boot_are_doubted(tmp_path):
    state = load(tmp_path, STATE)
    assert ("v", "w", b"{}", {"c": Digest(DIGEST)}) == (state.version, state.begun, state.config, state.placing)
    assert {"a": 1, "b": -1} == {path: row.modified for path, row in state.rows.items()}
    assert {Digest(DIGEST)} == {row.digest for row in state.rows.values()}


@pytest.mark.parametrize(
    "wrong",
    [
        {"files": {"a": [DIGEST]}},
        {"files": {"a": None}},
        {"files": {"a": [5, 1, 1, 1, 1, "-"]}},
        {"files": {"a": [DIGEST, float("inf"), 1, 1, 1, "-"]}},
        {"files": {"a": [DIGEST, "x", 1, 1, 1, "-"]}},
        {"files": []},
        {"placing": {"a": "sha256:../x"}},
        {"layers": []},
        {"layers": {"k": {"x": 5}}},
        {"config": "%%%"},
        {"format": 2},
        {"format": []},
    ],
)
def test_a_state_that_does_not_parse_is_none(tmp_path, wrong):
    assert FolderState() == load(tmp_path, {**STATE, **wrong})
    assert FolderState() == load(tmp_path, [])
