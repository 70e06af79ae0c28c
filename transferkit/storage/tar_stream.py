"""A tar layer that comes by once: unpacked a piece at a time, hashed as it arrives, and bounded in every way.

``tarfile`` reads the headers, forward only. Sources of the rules: CVE-2025-8194 (a member of negative size),
CVE-2019-20907 (a pax header without end), CVE-2023-25153 (an archive that fills the memory).
"""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Callable, Iterator

from transferkit.content.descriptor import Descriptor
from transferkit.content.flow import Flow
from transferkit.content.interfaces import Body
from transferkit.errors import DigestMismatchError, InvalidModelError, SizeMismatchError, TransferKitError

MAX_MEMBERS = 100_000  # files, folders and links in a layer
_MAX_HEADER = 1024 * 1024  # bytes of all headers before one file: of a long name, or of what pax says of it
_SMALLEST = 64 * 1024 * 1024  # bytes that a layer may unpack to, however small it is
_PIECE = 1024 * 1024  # bytes that are unpacked at once
_SLICE = 64 * 1024  # bytes of packed content that are given to zlib at once
_GZIP = 31  # zlib.decompressobj: a gzip header is expected


class TarStream:
    """The unpacked bytes of a layer, as the file that ``tarfile`` reads. One thread's.

    What arrives in ``body`` is hashed as it is, compressed or not. A layer that unpacks to
    more than ``ratio`` times its size, and 64 MiB, is refused.
    """

    def __init__(self, body: Body, descriptor: Descriptor, flow: Flow, *, gzip: bool, ratio: float) -> None:
        self._body = body
        self._descriptor = descriptor
        self._flow = flow
        self._hasher = descriptor.digest.hasher()
        self._received = 0
        self._packed = memoryview(b"")
        self._inflater = zlib.decompressobj(_GZIP) if gzip else None
        self._piece = memoryview(b"")
        self._at = 0
        self._unpacked = 0
        self._most = max(_SMALLEST, int(descriptor.size * ratio))
        self._header = 0

    # -- what tarfile asks for

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go forward. A header that leads back is one that goes in a circle."""
        if whence != os.SEEK_SET or offset < self._at:
            raise tarfile.ReadError(f"a header leads from byte {self._at} back to {offset}")
        for _ in self.take(offset - self._at):
            pass
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Return so many bytes of headers, fewer only at the end."""
        if size is None or size < 0 or self._header + size > _MAX_HEADER:
            raise tarfile.ReadError(f"headers of more than {_MAX_HEADER} bytes")
        self._header += size
        return b"".join(bytes(piece) for piece in self._pieces(size))

    # -- what who reads the files asks for

    def each(self, handle: Callable[[tarfile.TarInfo], object]) -> None:
        """Hand out the members, with the stream at the content of each, and hold the whole to the descriptor.

        Raises:
            InvalidModelError: it is no tar file, or one that is out of all bounds.
            SizeMismatchError, DigestMismatchError: it is not the content of the descriptor.
            TransferKitError: what the body and ``handle`` raise.
        """
        problem: Exception | None = None
        try:
            for member in self._members():
                handle(member)
        except TransferKitError:
            raise
        except (tarfile.TarError, zlib.error, RecursionError, ValueError, OverflowError) as error:
            problem = error
        self._finish()  # first: what is wrong with other content than the right one is of no interest
        if problem is not None:
            text = f"{self._short} cannot be read as a tar file: {str(problem) or type(problem).__name__}"
            raise InvalidModelError(text) from problem

    def _members(self) -> Iterator[tarfile.TarInfo]:
        with tarfile.open(fileobj=self, mode="r:") as tar:  # type: ignore[call-overload]  # it reads, seeks and tells
            number = 0
            while (member := tar.next()) is not None:
                number += 1
                if number > MAX_MEMBERS:
                    raise InvalidModelError(f"{self._short} has more than {MAX_MEMBERS} files")
                if member.size < 0:
                    raise tarfile.ReadError("a file of less than no bytes")
                self._header = 0
                yield member

    def take(self, size: int) -> Iterator[memoryview]:
        """Yield the next ``size`` bytes in pieces, each good until the next. ``tarfile.ReadError``: it ends early."""
        left = size
        for piece in self._pieces(size):
            left -= len(piece)
            yield piece
        if left:
            raise tarfile.ReadError(f"it ends {left} bytes too early")

    def _finish(self) -> None:
        """Read what is left of the body, and see that all of it is what it should be."""
        while self._receive():
            pass
        wanted = self._descriptor
        if self._received != wanted.size:
            received = f"received {self._received}/{wanted.size} bytes"
            raise SizeMismatchError(f"{self._short}: incomplete: {received}", retryable=self._received < wanted.size)
        if not wanted.digest.matches(self._hasher):
            raise DigestMismatchError(f"{self._short}: the content that arrived has another digest")

    @property
    def _short(self) -> str:
        return self._descriptor.digest.short

    def _pieces(self, size: int) -> Iterator[memoryview]:
        while size:
            if not self._piece:
                self._piece = self._next_piece()
                if not self._piece:
                    return
                self._unpacked += len(self._piece)
                if self._unpacked > self._most:
                    text = f"{self._short} has {self._descriptor.size} bytes and unpacks to more than {self._most}"
                    raise InvalidModelError(f"{text}: it is refused (TransferOptions.unpack_ratio)")
            piece, self._piece = self._piece[:size], self._piece[size:]
            size -= len(piece)
            self._at += len(piece)
            yield piece

    def _next_piece(self) -> memoryview:
        """Return what comes next, unpacked; nothing at the end."""
        if self._inflater is None:
            return self._receive()
        while True:
            if not self._packed:
                self._packed = self._receive()
            piece = self._packed[:_SLICE]
            if self._inflater.eof:  # the end of one gzip file, after which there may be another one, or zeros
                if not bytes(piece).strip(b"\0"):
                    if not piece:
                        return piece
                    self._packed = self._packed[len(piece) :]
                    continue
                self._inflater = zlib.decompressobj(_GZIP)
            unpacked = self._inflater.decompress(piece, _PIECE)
            left = len(self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail)
            self._packed = self._packed[len(piece) - left :]
            if unpacked:
                return memoryview(unpacked)
            if not piece and not self._inflater.eof:
                raise tarfile.ReadError("its compressed data ends early")

    def _receive(self) -> memoryview:
        """Return what arrives next of the body; nothing at its end."""
        watch = self._flow.watch
        watch.paused = False
        count = self._body.readinto(self._flow.buffer)
        watch.paused = True  # whatever is done with it is nobody's silence
        self._flow.moved(count)
        self._received += count
        piece = self._flow.buffer[:count]
        self._hasher.update(piece)
        return piece
