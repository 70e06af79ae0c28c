"""The content of an upload, opened where a request's body begins: once, where that is enough."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Body, Fetcher, Flow, Seekable
from transferkit.errors import ReadError


class Content:
    """A blob's content, for one thread. Whoever makes it closes it."""

    def __init__(self, source: Fetcher, descriptor: Descriptor, flow: Flow) -> None:
        self._source = source
        self._descriptor = descriptor
        self._flow = flow
        self._body: Body | None = None
        self._unread_at: int | None = None

    def seek(self, offset: int) -> Body:
        """Return a body whose next byte is the one at ``offset``.

        Raises:
            SourceError: it is a file that is not there, or not what its digest says.
            ReadError: the source ends before.
        """
        self._unread_at = offset
        # The same file for all parts: opened anew, it would be hashed anew, from its beginning, for each of them.
        if self._body is not None and isinstance(self._body, Seekable):
            self._body.seek(offset, flow=self._flow)
            return self._body
        self.close()
        self._body = body = self._source.fetch(self._descriptor, offset=offset, flow=self._flow)
        skip, buffer = offset - body.offset, self._flow.buffer
        while skip:
            self._flow.check()
            count = body.readinto(buffer[:skip])
            if not count:
                raise ReadError(f"the source ended {skip} bytes early")
            skip -= count
        return body

    @contextmanager
    def at(self, offset: int) -> Iterator[Body]:
        """Open it at ``offset`` for one request; it stays open for the next one."""
        body = self._body if self._unread_at == offset else None
        body = body or self.seek(offset)
        self._unread_at = None
        yield body

    def close(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()
