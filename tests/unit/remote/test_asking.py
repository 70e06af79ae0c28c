"""Whether asking for a blob pays: a row of absent ones says no, one that is there says yes."""

from __future__ import annotations

import pytest

from transferkit.content.descriptor import Descriptor
from transferkit.remote.asking import Asking

KIB = 1024


def blob(size: int = 16 * KIB) -> Descriptor:
    return Descriptor("sha256:" + 64 * "a", size)


@pytest.fixture
def asking() -> Asking:
    return Asking()


def hear(asking: Asking, absent: int) -> None:
    for _ in range(absent):
        assert asking.pays(blob())
        asking.heard(is_there=False)


def asked_for(asking: Asking, count: int, size: int = 16 * KIB) -> list[int]:
    return [number for number in range(1, count + 1) if asking.pays(blob(size))]


def test_after_sixteen_that_were_not_there_one_in_sixteen_is_asked_for(asking):
    hear(asking, 16)
    assert asked_for(asking, 50) == [16, 32, 48]


def test_one_that_is_there_brings_the_questions_back(asking):
    hear(asking, 16)
    asking.heard(is_there=True)
    hear(asking, 16)
    assert not asking.pays(blob())


def test_so_does_a_failure(asking):
    hear(asking, 16)
    asking.begin_again()
    hear(asking, 16)
    assert not asking.pays(blob())


@pytest.mark.parametrize(("size", "asked"), [(1024 * KIB, False), (1024 * KIB + 1, True)])
def test_large_ones_are_always_asked_for(asking, size, asked):
    hear(asking, 16)
    assert asking.pays(blob(size)) is asked
