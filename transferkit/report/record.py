"""How a call went over time: few samples however long it took, and a picture of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 600
"""Samples that are kept at most, and as many events."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen at one moment: ``seconds`` since the call began, and ``moved`` bytes by then, all together.

    ``doing`` is what was counted where that is no transfer, ``reason`` what the call waited for (``tk.Status``).
    """

    seconds: float
    moved: int
    completed: int = 0
    workers: int = 0
    doing: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened ``seconds`` after the call began: ``healed``, ``retried`` or ``failed``, and why."""

    seconds: float
    kind: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """How a call went: samples in the order of time, at most ``MOST``, and the first ``MOST`` events."""

    samples: tuple[Sample, ...] = field(default=(), repr=False)
    events: tuple[Event, ...] = field(default=(), repr=False)

    @property
    def seconds(self) -> float:
        """How long the call took, as far as it was seen."""
        return self.samples[-1].seconds if self.samples else 0.0

    def rates(self) -> list[tuple[float, float, float]]:
        """Return the steps between samples: when each begins and ends, in seconds, and bytes a second within."""
        pairs = zip(self.samples, self.samples[1:], strict=False)
        return [
            (one.seconds, two.seconds, max(0, two.moved - one.moved) / (two.seconds - one.seconds))
            for one, two in pairs
            if two.seconds > one.seconds
        ]

    def waits(self) -> list[tuple[float, float, str]]:
        """Return the waits, and other work than transfers: when each begins and ends, in seconds, and what it is."""
        found: list[tuple[float, float, str]] = []
        for one, two in zip(self.samples, self.samples[1:], strict=False):
            what = f"waiting: {one.reason}" if one.reason else one.doing
            if what and found and found[-1][2] == what and found[-1][1] == one.seconds:
                found[-1] = (found[-1][0], two.seconds, what)
            elif what:
                found.append((one.seconds, two.seconds, what))
        return found

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw it: the rate over time, the workers at work, waits as areas, cut connections as lines.

        On ``ax``, by default on axes of a new figure; what was drawn on is returned.

        Raises:
            ModuleNotFoundError: matplotlib is not installed (``pip install 'transferkit[plot]'``).
        """
        from transferkit.report.plot import plot

        return plot(self, ax)


class Recorder:
    """Makes a record while a call runs: where there are ``MOST`` samples, every second one goes, and from then on half
    as many are taken. One thread's, but for ``happened``, which any may call."""

    def __init__(self) -> None:
        self._samples: list[Sample] = []
        self._events: list[Event] = []
        self._step = 0.0

    def take(self, sample: Sample) -> None:
        """Take in what is seen now, which is always the last sample."""
        samples = self._samples
        if len(samples) > 1 and samples[-1].seconds - samples[-2].seconds < self._step:
            samples.pop()
        samples.append(sample)
        if len(samples) > MOST:
            del samples[1:-1:2]
            self._step = 2 * (samples[-1].seconds - samples[0].seconds) / MOST

    def happened(self, event: Event) -> None:
        """Take in that something has happened."""
        if len(self._events) < MOST:
            self._events.append(event)

    def record(self) -> Record:
        """Return what there is so far."""
        return Record(tuple(self._samples), tuple(self._events[:MOST]))


def count(events: Sequence[Event], kind: str) -> int:
    """Return how many events are of one kind."""
    return sum(1 for event in events if event.kind == kind)
