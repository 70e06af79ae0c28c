"""The files of a model, read where they are: whole, or in parts, without a folder that they are pulled into."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from transferkit.content.digest import Digest
from transferkit.content.graph import Graph
from transferkit.content.interfaces import Fetcher
from transferkit.content.manifest import Manifest
from transferkit.errors import (
    IncompleteError,
    InvalidManifestError,
    NotFoundError,
)
from transferkit.models.ranges import GAP, joined
from transferkit.models.reading import files_of
from transferkit.models.values import Entry, Packing
from transferkit.names import Reference
from transferkit.registry import local
from transferkit.registry.blob_files import BlobFile, BlobFiles, Source
from transferkit.registry.folder_pull import config_of, graph_of
from transferkit.registry.job import Job
from transferkit.registry.memory import Memory
from transferkit.registry.reader import Reader
from transferkit.storage.cache import DiskCache
from transferkit.storage.directory import Directory
from transferkit.storage.disk_errors import disk_errors
from transferkit.transfer.outcomes import ProgressCallback

Begin: TypeAlias = Callable[..., AbstractContextManager[Job]]
"""Begins the job of a read, with a callback for its progress, if any."""

FEW = 4  # parts of a file that are asked for before it is known whether the server has ranges
_SUFFIXES = {Packing.TAR: ".tar", Packing.TAR_GZIP: ".tar.gz"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """What a manifest says of a file, before anything of it is read."""

    path: str
    """Its path in the model, with slashes."""
    size: int
    digest: Digest
    media_type: str
    packing: str
    """``none``; or ``tar`` or ``tar+gzip`` for an archive with files that the manifest does not name."""


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes of a file, from ``start`` to ``end``, not inclusive; both are within it."""

    path: str
    start: int
    end: int


class OpenFiles(Mapping[str, FileInfo]):
    """A mapping of the paths of a model's files to what the manifest says of them, and their content by ranges.

    It is that of one manifest for ever, whatever becomes of the tag. Thread-safe, and usable after a fork. Nothing
    that is read is kept, and the cache is not written to.

    A file of which all is read is held to its digest. A part is, where the cache has the file, or the registry a list
    of the digests of its chunks (whole chunks are read then), or the file has at most 128 KiB, as all of it is read
    then; every other part comes as the registry sends it, of one version (``ETag``) at least.

    Raises, wherever something is read:
        KeyError: there is no file of that path.
        VerificationError: ``require_verified``, and nobody can verify it.
        DigestMismatchError: what came is not what a digest says.
        BlobNotFoundError: the registry, or, offline, the cache has not the file.
        TransferKitError, CancelledError: as for ``download``.
    """

    def __init__(
        self,
        reference: Reference,
        manifest: Manifest,
        entries: Iterable[Entry],
        files: BlobFiles,
        begin: Begin,
        *,
        format: str,
        cache: DiskCache,
        require_verified: bool = False,
    ) -> None:
        self.digest = manifest.digest
        """The digest of the manifest."""
        self.format = format
        """How the manifest was read: ``modelpack``, ``oras``, ``docker``, ``kitops``, ``ollama`` or ``image``."""
        self._reference = reference
        self._cache = cache
        self._blobs = files
        self._begin = begin
        self._reader = Reader(files, f"a part of {{}} in {reference}", require_verified=require_verified)
        self._infos: dict[str, FileInfo] = {}
        self._files: dict[str, BlobFile] = {}
        for entry in entries:
            path = _path_of(entry)
            blob = entry.descriptor
            self._infos[path] = FileInfo(
                path=path,
                size=blob.size,
                digest=blob.digest,
                media_type=blob.media_type,
                packing=entry.packing.value,
            )
            self._files[path] = BlobFile(path, blob)

    def __getitem__(self, path: str) -> FileInfo:
        try:
            return self._infos[path]
        except KeyError:
            raise KeyError(f"{self._reference} has no file {path!r}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._infos))

    def __len__(self) -> int:
        return len(self._infos)

    # Two mappings are not compared: they are handles.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        """Read a file, or a part of it; bounds count as those of a slice."""
        return self.read_many([(path, start, end)])[0]

    def read_many(self, wanted: Iterable[tuple[str, int | None, int | None]]) -> list[bytes]:
        """Read parts of files, given as (path, start, end): in few ranges, which come in parallel.

        Parts that lie near each other come in one range, with what is between them; a long one comes in several.
        """
        ranges = [self._range(path, start, end) for path, start, end in wanted]
        spans: dict[BlobFile, list[tuple[int, int]]] = {}
        for asked in ranges:
            if asked.start < asked.end:
                file = self._files[asked.path]
                # A short file costs no more whole than in parts, and whole it is verified.
                whole = file.blob.size <= GAP
                spans.setdefault(file, []).append((0, file.blob.size) if whole else (asked.start, asked.end))
        memory = {file: Memory(file, joined(each)) for file, each in spans.items()}
        if memory:
            with self._begin() as job:
                self._read(job, memory.values())
        return [
            memory[self._files[asked.path]].take(asked.start, asked.end) if asked.start < asked.end else b""
            for asked in ranges
        ]

    def span(self, path: str, start: int, end: int) -> tuple[int, int]:
        """Return which bytes are moved when these are read, as far as it is known: with lists, whole chunks."""
        file = self._files[self[path].path]
        covered = [chunk for chunk, _ in file.chunks if chunk.start < end and start <= chunk.end]
        return (covered[0].start, covered[-1].end + 1) if covered and not file.is_local else (start, end)

    def save(self, path: str, place: str | os.PathLike[str], *, progress: ProgressCallback | None = None) -> None:
        """Bring a file to a place on disk: verified, and in one step, in place of what is there.

        It comes as with ``download``: in chunks side by side, and again what broke. ``progress`` gets bytes.

        Raises:
            StorageError: the disk refused.
        """
        file = self._files[self[path].path]
        place = os.path.abspath(os.fspath(place))
        with (
            disk_errors("writing", place),
            tempfile.TemporaryDirectory(prefix=".transferkit-", dir=os.path.dirname(place)) as folder,
            self._begin(progress) as job,
        ):
            store = Directory(folder, durable=job.options.durable, disk=self._cache.disk)
            job.operation.call(partial(self._blobs.locate, file, is_whole=True))
            remote = self._blobs.source
            source: Fetcher = self._cache if file.is_local or remote is None else remote
            try:
                job.fill(store, [file.blob], source)
            except IncompleteError as error:
                if (only := error.failures.get(file.blob.digest)) is None:
                    raise
                raise only from error
            os.replace(os.path.join(folder, file.blob.digest.file_name), place)

    def is_verified(self, path: str) -> bool:
        """Tell whether parts of a file are held to a digest; the cache is looked into, and a list asked for, once."""
        file = self._files[self[path].path]
        if file.blob.size <= GAP:
            return True
        if not file.is_known:
            with self._begin() as job:
                self._locate(job, [file])
        return file.is_verified

    def __repr__(self) -> str:
        return f"<OpenFiles of {self._reference}: {len(self)}>"

    # -- how

    def _range(self, path: str, start: int | None, end: int | None) -> Range:
        first, last, _ = slice(start, end).indices(self[path].size)
        return Range(path, first, last)

    def _read(self, job: Job, wanted: Collection[Memory]) -> None:
        """Fill memory: of whole files, which are held to their digests, and of parts."""
        whole = {memory.file: memory for memory in wanted if memory.is_whole}
        parts = [memory for memory in wanted if not memory.is_whole]
        self._locate(job, [file for file in whole if file.is_local is None], is_whole=True)
        self._locate(job, [memory.file for memory in parts if not memory.file.is_known])
        self._try(job, [memory for memory in wanted if memory.file.has_ranges is None and not memory.file.is_verified])
        if whole:
            self._reader.read(job, {file: memory.places for file, memory in whole.items()}, is_whole=True)
            for memory in whole.values():
                memory.check()
        if parts:
            self._reader.read(job, {memory.file: memory.places for memory in parts})

    def _try(self, job: Job, wanted: Sequence[Memory]) -> None:
        """Ask for a byte of files of which many parts would be asked for: a server without ranges sends all of the file
        each time.
        """
        size = job.options.chunk_size
        many = [memory for memory in wanted if len(memory.file.parts(memory.places, size)) > FEW]
        if many:
            first = {memory.file: memory.places[0] for memory in many}
            tried = {file: [(start, memoryview(bytearray(1)))] for file, (start, _) in first.items()}
            self._reader.read(job, tried, is_whole=True)

    def _locate(self, job: Job, files: Sequence[BlobFile], *, is_whole: bool = False) -> None:
        job.operation.each(files, partial(self._blobs.locate, is_whole=is_whole), total=None)


def _path_of(entry: Entry) -> str:
    """Return what a layer is called: a packed one, which the manifest names no files of, after its digest."""
    if entry.packing is Packing.NONE:
        return entry.path
    name = f"{entry.descriptor.digest.file_name}{_SUFFIXES[entry.packing]}"
    return f"{entry.path}/{name}" if entry.path else name


def open_files(
    cache: DiskCache,
    reference: Reference,
    wanted: str,
    begin: Begin,
    *,
    offline: bool = False,
    require_verified: bool = False,
) -> OpenFiles:
    """Return the files of what a reference stands for. Raises as ``Registry`` has it."""
    with begin() as job:
        graph, source = _graph_of(job, cache, reference, wanted, offline=offline)
        manifest = graph.chosen(wanted)
        if not isinstance(manifest, Manifest):
            raise InvalidManifestError(f"{reference} is an index of several; open one of its platforms")
        # Without the cache: who only reads a registry leaves nothing there.
        contents = files_of(manifest, config_of(job, manifest, None, source) or None)
    return OpenFiles(
        reference,
        manifest,
        contents.entries,
        BlobFiles(cache, source if isinstance(source, Source) else None),
        begin,
        format=contents.format,
        cache=cache,
        require_verified=require_verified,
    )


def _graph_of(job: Job, cache: DiskCache, reference: Reference, wanted: str, *, offline: bool) -> tuple[Graph, Fetcher]:
    """Return what a name leads to, and where its blobs are; what the cache has of a digest is not asked for."""
    if not offline and reference.digest is not None:
        with suppress(NotFoundError):
            root = local.resolve(cache, reference)
            return local.graph_of(cache, root, wanted), job.site(reference).source
    return graph_of(job, cache, reference, wanted, offline=offline)
