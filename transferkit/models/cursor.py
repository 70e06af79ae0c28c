"""A file's header, read forwards in bounded pieces."""

from __future__ import annotations

from struct import unpack_from

from transferkit.errors import InvalidModelError
from transferkit.models.values import ReadAt

_WINDOW = 1024 * 1024  # bytes asked for at a time: a vocabulary of 256 Ki tokens takes seven reads of a remote file


class Cursor:
    """Reads the first ``limit`` bytes of a file, or all of a smaller one, in order.

    Every method that moves it raises InvalidModelError where the header goes on behind the limit, or the file has
    fewer bytes than its size says.
    """

    __slots__ = ("_begin", "_read", "_size", "_window", "limit", "offset")

    def __init__(self, read: ReadAt, size: int, *, limit: int) -> None:
        self._read, self._size = read, size
        self._window, self._begin = b"", 0
        self.limit = min(limit, size)
        self.offset = 0
        """Where the next byte is taken from."""

    def take(self, count: int) -> bytes:
        begin = self._locate(count)
        self.offset += count
        return self._window[begin : begin + count]

    def skip(self, count: int) -> None:
        self._check(count)
        self.offset += count

    def u32(self) -> int:
        begin = self._locate(4)  # first: it may replace the window
        self.offset += 4
        number: int = unpack_from("<I", self._window, begin)[0]
        return number

    def u64(self) -> int:
        begin = self._locate(8)
        self.offset += 8
        number: int = unpack_from("<Q", self._window, begin)[0]
        return number

    def skip_sized(self, count: int) -> None:
        """Pass so many pieces that have their length, a 64-bit number, in front."""
        # A vocabulary has hundreds of thousands of them: no call for each where it can be helped.
        for _ in range(count):
            begin = self.offset - self._begin
            if begin + 8 > len(self._window):
                begin = self._locate(8)
            self.offset += 8 + unpack_from("<Q", self._window, begin)[0]
        self._check(0)

    def _locate(self, count: int) -> int:
        """Return where in the window the next ``count`` bytes begin, after reading them if need be."""
        begin = self.offset - self._begin
        if begin + count > len(self._window):
            self._check(count)
            wanted = min(max(count, _WINDOW), self.limit - self.offset)
            self._window, self._begin, begin = self._read(self.offset, wanted), self.offset, 0
            if len(self._window) < count:
                raise InvalidModelError(f"the file ends at {self.offset + len(self._window)}, within its header")
        return begin

    def _check(self, count: int) -> None:
        if self.offset + count > self.limit:
            where = "the end of the file" if self.limit == self._size else f"the {self.limit} bytes that are read of it"
            raise InvalidModelError(f"the header goes on behind {where}")
