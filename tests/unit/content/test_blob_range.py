"""Some bytes of a blob as a unit of work."""

from __future__ import annotations

import pytest

from transferkit.content.blob_range import BlobRange
from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.errors import InvalidDescriptorError

BLOB = Descriptor(Digest("sha256:" + 64 * "a"), 1000)


def test_a_range_is_a_unit_with_the_digest_of_the_whole_and_its_own_size() -> None:
    piece = BlobRange(BLOB, Chunk(100, 299))

    assert (200, BLOB.digest, 200) == (piece.size, piece.unit.digest, piece.unit.size)
    assert piece == BlobRange.of(piece.unit)


def test_a_range_beyond_its_blob_is_none() -> None:
    assert 1 == BlobRange(BLOB, Chunk(999, 999)).size
    with pytest.raises(
        InvalidDescriptorError, match="the range 0-1000 goes beyond sha256:aaaaaaaaaaaa, which has 1000"
    ):
        BlobRange(BLOB, Chunk(0, 1000))
