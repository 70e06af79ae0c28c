"""What became of a folder that was pulled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from transferkit.report.record import Record
from transferkit.tables import facts, human_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_WAYS = {
    "reflink": "as reflinks",
    "hard": "as hard links",
    "copy": "as copies",
    "unpacked": "unpacked",
    "straight": "straight from the registry",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderReport:
    """What became of a folder that was pulled. Sizes in bytes, times in seconds; files are named by their paths in it.

    ``written`` are new there, or replaced a file of an older version; ``kept`` were right already. ``linked`` tells how
    each written file came: as a ``reflink``, a ``hard`` link or a ``copy`` of the cache's, ``unpacked`` from a layer,
    or ``straight`` from the registry. ``left`` are files of an older version that this one does not have: nobody
    removes them. ``bytes`` came over the network.
    """

    folder: str
    digest: str
    """That of the manifest, or what else pins the version."""
    format: str
    written: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    linked: Mapping[str, str] = field(default_factory=dict, repr=False)
    bytes: int = 0
    seconds: float = 0.0
    record: Record = field(default=Record(), repr=False, compare=False)
    """How it went over time."""

    @property
    def paths(self) -> dict[str, str]:
        """The paths of all files, by their names."""
        return {name: f"{self.folder}/{name}" for name in sorted((*self.written, *self.kept))}

    def _rows(self) -> list[tuple[str, str]]:
        ways = Counter(self.linked.values())
        how = ", ".join(f"{count} {_WAYS.get(way, way)}" for way, count in sorted(ways.items()))
        rows = [("folder", self.folder), ("files", str(len(self.written) + len(self.kept)))]
        rows.append(("written", f"{len(self.written)} ({how})" if how else str(len(self.written))))
        rows += [(name, str(len(getattr(self, name)))) for name in ("kept", "left") if getattr(self, name)]
        return [*rows, ("moved", human_bytes(self.bytes)), ("time", f"{self.seconds:.2f} s")]

    def __repr__(self) -> str:
        return f"<FolderReport {', '.join(f'{name} {value}' for name, value in self._rows())}>"

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw how it went over time; see ``Record.plot``."""
        return self.record.plot(ax)

    def _repr_html_(self) -> str:
        return facts(self._rows())
