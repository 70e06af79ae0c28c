"""Headers that are read forwards: windows, and bounds."""

from __future__ import annotations

from collections.abc import Callable
from struct import pack

import pytest

from transferkit.errors import InvalidModelError
from transferkit.models.cursor import Cursor

WINDOW = 1024 * 1024


def test_numbers_and_bytes_across_windows() -> None:
    content = bytes(WINDOW - 2) + pack("<IQ", 7, 8) + b"end"
    reads: list[tuple[int, int]] = []

    def read(offset: int, count: int) -> bytes:
        reads.append((offset, count))
        return content[offset : offset + count]

    cursor = Cursor(read, len(content), limit=10**9)
    assert bytes(8) == cursor.take(8)
    cursor.skip(WINDOW - 10)
    assert (7, 8, b"end") == (cursor.u32(), cursor.u64(), cursor.take(3))
    assert [(0, WINDOW), (WINDOW - 2, 15)] == reads
    assert cursor.offset == len(content)


def test_sized_pieces_are_passed() -> None:
    content = b"".join(pack("<Q", size) + bytes(size) for size in (0, 5, WINDOW, 1)) + b"x"
    cursor = Cursor(lambda offset, count: content[offset : offset + count], len(content), limit=10**9)
    cursor.skip_sized(4)

    assert b"x" == cursor.take(1)


@pytest.mark.parametrize(
    "move",
    [
        lambda cursor: cursor.take(11),
        lambda cursor: cursor.skip(11),
        lambda cursor: [cursor.u64(), cursor.u32()],
        lambda cursor: cursor.skip_sized(1),
        lambda cursor: cursor.skip(2**70),
    ],
)
def test_nothing_is_read_behind_the_end(move: Callable[[Cursor], object]) -> None:
    content = pack("<Q", 2**60) + b"ab"
    cursor = Cursor(lambda offset, count: content[offset : offset + count], 10, limit=100)

    with pytest.raises(InvalidModelError, match="behind the end of the file"):
        move(cursor)


def test_nothing_is_read_behind_the_limit() -> None:
    cursor = Cursor(lambda offset, count: bytes(count), 10**12, limit=1000)
    cursor.skip(999)

    with pytest.raises(InvalidModelError, match="behind the 1000 bytes that are read of it"):
        cursor.u32()


def test_a_file_that_is_shorter_than_it_says() -> None:
    cursor = Cursor(lambda offset, count: b"abc"[offset : offset + count], 100, limit=1000)

    with pytest.raises(InvalidModelError, match="the file ends at 3"):
        cursor.take(4)
