"""A source that goes on where a body broke off, for a target that would have to begin anew: another registry."""

from __future__ import annotations

from dataclasses import dataclass

from transferkit.content.descriptor import Descriptor
from transferkit.content.flow import Closing, Flow
from transferkit.content.interfaces import Body, Fetcher, Judge
from transferkit.errors import DigestMismatchError, SizeMismatchError, TransferKitError

_TRIES = 5  # in a row that bring no byte


@dataclass(frozen=True, slots=True)
class SteadySource:
    """A ``Fetcher`` whose bodies are continued by ranges where they break off, and held to their digest. Thread-safe.

    ``DigestMismatchError``: the content is another one; who reads it never sees its end.
    """

    source: Fetcher

    def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Flow) -> Body:
        return SteadyBody(self.source, descriptor, offset, flow)

    def concerns_all(self, error: TransferKitError) -> bool:
        return isinstance(self.source, Judge) and self.source.concerns_all(error)


class SteadyBody(Closing):
    """One content on its way, from ``offset`` on. What is read from its first byte on is hashed."""

    def __init__(self, source: Fetcher, descriptor: Descriptor, offset: int, flow: Flow) -> None:
        self._source = source
        self._descriptor = descriptor
        self._flow = flow
        self._body: Body | None = source.fetch(descriptor, offset=offset, flow=flow)
        self.offset = self._at = self._body.offset
        self._hasher = descriptor.digest.hasher() if not self._at else None

    @property
    def length(self) -> int | None:
        return self._descriptor.size - self.offset

    def readinto(self, buffer: memoryview, /) -> int:
        size = self._descriptor.size
        if self._at == size:
            return 0
        tries = 0
        while True:
            try:
                count = self._body_at(self._at).readinto(buffer[: size - self._at])
                if count:
                    break
                short = f"{self._descriptor.digest.short}: incomplete: received {self._at}/{size} bytes"
                raise SizeMismatchError(short, retryable=True)
            except TransferKitError as error:
                self._flow.check()  # what was cut is for the whole attempt
                self.close()
                tries += 1
                if not error.retryable or tries > _TRIES:
                    raise
                self._flow.wait(0.01 * tries * tries, "retry")
        self._at += count
        if self._hasher is not None:
            self._hasher.update(buffer[:count])
            if self._at == size and not self._descriptor.digest.matches(self._hasher):
                raise DigestMismatchError(f"{self._descriptor.digest.short}: the source has other content")
        return count

    def _body_at(self, offset: int) -> Body:
        """Return the body whose next byte is at ``offset``."""
        if self._body is None:
            # Whoever reads this body has the beginning of a block in the buffer of the flow, which a request uses too.
            kept = bytes(self._flow.buffer)
            try:
                self._body = self._source.fetch(self._descriptor, offset=offset, flow=self._flow)
                self._skip(self._body, offset - self._body.offset)
            finally:
                self._flow.buffer[:] = kept
        return self._body

    def _skip(self, body: Body, count: int) -> None:
        """Read what is known already: the source has no ranges."""
        while count:
            read = body.readinto(self._flow.buffer[:count])
            if not read:
                text = f"{self._descriptor.digest.short}: the source ended before where it had been"
                raise SizeMismatchError(text, retryable=True)
            count -= read

    def close(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()
