"""A short version of ``make soak``: kill -9 at random moments, and no wrong byte ever under a final name."""

from __future__ import annotations

import pytest

from benchmarks.soak import Soak, WrongBytes, soak


def test_transfers_that_are_killed_at_random_moments_end_right():
    told: list[str] = []

    soak(6, seed=11, size=8 * 1024 * 1024, say=told.append)

    assert 12 == len(told)


def test_the_soak_finds_wrong_bytes(tmp_path):
    """Guard: a file that is not what its name says does not pass."""
    Soak._check(tmp_path)
    (tmp_path / ("sha256-" + 64 * "0")).write_bytes(b"wrong")

    with pytest.raises(WrongBytes, match="sha256-0000"):
        Soak._check(tmp_path)
