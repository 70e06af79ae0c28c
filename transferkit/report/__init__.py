"""What a finished transfer did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from transferkit.report.record import Record
from transferkit.tables import facts, human_bytes, listing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FolderReport", "Plan", "PushPlan", "Record", "Report", "human_bytes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a download would do. Sizes in bytes.

    ``blobs`` distinct blobs were asked for, ``present`` of them are in place, verified; ``bytes`` are to be moved, what
    is left of interrupted ones being counted as in place. ``needed`` bytes of disk will be taken, ``free`` are there.
    """

    blobs: int = 0
    present: int = 0
    bytes: int = 0
    needed: int = 0
    free: int = 0

    @property
    def fits(self) -> bool:
        """Whether there is room for it."""
        return self.needed <= self.free

    def _repr_html_(self) -> str:
        rows = [("blobs", str(self.blobs)), ("present", str(self.present)), ("to be moved", human_bytes(self.bytes))]
        rows += [("disk needed", human_bytes(self.needed)), ("disk free", human_bytes(self.free))]
        return facts([*rows, ("fits", "yes" if self.fits else "no")])


@dataclass(frozen=True, slots=True, kw_only=True)
class PushPlan:
    """What a push of a folder would do. Sizes in bytes.

    ``files`` are the paths of its files, sorted. Their contents and the documents about them are ``blobs`` distinct
    blobs, of which the registry has ``present``; ``bytes`` are to be sent. ``limits`` are sentences about the known
    limits of the registry that the push would break: it may fail there.

    >>> files = ("config.json", "model.safetensors")
    >>> PushPlan(files=files, blobs=3, present=1, bytes=2048)
    <PushPlan 2 files, 2 of 3 blobs to send, 2.0 KiB>
    """

    files: tuple[str, ...] = ()
    blobs: int = 0
    present: int = 0
    bytes: int = 0
    limits: tuple[str, ...] = ()

    def __repr__(self) -> str:
        limits = "".join(f"; {sentence}" for sentence in self.limits)
        blobs = f"{self.blobs - self.present} of {self.blobs} blobs to send"
        return f"<PushPlan {len(self.files)} files, {blobs}, {human_bytes(self.bytes)}{limits}>"

    def _repr_html_(self) -> str:
        send = f"{self.blobs - self.present} of {self.blobs} blobs to send, {human_bytes(self.bytes)}"
        caption = "; ".join([f"{len(self.files)} files, {send}", *self.limits])
        return listing(caption, ["file"], [[path] for path in self.files])


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
