"""What a finished transfer did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from transferkit.report.record import Record
from transferkit.tables import facts, human_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Record", "Report", "human_bytes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The figures of one call. Sizes in bytes, times in seconds.

    ``blobs`` counts distinct blobs asked for; ``skipped`` of them were at the target already and ``mounted`` were
    linked there by the registry. ``bytes`` is the body traffic, attempts that were thrown away included. ``retried``
    counts attempts after a first one, ``healed`` those of them that a silent or slow connection was cut for. ``paths``
    maps a digest to its file (downloads only).
    """

    blobs: int = 0
    bytes: int = 0
    skipped: int = 0
    mounted: int = 0
    retried: int = 0
    healed: int = 0
    seconds: float = 0.0
    paths: dict[str, str] = field(default_factory=dict, repr=False)
    record: Record = field(default=Record(), repr=False, compare=False)
    """How it went over time."""

    @property
    def rate(self) -> float:
        """Body bytes a second."""
        return self.bytes / self.seconds if self.seconds > 0 else 0.0

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw how it went over time; see ``Record.plot``."""
        return self.record.plot(ax)

    def _rows(self) -> list[tuple[str, str]]:
        rows = [("blobs", str(self.blobs)), ("moved", human_bytes(self.bytes)), ("time", f"{self.seconds:.2f} s")]
        rows.append(("rate", f"{human_bytes(self.rate)}/s"))
        counts = ("skipped", "mounted", "retried", "healed")
        return rows + [(name, str(getattr(self, name))) for name in counts if getattr(self, name)]

    def __repr__(self) -> str:
        return f"<Report {', '.join(f'{name} {value}' for name, value in self._rows())}>"

    def _repr_html_(self) -> str:
        return facts(self._rows())
