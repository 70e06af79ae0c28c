"""Fetching a blob, and asking for it."""

from __future__ import annotations

from types import TracebackType

from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Flow
from transferkit.errors import ProtocolError, ReadError, SizeMismatchError
from transferkit.protocol import ranges, routes
from transferkit.transport.body import Answer
from transferkit.transport.client import Client

_WHOLE = (200,)
_PARTIAL = (200, 206, 416)


class BlobBody:
    """The body of a blob on its way from a registry; ``offset`` tells where in the blob it begins."""

    __slots__ = ("_answer", "_left", "_what", "offset")

    def __init__(self, answer: Answer, offset: int, what: str) -> None:
        self.offset = offset
        self._answer = answer
        self._left = answer.length
        self._what = what

    def readinto(self, buffer: memoryview, /) -> int:
        count = self._answer.readinto(buffer)
        left = self._left
        if left is not None:
            # After the head's promise was kept there is one more read, which gives the connection back.
            self._left = left = left - count
            if (count == 0 and left > 0) or left < 0:
                raise ReadError(f"{self._what}: the connection closed {left} bytes before the end")
        return count

    def close(self) -> None:
        self._answer.close()

    def __enter__(self) -> BlobBody:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._answer.close()


def fetch(client: Client, repository: str, descriptor: Descriptor, *, offset: int, flow: Flow) -> BlobBody:
    """Open a blob of ``repository`` from ``offset`` on.

    Raises:
        BlobNotFoundError: the repository does not have it.
        SizeMismatchError: the registry announces another length than the descriptor has.
        ProtocolError: the blob is encoded, or the range is not the one asked for.
    """
    what = descriptor.digest.short
    answer = client.open(
        "GET",
        routes.blob(repository, descriptor.digest),
        headers={"Range": ranges.request_from(offset)} if offset else None,
        flow=flow,
        ok=_PARTIAL if offset else _WHOLE,
        scope=routes.pull_scope(repository),
        what=what,
    )
    try:
        encoding = answer.headers.get("content-encoding", "identity")
        if encoding.lower() != "identity":
            raise ProtocolError(f"{what}: {client.origin} sent the blob with Content-Encoding {encoding[:40]!r}")
        if answer.status == 416:
            # It has less than what was there already, or no ranges: only a fresh start can tell who is right.
            answer.finish()
            return fetch(client, repository, descriptor, offset=0, flow=flow)
        if answer.status == 206:
            ranges.check_content_range(
                answer.headers.get("content-range"), start=offset, end=descriptor.size - 1, total=descriptor.size
            )
        begins = offset if answer.status == 206 else 0
        if answer.length is not None and answer.length != descriptor.size - begins:
            kind = answer.headers.get("content-type", "").partition(";")[0][:60]
            raise SizeMismatchError(
                f"{what}: {client.origin} announces {answer.length} bytes, expected {descriptor.size - begins}"
                + (f" (it is {kind}: a page of a proxy or of a login?)" if "html" in kind else "")
            )
        return BlobBody(answer, begins, what)
    except BaseException:
        answer.close()
        raise


def exists(client: Client, repository: str, descriptor: Descriptor, *, flow: Flow, scope: str = "") -> bool:
    """Tell whether ``repository`` has the blob.

    Raises:
        RegistryError: any answer but "here" and "not here"; a server error says nothing about the blob.
    """
    with client.open(
        "HEAD",
        routes.blob(repository, descriptor.digest),
        flow=flow,
        ok=(200, 404, 405),  # 405: a registry without HEAD. The upload that follows asks again, in its own words.
        scope=scope or routes.pull_scope(repository),
        what=descriptor.digest.short,
    ) as answer:
        answer.finish()
        return answer.status == 200
