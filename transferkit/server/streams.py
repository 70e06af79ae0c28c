"""The two sides of a connection as cheroot wants them: what is read, and what is written.

Cheroot's own are made of Python code and copy each block three times; they led the profile. Knows sockets, no HTTP.
"""

from __future__ import annotations

import io
import socket
import ssl


class Reader(io.BufferedReader):
    """The receiving side of a connection. cheroot's own is made of Python code, and led the profile."""

    bytes_read = 0  # for cheroot's statistics, which are off

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(socket.SocketIO(sock, "rb"))
        self._sock = sock

    def has_data(self) -> bool:
        """Tell whether the next request is here already: in the buffer, or in the kernel."""
        timeout = self._sock.gettimeout()
        self._sock.settimeout(0)
        try:
            return bool(self.peek(1))
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
