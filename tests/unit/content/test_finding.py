"""One fact about a machine, as ``transferkit doctor`` and its callers have it."""

from __future__ import annotations

import dataclasses

import pytest

from transferkit.content.finding import Finding


def test_a_finding_is_a_value_and_needs_no_advice() -> None:
    finding = Finding(level="note", about="lock", text="free")
    assert finding == Finding(level="note", about="lock", text="free", advice="")
    assert len({finding, Finding(level="problem", about="lock", text="free")}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        finding.level = "ok"  # type: ignore[misc]
