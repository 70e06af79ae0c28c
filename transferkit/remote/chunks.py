"""Parts of a blob, and the list of their digests."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.interfaces import Flow
from transferkit.errors import (
    BlobNotFoundError,
    ConnectError,
    NotFoundError,
    ProtocolError,
    ReadError,
    RegistryError,
    SizeMismatchError,
)
from transferkit.protocol import ranges, routes
from transferkit.protocol.chunksums import ChunksumParser
from transferkit.protocol.origin import Origin, redact
from transferkit.protocol.upload import is_ollama
from transferkit.remote.blobs import check_length, refuse_encoding, refuse_page
from transferkit.remote.body import BlobBody
from transferkit.remote.location import BlobLocation, Place, SingleFlight
from transferkit.transport.client import Client
from transferkit.transport.request import Request
from transferkit.transport.response import Response

logger = logging.getLogger(__name__)

_EXPIRED = frozenset({400, 401, 403})  # how S3, Azure, GCS and R2 say that a signature is too old
_LIST_BLOCK = 16 * 1024  # bytes of a list that are read at once: some 170 lines
_OFFERS = "chunksums"  # in Client.learnt


def fetch_range(
    client: Client, repository: str, descriptor: Descriptor, chunk: Chunk, *, flow: Flow, state: BlobLocation
) -> BlobBody:
    """Open the bytes of ``chunk``; ``offset`` is its start, or 0 where the server sends all of the blob instead.

    Raises:
        BlobNotFoundError: the repository does not have it.
        RegistryError: a refusal; by a storage URL, also of the one that was asked for when the first had expired.
        SizeMismatchError: the blob has another size there.
        ProtocolError: the answer is not the range; retryable where the blob seems to be another version.
    """
    what = descriptor.digest.short

    def ask(url: str, etag: str | None = None) -> Response:
        request = Request(
            method="GET",
            url=url,
            headers={"Range": f"bytes={chunk}", **({"If-Match": etag} if etag else {})},
            ok=(200, 206, 412, 416),
            scope=routes.pull_scope(repository),
            subject=what,
            missing=BlobNotFoundError,
        )
        return client.send(request, flow)

    place, answer = state.place, None
    if place is not None:
        try:
            answer = ask(place.url, place.etag)
        except RegistryError as error:
            if not place.foreign or error.status not in _EXPIRED:
                raise
            logger.debug("%s: %s answers %d; resolved again", what, redact(place.url), error.status)
        except ConnectError:
            state.leave(place)
            raise
    if place is None or answer is None:
        place, answer = state.find(place, ask, flow)
        if answer is None:
            answer = ask(place.url, place.etag)
    try:
        return _check(answer, descriptor, chunk, place, state)
    except BaseException:
        answer.close()
        raise


def _check(answer: Response, descriptor: Descriptor, chunk: Chunk, place: Place, state: BlobLocation) -> BlobBody:
    what = descriptor.digest.short
    if answer.status == 416:
        said = answer.headers.get("content-range", "")
        answer.finish()
        if said.startswith("bytes */") and said != f"bytes */{descriptor.size}":
            raise SizeMismatchError(f"{what}: {answer.origin} has {said[8:40]} bytes of it, expected {descriptor.size}")
        raise ProtocolError(f"{what}: {answer.origin} refuses the bytes {chunk} of {descriptor.size} (416)")
    if answer.status == 412:
        answer.finish()
    elif answer.status == 200:
        refuse_encoding(answer, what)
        refuse_page(answer, what)
        check_length(answer, descriptor.size, what)
        return BlobBody(answer, offset=0, length=descriptor.size)
    else:
        refuse_encoding(answer, what)
        content_range = answer.headers.get("content-range")
        ranges.check_content_range(content_range, start=chunk.start, end=chunk.end, total=descriptor.size)
        check_length(answer, chunk.size, what)
        if state.check_version(place, answer.headers.get("etag")):
            return BlobBody(answer, offset=chunk.start, length=chunk.size)
    state.unpin(place)
    raise ProtocolError(
        f"{what}: {answer.origin} has another version of it now than for the first part", retryable=True
    )


class _List:
    """A list on its way. One reader, who closes it."""

    def __init__(self, answer: Response, size: int) -> None:
        self._answer = answer
        self._parser = ChunksumParser(size)
        self._block = memoryview(bytearray(_LIST_BLOCK))  # the flow's buffer is the reader's, between two lines
        self._ended = False
        self._heard = time.monotonic()
        self._pairs: list[tuple[Chunk, Digest]] = []

    def begin(self) -> str | None:
        """Read until there is a line, and return why it is no list, if it is none."""
        kind = self._answer.headers.get("content-type", "").partition(";")[0]
        if "html" in kind:
            return f"it is {kind[:60]}"
        try:
            while not self._pairs and not self._ended:
                self._pairs = self._next()
        except (ProtocolError, ReadError) as error:
            if self._parser.begun or (isinstance(error, ReadError) and not self._ended):
                raise
            return str(error)
        return None if self._pairs else "it is empty"

    def __iter__(self) -> Iterator[tuple[Chunk, Digest]]:
        yield from self._pairs
        while not self._ended:
            yield from self._next()

    def _next(self) -> list[tuple[Chunk, Digest]]:
        count = self._answer.readinto(self._block)
        if count:
            pairs = self._parser.feed(bytes(self._block[:count]))
            now = time.monotonic()
            if pairs:
                self._heard = now
            elif now - self._heard > self._answer.timeout:
                # No body is under way that would be seen to be slow.
                raise ReadError(f"{self._answer.origin} sent no line of its list for {self._answer.timeout:g} s")
            return pairs
        self._ended = True
        return self._parser.close()

    @property
    def location(self) -> tuple[str, str | None]:
        """The URL that was asked in the end, and where it says that the blob is."""
        return self._answer.url, self._answer.headers.get("content-location")

    def close(self) -> None:
        self._answer.close()


def list_chunksums(
    client: Client, repository: str, descriptor: Descriptor, *, flow: Flow, state: BlobLocation, flight: SingleFlight
) -> Generator[tuple[Chunk, Digest], None, None]:
    """Yield the chunks of a blob with their digests, as the list arrives; nothing where the registry has no list.

    A client asks its registry once whether it has any, for the first blob; a host of Ollama is asked for each. Where
    the list says that the blob is elsewhere (``Content-Location``), ``state`` follows if the URL policy allows it.

    Raises:
        ProtocolError: the list is a lie, or leads where it may not.
        TransportError, RegistryError: it broke off, or the registry is in trouble; worth another try.
    """
    found = _offered(client, flight, lambda: _begin(client, repository, descriptor, state, flow), flow)
    if found is not None:
        with closing(found):
            yield from found


def _offered(client: Client, flight: SingleFlight, begin: Callable[[], _List | None], flow: Flow) -> _List | None:
    traits = client.traits

    def known() -> tuple[_List | None, bool] | None:
        return None if traits.has_chunksums is None else (None, False)

    def ask() -> tuple[_List | None, bool]:
        found = begin()
        traits.has_chunksums = found is not None
        return found, True

    if is_ollama(client.origin, client.options.ollama_hosts):
        return begin()
    found, asked = known() or flight.run(known, ask, flow)
    return begin() if traits.has_chunksums and not asked else found


def _begin(client: Client, repository: str, descriptor: Descriptor, state: BlobLocation, flow: Flow) -> _List | None:
    what = descriptor.digest.short
    path = routes.chunksums(repository, descriptor.digest)
    try:
        request = Request(method="GET", url=path, ok=(200,), scope=routes.pull_scope(repository), subject=what)
        answer = client.send(request, flow)
    except (NotFoundError, RegistryError, ProtocolError) as error:
        # 404, 405 and 501 by the book, but also 400, 401, 403 or a redirect that may not be followed: for a path that
        # they do not know, registries say many things. If there is more to it, the request for the blob is told too.
        if error.retryable:
            raise
        logger.debug("%s: %s has no list of its chunks: %s", what, client.origin, error)
        return None
    found = _List(answer, descriptor.size)
    try:
        reason = found.begin()
        if reason is None:
            _follow(client, state, *found.location)
            return found
    except BaseException:
        found.close()
        raise
    found.close()
    logger.debug("%s: what %s sent is no list of its chunks: %s", what, client.origin, reason)
    return None


def _follow(client: Client, state: BlobLocation, base: str, location: str | None) -> None:
    if not location:
        return
    url = client.resolve(base, location)
    # Who is not the registry does not choose what is asked of it with the user's credentials.
    if Origin.of(base) == client.origin or Origin.of(url) != client.origin:
        state.follow(url)
