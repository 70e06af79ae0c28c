"""Parts of a file in memory: where what is read of it arrives, and what is taken out of that."""

from __future__ import annotations

from collections.abc import Sequence

from transferkit.content.digest import Digest
from transferkit.errors import DigestMismatchError
from transferkit.registry.blob_files import BlobFile
from transferkit.registry.parts import Place


class Memory:
    """Parts of a file on their way into memory: spans that are sorted and apart."""

    def __init__(self, file: BlobFile, spans: Sequence[tuple[int, int]]) -> None:
        self.file = file
        self._spans = [(start, bytearray(end - start)) for start, end in spans]

    @property
    def places(self) -> list[Place]:
        return [(start, memoryview(memory)) for start, memory in self._spans]

    @property
    def is_whole(self) -> bool:
        return len(self._spans[0][1]) == self.file.blob.size

    def check(self) -> None:
        """DigestMismatchError: it is not the file that its digest says."""
        blob, (_, content) = self.file.blob, self._spans[0]
        if Digest.of(content, blob.digest.algorithm) != blob.digest:
            raise DigestMismatchError(f"{self.file.path} ({blob.digest.short}): the content that arrived is another")

    def take(self, start: int, end: int) -> bytes:
        for first, memory in reversed(self._spans):
            if first <= start:
                return bytes(memoryview(memory)[start - first : end - first])
        raise AssertionError("it is in one of the spans")
