"""The figures of a run as values, and their JSON. Knows no server, no process and no layout.

Times in seconds, memory in bytes.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

OK, TIMEOUT, FAILED, WRONG = "ok", "timeout", "failed", "wrong"
OURS = "transferkit"
OWN_SESSION = "transferkit, own session"
FIRST_CALL = "transferkit, first call"
EARLIER = "transferkit 0.1.0"
PROCESSES = "transferkit, 4 processes"
CLUSTER = "transferkit, Dask"
SERVE = "transferkit serve"
DEMO = "transferkit serve --no-sync"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One process: from its start to its end, start-up included."""

    wall: float
    user: float
    system: float
    rss: int
    call: float | None = None
    """What the contestant itself saw, once it was started and had its imports; programs do not say."""
    status: str = OK
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One contestant in one row."""

    contestant: str
    kind: str
    """``ours``, ``earlier`` (a version of this library), ``other``, or ``floor``: no client can beat it."""
    runs: list[Run]
    requests: int | None = None
    connections: int | None = None
    wire: int | None = None
    """Bytes in both directions."""

    @property
    def good(self) -> list[Run]:
        return [run for run in self.runs if run.status == OK]

    def median(self, figure: Callable[[Run], float | None]) -> float | None:
        """Return the median of a figure over the runs that worked; ``None`` if one of the runs did not."""
        values = [value for run in self.good if (value := figure(run)) is not None]
        return statistics.median(values) if values and len(self.good) == len(self.runs) else None

    @property
    def wall(self) -> float | None:
        return self.median(lambda run: run.wall)

    @property
    def call(self) -> float | None:
        """As ``wall``, without the start-up of Python where that is known."""
        return self.median(lambda run: run.wall if run.call is None else run.call)

    @property
    def has_call(self) -> bool:
        """Whether ``call`` is more than the time of the whole process."""
        return any(run.call is not None for run in self.good)

    @property
    def rss(self) -> float | None:
        return self.median(lambda run: run.rss)

    @property
    def peak(self) -> int | None:
        """The most memory that any of the runs took, in bytes."""
        return max((run.rss for run in self.good), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One workload against one server."""

    name: str
    title: str
    blobs: int
    size: int
    """Bytes of all blobs together."""
    entries: list[Entry] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Contestants that did not run, and why; an empty name stands for the whole row."""

    def entry(self, contestant: str = OURS) -> Entry | None:
        return next((entry for entry in self.entries if entry.contestant == contestant), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    machine: dict[str, str]
    versions: dict[str, str]
    scale: float
    runs: int
    rows: list[Row]

    def row(self, name: str) -> Row | None:
        return next((row for row in self.rows if row.name == name), None)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Results:
        rows = [
            Row(**{**row, "entries": [Entry(**{**e, "runs": [Run(**r) for r in e["runs"]]}) for e in row["entries"]]})
            for row in document["rows"]
        ]
        return cls(**{**document, "rows": rows})

    @property
    def broken(self) -> list[str]:
        """Say what went wrong with outputs: a contestant that delivers wrong bytes has no time."""
        return [
            f"{row.name}, {entry.contestant}: {run.note}"
            for row in self.rows
            for entry in row.entries
            for run in entry.runs
            if run.status == WRONG or (run.status == FAILED and entry.kind in ("ours", "several"))
        ]
