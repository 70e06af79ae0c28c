"""One file that is open for reading: which bytes are fetched, and what is held to a digest on the way."""

from __future__ import annotations

from typing import Any

from fsspec.spec import AbstractBufferedFile

from transferkit.content.digest import Digest
from transferkit.errors import DigestMismatchError
from transferkit.filesystem.failures import as_file_errors
from transferkit.registry import OpenFiles


class OCIFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """A file of an artifact, read by ranges. One thread's, as files are.

    It is that of the manifest that its name stood for when it was opened. A file that is no longer than a block comes
    whole, with the first read. One that is read from its beginning to its end, in order, is held to its digest at the
    end of it, however many reads that takes.

    Raises, wherever it is read:
        DigestMismatchError: what came is not what a digest says.
    """

    def __init__(self, fs: Any, path: str, files: OpenFiles, inside: str, **keywords: Any) -> None:
        info = files[inside]
        super().__init__(fs, path, mode="rb", size=info.size, **keywords)
        self._files = files
        self._inside = inside
        self._kept = (0, b"")
        """Bytes that were fetched, as whole chunks are, beyond what was asked for; and where they begin."""
        self._hasher = info.digest.hasher()
        self._hashed = 0

    def _fetch_range(self, start: int, end: int) -> bytes:
        end = min(end, self.size)
        if start >= end:
            return b""
        at, kept = self._kept
        data = kept[start - at : end - at] if at <= start < at + len(kept) else b""
        if (missing := start + len(data)) < end:
            first, fetched = self._kept = self._fetch(missing, end)
            data += fetched[missing - first : end - first]
        self._hash(start, data)
        return data

    def _fetch(self, start: int, end: int) -> tuple[int, bytes]:
        """Fetch what is wanted, and what has to come with it; return where that begins, and all of it."""
        with as_file_errors(self.path):
            if self.size <= self.blocksize:
                return 0, self._files.read(self._inside)
            self._files.is_verified(self._inside)  # so that it is known where its chunks are
            first, last = self._files.span(self._inside, start, end)
            return first, self._files.read(self._inside, first, last)

    def _hash(self, start: int, data: bytes) -> None:
        """Take in what goes on where the last piece ended."""
        new = memoryview(data)[max(0, self._hashed - start) :]
        if start > self._hashed or not new or self._hashed >= self.size:
            return
        self._hasher.update(new)
        self._hashed += len(new)
        digest: Digest = self._files[self._inside].digest
        if self._hashed == self.size and not digest.matches(self._hasher):
            raise DigestMismatchError(f"{self.path} ({digest.short}): the content that arrived is another")

    def close(self) -> None:
        self._kept = (0, b"")
        super().close()
