"""Some bytes of a blob as a unit of work of its own."""

from __future__ import annotations

from dataclasses import dataclass

from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.errors import InvalidDescriptorError

_RANGE, _SIZE = "range", "size"


@dataclass(frozen=True, slots=True)
class BlobRange:
    """Some bytes of a blob.

    Raises:
        InvalidDescriptorError: the blob has no such bytes.

    >>> blob = Descriptor("sha256:" + 64 * "a", 1000)
    >>> BlobRange.of(BlobRange(blob, Chunk(100, 199)).unit).chunk
    Chunk(start=100, end=199)
    """

    blob: Descriptor
    chunk: Chunk

    def __post_init__(self) -> None:
        if self.chunk.end >= self.blob.size:
            text = f"the range {self.chunk} goes beyond {self.blob.digest.short}, which has {self.blob.size} bytes"
            raise InvalidDescriptorError(text)

    @property
    def size(self) -> int:
        """How many bytes they are."""
        return self.chunk.size

    @property
    def unit(self) -> Descriptor:
        """What the engine copies in the place of a blob: it has the digest of the whole, and the size of the range."""
        annotations = (_RANGE, str(self.chunk)), (_SIZE, str(self.blob.size))
        return Descriptor(self.blob.digest, self.size, annotations=annotations)

    @classmethod
    def of(cls, unit: Descriptor) -> BlobRange:
        """Return the range that a ``unit`` stands for."""
        said = dict(unit.annotations)
        return cls(Descriptor(unit.digest, int(said[_SIZE])), Chunk.parse(said[_RANGE]))
