"""The safetensors files of a model, without their tensors: what the header of each says, and how it is read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from transferkit.content.budget import Budget
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.errors import DigestMismatchError, InvalidModelError
from transferkit.models.safetensors import Header, read_header
from transferkit.registry.blob_files import BlobFile, BlobFiles, Proof, Source
from transferkit.registry.parts import Head
from transferkit.storage.cache import DiskCache
from transferkit.transfer.flow import WorkerFlow

GUESS = 64 * 1024  # bytes: the header of a file of some 500 tensors comes with the first request
MOST_HEADERS = 100_000_000  # bytes of all headers of a model, which become ten times as much and more
MOST_TENSORS = 500_000  # of a model; those of 1T parameters have some 200,000


class TensorFile(BlobFile):
    """A safetensors file of a model. What is known of it is set while it is opened, by one worker."""

    __slots__ = ("head", "header", "seal")

    def __init__(self, path: str, blob: Descriptor) -> None:
        super().__init__(path, blob)
        self.head: Head | None = Head(blob)
        """What has come of its header while that is read."""
        self.header: Header | None = None
        self.seal: Digest | None = None
        """The digest of a header that came without a proof; whoever has proven it takes this away."""

    def proof(self) -> Proof | None:
        """Return the header, which came by itself as it is short: the first chunk, which has a digest, has to have the
        same.
        """
        seal = self.seal
        if not self.chunks or self.header is None or seal is None:
            return None
        raw = bytearray(self.header.data_start)

        def check() -> None:
            if Digest.of(raw) != seal:
                text = f"{self.path} ({self.blob.digest.short}): its header came otherwise than the list of its chunks"
                raise DigestMismatchError(f"{text} says")
            self.seal = None

        return (0, memoryview(raw)), check


class TensorFiles(BlobFiles):
    """The safetensors files of one model, and how a worker reads them. Thread-safe."""

    def __init__(self, files: Sequence[TensorFile], cache: DiskCache, source: Source | None) -> None:
        super().__init__(cache, source)
        self.files = files
        self._headers, self._tensors = Budget(MOST_HEADERS), Budget(MOST_TENSORS)

    def open(self, file: TensorFile, flow: WorkerFlow) -> None:
        """Make one attempt to find out where a file comes from, and to read its header.

        Raises:
            InvalidModelError: it is no safetensors file, or the headers of all files are too long.
            BlobNotFoundError: there is no such file.
        """
        if file.head is None:
            return
        if file.is_local is None:
            self.locate(file, flow)
        try:
            header = read_header(partial(self._read_head, file, file.head, flow), file.blob.size, self._tensors)
        except InvalidModelError as error:
            raise InvalidModelError(f"{file.path} ({file.blob.digest.short}): {error}") from error
        if not file.is_local:
            file.seal = Digest.of(memoryview(file.head.data)[: header.data_start])
        self._headers.take(header.data_start - file.head.end)  # what was read on a guess is given back
        file.header, file.head = header, None

    def _read_head(self, file: TensorFile, head: Head, flow: WorkerFlow, offset: int, count: int) -> bytes:
        """Return bytes of a file's beginning, and fetch those that have not come yet."""
        end = max(head.end, min(max(offset + count, GUESS), file.blob.size))
        if not self._headers.take(end - head.end):
            raise InvalidModelError(f"the headers of the model have more than {MOST_HEADERS} bytes together")
        head.end = end
        self.fetch(file, head, flow, is_local=bool(file.is_local))
        return bytes(memoryview(head.data)[offset : offset + count])
