"""The two sides of a connection as cheroot wants them: what is read, and what is written.

Cheroot's own are made of Python code and copy each block three times; they led the profile. Knows sockets, no HTTP.
"""

from __future__ import annotations

import io
import socket
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class _Raw(socket.SocketIO):
    ended = False

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        count = super().readinto(buffer)
        # None is "nothing yet"; a buffered reader tells its callers the same of both.
        self.ended = self.ended or count == 0
        return count


class Reader(io.BufferedReader):
    """The receiving side of a connection. cheroot's own is made of Python code, and led the profile."""

    bytes_read = 0  # for cheroot's statistics, which are off

    def __init__(self, sock: socket.socket) -> None:
        self._received = _Raw(sock, "rb")
        super().__init__(self._received)
        self._sock = sock

    def has_data(self) -> bool:
        """Tell whether reading would find something at once, be it the end. A TLS handshake goes on meanwhile."""
        timeout = self._sock.gettimeout()
        self._sock.settimeout(0)
        try:
            return bool(self.peek(1)) or self._received.ended
        except ssl.SSLWantReadError:
            return False
        except OSError:  # gone; the next read says so to those who handle it
            return True
        finally:
            self._sock.settimeout(timeout)


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


def makefile(sock: socket.socket, mode: str, _size: int) -> Reader | Writer:
    return Reader(sock) if "r" in mode else Writer(sock)
