"""Sending a body on a bare socket, by the kernel where it can, with an eye on an answer that comes too early."""

from __future__ import annotations

import errno
import os
import select
import socket
import sys

from transferkit.transport.connections import WakeableConnection
from transferkit.transport.request import Extent, RequestBody

# macOS has another sendfile, which takes part of an extent and raises.
_KERNEL_SENDS = sys.platform == "linux"
_BY_KERNEL = 256 * 1024  # bytes; a shorter body costs less read and sent than asked about
_INTERIM = (b"HTTP/1.1 1", b"HTTP/1.0 1")


def send_body(connection: WakeableConnection, body: RequestBody, timeout: float) -> bool:
    """Send a body; stop, and tell so, when the server answers before it has all of it."""
    sock = connection.sock
    # Session tickets make a TLS socket readable at any time; there an early answer is seen at the end only.
    is_watched = not connection.over_tls
    by_kernel = _KERNEL_SENDS and is_watched and body.length >= _BY_KERNEL
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    with body:
        for piece in body.pieces(by_kernel=by_kernel):
            if isinstance(piece, Extent):
                if _send_extent(sock, piece, timeout):
                    return True
                continue
            if is_watched and poll.poll(0) and not _is_interim(sock):
                return True
            sock.sendall(piece)
    return False


def _send_extent(sock: socket.socket, extent: Extent, timeout: float) -> bool:
    """Let the kernel send what it has room for; do not, and tell so, when the server answers already.

    Without blocking in it: on a slow link, one call for all of the extent would look like a stall.
    """
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLOUT)
    events = poll.poll(timeout * 1000)
    if events and events[0][1] & select.POLLIN:
        if not _is_interim(sock):
            return True
        poll.modify(sock, select.POLLOUT)
        events = poll.poll(timeout * 1000)
    if not events:
        raise TimeoutError("timed out")
    sock.setblocking(False)
    try:
        extent.sent = os.sendfile(sock.fileno(), extent.fd, extent.offset, extent.count)
    except BlockingIOError:
        pass
    except OSError as error:
        # The connection's, or the file's: reading it in the ordinary way will tell what is wrong with that.
        if isinstance(error, ConnectionError) or error.errno == errno.ENOTCONN:
            raise
        extent.sent = -1
    finally:
        sock.setblocking(True)
    return False


def _is_interim(sock: socket.socket) -> bool:
    """Tell whether what has arrived is a 100 or 102: some servers send one unasked, and go on to read the body."""
    return sock.recv(len(_INTERIM[0]), socket.MSG_PEEK).startswith(_INTERIM)
