"""What a finished transfer did."""

from __future__ import annotations

from dataclasses import dataclass, field


def human_bytes(count: float) -> str:
    """Return ``count`` bytes as a person reads them.

    >>> human_bytes(0), human_bytes(1536), human_bytes(5 * 1024**3)
    ('0 B', '1.5 KiB', '5.0 GiB')
    """
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PushPlan:
    """What a push of a folder would do. Sizes in bytes.

    ``files`` are the paths of its files, sorted. Their contents and the documents about them are ``blobs`` distinct
    blobs, of which the registry has ``present``; ``bytes`` are to be sent. ``limits`` are sentences about the known
    limits of the registry that the push would break: it may fail there.

    >>> PushPlan(files=("config.json", "model.safetensors"), blobs=3, present=1, bytes=2048)
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

    @property
    def rate(self) -> float:
        """Body bytes a second."""
        return self.bytes / self.seconds if self.seconds > 0 else 0.0

    def _rows(self) -> list[tuple[str, str]]:
        rows = [("blobs", str(self.blobs)), ("moved", human_bytes(self.bytes)), ("time", f"{self.seconds:.2f} s")]
        rows.append(("rate", f"{human_bytes(self.rate)}/s"))
        counts = ("skipped", "mounted", "retried", "healed")
        return rows + [(name, str(getattr(self, name))) for name in counts if getattr(self, name)]

    def __repr__(self) -> str:
        return f"<Report {', '.join(f'{name} {value}' for name, value in self._rows())}>"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in self._rows())
        return f"<table>{rows}</table>"
