"""The chunksums endpoint: the digests of a blob's parts, so that a client can verify each part as it lands.

No part of the OCI specification: Ollama's registry has it. A list is made when it is first asked for, line by line as
the client reads it, and kept beside the blob.
"""

from __future__ import annotations

import hashlib

from werkzeug.wrappers import Request

from transferkit.content.chunk import chunk_size
from transferkit.content.digest import Digest
from transferkit.server.answers import Answer
from transferkit.server.blobs import location_of, open_blob
from transferkit.server.file_part import FilePart
from transferkit.server.store import Repository, Store


def read(repository: Repository, request: Request, digest: Digest, step: int | None) -> Answer:
    """``GET`` and ``HEAD``; ``step`` is the size of the parts in bytes, ``None`` for the usual rule."""
    blob = open_blob(repository, digest)
    listing = Listing(repository.store, digest, blob, step or chunk_size(blob.size))
    headers = {"Content-Location": location_of(repository, digest), "Content-Type": "text/plain; charset=us-ascii"}
    body: Listing | FilePart
    try:
        body = FilePart.open(listing.path)
    except FileNotFoundError:
        body = listing
    except BaseException:
        listing.close()
        raise
    else:
        listing.close()
        headers["Content-Length"] = str(body.size)
    if request.method == "HEAD":
        body.close()
    return Answer(200, headers, body)


class Listing:
    """A list while it is made, one line an iteration; it is kept once the last one was taken. One reader."""

    def __init__(self, store: Store, digest: Digest, blocks: FilePart, step: int) -> None:
        self.path = store.chunksums(digest, step)
        self._store = store
        self._blocks = blocks
        self._step = step
        self._start = 0
        self._lines: list[bytes] = []

    def __iter__(self) -> Listing:
        return self

    def __next__(self) -> bytes:
        start, size = self._start, self._blocks.size
        if start == size:
            if not self._store.read_only:
                self._store.write(self.path, b"".join(self._lines))
            raise StopIteration
        self._start = stop = min(start + self._step, size)
        self._blocks.select(start, stop)
        hasher = hashlib.sha256(usedforsecurity=False)
        for block in self._blocks:
            hasher.update(block)
        line = b"sha256:%s %d-%d\n" % (hasher.hexdigest().encode(), start, stop - 1)
        self._lines.append(line)
        return line

    def close(self) -> None:
        self._blocks.close()
