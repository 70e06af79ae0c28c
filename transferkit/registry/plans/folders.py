"""A folder of files that several pieces fill: their blobs wait beside it, and get the names of files at the end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import closing
from functools import partial

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.graph import Graph
from transferkit.content.interfaces import Fetcher
from transferkit.content.manifest import Manifest
from transferkit.errors import InvalidManifestError
from transferkit.models.reading import files_of
from transferkit.names import Reference
from transferkit.registry.folder_pull import check_there, config_of, fill_folder
from transferkit.registry.job import Job
from transferkit.storage.cache import DiskCache
from transferkit.storage.disk import Disk
from transferkit.storage.pulled_folder import PulledFolder, Standing


def waiting(job: Job, path: str) -> PulledFolder:
    """Return a folder, to look at and to bring blobs beside; what other machines are to believe is synced there."""
    options = job.options
    threshold = min(options.resume_threshold, options.chunk_threshold + 1)
    return PulledFolder(path, Disk(), durable=True, resume_threshold=threshold, rehash=options.rehash_existing)


def files_of_version(
    place: PulledFolder, version: Digest | None, blobs: Sequence[Descriptor]
) -> Collection[Descriptor]:
    """Return the blobs that are not needed, as a folder has the files of this version already.

    Where all of its files are what an earlier run has made them, that is all blobs, packed layers too.
    """
    state = place.state
    if state.begun or state.version != version:
        return frozenset()
    statuses = place.tree.statuses(state.rows)
    right: set[Digest] = set()
    wrong: set[Digest] = set()
    for path, row in state.rows.items():
        status = statuses[path]
        is_right = status is not None and place.standing(path, status, row.digest) is Standing.RIGHT
        (right if is_right else wrong).add(row.digest)
    return frozenset(blob for blob in blobs if not wrong or blob.digest in right - wrong)


def name_files(job: Job, path: str, graph: Graph, reference: Reference, wanted: str, cache: DiskCache | None) -> None:
    """Give all files of a model their names, from a cache that has all of it, or from what waits beside the folder."""
    manifest = graph.chosen(wanted)
    if not isinstance(manifest, Manifest):
        raise InvalidManifestError(f"{reference} is an index of several; plan a pull of one of its platforms")
    with closing(waiting(job, path)) as place:
        source: Fetcher = cache or place.staging
        config = config_of(job, manifest, cache, source, path)
        with job.naming(reference):
            contents = files_of(manifest, config or None)
        bring = None if cache is None else partial(check_there, cache, str(reference), 0)
        fill_folder(job, source, contents, path, cache=cache, version=manifest.digest, bring=bring, config=config)
