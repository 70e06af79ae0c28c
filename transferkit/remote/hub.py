"""A repository of the Hugging Face hub at one commit, and its files as a source of blobs.

The files of LFS are blobs already: the hub knows their SHA-256. The others are read once, held to the hash of their git
blob, and known by their SHA-256 then; small ones stay in memory, as nobody wants to fetch them twice.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterable
from functools import partial

from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.flow import Flow
from transferkit.errors import (
    BlobNotFoundError,
    DeniedError,
    DigestMismatchError,
    InvalidModelError,
    NotFoundError,
    RegistryError,
    SizeMismatchError,
    TransferKitError,
)
from transferkit.options import RetryOptions
from transferkit.protocol.hub import ENDPOINT, MAX_INFO, HubFile, explained, read_commit
from transferkit.protocol.hub_name import HubName
from transferkit.protocol.listing import MAX_PAGE
from transferkit.remote.body import BlobBody, encoded, encoding_of
from transferkit.remote.listing import following
from transferkit.remote.proof import WHOLE, Questions
from transferkit.remote.source import BlobSource
from transferkit.transport.client import Client
from transferkit.transport.hosts import Hosts
from transferkit.transport.hub import HubAccess
from transferkit.transport.request import Request
from transferkit.transport.response import Response


class HubClient(Client):
    """Sends requests to the hub, and says what its refusals mean. Thread-safe.

    Its token goes to the endpoint's own origin alone, and not to the CDN that a file comes from.
    """

    def __init__(self, access: HubAccess, hosts: Hosts, name: HubName, *, retry: RetryOptions | None = None) -> None:
        super().__init__(access.endpoint, hosts, retry=retry, hub=access.token)
        self._name = name

    def send(self, request: Request, flow: Flow) -> Response:
        """Send a request, as every client does. NotFoundError: there is no such repository, as far as one may see."""
        try:
            return super().send(request, flow)
        except RegistryError as error:
            meant = explained(error, self._name, self.base_url)
            if meant is error:
                raise
            raise meant from error


class HubRepository:
    """A repository of the hub: which commit its revision is, and the list of the files of that. Thread-safe."""

    def __init__(self, client: Client, name: HubName) -> None:
        self.client = client
        self.name = name

    @property
    def url(self) -> str:
        """Where people find it."""
        return f"{self.client.base_url}{self.name.page}"

    def commit(self, flow: Flow) -> str:
        """Ask which commit the revision is now. NotFoundError: there is no such repository, or revision."""
        request = Request(method="GET", url=self.name.info, ok=(200,), subject=str(self.name), missing=NotFoundError)
        with self.client.cleaned(), self.client.send(request, flow) as response:
            return read_commit(response.read(MAX_INFO))

    def page(self, url: str, seen: set[str], flow: Flow) -> tuple[bytes, str | None]:
        """Fetch a page of the list of files, and where the next one is; ``seen`` are those that were asked for."""
        request = Request(method="GET", url=url, ok=(200,), subject=f"the files of {self.name}")
        with self.client.cleaned(), self.client.send(request, flow) as response:
            page = response.read(MAX_PAGE)
            return page, following(self.client, response, seen, known_as=ENDPOINT)


class HubPlace:
    """The files of a commit as their requests see them: which path has which content. Thread-safe."""

    def __init__(self, client: Client, name: HubName, commit: str) -> None:
        self.client = client
        self.questions = Questions()
        self.read: Callable[..., Request] = Request
        self.paths: dict[Digest, str] = {}
        self.path_of = partial(name.file, commit)

    def home(self, digest: Digest) -> str:
        """Return where a content is fetched from. BlobNotFoundError: no file has it."""
        path = self.paths.get(digest)
        if path is None:
            raise BlobNotFoundError(f"no file of the repository is {digest.short}")
        return self.path_of(path)


class HubFiles(BlobSource):
    """The files of a commit as blobs: a ``RangeFetcher``. Thread-safe.

    ``files`` are those that may be asked for, and ``kept`` the paths of those that stay in memory once they were read.
    """

    _endpoint: HubPlace

    def __init__(self, repository: HubRepository, commit: str, files: Iterable[HubFile], kept: Iterable[str]) -> None:
        super().__init__(HubPlace(repository.client, repository.name, commit))
        self._kept = frozenset(kept)
        self._contents: dict[Digest, bytes] = {}
        self._digests: dict[str, Digest] = {}
        self._lock = threading.Lock()
        for file in files:
            if file.digest is not None:
                self.know(file, file.digest)

    def keep(self, content: bytes) -> None:
        """Have something among the contents that is no file of the commit."""
        self._contents[Digest.of(content)] = content

    def digest_of(self, file: HubFile) -> Digest | None:
        """Return the SHA-256 of a file; of those that are not in LFS it is known once they were read."""
        return self._digests.get(file.path)

    def know(self, file: HubFile, digest: Digest) -> None:
        """Take in which content a file has."""
        with self._lock:
            self._digests[file.path] = digest
            self._endpoint.paths.setdefault(digest, file.path)

    def learn(self, file: HubFile, flow: Flow) -> None:
        """Read a file that is not in LFS, hold it to the hash of its git blob, and know its SHA-256 from then on.

        Raises:
            SizeMismatchError, DigestMismatchError: the hub sends another content than its list has.
        """
        url = self._endpoint.path_of(file.path)
        request = Request(
            method="GET", url=url, ok=WHOLE, subject=file.path, missing=BlobNotFoundError, is_content=True
        )
        flow.counter.set_position(0)
        git, sha256, content = file.git_hasher(), hashlib.sha256(), bytearray()
        count, is_kept = 0, file.path in self._kept
        with self.client.cleaned(), self.client.send(request, flow) as response:
            if encoding_of(response):
                raise encoded(response, file.path)
            flow.watch.start()
            try:
                while count <= file.size and (read := response.readinto(flow.buffer)):
                    count += read
                    flow.moved(read)
                    piece = flow.buffer[:read]
                    git.update(piece)
                    sha256.update(piece)
                    if is_kept:
                        content += piece
            finally:
                flow.watch.stop()
        if count != file.size:
            has = f"more than {file.size}" if count > file.size else str(count)
            raise SizeMismatchError(f"{file.path}: the hub sends {has} bytes, and lists {file.size}")
        if git.hexdigest() != file.oid:
            raise DigestMismatchError(f"{file.path}: the hub sends another content than it lists", retryable=True)
        digest = Digest(f"sha256:{sha256.hexdigest()}")
        if is_kept:
            self._contents[digest] = bytes(content)
        self.know(file, digest)

    def kept_at(self, digest: Digest, offset: int, count: int) -> bytes:
        """Return bytes of a file that is in memory, verified. InvalidModelError: it is not there."""
        content = self._contents.get(digest)
        if content is None:
            raise InvalidModelError(f"{digest.short} was not read")
        return content[offset : offset + count]

    def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Flow) -> BlobBody:
        content = self._contents.get(descriptor.digest)
        return super().fetch(descriptor, offset=offset, flow=flow) if content is None else _body(content, offset)

    def fetch_range(self, descriptor: Descriptor, chunk: Chunk, *, flow: Flow) -> BlobBody:
        content = self._contents.get(descriptor.digest)
        if content is None:
            return super().fetch_range(descriptor, chunk, flow=flow)
        return _body(content[: chunk.end + 1], chunk.start)

    def concerns_all(self, error: TransferKitError) -> bool:
        """Tell whether an error would be the same for every other file; a gated repository refuses them all."""
        return isinstance(error, DeniedError) or super().concerns_all(error)


def _body(content: bytes, offset: int) -> BlobBody:
    """Return what is in memory from ``offset`` on."""
    return BlobBody(io.BytesIO(content[offset:]).readinto, lambda: None, offset, len(content) - offset)
