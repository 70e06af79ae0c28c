"""A blob as the body of an answer while it arrives from upstream: what is in place at once, the rest as it comes.

Knows a pull that runs, and the file that it fills. Where the pull fails, the body breaks off.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator

from transferkit.content.descriptor import Descriptor
from transferkit.errors import ReadError, TransferKitError
from transferkit.server.incoming import BLOCK
from transferkit.server.pulls import Pull
from transferkit.storage.arriving import Arriving
from transferkit.storage.cache import DiskCache

_log = logging.getLogger("transferkit.server")

# Seconds for which the head of an answer is held back at most until the first byte is there: clients wait longer for a
# head, a minute and more, than for the next byte of a body.
_HEAD = 45.0
_PAUSES = (0.002, 0.05)  # seconds between two looks at the file: the first, and the longest after twice as many each


class ArrivingBlocks:
    """A blob, or a part of it, as an iterable of bytes of bounded size. One reader.

    ``is_gone`` tells whether the client has hung up.
    """

    def __init__(self, cache: DiskCache, descriptor: Descriptor, pull: Pull, is_gone: Callable[[], bool]) -> None:
        self.size = descriptor.size
        self._arriving = Arriving(cache, descriptor)
        self._pull = pull
        self._is_gone = is_gone
        self._ahead: bytes | None = None  # what has been read and not been handed out; empty: the head goes first
        self.select(0, self.size)

    def select(self, start: int, stop: int) -> None:
        self._position, self._stop = start, stop

    def prepare(self, seconds: float = _HEAD) -> None:
        """Wait for the first byte, so many seconds at most; of an empty blob, until it was found to be one.

        Raises:
            TransferKitError: it will not come.
        """
        try:
            if self._position < self._stop:
                self._ahead = self._next(seconds)
            elif not self.size:
                self._next(None)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> ArrivingBlocks:
        return self

    def __next__(self) -> bytes:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            return ahead
        if self._position >= self._stop:
            raise StopIteration
        return self._rest()

    def _rest(self) -> bytes:
        """Return the next bytes of a body whose head has gone out, with another length: all that is left is to hang
        up."""
        try:
            return self._next(None)
        except TransferKitError as error:
            _log.warning("%s: a client is cut off: %s", self._arriving.descriptor.digest.short, error)
            raise ConnectionAbortedError(errno.ECONNABORTED, str(error)) from error

    def _next(self, seconds: float | None) -> bytes:
        """Wait for the next bytes, so many seconds at most, and return them: none then."""
        pause, most = _PAUSES
        while True:
            is_over = self._pull.is_over  # looked at first: what has come until then is read
            block = self._arriving.read(self._position, min(BLOCK, self._stop - self._position))
            if block or (not self.size and self._arriving.is_stored()):
                self._position += len(block)
                return block
            if is_over:
                raise self._failure()
            if self._is_gone():
                raise ConnectionResetError(errno.ECONNRESET, "the client has hung up")
            if seconds is not None and (seconds := seconds - pause) <= 0:
                return b""
            self._pull.ended(pause)
            pause = min(2 * pause, most)

    def _failure(self) -> TransferKitError:
        """Return why the rest does not come."""
        error, digest = self._pull.error, self._arriving.descriptor.digest
        error = getattr(error, "failures", {}).get(digest, error)
        if isinstance(error, TransferKitError):
            return error
        return ReadError(f"{digest.short} did not arrive, or was removed as soon as it had")

    def close(self) -> None:
        self._arriving.close()


class Described:
    """A blob of which nobody wants the bytes: for ``HEAD``."""

    def __init__(self, descriptor: Descriptor) -> None:
        self.size = descriptor.size

    def select(self, start: int, stop: int) -> None:
        """There is nothing to be read."""

    def __iter__(self) -> Iterator[bytes]:
        return iter(())

    def close(self) -> None:
        """There is nothing to be closed."""
