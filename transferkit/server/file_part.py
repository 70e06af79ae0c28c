"""A part of an open file as the body of an answer.

Knows a descriptor, where the part begins and where it ends. Any WSGI server sends its blocks; ours, which knows the
class, has the kernel send the file itself. (PEP 3333's ``wsgi.file_wrapper`` has no word for a part.)
"""

from __future__ import annotations

import os

BLOCK = 256 * 1024  # bytes that are read at once: with fewer, the calls led the profile


class FilePart:
    """An open file, or a part of it, as an iterable of bytes of bounded size. It owns the descriptor. One reader.

    A class and no generator: a generator that was never started does not run its ``finally``.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.size = os.fstat(fd).st_size
        """Bytes of the whole file."""
        self.select(0, self.size)

    @classmethod
    def open(cls, path: str) -> FilePart:
        return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def select(self, start: int, stop: int) -> None:
        """Make it the bytes from ``start`` to ``stop``."""
        self.position, self.stop = start, stop

    @property
    def left(self) -> int:
        """Bytes that are still to be sent."""
        return self.stop - self.position

    def fileno(self) -> int:
        return self._fd

    def __iter__(self) -> FilePart:
        return self

    def __next__(self) -> bytes:
        wanted = min(BLOCK, self.left)
        if wanted == 0 or self._fd < 0:
            raise StopIteration
        block = os.pread(self._fd, wanted, self.position)
        self.moved(len(block))
        return block

    def moved(self, count: int) -> None:
        """Take in that ``count`` bytes were sent.

        Raises:
            OSError: none were, so the file has become shorter. The head has gone out with another length: all that can
                still be said is to hang up.
        """
        if count == 0:
            raise OSError("the file became shorter while it was sent")
        self.position += count

    def whole(self) -> bytes:
        """Return it all, and close."""
        try:
            return b"".join(self)
        finally:
            self.close()

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
