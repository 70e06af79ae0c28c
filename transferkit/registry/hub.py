"""Repositories of the Hugging Face hub, as what is copied into a registry, or pulled into a folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.graph import Document, Graph
from transferkit.errors import ManifestNotFoundError
from transferkit.models.facts import Facts, facts_of
from transferkit.models.limits import broken_limits
from transferkit.models.values import Contents, Entry, ModelFile
from transferkit.models.writing import FORMATS, draft
from transferkit.names import Reference
from transferkit.protocol.hub_name import HubName
from transferkit.registry.ends import End, Referrers
from transferkit.registry.export import Only
from transferkit.registry.folder_pull import FolderArguments, fill_folder
from transferkit.registry.hub_files import Found, find
from transferkit.registry.job import Job
from transferkit.remote.hub import HubFiles
from transferkit.report.folder import FolderReport
from transferkit.storage.disk import Disk
from transferkit.storage.tree import Tree


@dataclass(slots=True)
class HubEnd:
    """A repository of the hub as where something is copied from."""

    job: Job
    name: HubName
    format: str = "modelpack"
    only: Only = None
    exclude: Only = None
    target: Reference | None = None
    """What it is copied to, where that is in a registry; known limits of that one are logged as warnings."""
    logger: logging.Logger | None = None
    source: HubFiles = field(init=False)

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"format is one of {', '.join(FORMATS)}, not {self.format!r}")

    def document(self) -> Document:
        """Return the manifest that its files get. The same commit has the same one, byte for byte."""
        found = find(self.job, self.name, self.only, self.exclude)
        self.source = found.source
        annotations = {
            "org.opencontainers.image.source": found.url,
            "org.opencontainers.image.revision": found.commit,
        }
        made = draft(found.files, format=self.format, facts=_facts(self.job, found), annotations=annotations)
        self.source.keep(made.config)
        layers = made.manifest.layers
        for sentence in broken_limits(self.target.name.host, layers) if self.target is not None else ():
            (self.logger or logging.getLogger(__name__)).warning("%s", sentence)
        return made.manifest

    def load(self, digest: Digest) -> Document:
        raise ManifestNotFoundError(f"{self.name} has no manifest {digest.short}")

    def referrers(self, digest: Digest) -> Iterator[Digest]:
        """Yield nothing: the hub keeps no manifests."""
        return iter(())

    def take(self, graph: Graph, end: End, referrers: Referrers) -> None:
        raise NotImplementedError("nothing is copied to the hub")


def _facts(job: Job, found: Found) -> Facts:
    """Return what files say that are in memory, which were verified.

    Those of LFS are not read for it: a range of one is held to no digest, and who sends it could write the manifest.
    """
    readers = {file.path: (partial(found.source.kept_at, file.digest), file.size) for file in found.files}
    return job.operation.call(lambda _: facts_of(readers))


def _described(file: ModelFile) -> Descriptor:
    return Descriptor(file.digest, file.size)


def pull_from_hub(job: Job, name: HubName, asked: FolderArguments) -> FolderReport:
    """Pull the files of a repository into a folder. Raises as ``find`` and ``fill_folder`` do."""
    disk = asked.cache.disk if asked.cache is not None else Disk()
    found = find(job, name, asked.only, asked.exclude, there=Tree(asked.to, disk))
    contents = Contents("hub", tuple(Entry(path=file.path, descriptor=_described(file)) for file in found.files))
    report = fill_folder(
        job,
        found.source,
        contents,
        asked.to,
        cache=asked.cache,
        version=found.commit,
        link=asked.link,
        overwrite=asked.overwrite,
    )
    return replace(report, left=tuple(path for path in report.left if path not in found.paths))
