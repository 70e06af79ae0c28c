"""Content that is read while it arrives: from the file that another thread of this process fills, or from its blob.

What is in place can be read. The last byte is held back until the whole was found right, so that nobody takes wrong
content for whole.
"""

from __future__ import annotations

import os

from transferkit.content.descriptor import Descriptor
from transferkit.errors import NotFoundError, VerificationError
from transferkit.storage.cache import DiskCache
from transferkit.storage.disk import close_quietly
from transferkit.storage.disk_errors import disk_errors
from transferkit.storage.ingest import FileIngest


class Arriving:
    """One content on its way into a cache. One reader.

    What fills it may break off and go on: then it is read on. Close it in the end.
    """

    def __init__(self, cache: DiskCache, descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        self._cache = cache
        self._disk = cache.disk
        self._ingest: FileIngest | None = None  # who fills it
        self._generation = 0
        self._fd = -1
        self._is_whole = False
        self._has_read = False

    def read(self, offset: int, size: int) -> bytes:
        """Return what is in place from ``offset`` on, at most ``size`` bytes; nothing: it has not arrived.

        Raises:
            VerificationError: what was read before was thrown away: it may have been wrong.
            StorageError: the disk refused.
        """
        end = self._end_of(offset)
        if end <= offset:
            return b""
        data = bytearray(min(size, end - offset))
        with disk_errors("reading", self.descriptor.digest.short):
            count = self._disk.preadv(self._fd, memoryview(data), offset)
        if self._has_begun_again():  # meanwhile
            return b""
        self._has_read = self._has_read or count > 0
        return bytes(memoryview(data)[:count])

    def is_stored(self) -> bool:
        """Tell whether the whole was found right."""
        self._end_of(self.descriptor.size)
        return self._is_whole

    def _end_of(self, offset: int) -> int:
        """Return where the bytes end that may be read from ``offset`` on."""
        if self._ingest is None and not self._is_whole:
            self._find()
        size, ingest = self.descriptor.size, self._ingest
        if self._is_whole:
            return size
        if ingest is None:
            return offset
        is_open, end = ingest.is_open, ingest.end_of(offset)
        if self._has_begun_again():
            return offset
        if not is_open:
            self._ingest, self._is_whole = None, ingest.is_stored
            return size if self._is_whole else offset
        return min(end, size - 1)

    def _has_begun_again(self) -> bool:
        """Tell whether what was in place was thrown away; VerificationError: some of it has been read."""
        if self._ingest is None or self._ingest.generation == self._generation:
            return False
        if self._has_read:
            raise self._thrown_away()
        self._ingest = None
        return True

    def _find(self) -> None:
        """Look for who fills it now, or else for the blob."""
        ingest = self._cache.blobs.filled(self.descriptor.digest)
        opened = ingest.open_reader() if ingest is not None and ingest.is_open else None
        if opened is not None:
            fd, self._generation = opened
            self._adopt(fd)
            self._ingest = ingest
            return
        try:
            if not self._cache.knows(self.descriptor):
                return
            fd = self._disk.open(self._cache.get(self.descriptor.digest).path, follow=False)
        except (NotFoundError, FileNotFoundError):  # removed just now
            return
        self._adopt(fd)
        self._is_whole = True

    def _adopt(self, fd: int) -> None:
        """Read on from another descriptor, of the same file if anything was read."""
        before, self._fd = self._fd, fd
        try:
            if self._has_read and not os.path.samestat(self._disk.fstat(before), self._disk.fstat(fd)):
                raise self._thrown_away()
        finally:
            close_quietly(self._disk, before)

    def _thrown_away(self) -> VerificationError:
        return VerificationError(f"{self.descriptor.digest.short} began again: what has come of it may be wrong")

    def close(self) -> None:
        """Let go of the file; twice is fine."""
        fd, self._fd = self._fd, -1
        close_quietly(self._disk, fd)
