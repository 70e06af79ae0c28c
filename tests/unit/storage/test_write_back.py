"""Beginning to write a file: nothing that anybody may rest on, so nothing that may fail."""

from __future__ import annotations

import sys

import pytest

from transferkit.storage import write_back


@pytest.fixture(autouse=True)
def _forgotten():
    write_back._call.cache_clear()
    yield
    write_back._call.cache_clear()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has the call")
def test_linux_is_asked_to_begin(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        file.write(b"x" * 10_000)
        file.flush()
        assert 0 == write_back._call()(file.fileno(), 0, 10_000, 2)
        write_back.write_back(file.fileno(), 0, 10_000)


def test_what_it_says_is_not_asked(tmp_path):
    write_back.write_back(-1, 0, 10)


def test_other_systems_are_not_asked(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert write_back._call() is None
    write_back.write_back(-1, 0, 10)
