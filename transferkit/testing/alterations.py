"""What can be wrong with an application's answer: actions that alter it on its way.

Knows WSGI and HTTP. Actions that answer, or hang up, in place of the application are in
:mod:`transferkit.testing.actions`. What a WSGI server does not let out is in neither: two lengths, bytes after the
announced ones and bad status lines are for :mod:`transferkit.testing.scripted`. A body sent through the callable that
``start_response`` returns goes by unaltered.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from transferkit.testing.actions import Headers, hung_up

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from transferkit.testing.faults import Action

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)\Z")


def ignore_range() -> Action:
    """Answer 200 with the whole to a request for a range.

    >>> action = ignore_range()
    """

    def action(app: WSGIApplication) -> WSGIApplication:
        def whole(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            without = {name: value for name, value in environ.items() if name not in ("HTTP_RANGE", "HTTP_IF_RANGE")}
            return app(without, start_response)

        return whole

    return action


def shift_range(*, start: int = 0, total: int = 0) -> Action:
    """Let ``Content-Range`` lie: both its positions are off by ``start``, its size by ``total``.

    >>> action = shift_range(start=1)
    """

    def shifted(text: str | None) -> str | None:
        match = _CONTENT_RANGE.match(text or "")
        if match is None:
            return text
        first, last, size = map(int, match.groups())
        return f"bytes {first + start}-{last + start}/{size + total}"

    return set_header("Content-Range", shifted)


def set_header(name: str, value: str | Callable[[str | None], str | None] | None) -> Action:
    """Set a header of the answer; ``None`` drops it, a function makes the new value of the old one.

    Without ``Content-Length`` the answer is chunked.

    >>> without_location = set_header("Location", None)
    >>> other_host = set_header(
    ...     "Location", lambda location: location and f"http://127.0.0.1:9{location}"
    ... )
    """

    def change(answer: _Answer, headers: Headers) -> Headers:
        old = _find(headers, name)
        new = value(old) if callable(value) else value
        others = [(other, text) for other, text in headers if other.lower() != name.lower()]
        return others if new is None else [*others, (name, new)]

    return _altering(head=change)


def truncate(at: int, *, announce: bool = True) -> Action:
    """Send ``at`` bytes of the body and no more.

    The head announces the whole, and the connection is closed in the middle; without ``announce`` it announces what is
    sent: a short answer without any fault of framing. A body of ``at`` bytes or less is left alone.

    >>> action = truncate(1000)
    """

    def head(answer: _Answer, headers: Headers) -> Headers:
        return headers if announce else _with_length(headers, lambda length: min(length, at))

    def body(answer: _Answer, blocks: Iterator[bytes]) -> Iterator[bytes]:
        left = at
        for block in blocks:
            if len(block) > left:
                if left:
                    yield block[:left]
                else:
                    answer.send_head()
                if announce:
                    raise hung_up()
                return
            left -= len(block)
            yield block

    return _altering(head=head, body=body)


def lengthen(extra: bytes) -> Action:
    """Send a body that is longer than what was asked for, and announce its length rightly.

    >>> action = lengthen(b"more")
    """

    def head(answer: _Answer, headers: Headers) -> Headers:
        return _with_length(headers, lambda length: length + len(extra)) if answer.may_have_body else headers

    def body(answer: _Answer, blocks: Iterator[bytes]) -> Iterator[bytes]:
        yield from blocks
        if answer.may_have_body and not answer.is_head:
            yield extra

    return _altering(head=head, body=body)


def corrupt(at: int = 0) -> Action:
    """Flip the lowest bit of one byte of the body; the first one is 0.

    >>> action = corrupt(at=5000)
    """

    def body(answer: _Answer, blocks: Iterator[bytes]) -> Iterator[bytes]:
        position = 0
        for block in blocks:
            index = at - position
            position += len(block)
            if 0 <= index < len(block):
                block = block[:index] + bytes([block[index] ^ 1]) + block[index + 1 :]
            yield block

    return _altering(body=body)


def encode_gzip(*, really: bool = True) -> Action:
    """Announce ``Content-Encoding: gzip``, asked for or not, and ``really`` send that, or else only claim it.

    >>> action = encode_gzip(really=False)
    """

    def head(answer: _Answer, headers: Headers) -> Headers:
        kept = headers
        if really:  # the length of what is sent is not known yet
            kept = [(name, text) for name, text in headers if name.lower() != "content-length"]
        return [*kept, ("Content-Encoding", "gzip")] if answer.may_have_body else headers

    def body(answer: _Answer, blocks: Iterator[bytes]) -> Iterator[bytes]:
        packer = zlib.compressobj(wbits=31)
        for block in blocks:
            yield packer.compress(block)
        if answer.may_have_body and not answer.is_head:
            yield packer.flush()

    return _altering(head=head, body=body if really else None)


class _Answer:
    """An application's answer on its way through an action."""

    status = 0
    blocks: Iterable[bytes] = ()

    def __init__(
        self, environ: WSGIEnvironment, start_response: StartResponse, head: _AlterHead, body: _AlterBody
    ) -> None:
        self.is_head = environ["REQUEST_METHOD"] == "HEAD"
        self._start_response = start_response
        self._head = head
        self._body = body
        self._write: Callable[[bytes], object] | None = None

    @property
    def may_have_body(self) -> bool:
        return self.status not in (204, 304)

    def start(self, status: str, headers: Headers, exc_info: Any = None, /) -> Callable[[bytes], object]:
        self.status = int(status[:3])
        self._write = self._start_response(status, self._head(self, headers), exc_info)
        return self._write

    def send_head(self) -> None:
        """Send the head before there is a body: servers wait for its first byte."""
        if self._write is not None:
            self._write(b"")

    def __iter__(self) -> Iterator[bytes]:
        return self._body(self, iter(self.blocks))

    def close(self) -> None:
        close = getattr(self.blocks, "close", None)
        if close is not None:
            close()


_AlterHead: TypeAlias = Callable[[_Answer, Headers], Headers]
_AlterBody: TypeAlias = Callable[[_Answer, Iterator[bytes]], Iterator[bytes]]


def _altering(*, head: _AlterHead | None = None, body: _AlterBody | None = None) -> Action:
    def action(app: WSGIApplication) -> WSGIApplication:
        def altered(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            answer = _Answer(
                environ,
                start_response,
                head or (lambda _answer, headers: headers),
                body or (lambda _answer, blocks: blocks),
            )
            answer.blocks = app(environ, answer.start)
            return answer

        return altered

    return action


def _find(headers: Headers, name: str) -> str | None:
    return next((text for other, text in headers if other.lower() == name.lower()), None)


def _with_length(headers: Headers, change: Callable[[int], int]) -> Headers:
    return [(name, str(change(int(text))) if name.lower() == "content-length" else text) for name, text in headers]
