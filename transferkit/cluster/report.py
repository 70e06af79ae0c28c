"""What a run of a plan on several workers did: the figures of all, and a row for each worker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from transferkit.report import Report
from transferkit.report.record import Record
from transferkit.tables import human_bytes, listing


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRow:
    """What one worker did. ``bytes`` are body traffic, ``seconds`` those in which it was at work.

    ``blobs`` counts blobs of its pieces, one of which it ran only a range of included; ``failed`` the pieces that
    failed there, or that it died with.
    """

    name: str
    pieces: int = 0
    blobs: int = 0
    bytes: int = 0
    skipped: int = 0
    seconds: float = 0.0
    failed: int = 0

    def __add__(self, other: WorkerRow) -> WorkerRow:
        return WorkerRow(
            name=self.name,
            pieces=self.pieces + other.pieces,
            blobs=self.blobs + other.blobs,
            bytes=self.bytes + other.bytes,
            skipped=self.skipped + other.skipped,
            seconds=self.seconds + other.seconds,
            failed=self.failed + other.failed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterReport(Report):
    """The figures of one plan that several workers ran, as a ``Report`` has them, and a row for each worker.

    ``blobs`` counts distinct blobs of the plan. ``pieces`` were run; ``again`` of the attempts at them were further
    ones, after a failure or the death of a worker.
    """

    pieces: int = 0
    again: int = 0
    workers: tuple[WorkerRow, ...] = field(default=(), repr=False)

    def _facts(self) -> str:
        facts = [f"{name} {value}" for name, value in self._rows()]
        facts += [f"workers {len(self.workers)}", f"pieces {self.pieces}"]
        return ", ".join([*facts, f"tried again {self.again}"] if self.again else facts)

    def __repr__(self) -> str:
        lines = [f"<ClusterReport {self._facts()}"]
        for name, *figures in _cells(self.workers):
            lines.append(f"  {name}: {', '.join(map(' '.join, zip(_HEADS[1:], figures, strict=True)))}")
        return "\n".join(lines) + ">"

    def _repr_html_(self) -> str:
        return listing(self._facts(), _HEADS, _cells(self.workers))


_HEADS = ("worker", "pieces", "blobs", "moved", "skipped", "time", "failed")


def _cells(rows: Sequence[WorkerRow]) -> list[list[str]]:
    return [
        [
            row.name,
            str(row.pieces),
            str(row.blobs),
            human_bytes(row.bytes),
            str(row.skipped),
            f"{row.seconds:.2f} s",
            str(row.failed),
        ]
        for row in rows
    ]


def rows_of(each: Iterable[WorkerRow]) -> tuple[WorkerRow, ...]:
    """Return a row for each worker, in the order of their names, from what they did.

    >>> one, two = WorkerRow(name="b", pieces=1), WorkerRow(name="b", pieces=2)
    >>> [(row.name, row.pieces) for row in rows_of([one, WorkerRow(name="a"), two])]
    [('a', 0), ('b', 3)]
    """
    found: dict[str, WorkerRow] = {}
    for row in each:
        before = found.get(row.name)
        found[row.name] = row if before is None else before + row
    return tuple(found[name] for name in sorted(found))


def summed(
    reports: Sequence[Report],
    *,
    blobs: int,
    seconds: float,
    again: int,
    workers: tuple[WorkerRow, ...],
    paths: dict[str, str],
    record: Record,
) -> ClusterReport:
    """Return the figures of all pieces together."""
    return ClusterReport(
        blobs=blobs,
        bytes=sum(report.bytes for report in reports),
        skipped=min(blobs, sum(report.skipped for report in reports)),
        mounted=sum(report.mounted for report in reports),
        retried=sum(report.retried for report in reports),
        healed=sum(report.healed for report in reports),
        seconds=seconds,
        pieces=len(reports),
        again=again,
        workers=workers,
        paths=paths,
        record=record,
    )
