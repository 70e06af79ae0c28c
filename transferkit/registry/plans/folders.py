"""A folder of files that several pieces fill: their blobs wait beside it, and get the names of files at the end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.graph import Graph
from transferkit.content.interfaces import Fetcher
from transferkit.content.manifest import Manifest
from transferkit.errors import BlobNotFoundError, IncompleteError, InvalidManifestError, TransferKitError
from transferkit.models.reading import files_of
from transferkit.names import Reference
from transferkit.registry.folder_pull import check_there, config_of, fill_folder
from transferkit.registry.job import Job
from transferkit.report import Report
from transferkit.storage.cache import DiskCache
from transferkit.storage.disk import Disk
from transferkit.storage.pulled_folder import PulledFolder, Standing

if TYPE_CHECKING:
    from transferkit.registry.plans.value import TransferPlan


class Folder:
    """One folder, for one run; ``cache`` is what its files come from, or ``None``: they come straight. One thread's."""

    def __init__(self, path: str, job: Job, cache: DiskCache | None) -> None:
        self._path = path
        self._job = job
        self._cache = cache

    def _look(self) -> PulledFolder:
        options = self._job.options
        threshold = min(options.resume_threshold, options.chunk_threshold + 1)
        # What other machines are to believe has to be on the disk.
        return PulledFolder(
            self._path, Disk(), durable=True, resume_threshold=threshold, rehash=options.rehash_existing
        )

    def fetch(self, plan: TransferPlan, source: Fetcher, reference: Reference) -> Report:
        """Bring the blobs of a plan here that are no files of the folder yet."""
        job, blobs = self._job, plan.blobs
        job.operation.announce(blobs)
        with closing(self._look()) as place:
            there = {*_placed(place, reference.digest, blobs), *place.staging.known(blobs)}
            present = [blob for blob in blobs if blob in there]
            missing = [blob for blob in blobs if blob not in there]
            if missing:
                place.staging.prepare(missing)
            return job.operation.copy(missing, source, place.staging, present=present)

    def finish(self, graph: Graph, reference: Reference, wanted: str) -> None:
        """Give all files their names. IncompleteError: some blobs are not here."""
        job, cache = self._job, self._cache
        manifest = graph.chosen(wanted)
        if not isinstance(manifest, Manifest):
            raise InvalidManifestError(f"{reference} is an index of several; plan a pull of one of its platforms")
        with closing(self._look()) as place:
            source: Fetcher = cache or place.staging
            if cache is None:
                _check_complete(place, manifest.digest, graph.blobs, str(reference))
            config = config_of(job, manifest, cache, source, self._path)
            with job.naming(reference):
                contents = files_of(manifest, config or None)
            bring = None if cache is None else partial(check_there, cache, str(reference), 0)
            fill_folder(
                job, source, contents, self._path, cache=cache, version=manifest.digest, bring=bring, config=config
            )


def _placed(place: PulledFolder, version: Digest | None, blobs: Sequence[Descriptor]) -> Collection[Descriptor]:
    """Return the blobs that are not needed, as a folder has the files of this version already.

    Where all of its files are what an earlier run has made them, that is all blobs, packed layers too.
    """
    state = place.state
    if state.begun or state.version != version:
        return ()
    statuses = place.tree.statuses(state.rows)
    right: set[Digest] = set()
    wrong: set[Digest] = set()
    for path, row in state.rows.items():
        status = statuses[path]
        is_right = status is not None and place.standing(path, status, row.digest) is Standing.RIGHT
        (right if is_right else wrong).add(row.digest)
    return blobs if not wrong else [blob for blob in blobs if blob.digest in right - wrong]


def _check_complete(place: PulledFolder, version: Digest, blobs: Sequence[Descriptor], name: str) -> None:
    there = set(_placed(place, version, blobs))
    missing = [blob for blob in blobs if blob not in there and not place.staging.has(blob)]
    if missing:
        failures: dict[str, TransferKitError] = {
            blob.digest: BlobNotFoundError(f"{blob.digest} has not come to {place.tree.path}") for blob in missing
        }
        size = sum(blob.size for blob in missing)
        text = f"{name} is incomplete in {place.tree.path}: {size} bytes are missing, of {len(missing)} blobs"
        raise IncompleteError(f"{text}; run the pieces that failed again", failures=failures)
