"""The registry that the functions use: one a process, made when it is needed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from transferkit.registry import defaults


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TRANSFERKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(defaults, "_made", {})
    yield
    for registry in defaults._made.values():
        registry.close()


def test_it_is_made_once(tmp_path: Path) -> None:
    found = []
    threads = [threading.Thread(target=lambda: found.append(defaults.default())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), len({id(each) for each in found})) == (8, 1)
    assert found[0].cache.root == str(tmp_path)


def test_another_process_has_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = defaults.default()
    monkeypatch.setattr("os.getpid", lambda: -1)
    theirs = defaults.default()
    assert theirs is not mine
    theirs.close()
    mine.close()
