"""Ending a TCP connection with a reset, and what the peer has not received yet.

Knows socket options of Linux and macOS.
"""

from __future__ import annotations

import socket
import struct

LINGER = 5.0
"""Seconds in which a peer may answer a clean end with its own: closing with unread bytes would be a reset."""
TAKE = 5.0
"""Seconds that a reset waits for the peer's system to take what was sent before it."""


def undelivered(sock: socket.socket) -> int:
    """Return how many sent bytes the peer's system does not have yet; 0 where this one does not tell.

    RST overtakes them, so who wants them to arrive waits for 0 before it.
    """
    try:
        import fcntl
        import termios

        return int(struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0\0\0\0"))[0])
    except (ImportError, OSError):  # not Linux, or not connected any more
        return 0


def reset_on_close(sock: socket.socket) -> None:
    """Make ``close`` send RST."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:  # the peer was faster
        pass
