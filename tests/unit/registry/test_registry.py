"""A registry client before its first request: what it is made with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests

import transferkit as tk
from transferkit.registry import Registry
from transferkit.storage.cache import DiskCache

MIB = 1024 * 1024


@pytest.mark.parametrize(("said", "expected"), [(None, False), ("", False), ("0", False), ("1", True), ("yes", True)])
def test_offline_is_said_by_the_environment_or_by_the_caller(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str | None, expected: bool
) -> None:
    monkeypatch.delenv("TRANSFERKIT_OFFLINE", raising=False)
    if said is not None:
        monkeypatch.setenv("TRANSFERKIT_OFFLINE", said)
    for given, wanted in ((None, expected), (True, True), (False, False)):
        with Registry(cache=tmp_path, offline=given) as registry:
            assert registry.offline is wanted


def test_a_cache_is_given_or_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFERKIT_CACHE", str(tmp_path / "default"))
    cache = DiskCache(tmp_path / "own")
    for given, expected in (
        (cache, cache.root),
        (tmp_path / "path", str(tmp_path / "path")),
        (None, f"{tmp_path}/default"),
    ):
        with Registry(cache=given) as registry:
            assert registry.cache.root == expected
            assert repr(registry) == f"<Registry with <DiskCache {expected}>>"
    assert list(tmp_path.iterdir()) == []  # nothing is made before it is needed


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({}, 16 * MIB),
        ({"resume_threshold": MIB}, MIB),
        ({"chunk_threshold": MIB}, MIB + 1),
    ],
)
def test_what_comes_in_chunks_survives_an_interruption(tmp_path: Path, keywords: dict[str, Any], expected: int) -> None:
    with Registry(cache=tmp_path, options=tk.TransferOptions(**keywords)) as registry:
        assert registry.cache.blobs.resume_threshold == expected


def test_a_mask_is_a_name_or_a_text(tmp_path: Path) -> None:
    text = "registry.example.com/team/_:latest"
    for mask in (text, tk.Name.parse(text)):
        with Registry(cache=tmp_path, mask=mask) as registry:
            assert str(registry._reference("m")) == "registry.example.com/team/m:latest"
    with pytest.raises(tk.InvalidNameError):
        Registry(cache=tmp_path, mask="://")


def test_a_session_of_the_users_stays_open(tmp_path: Path) -> None:
    closed: list[bool] = []

    class Session(requests.Session):
        def close(self) -> None:
            closed.append(True)
            super().close()

    session = Session()
    with Registry(cache=tmp_path, session=session):
        pass
    assert closed == []
    session.close()


def test_without_a_network_no_request_is_begun(tmp_path: Path) -> None:
    with Registry(cache=tmp_path, offline=True) as registry:
        for call in (registry.push, registry.referrers, lambda name: registry.copy(name, name)):
            with pytest.raises(
                tk.ConnectError, match=r"^cannot .*: this is offline \(TRANSFERKIT_OFFLINE, or offline=True\); turn"
            ):
                call("m")
    with pytest.raises(tk.ManifestNotFoundError), Registry(cache=tmp_path, offline=True) as registry:
        registry.plan("m")
