"""The two sides of a connection as cheroot wants them: what is read, and what is written.

Cheroot's own are made of Python code and copy each block three times; they led the profile. Knows sockets, and where
the head of a request ends.
"""

from __future__ import annotations

import errno
import io
import os
import select
import socket
import ssl
import time
from typing import TYPE_CHECKING

from transferkit.server import heads
from transferkit.server.file_part import BLOCK, FilePart
from transferkit.server.pace import Pace

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# Bytes that are read at once while a head is looked for: a small body comes with its head, and costs no call more.
_STEP = 32 * 1024
_CAN_READ = hasattr(os, "readv")  # not on Windows
_NO_SENDFILE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)  # what file systems say that cannot


class _Raw(socket.SocketIO):
    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, "rb")
        self._socket = sock
        self.ended = False
        self.only_what_is_here = False
        """Whether nobody waits for more. Of TLS the socket itself has to say so."""
        self.returned = b""  # what followed a head; it is read first
        self.pace: Pace | None = None

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        if self.returned:
            count = min(len(self.returned), len(memoryview(buffer)))
            memoryview(buffer)[:count] = self.returned[:count]
            self.returned = self.returned[count:]
            return count
        if self.only_what_is_here:
            # To the system a socket with a timeout is a non-blocking one; to set that to 0 and back would be two calls.
            try:
                received: int | None = os.readv(self._socket.fileno(), [buffer])
            except BlockingIOError:
                return None
        else:
            received = super().readinto(buffer) if self.pace is None else self._paced(buffer, self.pace)
        # None is "nothing yet"; a buffered reader tells its callers the same of both.
        self.ended = self.ended or received == 0
        return received

    def _paced(self, buffer: WriteableBuffer, pace: Pace) -> int | None:
        timeout, left, received = self._socket.gettimeout(), pace.begin(), 0
        try:
            self._socket.settimeout(left if timeout is None else min(timeout, left))
            received = super().readinto(buffer) or 0
            return received
        finally:
            self._socket.settimeout(timeout)
            pace.end(received)


class Reader(io.BufferedReader):
    """The receiving side of a connection. A head is gathered while nobody waits for it; a body is read as usual."""

    bytes_read = 0  # for cheroot's statistics, which are off

    def __init__(self, sock: socket.socket) -> None:
        self._received = _Raw(sock)
        super().__init__(self._received)
        self._sock = sock
        self._head = bytearray()

    def has_data(self) -> bool:
        """Take in what has arrived, and tell whether there is a request to answer, or the end.

        A part of a head is not enough: who waits for the rest would occupy a thread. A TLS handshake goes on here.
        """
        timeout, received = self._sock.gettimeout(), self._received
        received.only_what_is_here = bool(timeout) and not isinstance(self._sock, ssl.SSLSocket) and _CAN_READ
        if not received.only_what_is_here:
            self._sock.settimeout(0)
        try:
            while not heads.is_ready(self._head):
                data = self.read1(_STEP)
                if not data:
                    return received.ended
                self._head += data
            return True
        except ssl.SSLWantReadError:
            return False
        except OSError:  # gone, which the empty head says
            return True
        finally:
            if not received.only_what_is_here:
                self._sock.settimeout(timeout)
            received.only_what_is_here = False

    def take_head(self) -> bytes:
        """Return the head that was gathered, whole where the peer is in order; what follows it is read next."""
        head, end, rest = bytes(self._head).partition(heads.END)
        self._head.clear()
        self._received.returned = rest
        return head + end

    def limit(self, pace: Pace | None) -> None:
        """Hold what is read from now on to a pace; ``None``: to none."""
        self._received.pace = pace


class Writer:
    """The sending side of a connection."""

    bytes_written = 0  # for cheroot's statistics, which are off

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._held = b""
        self.holding = False

    def write(self, data: bytes) -> None:
        if self.holding:
            self.holding, self._held = False, data
            return
        held, self._held = self._held, b""
        # One send and not two: a client is woken once for a small answer.
        self._sock.sendall(held + data if held else data)

    def flush(self) -> None:
        if self._held:
            self.write(b"")

    def send_file(self, file: FilePart) -> int:
        """Have the kernel send a file, and return how many bytes it took: none over TLS, or of some file systems.

        Like a block of any other answer, each :data:`BLOCK` has the timeout of the connection to find a reader.
        """
        if isinstance(self._sock, ssl.SSLSocket) or not hasattr(os, "sendfile"):
            return 0
        self.holding = False
        self.flush()
        begin = file.position
        try:
            while file.left:
                self._send_block(file)
        except OSError as error:
            if error.errno not in _NO_SENDFILE:
                raise
        return file.position - begin

    def _send_block(self, file: FilePart) -> None:
        timeout, fd = self._sock.gettimeout(), self._sock.fileno()
        deadline = None if timeout is None else time.monotonic() + timeout
        stop = min(file.position + BLOCK, file.stop)
        while file.position < stop:
            try:
                file.moved(os.sendfile(fd, file.fileno(), file.position, stop - file.position))
            except BlockingIOError:
                poll = select.poll()
                poll.register(fd, select.POLLOUT)
                left = None if deadline is None else deadline - time.monotonic()
                if not poll.poll(None if left is None else max(0.0, left * 1000)):
                    raise TimeoutError("timed out") from None


def makefile(sock: socket.socket, mode: str, _size: int) -> Reader | Writer:
    return Reader(sock) if "r" in mode else Writer(sock)
