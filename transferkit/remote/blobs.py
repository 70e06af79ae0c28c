"""Fetching a blob, and asking for it."""

from __future__ import annotations

from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Flow
from transferkit.errors import BlobNotFoundError, ProtocolError, SizeMismatchError
from transferkit.protocol import ranges, routes
from transferkit.remote.body import BlobBody
from transferkit.transport.client import Client
from transferkit.transport.request import Request
from transferkit.transport.response import Response

_WHOLE = (200,)
_PARTIAL = (200, 206, 416)


def fetch(client: Client, repository: str, descriptor: Descriptor, *, offset: int, flow: Flow) -> BlobBody:
    """Open a blob of ``repository`` from ``offset`` on.

    Raises:
        BlobNotFoundError: the repository does not have it.
        SizeMismatchError: the registry announces another length than the descriptor has.
        ProtocolError: the blob is encoded, or the range is not the one asked for.
    """
    what = descriptor.digest.short
    request = Request(
        method="GET",
        url=routes.blob(repository, descriptor.digest),
        headers={"Range": ranges.request_from(offset)} if offset else {},
        ok=_PARTIAL if offset else _WHOLE,
        scope=routes.pull_scope(repository),
        subject=what,
        missing=BlobNotFoundError,
    )
    answer = client.send(request, flow)
    try:
        refuse_encoding(answer, what)
        refuse_page(answer, what)
        if answer.status == 416:
            # It has less than what was there already, or no ranges: only a fresh start can tell who is right.
            answer.finish()
            return fetch(client, repository, descriptor, offset=0, flow=flow)
        if answer.status == 206:
            ranges.check_content_range(
                answer.headers.get("content-range"), start=offset, end=descriptor.size - 1, total=descriptor.size
            )
        begins = offset if answer.status == 206 else 0
        check_length(answer, descriptor.size - begins, what)
        return BlobBody(answer, offset=begins, length=answer.length)
    except BaseException:
        answer.close()
        raise


def refuse_encoding(answer: Response, what: str) -> None:
    """Hold an answer to the bytes of the blob themselves.

    Raises:
        ProtocolError: it is compressed or otherwise encoded.
    """
    encoding = answer.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise ProtocolError(f"{what}: {answer.origin} sent the blob with Content-Encoding {encoding[:40]!r}")


def refuse_page(answer: Response, what: str) -> None:
    """Refuse what is no blob by the look of it: it must not take the place of what is there already.

    Raises:
        ProtocolError: it is a page of HTML, of a length that nobody tells.
    """
    if answer.length is None and "html" in answer.headers.get("content-type", ""):
        raise ProtocolError(f"{what}: {answer.origin} sent a page (text/html) for the blob: of a proxy or of a login?")


def check_length(answer: Response, expected: int, what: str) -> None:
    """Hold an answer to a length, where it announces one.

    Raises:
        SizeMismatchError: it announces another.
    """
    if answer.length is not None and answer.length != expected:
        kind = answer.headers.get("content-type", "").partition(";")[0][:60]
        raise SizeMismatchError(
            f"{what}: {answer.origin} announces {answer.length} bytes, expected {expected}"
            + (f" (it is {kind}: a page of a proxy or of a login?)" if "html" in kind else "")
        )


def exists(client: Client, repository: str, descriptor: Descriptor, *, flow: Flow, scope: str = "") -> bool:
    """Tell whether ``repository`` has the blob.

    Raises:
        RegistryError: any answer but "here" and "not here"; a server error says nothing about the blob.
    """
    request = Request(
        method="HEAD",
        url=routes.blob(repository, descriptor.digest),
        ok=(200, 404, 405),  # 405: a registry without HEAD. The upload that follows asks again, in its own words.
        scope=scope or routes.pull_scope(repository),
        subject=descriptor.digest.short,
    )
    with client.send(request, flow) as answer:
        answer.finish()
        return answer.status == 200
