"""The interfaces that a copy needs: one or two methods each.

Extra powers (ranges, chunk digests, a file descriptor) are interfaces of their own, found by a type test, never flags
on the base one.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest, Hasher
from transferkit.content.flow import Closing, Flow, Notify
from transferkit.errors import TransferKitError


class Body(Closing, Protocol):
    """Content on its way. Not thread-safe: one reader."""

    offset: int
    """Where in the content this body begins; 0 although another was asked for: the source cannot resume."""

    @property
    def length(self) -> int | None:
        """How many bytes follow in all, from ``offset`` on; None where the source does not say."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Read what has arrived, at most the buffer. 0 is the end; whether it is the right one, the digest tells."""


class Fetcher(Protocol):
    """Content can be read from here. Thread-safe."""

    def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Flow) -> Body:
        """Open the content from ``offset`` (bytes) on; BlobNotFoundError: it is not here."""


@runtime_checkable
class RangeFetcher(Fetcher, Protocol):
    """The extra power of a source whose blobs can be read in parts. Thread-safe."""

    def fetch_range(self, descriptor: Descriptor, chunk: Chunk, *, flow: Flow) -> Body:
        """Open the bytes of ``chunk``; without ranges, all of the content (``offset`` 0, the blob's ``length``)."""


@runtime_checkable
class Pipeliner(Fetcher, Protocol):
    """The extra power of a source that may be asked for several small contents at once. Thread-safe."""

    def pipeline(
        self, descriptors: Sequence[Descriptor], *, more: Callable[[], Sequence[Descriptor]], flow: Flow
    ) -> Generator[memoryview, None, None] | None:
        """Ask for contents, and yield them in their order, each whole, good until the next one, and not verified.

        ``more`` is called between two of them, when half of what was asked for at first is still to come, for what to
        ask for next, until it returns nothing. They are counted as they come. They may end early, which is no error:
        ``fetch`` is for the rest. Who finds that a content is not the right one throws his VerificationError in.
        ``None``: nothing was asked.
        """


@runtime_checkable
class ChunkLister(Protocol):
    """The extra power of a source that knows the digests of a blob's parts. Thread-safe."""

    def chunksums(self, descriptor: Descriptor, *, flow: Flow) -> Generator[tuple[Chunk, Digest], None, None]:
        """Yield the parts as they become known, in order and without gaps; none where the source has no such list.

        Raises:
            ProtocolError: the list is a lie.
            TransferKitError: it broke off; where that is retryable, it may be read again from its start.
        """


class Pusher(Protocol):
    """Content can be stored here. Thread-safe."""

    def push(self, descriptor: Descriptor, source: Fetcher, *, flow: Flow) -> Outcome:
        """Make one attempt to bring the content here, verified, and tell how it came about.

        Raises:
            VerificationError: what arrived is not what the descriptor says; nothing of it is visible here.
        """


@runtime_checkable
class PartPusher(Pusher, Protocol):
    """The extra power of a target that takes parts of one content at once. Thread-safe."""

    def parts(self, descriptors: Collection[Descriptor]) -> int:
        """Return how many workers these contents may keep busy, all together."""


class Ingest(Protocol):
    """Content on its way into a target; open until ``commit``, ``abort`` or ``keep``, each of which closes it, always.

    A large blob takes ``write_at`` from several threads, for ranges that do not overlap; a small one is written in
    order, by one thread.
    """

    descriptor: Descriptor

    @property
    def offset(self) -> int:
        """How many bytes from the first one on are in place and hashed; once ``keep`` has closed it, how many stay."""

    @property
    def in_place(self) -> int:
        """How many bytes are in place."""

    @property
    def unverified(self) -> int:
        """How many bytes more an earlier run has left, of chunks that were not complete, and nobody has taken yet."""

    def missing_in(self, chunk: Chunk) -> list[Chunk]:
        """Return the ranges of ``chunk`` that are not in place."""

    def write_at(self, offset: int, data: memoryview, *, final: bool = True) -> None:
        """Write ``data`` at ``offset``. Not ``final``: not yet verified, may be overwritten.

        Raises:
            SizeMismatchError: it goes past the end; nothing of it is written.
            StorageError: the disk refused.
        """

    def record(self, start: int, end: int) -> None:
        """Say that the bytes from ``start`` to ``end``, inclusive, are in place and right."""

    def record_unverified(self, start: int, end: int) -> None:
        """Say that a chunk that begins at ``start`` was written up to ``end``, inclusive; it may not be right."""

    def take_unverified(self, chunk: Chunk) -> list[Chunk]:
        """Return the ranges of ``chunk`` that an earlier run has left unverified, and count them no more."""

    def hash_unverified(self, chunk: Chunk, hasher: Hasher, flow: Flow) -> None:
        """Read what was written unverified into ``hasher``. StorageError: it cannot be read."""

    def follow(self, flow: Flow, notify: Notify | None = None) -> None:
        """Hash what is in place next to what is hashed, unless another thread does; ``notify`` as it goes on."""

    def restart(self) -> None:
        """Throw away what is in place, and go on from the first byte. Nobody else is at it meanwhile."""

    def commit(self, flow: Flow) -> None:
        """Check size and digest, make the content visible, and close, whatever happens.

        Raises:
            DigestMismatchError: it is not the content; everything is removed.
            SizeMismatchError: bytes are missing; what is in place stays, as after ``keep``.
            VerificationError: retryable: somebody took the file away while it was filled; to be begun again.
            StorageError: the disk refused.
        """

    def keep(self) -> None:
        """Close; what is in place stays where the target can continue it, else ``offset`` is 0.

        Never raises, twice is fine.
        """

    def abort(self) -> None:
        """Close, and remove everything. Never raises, twice is fine."""


@runtime_checkable
class Ingester(Protocol):
    """A target that the engine fills. Thread-safe."""

    def ingest(self, descriptor: Descriptor, *, flow: Flow) -> Ingest | None:
        """Open content to be filled, once nobody else fills it; ``None``: it is here, verified. Raises StorageError."""


@runtime_checkable
class Storer(Ingester, Protocol):
    """The extra power of a target that takes small contents as a whole. Thread-safe."""

    def has(self, descriptor: Descriptor) -> bool:
        """Tell, at the cost of one look, whether there is something in its place."""

    def exists(self, descriptor: Descriptor, *, flow: Flow) -> bool:
        """Tell whether the content is here, verified; the worker's buffer may be used for that."""

    def store(self, descriptor: Descriptor, content: memoryview, *, flow: Flow) -> None:
        """Check size and digest, and make the content visible.

        Raises:
            VerificationError: it is not the content; nothing of it stays.
            StorageError: the disk refused.
        """


@runtime_checkable
class Resuming(Protocol):
    """The extra power of a target that goes on with what an earlier run has left. Thread-safe."""

    def received(self, descriptors: Iterable[Descriptor]) -> dict[Digest, int]:
        """Return how many bytes there are of each content that was begun."""


@runtime_checkable
class Keeping(Protocol):
    """The extra power of a target whose large contents are written in any order, and stay where they are cut off."""

    @property
    def resume_threshold(self) -> int:
        """The size in bytes from which on content is large; what is smaller is written in order."""


@runtime_checkable
class Judge(Protocol):
    """The extra power of a side that knows which of its errors would meet every other content too. Thread-safe."""

    def concerns_all(self, error: TransferKitError) -> bool:
        """Tell whether an error would be the same for every other content: the copy ends with it."""


@runtime_checkable
class Seekable(Protocol):
    """The extra power of a body that can go on reading at another place."""

    def seek(self, offset: int, *, flow: Flow) -> None:
        """Let the next read begin at ``offset``; what has to be hashed before is read on the way."""


@runtime_checkable
class Shared(Seekable, Protocol):
    """The extra power of a body that several threads may read at once."""

    def part(self, offset: int) -> Body:
        """Return another reader, from ``offset`` on, which does not hold the content to its digest."""

    def confirm(self) -> None:
        """Raise where it is not any more what it was when it was opened."""


@runtime_checkable
class Local(Seekable, Protocol):
    """The extra power of a body that is a file, and known to be right: its descriptor can be handed to the kernel."""

    def fileno(self) -> int:
        """Return the open file's descriptor, positioned nowhere in particular: read with an explicit offset."""

    def confirm(self) -> None:
        """Raise where the file is not any more what it was when it was opened."""


class Notes(Protocol):
    """What is kept of uploads under way, for a later process to go on with. Thread-safe; never raises."""

    def load(self, descriptor: Descriptor) -> dict[str, Any]:
        """Return what an earlier process has kept of an upload; nothing where there is none."""

    def save(self, descriptor: Descriptor, note: dict[str, Any]) -> None:
        """Keep what is needed to go on: plain values alone, and no credentials."""

    def forget(self, descriptor: Descriptor) -> None:
        """Take in that the upload has ended."""


class Outcome(enum.Enum):
    """How a blob came to be at its target."""

    MOVED = "moved"
    PRESENT = "present"
    MOUNTED = "mounted"
