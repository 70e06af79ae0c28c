"""The files of a model where they are: from which place the bytes of each come, and what can be verified of them.

A file comes from the cache, where it is held to its digest; else from the registry, which may have a list of the
digests of its chunks; else by plain ranges, which nobody can verify. Mirrors are asked for what can be verified alone.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import islice
from operator import itemgetter
from typing import TypeAlias

from transferkit.content.budget import Budget
from transferkit.content.chunk import MAX_CHUNK, Chunk, chunk_size
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.interfaces import Local
from transferkit.errors import BlobNotFoundError, ProtocolError, TransferKitError
from transferkit.models.ranges import GAP, covering, cut, joined
from transferkit.protocol.ranges import VersionChanged
from transferkit.registry.parts import Part, Place, Wanted, read
from transferkit.remote.body import BlobBody
from transferkit.remote.mirrors import MirroredRepository
from transferkit.remote.repository import Repository
from transferkit.storage.cache import DiskCache
from transferkit.transfer.flow import WorkerFlow

logger = logging.getLogger(__name__)

Source = Repository | MirroredRepository
Listed: TypeAlias = "tuple[Chunk, Digest]"
Proof: TypeAlias = "tuple[Place, Callable[[], None]]"
"""Bytes of a file, and what holds them to a digest once they are there."""

MOST_LISTED = 16_384  # chunks of a file, some 300 bytes each
MOST_LISTED_ALL = 262_144  # chunks of all files: 2 TB in chunks of 8 MiB; of further files no list is used
LIST_ATTEMPTS = 3  # at a list of chunks, which can be done without


class BlobFile:
    """A file of a model that is one blob. What is known of it is set while it is looked for, by one worker."""

    __slots__ = ("blob", "chunks", "has_ranges", "is_changed", "is_listed", "is_local", "path", "versions")

    def __init__(self, path: str, blob: Descriptor) -> None:
        self.path = path
        self.blob = blob
        self.is_local: bool | None = None
        """Whether it comes from the cache; ``None`` while nobody has looked."""
        self.chunks: Sequence[Listed] = ()
        """All its chunks with their digests, where the registry has a list, and the cache has not the file."""
        self.is_listed = False
        """Whether the registry was asked for that list."""
        self.has_ranges: bool | None = None
        """Whether its source sends a part when it is asked for one; ``None`` while it was asked for none."""
        self.versions: dict[str, str] = {}
        """Which version (``ETag``) parts without a digest were of, by origin."""
        self.is_changed = False
        """Whether a part was of another one: then nothing more of it is read without a digest."""

    @property
    def is_verified(self) -> bool:
        """Whether parts that are read of it are held to a digest."""
        return bool(self.is_local or self.chunks)

    @property
    def is_known(self) -> bool:
        """Whether it was looked for, as well as for a list of its chunks."""
        return bool(self.is_local) or self.is_listed

    def proof(self) -> Proof | None:
        """Return what is to be held to a digest with the next read, if anything."""
        return None

    def check_version(self, version: tuple[str, str] | None) -> None:
        """Take in what a part without a digest is of. VersionChanged: another version than what came before."""
        if version is not None and self.versions.setdefault(*version) != version[1]:
            raise VersionChanged(f"{version[0]} has another version of it")

    def parts(self, places: Sequence[Place], size: int | None) -> list[Part]:
        """Return what is asked for so that all places get their bytes: parts of ``size`` bytes, by default as
        long as a download has them, or the chunks that have digests.

        Places do not overlap.
        """
        places = sorted((place for place in places if len(place[1])), key=itemgetter(0))
        starts = [offset for offset, _ in places]
        ends = [offset + len(memory) for offset, memory in places]
        spans, most, chunks = list(zip(starts, ends, strict=True)), size or chunk_size(self.blob.size), self.chunks
        wanted: list[tuple[int, int, Digest | None]]
        if chunks:
            numbers = covering(spans, [chunk.end + 1 for chunk, _ in chunks])
            wanted = [(chunk.start, chunk.end + 1, digest) for chunk, digest in map(chunks.__getitem__, numbers)]
        else:
            if spans and self.has_ranges is False:
                # It would send all of it for each part: one stream is read up to the last byte that is wanted.
                spans, most = [(starts[0], ends[-1])], self.blob.size
            wanted = [(start, end, None) for start, end in cut(joined(spans, GAP), most)]
        return [
            Part(self.blob, start, end, places[bisect_right(ends, start) : bisect_left(starts, end)], digest)
            for start, end, digest in wanted
        ]


class BlobFiles:
    """Where the files of one model come from, and how a worker reads them. Thread-safe. Without a ``source`` it is
    offline: what the cache does not have is nowhere.
    """

    def __init__(self, cache: DiskCache, source: Source | None) -> None:
        self.source = source
        self._registry = source.registry if isinstance(source, MirroredRepository) else source
        self._cache = cache
        self._chunks = Budget(MOST_LISTED_ALL)

    def locate(self, file: BlobFile, flow: WorkerFlow, *, is_whole: bool = False) -> None:
        """Find out where a file comes from; one of the cache that nobody has verified is hashed, once.

        ``is_whole``: all of it will be read, so no list of its chunks is asked for.
        """
        attempt, flow.attempt = flow.attempt, 0  # the cache is none of the host's business
        is_local = self._cache.exists(file.blob, flow=flow)
        flow.attempt = attempt
        if self.source is not None and not is_whole:
            chunks = () if is_local else self._list(self.source, file, flow)
            file.chunks = chunks if self._chunks.take(len(chunks) - len(file.chunks)) else ()
            file.is_listed = not is_local
        elif self.source is None and not is_local:
            raise BlobNotFoundError(
                f"{file.path} ({file.blob.digest.short}) is not in {self._cache.root}, and this is offline; pull the "
                "model where there is a network"
            )
        file.is_local = is_local

    def _list(self, source: Source, file: BlobFile, flow: WorkerFlow) -> Sequence[Listed]:
        """Return the chunks of a file with their digests; nothing where the registry has no list that is of use.

        ProtocolError: the list is a lie.
        """
        chunks: list[Listed] = []
        for attempt in range(1, LIST_ATTEMPTS + 1):
            try:
                with closing(source.chunksums(file.blob, flow=flow)) as pairs:
                    chunks = list(islice(pairs, MOST_LISTED + 1))
                break
            except TransferKitError as error:
                flow.check()
                if not error.retryable:
                    raise  # a list that contradicts itself is an error: who lies about a blob is not asked for it
                logger.debug("%s: attempt %d at the list of its chunks: %s", file.blob.digest.short, attempt, error)
                flow.wait(0.01 * attempt * attempt, "retry")
        # Long chunks would have us move too much for a small tensor.
        is_of_use = len(chunks) <= MOST_LISTED and all(chunk.size <= MAX_CHUNK for chunk, _ in chunks)
        return chunks if is_of_use else ()

    def fetch(self, file: BlobFile, wanted: Wanted, flow: WorkerFlow, *, is_local: bool) -> None:
        """Make one attempt at what is missing of a part of a file; ``is_local``: of the one in the cache.

        Raises:
            SourceError: the file of the cache has gone, or is not what it was.
            TransferKitError: as of a registry.
        """
        if wanted.at >= wanted.end:
            return
        if is_local or self.source is None or self._registry is None:
            self._fetch_local(file, wanted, flow)
            return
        chunk = Chunk(wanted.at, wanted.end - 1)
        if wanted.digest is not None:
            with self.source.fetch_range(file.blob, chunk, flow=flow) as body:
                self._take(file, body, chunk, wanted, flow)
            return
        # A mirror need not be trusted: what nobody can verify comes from the registry itself, and all of one version.
        try:
            if file.is_changed:
                raise VersionChanged("it was changed")
            with self._registry.fetch_range(file.blob, chunk, flow=flow) as body:
                file.check_version(body.version)
                self._take(file, body, chunk, wanted, flow)
        except VersionChanged as error:
            file.is_changed = True
            raise ProtocolError(
                f"{file.path} ({file.blob.digest.short}): its bytes are of two versions ({error}), and no digest tells "
                "which is right; pull the model, or open it again"
            ) from error

    def _take(self, file: BlobFile, body: BlobBody, chunk: Chunk, wanted: Wanted, flow: WorkerFlow) -> None:
        if file.has_ranges is None or chunk.size < file.blob.size:  # all of it is what also a server without has
            file.has_ranges = body.offset == chunk.start and body.length in (chunk.size, None)
        read(body, wanted, flow)

    def _fetch_local(self, file: BlobFile, wanted: Wanted, flow: WorkerFlow) -> None:
        flow.attempt = 0  # the cache is none of the host's business
        with self._cache.fetch(file.blob, offset=wanted.at, flow=flow) as body:
            read(body, wanted, flow)
            if isinstance(body, Local):
                body.confirm()
                return
            while body.readinto(flow.buffer):  # nobody knows it: to its end, where it is held to its digest
                flow.check()
