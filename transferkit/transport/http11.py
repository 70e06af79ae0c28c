"""One request out, one response in, on one connection.

The request's head is one ``sendall``, the response's head and the first of its body one ``recv_into``; the rest of the
body goes straight into the worker's buffer. A body is sent by the kernel where it can, with an eye on an answer that
comes too early. Knows the strict reader of heads (``protocol.head``), and neither origins nor redirects.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from urllib.parse import quote

from transferkit.content.flow import Flow
from transferkit.errors import ProtocolError, ReadError, TransferKitError, TransportTimeout
from transferkit.protocol.head import END, MAX_HEAD, Head, read_head
from transferkit.transport.connections import WakeableConnection
from transferkit.transport.failures import convert
from transferkit.transport.request import PIECE, Extent, Fields, Lane, Request, RequestBody, lines_of
from transferkit.transport.response import NO_BODY, ChunkedResponse, Response, StreamResponse
from transferkit.transport.sockets import READ, WRITE, new_poll

_MAX_INTERIM = 16  # 1xx responses before the real one
_SLICE = 0.1  # seconds between two looks for an answer while part of an interim one is there
_SHORTEST = 1e-3  # seconds: a limit of no time at all would be none
_BEGINNING = b"HTTP/1."
_TLS_ALERT = b"\x15\x03"  # what OpenSSL says to a request in plain text
# macOS has another sendfile, which takes part of an extent and raises.
_KERNEL_SENDS = sys.platform == "linux"
_BY_KERNEL = 256 * 1024  # bytes; a shorter body costs less read and sent than asked about
_INTERIM = (b"HTTP/1.1 1", b"HTTP/1.0 1")
_VISIBLE = "".join(map(chr, range(0x21, 0x7F)))


def visible(text: str) -> str:
    """Return a part of a URL with what is not ASCII in it quoted, and the rest byte for byte."""
    return quote(text, safe=_VISIBLE)


def on_the_wire(target: str) -> str:
    """Return a target as a request has it: one in ASCII was checked by who made it."""
    return target if target.isascii() else visible(target)


class StaleConnection(Exception):
    """The connection ended before a byte of a response came."""


class StrayBytes(Exception):
    """What came is no answer at all; on a used connection it may be what followed the answer before."""


def head_of(request: Request, lane: Lane) -> bytes:
    """Return the head of a request; a header field that could be read as more than one is a ProtocolError."""
    headers = request.headers
    fields = headers.lines if type(headers) is Fields else lines_of(headers)
    if request.body is not None:
        fields += f"Content-Length: {request.body.length}\r\n"
    try:
        line = f"{request.method} {lane.before_target}{on_the_wire(request.target)} HTTP/1.1\r\n"
        return f"{line}{lane.fields}{fields}\r\n".encode("latin-1")
    except UnicodeEncodeError as error:
        raise ProtocolError("a header field holds what Latin-1 has no character for, and is not sent") from error


def converse(connection: WakeableConnection, head: bytes, request: Request, lane: Lane, flow: Flow) -> Response:
    """Send a request and return the response once its head is there. On every other way out, StaleConnection and
    StrayBytes among them, the flow knows nothing of the connection any more, and the caller closes it."""
    body, timeout = request.body, request.timeout
    early = False
    broken: OSError | None = None
    try:
        flow.attach(connection.abort)
        connection.bound(timeout)
        try:
            if body is None:
                connection.sock.sendall(head)
            else:
                early = _send_with_body(connection, head, body, timeout)
        except TransferKitError:
            raise
        except OSError as error:
            flow.check()
            if body is None:
                raise StaleConnection from error
            if body.error is not None:
                raise body.error from error
            # It may have answered, and closed, before it had the whole body: 401, 413 and 507 do.
            broken = error
        try:
            found, rest = _read_head(connection, timeout, lane, flow)
        except (TransferKitError, StaleConnection, StrayBytes):
            if broken is None:
                raise
            flow.check()
            raise convert(broken, lane, sending=True) from broken
        keeps = found.keeps_alive and not early and broken is None
        if request.method == "HEAD" or found.status in NO_BODY:
            # However it says that a body is framed, there is none; but what it says is for the next response to be.
            return StreamResponse(connection, found, 0, rest, request, lane, flow, keeps and _is_framed(found))
        kind = ChunkedResponse if found.chunked else StreamResponse
        return kind(connection, found, found.length, rest, request, lane, flow, keeps)
    except BaseException:
        flow.detach(connection.abort)
        raise


def _is_framed(head: Head) -> bool:
    """Tell whether what a head says of the framing of its body makes sense."""
    try:
        return head.chunked or head.length is not None or "content-length" not in head.fields
    except ProtocolError:
        return False


def _send_with_body(connection: WakeableConnection, head: bytes, body: RequestBody, timeout: float) -> bool:
    """Send a head and its body; stop, and tell so, when the server answers before it has all of that."""
    sock = connection.sock
    if not 0 < body.length <= PIECE:  # a short one goes with its head: the server need not be woken twice
        sock.sendall(head)
        head = b""
    # Session tickets make a TLS socket readable at any time; there an early answer is seen at the end only.
    is_watched = not connection.over_tls
    by_kernel = _KERNEL_SENDS and connection.is_kernels and body.length >= _BY_KERNEL
    with body:
        for piece in body.pieces(by_kernel=by_kernel):
            if isinstance(piece, Extent):
                if _send_extent(connection, piece, timeout):
                    return True
            elif head:
                sock.sendall(head + piece)
                head = b""
            elif is_watched and _has_answer(connection):
                return True
            else:
                sock.sendall(piece)
    return False


def _send_extent(connection: WakeableConnection, extent: Extent, timeout: float) -> bool:
    """Let the kernel send what it has room for; do not, and tell so, when the server answers already."""
    sock, deadline = connection.sock, time.monotonic() + timeout
    poll = new_poll()
    poll.register(sock, READ | WRITE)
    events = poll.poll(timeout * 1000)
    while True:
        ready = events[0][1] if events else 0
        if ready & READ and _has_answer(connection):
            return True
        if ready & ~READ:
            break  # room; or an error, which sending will tell
        if time.monotonic() >= deadline:
            raise TimeoutError("timed out")
        poll.modify(sock, WRITE)  # part of an interim answer is there: it would be reported for ever
        events = poll.poll(_SLICE * 1000) or [(0, READ)]
    sock.setblocking(False)  # on a slow link, one call for all of the extent would look like a stall
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


def _has_answer(connection: WakeableConnection) -> bool:
    """Tell whether a final answer has come, or the end. Some servers send a 100 or 102 unasked, and go on to read the
    body: what is complete of those is read, and thrown away."""
    sock = connection.sock
    while connection.readable.poll(0):
        said = sock.recv(MAX_HEAD, socket.MSG_PEEK)
        if not said or not any(each.startswith(said[: len(each)]) for each in _INTERIM):
            return True
        end = said.find(END)
        if end < 0:
            break  # a part of one is none of a final answer yet
        sock.recv(end + len(END))
    return False


def _read_head(connection: WakeableConnection, timeout: float, lane: Lane, flow: Flow) -> tuple[Head, bytes]:
    """Read until the head of the final response is complete; return it and what came after it."""
    deadline = time.monotonic() + timeout
    buffer = flow.buffer
    data, interims = b"", 0
    while True:
        try:
            count = connection.sock.recv_into(buffer, min(len(buffer), MAX_HEAD))
        except OSError as error:
            flow.check()
            if isinstance(error, ConnectionError) and not (data or interims):
                raise StaleConnection from error
            raise convert(error, lane) from error
        flow.check()
        if not count:
            if not (data or interims):
                raise StaleConnection
            raise ReadError(f"{lane.origin} closed the connection within the head of its answer")
        data += buffer[:count]
        while (end := data.find(END)) >= 0:
            try:
                head, data = read_head(data[: end + 4]), data[end + 4 :]
            except ProtocolError as error:
                if data.startswith(_BEGINNING):
                    raise
                raise StrayBytes(str(error)) from None
            if head.status >= 200:
                connection.bound(timeout)
                return head, data
            if head.status == 101:
                raise ProtocolError(f"{lane.origin} switches protocols (101), which nobody asked for")
            interims += 1
            if interims == _MAX_INTERIM:
                raise ProtocolError(f"{lane.origin} sent {_MAX_INTERIM} interim answers and no final one")
        # Else the wait for a rest that never comes would be all that the caller hears of.
        if data.startswith(_TLS_ALERT):
            raise ProtocolError(
                f"{lane.origin} speaks https, not http: use its https:// address, or HostOptions(scheme='https')"
            )
        if not data.startswith(_BEGINNING[: len(data)]):
            raise StrayBytes(f"{lane.origin} sent an answer that is not HTTP/1: {data[:60]!r}")
        if data.count(b"\n") != data.count(b"\r\n"):
            raise ProtocolError(f"{lane.origin} sent an answer that is not HTTP/1: {data[:60]!r}")
        if len(data) >= MAX_HEAD:
            raise ProtocolError(f"{lane.origin} sent an answer whose head is longer than {MAX_HEAD} bytes")
        left = deadline - time.monotonic()
        if left < _SHORTEST:
            raise TransportTimeout(f"{lane.origin} did not send the whole head of its answer in time")
        connection.bound(left)
