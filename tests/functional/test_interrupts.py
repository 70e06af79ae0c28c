"""A short version of the interrupt proof (``benchmarks/interrupts.py``): 200 signals here, 3,000 in ``make soak``."""

from __future__ import annotations

import random

import pytest

from benchmarks.interrupts import Unstoppable, interrupts, shoot


class Said:
    """A child that says one thing about the call that was interrupted."""

    def __init__(self, **said: object) -> None:
        self._said = {"took": 0.1, "threads": [], "error": None, **said}

    def begin(self, kind: str, number: int) -> None:
        pass

    def interrupt(self) -> None:
        pass

    def hear(self) -> dict[str, object]:
        return self._said


def test_an_interrupt_at_any_moment_ends_downloads_and_uploads_in_a_second():
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    told: list[str] = []

    interrupts(75, 25, seed=seed, say=told.append)

    assert ["100 of 100 calls interrupted"] == [text.partition(";")[0] for text in told]


@pytest.mark.parametrize("said", [{"took": 1.1}, {"threads": ["transferkit-driver"]}, {"error": "ReadError()"}])
def test_the_proof_finds_what_goes_on(said):
    """Guard: what must not be does not pass."""
    assert 0.1 == shoot(Said(), 0, random.Random(1), twice=True)
    with pytest.raises(Unstoppable, match="download-short 0"):
        shoot(Said(**said), 0, random.Random(1), twice=False)
