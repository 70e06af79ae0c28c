"""How often partial files are synced, and what a stop may still sync: in time of an injected clock."""

from __future__ import annotations

import pytest

from transferkit.storage import pace as module
from transferkit.storage.pace import Pace

MIB = 1024 * 1024


@pytest.fixture
def made():
    pace = Pace(clock=lambda: pace.now)
    pace.now = 100.0
    return pace


def test_the_first_sync_comes_early_as_it_tells_how_fast_the_disk_is(made):
    assert 64 * MIB == made.due()
    assert 256 * MIB == made.due(syncing=True)


@pytest.mark.parametrize(
    ("speed", "due"), [(2000 * MIB, 256 * MIB), (500 * MIB, 180 * MIB), (100 * MIB, 36 * MIB), (5 * MIB, 16 * MIB)]
)
def test_no_more_is_unsynced_than_a_stop_can_sync(made, speed, due):
    made.took(64 * MIB, 64 * MIB / speed)
    assert due == made.due()
    assert made.allows(made.due()) == (speed >= 100 * MIB)


def test_a_sync_of_next_to_nothing_tells_nothing(made):
    made.took(1000, 0.5)
    assert 64 * MIB == made.due()


def test_a_stop_takes_less_than_half_a_second_for_all_files_together(made):
    made.took(64 * MIB, 64 / 500)
    assert made.allows(100 * MIB)
    made.now += 0.2
    assert made.allows(90 * MIB)
    assert not made.allows(110 * MIB)
    made.now += 0.21
    assert not made.allows(1)
    made.now += module.APART
    assert made.allows(100 * MIB)


def test_of_a_disk_that_nobody_knows_what_an_old_one_does_is_expected(made):
    assert made.allows(50 * MIB)
    assert not made.allows(60 * MIB)


def test_a_stop_at_the_most_that_may_be_unsynced_loses_nothing(made):
    """``due`` is what is unsynced at most but for the last write, whatever the disk, once it is known."""
    for speed in (120 * MIB, 300 * MIB, 900 * MIB):
        made.took(64 * MIB, 64 * MIB / speed)
        made.now += 100
        assert made.allows(made.due())
