"""What a transfer would do."""

from __future__ import annotations

from dataclasses import dataclass

from transferkit.tables import facts, human_bytes, listing


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
