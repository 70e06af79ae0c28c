"""What the network may do to a connection, and which connection it does that to.

Values and choices only: no sockets, no clock. :mod:`transferkit.testing.tunnel` carries them out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

End: TypeAlias = Literal["reset", "closed", "silent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What happens to one connection. Positions and sizes are in bytes, times in seconds.

    *Down* is from the server to the client, *up* the other way. Bytes are those on the wire: heads of requests and
    answers, and TLS records, count too. Of several ends in one direction the earliest comes. The kernels on the way
    hold up to some megabytes for a sender whose bytes nobody reads.

    Raises:
        ValueError: a number is negative, or a rate is not positive.

    >>> Faults(reset_after=1000)
    Faults(reset_after=1000)
    """

    latency: float = 0.0
    """What the server sends is that late: a round trip takes so much longer."""
    bandwidth: float | None = None
    """Bytes a second, down and up each."""
    trickle: float | None = None
    """Bytes a second down, each of them alone, from ``trickle_after`` on."""
    trickle_after: int = 0
    reset_after: int | None = None
    """So many bytes down, then RST to both sides, as soon as they have arrived, or 5 seconds later."""
    reset_after_up: int | None = None
    """So many bytes up, then RST to both sides."""
    close_after: int | None = None
    """So many bytes down, then a clean end (FIN), which does not wait for more bytes from the server."""
    silent_after: int | None = None
    """So many bytes down, then nothing, on an open connection."""
    silent_after_up: int | None = None
    """So many bytes up, then nothing is read from the client. With ``silent_after=0`` it is a peer that accepts and
    says nothing."""
    corrupt_at: int | None = None
    """The lowest bit of this byte down (the first is 0) is flipped."""
    refuse: bool = False
    """The connection is reset at once, and the server never hears of it. The client's ``connect`` fails, or the first
    thing it does after."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and value < 0:
                raise ValueError(f"Faults.{field.name} is at least 0, not {value!r}")
        for name in ("bandwidth", "trickle"):
            if getattr(self, name) == 0:
                raise ValueError(f"Faults.{name} is more than 0 bytes a second; to stop a connection, use silent_after")

    def __repr__(self) -> str:
        told = (f"{field.name}={getattr(self, field.name)!r}" for field in fields(self) if self._told(field.name))
        return f"Faults({', '.join(told)})"

    def _told(self, name: str) -> bool:
        return bool(getattr(self, name) != _DEFAULTS[name])

    def down(self) -> Course:
        """Return what of this concerns the bytes to the client."""
        ends: dict[End, int | None] = {
            "reset": self.reset_after,
            "closed": self.close_after,
            "silent": self.silent_after,
        }
        end_after, end = _earliest(ends)
        return Course(
            latency=self.latency,
            bandwidth=self.bandwidth,
            trickle=self.trickle,
            trickle_after=self.trickle_after,
            corrupt_at=self.corrupt_at,
            end_after=end_after,
            end=end,
        )

    def up(self) -> Course:
        """Return what of this concerns the bytes to the server."""
        end_after, end = _earliest({"reset": self.reset_after_up, "silent": self.silent_after_up})
        return Course(bandwidth=self.bandwidth, end_after=end_after, end=end)


_DEFAULTS = {field.name: field.default for field in fields(Faults)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What happens to the bytes of one direction."""

    latency: float = 0.0
    bandwidth: float | None = None
    trickle: float | None = None
    trickle_after: int = 0
    corrupt_at: int | None = None
    end_after: int | None = None
    end: End = "reset"


def _earliest(ends: dict[End, int | None]) -> tuple[int | None, End]:
    known: list[tuple[int, End]] = [(after, end) for end, after in ends.items() if after is not None]
    return min(known, key=lambda pair: pair[0], default=(None, "reset"))


Choose: TypeAlias = Callable[[int], Faults]
FaultChoice: TypeAlias = Faults | Sequence[Faults] | Choose


def chooser(choice: FaultChoice) -> Choose:
    """Return a function from the number of a connection (the first is 0) to its faults.

    One ``Faults`` is for all of them; of a sequence, the n-th is for the n-th connection, and later ones are clean.

    >>> choose = chooser([Faults(refuse=True)])
    >>> choose(0), choose(1)
    (Faults(refuse=True), Faults())
    """
    if isinstance(choice, Faults):
        return lambda _number: choice
    if callable(choice):
        return choice
    plan = tuple(choice)
    return lambda number: plan[number] if number < len(plan) else Faults()


Kind: TypeAlias = Literal[
    "reset_after", "reset_after_up", "close_after", "silent_after", "silent_after_up", "corrupt_at", "refuse"
]


def random_faults(
    seed: int | str,
    *,
    share: float = 0.3,
    within: int = 256 * 1024,
    kinds: Sequence[Kind] = ("reset_after", "close_after", "refuse"),
) -> Choose:
    """Return a choice for soak tests: a ``share`` (0 to 1) of all connections gets one fault each.

    ``kinds`` are names of fields of :class:`Faults`; a position is below ``within`` bytes. The n-th connection gets the
    same for the same ``seed``, on every machine and in any order.

    Raises:
        ValueError: a number is out of its bounds, or there are no kinds.

    >>> choose = random_faults(7, share=0.5, kinds=["close_after"])
    >>> [choose(number).close_after for number in range(4)]
    [None, None, 156308, None]
    """
    if not 0 <= share <= 1 or within < 1 or not kinds:
        raise ValueError("share is between 0 and 1, within at least 1 byte, and there is at least one kind")

    def choose(number: int) -> Faults:
        # A generator for each: connections come in any order, and must not take one another's numbers.
        rng = random.Random(f"{seed}:{number}")
        if rng.random() >= share:
            return Faults()
        kind = rng.choice(kinds)
        if kind == "refuse":
            return Faults(refuse=True)
        position = rng.randrange(within)
        return Faults(**{kind: position})  # type: ignore[arg-type]  # all other kinds are positions

    return choose
