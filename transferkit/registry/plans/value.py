"""The value: what is to be moved from where to where. It knows no session, no secret and no path of any machine.

A plan is always a valid one: whatever way it came about, its constructor has checked each digest, size, name and range.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from operator import index
from typing import TYPE_CHECKING, Any, ClassVar

from transferkit.arguments import Path, Progress
from transferkit.cancellation import Cancellation
from transferkit.content.blob_range import BlobRange
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.forks import cached
from transferkit.registry.plans import splitting, wire
from transferkit.registry.plans.checks import check_plan
from transferkit.report import Report, human_bytes
from transferkit.storage.cache import DiskCache
from transferkit.trace import NULL_TRACE, Trace

if TYPE_CHECKING:
    from transferkit.registry.plans.planning import Planning

VERSION = 1
WHOLE, PIECE, LAST = "whole", "piece", "last"


@dataclass(frozen=True, kw_only=True)
class TransferPlan:
    """A transfer as a value: it can be cut into pieces, sent to other processes and machines, and run there.

    ``kind`` is ``pull``, ``copy``, ``push`` or ``download``. ``source`` and ``target`` are references with all of their
    fields, the source's with the digest of its manifest; of a download the source is the base URL of a registry, beside
    the ``repository``. ``blobs`` are what is moved, in the order of the work: the largest first. ``step`` is ``whole``
    (all of it), ``piece`` (some blobs) or ``last``: what is done when all pieces are. ``ranges`` are the parts of large
    blobs that a piece moves. ``documents`` are manifests, children before their parents.

    It is pickled as its JSON. Two plans of the same transfer are equal, and have the same ``digest``.

    Raises:
        InvalidPlanError: it contradicts itself, or is of another version.
    """

    version: int = VERSION
    kind: str
    source: str
    repository: str = ""
    target: str = ""
    step: str = WHOLE
    platform: str = ""
    """Which manifest of an index is meant; ``all`` of them."""
    only: tuple[str, ...] = ()
    """Patterns of the files that a folder gets; of all where there are none."""
    exclude: tuple[str, ...] = ()
    """Patterns of the files that it does not get."""
    credentials: str = ""
    """Where credentials are found where it runs: ``package.module:callable``."""
    blobs: tuple[Descriptor, ...] = field(default=(), repr=False)
    ranges: tuple[BlobRange, ...] = field(default=(), repr=False)
    documents: tuple[bytes, ...] = field(default=(), repr=False)

    KINDS: ClassVar[tuple[str, ...]] = ("pull", "copy", "push", "download")

    def __post_init__(self) -> None:
        check_plan(self)

    # -- as a value

    @cached
    def size(self) -> int:
        """How many bytes it moves, where nothing is there."""
        if self.is_last:
            return 0
        return sum(blob.size for blob in self.blobs) + sum(piece.size for piece in self.ranges)

    @cached
    def digest(self) -> Digest:
        """The digest of its JSON."""
        return Digest.of(self.to_json().encode("ascii"))

    @property
    def is_last(self) -> bool:
        """Whether it is what is done when all pieces are."""
        return self.step == LAST

    def to_json(self) -> str:
        """Return the plan as JSON in ASCII, always the same for the same plan (schema ``transferkit-plan/1``)."""
        return wire.to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> TransferPlan:
        """Return the plan that a text is; whatever it says is checked. InvalidPlanError: it is none."""
        return cls(**wire.from_json(text))

    def __reduce__(self) -> tuple[Callable[[str], TransferPlan], tuple[str]]:
        return type(self).from_json, (self.to_json(),)

    def __repr__(self) -> str:
        where = f"{self.source}{f' to {self.target}' if self.target else ''}"
        parts = [f"{len(self.blobs)} blob{'s' * (len(self.blobs) != 1)}"]
        if self.ranges:
            parts.append(f"{len(self.ranges)} range{'s' * (len(self.ranges) != 1)}")
        count = f"{', '.join(parts)}, {human_bytes(self.size)}"
        return f"<TransferPlan {self.kind} {where}, {self.step}: {count}>"

    # -- in pieces

    def split(self, pieces: int | None = None, bytes: int | None = None, *, ranges: bool = False) -> list[TransferPlan]:
        """Return plans that move all blobs between them, each once, in at most so many ``pieces`` or of so many
        ``bytes``; the same ones for the same plan.

        Small blobs go together in bundles of some hundred. A piece has more bytes than ``bytes`` only where one blob
        has. With ``ranges`` a blob that is much larger than a piece is cut as well: that is for pieces which fill one
        store that all of them see. What is done at the end is ``last()``, which is none of them.

        Raises:
            TypeError: neither or both of ``pieces`` and ``bytes`` are given, or no numbers.
            ValueError: they are less than 1, or this is a piece already.
        """
        if self.step != WHOLE:
            raise ValueError(f"a plan is split once, and this is a {self.step} of one")
        if (pieces is None) == (bytes is None):
            raise TypeError("a plan is split into so many pieces, or by bytes: pass one of pieces= and bytes=")
        count = index(pieces if pieces is not None else bytes)  # type: ignore[arg-type]  # one of them is given
        if count < 1:
            raise ValueError(f"pieces and bytes are at least 1, not {count}")
        divide = splitting.by_pieces if pieces is not None else splitting.by_bytes
        parts = divide(self.blobs, count, ranges=ranges and self.kind in ("pull", "download"))
        piece = replace(self, step=PIECE, blobs=(), documents=())
        return [replace(piece, blobs=part.blobs, ranges=part.ranges) for part in parts]

    def last(self) -> TransferPlan:
        """Return what is done when all pieces are: a name is linked, a manifest is pushed, ranges become a blob.

        It may be run again, and says what is missing if it is run too early.
        """
        if self.step == LAST:
            return self
        if self.step == PIECE:
            raise ValueError("a piece has no last step; the plan that it was split from has")
        large = tuple(blob for blob in self.blobs if blob.size >= splitting.LARGE)
        return replace(self, step=LAST, blobs=large if self.kind in ("pull", "download") else ())

    # -- where it runs

    def run(
        self,
        registry: Planning | None = None,
        *,
        to: Path | None = None,
        cache: DiskCache | Path | None = None,
        concurrency: int | None = None,
        progress: Progress = None,
        trace: Trace = NULL_TRACE,
        cancel: Cancellation | None = None,
        logger: logging.Logger | None = None,
    ) -> Report:
        """Do what the plan says, here, and return what was done; nothing is moved of what is there.

        ``to`` is the folder that is filled: of a download always, of a pull where files are wanted. ``cache`` is the
        one that a pull fills, or a push reads; by default the registry client's, or none where a pull has ``to``. In
        texts, ``$NAME`` is a variable of the environment here. Without ``registry`` it is the one of ``tk.pull``, or
        one with the plan's ``credentials``. The other keywords are those of ``download``.

        Raises:
            InvalidPlanError: the documents are not those that the source names.
            InvalidNameError: a path has a variable that is not set here, or is none.
            TypeError: there is no ``to`` for a download, or there is one for a copy or push.
            IncompleteError: some blobs failed; or the last step is run, and they are missing.
            TransferKitError, CancelledError: as for ``pull``, ``copy``, ``push`` and ``download``.
        """
        call: dict[str, Any] = {"progress": progress, "trace": trace, "cancel": cancel, "logger": logger}
        if registry is not None:
            return registry.run_plan(self, to=to, cache=cache, concurrency=concurrency, **call)
        from transferkit.registry.plans.places import registry_for  # all of the package is imported by now

        with registry_for(self.credentials) as client:
            return client.run_plan(self, to=to, cache=cache, concurrency=concurrency, **call)
