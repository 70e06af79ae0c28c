"""Which files of a repository of the hub stay in memory."""

from __future__ import annotations

import pytest

from transferkit.protocol.hub import HubFile
from transferkit.registry import hub_files

OID = 40 * "a"


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [([], ""), ([5, 1, 3], "bca"), ([10, 11, 1], "ca"), ([10, 10, 10, 9], "dab"), ([0, 10, 10, 10], "abcd")],
)
def test_the_smallest_files_stay_in_memory_as_many_as_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], expected: str
) -> None:
    monkeypatch.setattr(hub_files, "_KEPT", 10)
    monkeypatch.setattr(hub_files, "_ALL_KEPT", 30)
    assert list(expected) == hub_files._kept([HubFile(chr(97 + at), size, OID) for at, size in enumerate(sizes)])
