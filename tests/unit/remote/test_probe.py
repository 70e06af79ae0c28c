"""Whether probe for a blob pays: a row of absent ones says no, one that is there says yes."""

from __future__ import annotations

import pytest

from transferkit.content.descriptor import Descriptor
from transferkit.remote.probe import ExistenceProbe

KIB = 1024


def blob(size: int = 16 * KIB) -> Descriptor:
    return Descriptor("sha256:" + 64 * "a", size)


@pytest.fixture
def probe() -> ExistenceProbe:
    return ExistenceProbe()


def hear(probe: ExistenceProbe, absent: int) -> None:
    for _ in range(absent):
        assert probe.pays(blob())
        probe.heard(is_there=False)


def asked_for(probe: ExistenceProbe, count: int, size: int = 16 * KIB) -> list[int]:
    return [number for number in range(1, count + 1) if probe.pays(blob(size))]


def test_after_sixteen_that_were_not_there_one_in_sixteen_is_asked_for(probe):
    hear(probe, 16)
    assert asked_for(probe, 50) == [16, 32, 48]


def test_one_that_is_there_brings_the_questions_back(probe):
    hear(probe, 16)
    probe.heard(is_there=True)
    hear(probe, 16)
    assert not probe.pays(blob())


def test_so_does_a_failure(probe):
    hear(probe, 16)
    probe.begin_again()
    hear(probe, 16)
    assert not probe.pays(blob())


@pytest.mark.parametrize(("size", "asked"), [(1024 * KIB, False), (1024 * KIB + 1, True)])
def test_large_ones_are_always_asked_for(probe, size, asked):
    hear(probe, 16)
    assert probe.pays(blob(size)) is asked
