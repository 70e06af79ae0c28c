"""Blobs in ranges: a piece brings some bytes of a large blob into a file of its own, and the last step joins them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from transferkit.content.blob_range import BlobRange
from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.content.flow import Closing, Flow
from transferkit.content.interfaces import Body, Judge, RangeFetcher
from transferkit.errors import IncompleteError, TransferKitError, VerificationError
from transferkit.registry.job import Job
from transferkit.report import Report
from transferkit.storage.directory import Directory
from transferkit.storage.range_files import RangeFiles, RangeStore


def missing_ranges(directory: Directory, ranges: Sequence[BlobRange]) -> list[BlobRange]:
    """Return the ranges that are not in a folder of blobs, and of no blob that is there."""
    store, known = RangeStore(directory), directory.known([piece.blob for piece in ranges])
    return [piece for piece in ranges if piece.blob.digest not in known and not store.has(piece)]


def fetch_ranges(job: Job, directory: Directory, ranges: Sequence[BlobRange], source: RangeFetcher) -> Report:
    """Bring ranges into a folder of blobs, each as a file of its own."""
    units = [piece.unit for piece in ranges]
    directory.prepare(units)
    return job.operation.copy(units, RangeSource(source), RangeStore(directory))


def join_ranges(job: Job, directory: Directory, blobs: Sequence[Descriptor]) -> None:
    """Make the blobs of their ranges of which all are there; ranges that nobody needs any more are removed.

    IncompleteError: they are not what the digest says. They are removed, so that pieces that run again bring others.
    """
    with closing(RangeFiles(directory)) as files:
        known = directory.known(blobs)
        whole = [blob for blob in blobs if blob.digest not in known and files.have(blob)]
        done = [blob for blob in blobs if blob.digest in known]
        try:
            if whole:
                directory.prepare(whole)
                job.operation.copy(whole, files, directory)
            done += whole
        except IncompleteError as error:
            wrong = [blob for blob in whole if isinstance(error.failures.get(blob.digest), VerificationError)]
            done += [blob for blob in whole if blob.digest not in error.failures or blob in wrong]
            text = "; its ranges were removed: run the pieces again" if wrong else ""
            raise IncompleteError(f"{error}{text}", failures=error.failures) from error
        finally:
            for blob in done:
                files.remove(blob)


@dataclass(frozen=True, slots=True)
class RangeSource:
    """Ranges of blobs as contents of their own (``BlobRange.unit``), read from where the blobs are. Thread-safe.

    Where that has no ranges, a range comes as one stream, and what is before it is read and left out.
    """

    source: RangeFetcher

    def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Flow) -> RangeBody:
        piece = BlobRange.of(descriptor)
        first = piece.chunk.start + offset
        return RangeBody(self.source.fetch_range(piece.blob, Chunk(first, piece.chunk.end), flow=flow), piece, first)

    def fetch_range(self, descriptor: Descriptor, chunk: Chunk, *, flow: Flow) -> RangeBody:
        piece = BlobRange.of(descriptor)
        start = piece.chunk.start
        wanted = Chunk(start + chunk.start, start + chunk.end)
        body = self.source.fetch_range(piece.blob, wanted, flow=flow)
        if body.offset != wanted.start or body.length not in (wanted.size, None):
            return RangeBody(body, piece, start)  # it is all of the blob, and the engine takes that as one stream
        return RangeBody(body, BlobRange(piece.blob, Chunk(start, wanted.end)), wanted.start)

    def concerns_all(self, error: TransferKitError) -> bool:
        return isinstance(self.source, Judge) and self.source.concerns_all(error)


class RangeBody(Closing):
    """The bytes of a range from ``first`` (of the blob) on; what the body has before and behind is left out."""

    def __init__(self, body: Body, piece: BlobRange, first: int) -> None:
        self.offset = first - piece.chunk.start
        self.length: int | None = piece.chunk.end + 1 - first
        self._body = body
        self._before = first - body.offset
        self._left = self.length

    def readinto(self, buffer: memoryview, /) -> int:
        while self._before:
            count = self._body.readinto(buffer[: self._before])
            if not count:
                return 0
            self._before -= count
        if not self._left:
            return 0
        count = self._body.readinto(buffer[: self._left])
        self._left -= count
        return count

    def close(self) -> None:
        self._body.close()
