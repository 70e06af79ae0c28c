"""The list of the digests of a blob's parts, where the registry has such lists."""

from __future__ import annotations

import logging
import time
from contextlib import closing

from transferkit.content.flow import Flow
from transferkit.errors import NotFoundError, ProtocolError, ReadError, RegistryError
from transferkit.protocol import routes
from transferkit.protocol.chunksums import ChunksumParser, Pair, Pairs
from transferkit.protocol.origin import Origin
from transferkit.protocol.upload import is_ollama
from transferkit.remote.blob_url import BlobURL
from transferkit.remote.endpoint import Endpoint
from transferkit.transport.response import Response

logger = logging.getLogger(__name__)

_BLOCK = 16 * 1024  # bytes of a list that are read at once: some 170 lines


def list_chunksums(endpoint: Endpoint, url: BlobURL, flow: Flow) -> Pairs:
    """Yield the chunks of a blob with their digests, as the list arrives; nothing where the registry has no list.

    A client asks its registry once whether it has any, for the first blob; a host of Ollama is asked for each. Where
    the list says that the blob is elsewhere (``Content-Location``), ``url`` follows if the URL policy allows it.
    """
    client, traits = endpoint.client, endpoint.client.host
    always = is_ollama(client.origin, client.options.ollama_hosts)
    opened = None
    if not always and traits.has_chunksums is None:
        with endpoint.first_list.turn(flow):
            if traits.has_chunksums is None:
                opened = _open(endpoint, url, flow)
                traits.has_chunksums = opened is not None
    if opened is None and (always or traits.has_chunksums):
        opened = _open(endpoint, url, flow)
    if opened is None:
        return
    response, first, rest = opened
    with closing(rest), client.cleaned():
        location = response.headers.get("content-location")
        if location:
            target = client.resolve(response, location, "where the blob is (Content-Location)")
            # Who is not the registry does not choose what is asked of it with the user's credentials.
            if response.trusted or Origin.of(target) != client.origin:
                url.follow(target)
        yield first
        yield from rest


def _open(endpoint: Endpoint, url: BlobURL, flow: Flow) -> tuple[Response, Pair, Pairs] | None:
    """Ask for the list, and read it up to its first line, which proves that it is one; return that and the others."""
    client, subject = endpoint.client, url.subject
    path = routes.chunksums(endpoint.name, url.descriptor.digest)
    parser = ChunksumParser(url.descriptor.size)
    try:
        response = client.send(endpoint.read(method="GET", url=path, ok=(200,), subject=subject), flow)
        pairs = _read(response, parser)
        first = next(pairs, None)
        if first is None:
            raise ProtocolError("it is empty")
    except (NotFoundError, RegistryError, ProtocolError) as error:
        # 404, 405 and 501 by the book, but also 400, 401, 403 or a redirect that may not be followed: for a path that
        # they do not know, registries say many things. If there is more to it, the request for the blob is told too.
        client.clean(error)
        if error.retryable or parser.begun:
            raise
        logger.debug("%s: %s has no list of its chunks: %s", subject, client.origin, error)
        return None
    return response, first, pairs


def _read(response: Response, parser: ChunksumParser) -> Pairs:
    """Yield the lines of a list, and close the response."""
    heard = time.monotonic()
    with response:
        if "html" in response.headers.get("content-type", ""):
            raise ProtocolError("it is a page")
        while block := response.peek(_BLOCK, partly=True):
            for pair in parser.feed(block):
                yield pair
                heard = time.monotonic()
            if time.monotonic() - heard > response.timeout:
                # The watchdog does not watch lists, so their time limit is here.
                raise ReadError(f"{response.origin} sent no line of its list for {response.timeout:g} s")
        if parser.begun:
            yield from parser.close()
