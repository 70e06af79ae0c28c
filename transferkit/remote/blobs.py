"""The blobs of a repository, as they are fetched from there: all that a download needs."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from transferkit.content.descriptor import Descriptor
from transferkit.content.flow import Flow
from transferkit.grammar import OLLAMA, WIDE
from transferkit.protocol.chunksums import Pairs
from transferkit.protocol.upload import is_ollama
from transferkit.remote.chunksums import list_chunksums
from transferkit.remote.endpoint import Endpoint
from transferkit.remote.proof import WHOLE
from transferkit.remote.source import BlobSource
from transferkit.transport.client import Client
from transferkit.transport.pipeline import Wanted


class RepositoryBlobs(BlobSource):
    """The blobs of one repository: a ``RangeFetcher``, ``ChunkLister`` and ``Pipeliner``. Thread-safe.

    A ``name`` that is none is an InvalidNameError.
    """

    _endpoint: Endpoint

    def __init__(self, client: Client, name: str) -> None:
        self.name = name
        self._is_ollama = is_ollama(client.origin, client.options.ollama_hosts)
        super().__init__(Endpoint(client, name, OLLAMA if self._is_ollama else WIDE))

    def chunksums(self, descriptor: Descriptor, *, flow: Flow) -> Pairs:
        """Yield a blob's chunks and their digests as they arrive; nothing where the registry has no such list."""
        return list_chunksums(self._endpoint, self._url(descriptor), flow)

    def pipeline(
        self, descriptors: Sequence[Descriptor], *, more: Callable[[], Sequence[Descriptor]], flow: Flow
    ) -> Generator[memoryview, None, None] | None:
        """Ask for several blobs at once, as ``Pipeliner`` has it; only once the registry has answered one by one."""
        endpoint, first = self._endpoint, descriptors[0].digest
        request = endpoint.read(method="GET", url=endpoint.home(first), ok=WHOLE, subject=first.short, is_content=True)

        def wanted(descriptors: Sequence[Descriptor]) -> list[Wanted]:
            return [Wanted(endpoint.home(each.digest), each.size, each.digest.short) for each in descriptors]

        return self.client.pipeline(request, wanted(descriptors), lambda: wanted(more()), flow)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} at {self.client.origin}>"
