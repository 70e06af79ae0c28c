"""Pulling a model into a folder: its files by their names, whatever tool has pushed them."""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.graph import Document, Graph, collect
from transferkit.content.interfaces import Fetcher
from transferkit.content.manifest import MAX_MANIFEST, Manifest, parse
from transferkit.errors import BlobNotFoundError, DigestMismatchError, InvalidManifestError
from transferkit.models.reading import files_of, wants_config
from transferkit.models.values import Contents
from transferkit.names import Reference
from transferkit.registry import local, pulling
from transferkit.registry.export import Only, chosen
from transferkit.registry.folder_filling import Bring, Filling
from transferkit.registry.job import Job
from transferkit.registry.sites import Site
from transferkit.report.folder import FolderReport
from transferkit.storage.cache import DiskCache
from transferkit.storage.disk import Disk
from transferkit.storage.linking import HARD, REFLINK, WAYS
from transferkit.storage.lock import changes
from transferkit.storage.pulled_folder import PulledFolder
from transferkit.transfer.flow import WorkerFlow

NO_LINK = "none"  # as without a cache


class Own(enum.Enum):
    """In the place of a cache: the one that a registry client has anyway."""

    CACHE = "the registry's own"


@dataclass(frozen=True, slots=True)
class FolderArguments:
    """What ``Registry.pull`` takes for a folder; ``cache`` is the one that is used, if any.

    TypeError, ValueError: ``cache`` is none, or there is no such ``link``, or none without a cache.
    """

    to: str | os.PathLike[str]
    cache: DiskCache | None
    only: Only
    exclude: Only
    format: str | None
    link: str
    overwrite: bool

    def __post_init__(self) -> None:
        if self.cache is not None and not isinstance(self.cache, DiskCache):
            raise TypeError(f"cache is a DiskCache or None, not {type(self.cache).__name__}")
        if self.link not in (*WAYS, NO_LINK):
            raise ValueError(f"link is one of {', '.join((*WAYS, NO_LINK))}, not {self.link!r}")
        if self.cache is None and self.link in (HARD, REFLINK):
            raise TypeError(f"link={self.link!r} makes files of those of a cache, and cache is None")


def fill_folder(
    job: Job,
    source: Fetcher,
    contents: Contents,
    folder: str | os.PathLike[str],
    *,
    cache: DiskCache | None,
    version: str,
    link: str = "auto",
    overwrite: bool = False,
    only: Only = None,
    exclude: Only = None,
    bring: Bring | None = None,
    config: bytes = b"",
    disk: Disk | None = None,
) -> FolderReport:
    """Fill a folder with the files of a version, from ``source`` by way of ``cache``, or straight without one.

    ``bring`` brings blobs into the cache, where more has to be done than to fetch them. ``config`` is kept, for who
    wants to know next time what the files are called.

    Raises:
        InvalidManifestError: no file is wanted.
        InvalidNameError: a file's path leads elsewhere, or two are one file.
        StorageError: a file was changed that is none of ours, or the disk refused.
        IncompleteError, TransferKitError: something did not come; the folder is as it was.
    """
    began = time.monotonic()
    only, exclude = _patterns(only), _patterns(exclude)
    place = _place(job, folder, cache, disk)
    job.held.callback(place.close)
    filling = Filling(
        job,
        source,
        contents,
        place,
        None if link == NO_LINK else cache,
        link,
        overwrite,
        lambda path: chosen(path, only, exclude),
        version,
        config,
    )
    if not job.operation.call(lambda flow: filling.look()):
        look = partial(changes, (place.staging if cache is None else cache.blobs).unfinished)
        job.operation.call(lambda flow: place.fill(flow, look))
        left = filling.fill(bring)
        place.close()
    else:
        filling.check()
        left = filling.left()
    return FolderReport(
        folder=place.tree.path,
        digest=version,
        format=contents.format,
        written=tuple(sorted(filling.made)),
        kept=tuple(sorted(set(filling.files) - set(filling.made))),
        left=tuple(left),
        linked={path: made.way for path, made in sorted(filling.made.items())},
        bytes=filling.moved,
        seconds=time.monotonic() - began,
        record=job.operation.record,
    )


def pull_folder(
    job: Job,
    reference: Reference,
    wanted: str,
    arguments: FolderArguments,
    known: DiskCache,
    *,
    offline: bool,
    foreign: bool = False,
) -> FolderReport:
    """Pull what a name stands for, of an index the manifest for a platform, into a folder.

    Without ``only`` and ``exclude`` the whole model comes into the cache, and gets its name there, as with ``pull``.
    ``known`` is the cache that knows names and manifests; ``offline``, it is asked alone.
    """
    cache = arguments.cache if arguments.link != NO_LINK else None
    graph, source = graph_of(job, known, reference, wanted, offline=offline, foreign=foreign)
    manifest = graph.chosen(wanted)
    if not isinstance(manifest, Manifest):
        raise InvalidManifestError(f"{reference} is an index of several; pull one of its platforms")
    config = config_of(job, manifest, cache, source, arguments.to)
    with job.naming(reference):
        contents = files_of(manifest, config or None, format=arguments.format)
    bring: Bring | None = None
    if offline and cache is known:
        bring = partial(check_there, known, str(reference), 0)
    elif cache is not None and not offline and arguments.only is None and arguments.exclude is None:
        bring = partial(_bring_all, job, cache, reference, graph, source)
    return fill_folder(
        job,
        source,
        contents,
        arguments.to,
        cache=cache,
        version=manifest.digest,
        link=arguments.link,
        overwrite=arguments.overwrite,
        only=arguments.only,
        exclude=arguments.exclude,
        bring=bring,
        config=config,
    )


def graph_of(
    job: Job, cache: DiskCache, reference: Reference, wanted: str, *, offline: bool, foreign: bool = False
) -> tuple[Graph, Fetcher]:
    """Return what a name leads to, and where its blobs are read: for one request, if the cache has what an index names.

    ``offline``, both are the cache's.
    """
    if offline:
        return local.graph_of(cache, local.resolve(cache, reference, offline=True), wanted), cache
    site = job.site(reference)
    root = job.document(site, reference)
    with job.naming(reference):
        graph = collect(root, lambda descriptor: _document(job, cache, site, descriptor), wanted)
    return graph, pulling.source_of(site, foreign=foreign)


def check_there(cache: DiskCache, name: str, told: int, blobs: Sequence[Descriptor]) -> tuple[int, int]:
    """See that blobs are in the cache, as nothing is fetched; IncompleteError: some are not."""
    local.check_complete(cache, blobs, name)
    return 0, told


def _bring_all(
    job: Job, cache: DiskCache, reference: Reference, graph: Graph, source: Fetcher, blobs: Sequence[Descriptor]
) -> tuple[int, int]:
    job.hold(lambda flow: cache.lock(reference.name, flow))
    return pulling.bring(job, cache, reference, graph, source), sum(blob.size for blob in graph.blobs)


def _document(job: Job, cache: DiskCache, site: Site, descriptor: Descriptor) -> Document:
    """Return a manifest of an index: the cache's, if it has that one, else the registry's."""
    with suppress(BlobNotFoundError):
        return parse(cache.read(descriptor.digest))
    return job.by_digest(site, descriptor.digest)


def config_of(
    job: Job, manifest: Manifest, cache: DiskCache | None, source: Fetcher, folder: str | os.PathLike[str] | None = None
) -> bytes:
    """Return the config without which the files of a manifest have no names; nothing where they have.

    It is what ``folder`` or the cache has of it, else it is fetched.
    """
    descriptor = manifest.config
    if descriptor is None or not wants_config(manifest):
        return b""
    if descriptor.size > MAX_MANIFEST:
        raise InvalidManifestError(f"the config has {descriptor.size} bytes; at most {MAX_MANIFEST} are read")
    kept = _place(job, folder, cache).state.config if folder is not None else b""
    if Digest.of(kept, descriptor.digest.algorithm) == descriptor.digest:
        return kept
    if cache is not None:
        with suppress(BlobNotFoundError):
            return cache.read(descriptor.digest)
    raw = job.operation.call(lambda flow: _read(source, descriptor, flow))
    if cache is not None:
        cache.put(raw)
    return raw


def _read(source: Fetcher, descriptor: Descriptor, flow: WorkerFlow) -> bytes:
    """Read a small content into memory. DigestMismatchError: it is another one."""
    raw = bytearray()
    with source.fetch(descriptor, flow=flow) as body:
        while count := body.readinto(flow.buffer[: descriptor.size + 1 - len(raw)]):
            raw += flow.buffer[:count]
    if len(raw) != descriptor.size or Digest.of(raw, descriptor.digest.algorithm) != descriptor.digest:
        raise DigestMismatchError(f"{descriptor.digest.short}: the content that arrived has another digest")
    return bytes(raw)


def _place(job: Job, folder: str | os.PathLike[str], cache: DiskCache | None, disk: Disk | None = None) -> PulledFolder:
    options, disk = job.options, disk or (cache.disk if cache is not None else Disk())
    # Whatever may come in chunks must survive an interruption: this is never above the threshold for chunks.
    threshold = min(options.resume_threshold, options.chunk_threshold + 1)
    durable, rehash = options.durable, options.rehash_existing
    knows = cache.blobs.believes if cache is not None else None
    return PulledFolder(folder, disk, durable=durable, resume_threshold=threshold, rehash=rehash, knows=knows)


def _patterns(only: Only) -> Only:
    """Return patterns that can be gone through more than once."""
    return only if only is None or isinstance(only, str) or callable(only) else tuple(only)
