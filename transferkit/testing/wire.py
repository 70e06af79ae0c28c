"""What a scripted server can say: pieces of a conversation, and answers that are built of them.

Values only, no sockets. A script says bytes, a :class:`Pause`, :class:`Close` or :class:`Reset`, or several of them
in a row. The builders give bytes where that is all, so that they can be joined with ``+``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Pause:
    """Say nothing for some seconds; for ever by default, which the end of the server cuts short."""

    seconds: float = math.inf


@dataclass(frozen=True, slots=True)
class Close:
    """End the connection cleanly (FIN)."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Break the connection (RST), when the client's system has what was said before."""


Piece: TypeAlias = bytes | Pause | Close | Reset
HeaderFields: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]


def answer(status: int = 200, body: bytes = b"", headers: HeaderFields = ()) -> bytes:
    """Return a well-framed answer.

    ``Content-Length`` is added, but for 1xx, 204 and 304, and where ``headers`` frame the body themselves. Join with
    ``+`` for what must not be: ``answer(200, b"x") + b"junk"`` has bytes after its body.

    >>> answer(200, b"hello", {"ETag": '"1"'})
    b'HTTP/1.1 200 OK\\r\\nETag: "1"\\r\\nContent-Length: 5\\r\\n\\r\\nhello'
    """
    lines = list(headers.items() if isinstance(headers, Mapping) else headers)
    names = {name.lower() for name, _ in lines}
    if status >= 200 and status not in (204, 304) and not names & {"content-length", "transfer-encoding"}:
        lines.append(("Content-Length", str(len(body))))
    return _head(status, lines) + body


def informational(status: int = 103, headers: HeaderFields = ()) -> bytes:
    """Return a 1xx head, to be joined with the answer that it comes before.

    Not every client knows more of them than 100: ``http.client`` takes a 103 for the answer.

    >>> informational(102) + answer(204)
    b'HTTP/1.1 102 Processing\\r\\n\\r\\nHTTP/1.1 204 No Content\\r\\n\\r\\n'
    """
    return answer(status, b"", headers)


def chunked(*blocks: bytes, status: int = 200, headers: HeaderFields = (), trailer: bytes = b"0\r\n\r\n") -> bytes:
    """Return a chunked answer. An empty ``trailer`` leaves it without its end.

    >>> chunked(b"hello", trailer=b"")
    b'HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n5\\r\\nhello\\r\\n'
    """
    lines = [*(headers.items() if isinstance(headers, Mapping) else headers), ("Transfer-Encoding", "chunked")]
    return _head(status, lines) + b"".join(b"%x\r\n%b\r\n" % (len(block), block) for block in blocks) + trailer


def truncated(body: bytes, announced: int, *, status: int = 200, headers: HeaderFields = ()) -> list[Piece]:
    """Return an answer that announces more than it brings, and closes.

    >>> truncated(b"hel", 5)
    [b'HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhel', Close()]
    """
    lines = [*(headers.items() if isinstance(headers, Mapping) else headers), ("Content-Length", str(announced))]
    return [_head(status, lines) + body, Close()]


def until_close(body: bytes, *, status: int = 200, headers: HeaderFields = ()) -> list[Piece]:
    """Return an answer whose body ends where the connection does.

    >>> until_close(b"hello")
    [b'HTTP/1.1 200 OK\\r\\n\\r\\nhello', Close()]
    """
    return [_head(status, headers.items() if isinstance(headers, Mapping) else headers) + body, Close()]


def two_lengths(body: bytes, other: int) -> bytes:
    """Return an answer with two ``Content-Length``: the right one, then ``other``.

    >>> two_lengths(b"hello", 4)
    b'HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\nContent-Length: 4\\r\\n\\r\\nhello'
    """
    return answer(200, body, [("Content-Length", str(len(body))), ("Content-Length", str(other))])


def bad_status_line(line: bytes = b"HTTP/1.1 OK 200") -> bytes:
    """Return an answer that begins with ``line``.

    >>> bad_status_line(b"SSH-2.0-OpenSSH_9.6")
    b'SSH-2.0-OpenSSH_9.6\\r\\nContent-Length: 0\\r\\n\\r\\n'
    """
    return line + b"\r\nContent-Length: 0\r\n\r\n"


def header_flood(count: int = 100_000, *, size: int = 64) -> Iterable[bytes]:
    """Return an answer whose head has ``count`` headers of ``size`` bytes, made as it is sent.

    >>> b"".join(header_flood(1, size=16))
    b'HTTP/1.1 200 OK\\r\\nX-0000000: aaa\\r\\nContent-Length: 0\\r\\n\\r\\n'
    """
    yield b"HTTP/1.1 200 OK\r\n"
    for first in range(0, count, 1000):
        numbers = range(first, min(first + 1000, count))
        yield b"".join((b"X-%07d: " % number).ljust(size - 2, b"a") + b"\r\n" for number in numbers)
    yield b"Content-Length: 0\r\n\r\n"


def never() -> Pause:
    """Return what is no answer at all, on an open connection.

    >>> never()
    Pause(seconds=inf)
    """
    return Pause()


def _head(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:  # 499, 520 and other inventions
        phrase = "Unofficial"
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")
