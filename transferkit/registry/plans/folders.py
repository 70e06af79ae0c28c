"""A folder of files that several pieces fill: their blobs wait beside it, and get the names of files at the end.

A piece knows no paths. So a folder that a plan has filled says so, in ``.transferkit/whole``: which plan that was, and
how its state was then. While that is so, and its files are unchanged, a piece of that plan has nothing to bring.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from transferkit.content.descriptor import Descriptor, unique
from transferkit.content.digest import Digest
from transferkit.content.graph import ALL, Graph
from transferkit.content.interfaces import Fetcher
from transferkit.content.manifest import Manifest
from transferkit.errors import BlobNotFoundError, IncompleteError, InvalidManifestError, TransferKitError
from transferkit.models.reading import files_of, wants_config
from transferkit.models.values import Contents, Packing
from transferkit.names import Reference
from transferkit.registry import folder_pull
from transferkit.registry.export import chosen
from transferkit.registry.folder_pull import config_of, fill_folder
from transferkit.registry.job import Job
from transferkit.report import human_bytes
from transferkit.storage.cache import DiskCache
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk
from transferkit.storage.disk_errors import disk_errors
from transferkit.storage.folder import OpenFolder
from transferkit.storage.folder_state import NAME
from transferkit.storage.pulled_folder import PulledFolder, Standing

if TYPE_CHECKING:
    from transferkit.registry.plans.value import TransferPlan

WHOLE = "whole"
_LIMIT = 4096  # bytes of it


def waiting(job: Job, path: str) -> PulledFolder:
    """Return a folder, to look at and to bring blobs beside; what other machines are to believe is synced there."""
    options = job.options
    threshold = min(options.resume_threshold, options.chunk_threshold + 1)
    return PulledFolder(path, Disk(), durable=True, resume_threshold=threshold, rehash=options.rehash_existing)


def placed(place: PulledFolder, plan: TransferPlan, blobs: Sequence[Descriptor]) -> Collection[Descriptor]:
    """Return the blobs that are not needed, as a folder has the files that a plan makes of them.

    Where all of its files are what an earlier run has made them, that is all blobs, packed layers too.
    """
    if _said(place) != _marker(place, plan):
        return frozenset()
    right, wrong = _judged(place)
    return frozenset(blob for blob in blobs if not wrong or blob.digest in right - wrong)


def is_there(place: PulledFolder, plan: TransferPlan) -> bool:
    """Tell whether a folder has all that a plan makes of it."""
    return _said(place) == _marker(place, plan) and not _judged(place)[1]


def _judged(place: PulledFolder) -> tuple[set[Digest], set[Digest]]:
    """Return the contents of files that are what an earlier run has made them, and of those that are not any more."""
    rows = place.state.rows
    statuses = place.tree.statuses(rows)
    right: set[Digest] = set()
    wrong: set[Digest] = set()
    for path, row in rows.items():
        status = statuses[path]
        is_right = status is not None and place.standing(path, status, row.digest) is Standing.RIGHT
        (right if is_right else wrong).add(row.digest)
    return right, wrong


def _said(place: PulledFolder) -> bytes:
    """Return what the folder says that it was filled with."""
    with suppress(OSError):
        return place.disk.read_file(f"{place.path}/{WHOLE}", _LIMIT)
    return b""


def _marker(place: PulledFolder, plan: TransferPlan) -> bytes:
    """Return what a folder says that a plan has filled, as it is now."""
    status = None
    with suppress(OSError):
        status = place.disk.lstat(f"{place.path}/{NAME}")
    now = [status.st_ino, status.st_mtime_ns, status.st_size] if status is not None else []
    what = [plan.source.rpartition("@")[2], plan.platform, plan.only, plan.exclude]
    return json.dumps([Digest.of(json.dumps(what).encode()), len(place.state.rows), now]).encode()


def files_in(contents: Contents, plan: TransferPlan) -> list[Descriptor]:
    """Return the blobs that the files of a plan are in; which ones packed layers have, is seen when they are read."""
    return unique(
        entry.descriptor
        for entry in contents.entries
        if entry.packing is not Packing.NONE or chosen(entry.path, plan.only or None, plan.exclude or None)
    )


def blobs_of_files(
    job: Job, plan: TransferPlan, graph: Graph, reference: Reference, source: Fetcher
) -> list[Descriptor]:
    """Return the blobs that the files which a plan chooses are made of. InvalidManifestError: it chooses none."""
    manifest = _manifest(plan, graph, reference)
    config = config_of(job, manifest, None, source)
    with job.naming(reference):
        contents = files_of(manifest, config or None)
    files = files_in(contents, plan)
    if not files:
        there = ", ".join(entry.path for entry in contents.entries)
        raise InvalidManifestError(f"no file of {reference} is wanted; it has {there[:300]}")
    named = [manifest.config] if manifest.config is not None and config else []
    return unique([*named, *files])


def _manifest(plan: TransferPlan, graph: Graph, reference: Reference) -> Manifest:
    manifest = graph.chosen(plan.platform or ALL)
    if not isinstance(manifest, Manifest):
        raise InvalidManifestError(f"{reference} is an index of several; plan a pull of one of its platforms")
    return manifest


def name_files(
    job: Job, path: str, plan: TransferPlan, graph: Graph, reference: Reference, cache: DiskCache | None
) -> None:
    """Give the files of a model their names, from a cache, or from what waits beside the folder.

    Raises:
        IncompleteError: something of it is in neither.
        StorageError: somebody has changed a file, or the disk refused.
    """
    manifest = _manifest(plan, graph, reference)
    job = replace(job, options=replace(job.options, durable=True))
    with closing(waiting(job, path)) as place:
        source: Fetcher = cache or place.staging
        what = f"{reference} in {place.tree.path}"
        if manifest.config is not None and wants_config(manifest) and cache is None:
            is_kept = Digest.of(place.state.config, manifest.config.digest.algorithm) == manifest.config.digest
            check_there(place.staging, [] if is_kept else [manifest.config], what)
        config = config_of(job, manifest, cache, source, path)
        with job.naming(reference):
            contents = files_of(manifest, config or None)
        bring = None
        if cache is not None:
            bring = partial(folder_pull.check_there, cache, str(reference), 0)
        else:
            blobs = files_in(contents, plan)
            there = placed(place, plan, blobs)
            check_there(place.staging, [blob for blob in blobs if blob not in there], what)
        fill_folder(
            job,
            source,
            contents,
            path,
            cache=cache,
            version=manifest.digest,
            only=plan.only or None,
            exclude=plan.exclude or None,
            bring=bring,
            config=config,
        )
    _say_whole(job, path, plan)


def _say_whole(job: Job, path: str, plan: TransferPlan) -> None:
    """Write down what a folder was filled with, and remove blobs that nobody has made a file of."""
    with closing(waiting(job, path)) as place:
        if any(name.startswith("sha") for name in os.listdir(place.path)):
            job.operation.call(place.fill)
            place.finish()
        if _said(place) == _marker(place, plan):
            return  # it may be one that can only be read
        with disk_errors("writing", f"{place.path}/{WHOLE}"), OpenFolder(place.path, place.disk) as folder:
            folder.replace(WHOLE, _marker(place, plan), durable=True)


def check_there(store: Directory, blobs: Sequence[Descriptor], what: str) -> None:
    """Raise IncompleteError where some blobs are not in a folder of blobs."""
    missing = [blob for blob in blobs if not store.has(blob)]
    if missing:
        failures: dict[str, TransferKitError] = {
            blob.digest: BlobNotFoundError(f"{blob.digest} is not in {store.path}") for blob in missing
        }
        size = human_bytes(sum(blob.size for blob in missing))
        text = f"{what} is incomplete: {len(missing)} blobs are missing ({size}): run the pieces that failed again"
        raise IncompleteError(text, failures=failures)
