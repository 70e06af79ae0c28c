"""Reading a little of a large file that is far away: what is behind it is read with it, as it is wanted next."""

from __future__ import annotations

from collections.abc import Callable

AHEAD = 1024 * 1024  # bytes: a header is read from front to back, and each request takes its time


class Ahead:
    """Reads a file at any place, by one request for what is wanted in a row. One thread's.

    ``read(offset, count)`` asks for bytes that are within the file's ``size``; ``head`` is how it begins, as far as
    that is known already.

    >>> Ahead(lambda offset, count: b"abcdef"[offset : offset + count], 6)(4, 10)
    b'ef'
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int, head: bytes = b"") -> None:
        self._read = read
        self._size = size
        self._start, self._data = 0, head

    def __call__(self, offset: int, count: int) -> bytes:
        """Return so many bytes from an offset on, fewer only at the end of the file."""
        end = min(offset + count, self._size)
        if end <= offset:
            return b""
        if not self._start <= offset or end > self._start + len(self._data):
            self._data = self._read(offset, min(max(end - offset, AHEAD), self._size - offset))
            self._start = offset
        return self._data[offset - self._start : end - self._start]
