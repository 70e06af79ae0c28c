"""Repositories of the Hugging Face hub, as what is copied into a registry, or pulled into a folder.

Every request names the commit that the revision was at the beginning: what comes is of one version. Files that are not
in LFS are read first, as nobody says their SHA-256 beforehand; the others stream past when they are wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.graph import Document, Graph
from transferkit.content.title import check_distinct, check_title
from transferkit.errors import ManifestNotFoundError, NotFoundError, ProtocolError
from transferkit.models.facts import Facts, facts_of
from transferkit.models.values import Contents, Entry, ModelFile, ReadAt
from transferkit.models.writing import FORMATS, draft
from transferkit.protocol.hub import HubFile, Listing
from transferkit.protocol.hub_name import HubName
from transferkit.protocol.listing import MAX_PAGES
from transferkit.registry.ends import End, Referrers
from transferkit.registry.export import Only, chosen, patterns
from transferkit.registry.folder_pull import FolderPull, fill_folder
from transferkit.registry.job import Job
from transferkit.remote.ahead import Ahead
from transferkit.remote.hub import HubFiles, HubRepository
from transferkit.report import FolderReport
from transferkit.transfer.flow import WorkerFlow

MIB = 1024 * 1024
_KEPT = 16 * MIB  # bytes of a file that stays in memory; the hub wants what is larger than 10 MB in LFS
_ALL_KEPT = 64 * MIB  # bytes of all of them
_HEAD = 128 * 1024  # bytes of each file of weights that are read for its header, all at once
_HEADS = 512  # files; more than any model has parts, and 64 MiB
_WEIGHTS = (".safetensors", ".gguf")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of a repository at one commit that are wanted, sorted by path, and what they are read from."""

    url: str
    commit: str
    files: tuple[ModelFile, ...]
    source: HubFiles
    heads: dict[str, bytes]
    """How files of weights begin."""
    paths: frozenset[str]
    """Those of all files, wanted or not."""


def find(job: Job, name: HubName, only: Only, exclude: Only, *, with_heads: bool = False) -> Snapshot:
    """Find out which files a repository has at a revision, and what is in those that are wanted.

    What is not in LFS is read for that, and (``with_heads``) how files of weights begin.

    Raises:
        NotFoundError: there is no such repository, or revision, or none of its files is wanted.
        UnauthorizedError, DeniedError: it is private or gated, and the token may not see it.
        InvalidNameError: a file that is wanted would be none, or another one, on some system.
        ProtocolError: the hub's list is none, or has no end.
        VerificationError: the hub sends something else than it lists.
    """
    only, exclude = patterns(only), patterns(exclude)
    repository = job.sites.hub(name)
    commit = job.operation.call(repository.commit)
    listed = _listed(job, repository, commit)
    wanted = sorted((file for file in listed if chosen(file.path, only, exclude)), key=lambda file: file.path)
    if not wanted:
        has = ", ".join(file.path for file in listed[:20])[:300] or "none"
        raise NotFoundError(f"no file of {name} is wanted; it has {has}")
    for file in wanted:
        check_title(file.path)
    check_distinct(file.path for file in wanted)
    plain = [file for file in wanted if file.digest is None]
    source, heads = HubFiles(repository, commit, wanted, _kept(plain)), dict[str, bytes]()

    def look(file: HubFile, flow: WorkerFlow) -> None:
        if file.digest is None:
            source.learn(file, flow)
        else:
            heads[file.path] = source.read_at(Descriptor(file.digest, file.size), 0, _HEAD, flow)

    weights = [file for file in wanted if file.digest is not None and file.path.lower().endswith(_WEIGHTS)]
    begun = weights[:_HEADS] if with_heads else []
    size = sum(file.size for file in plain) + sum(min(file.size, _HEAD) for file in begun)
    job.operation.each([*plain, *begun], look, total=size)
    files = tuple(ModelFile(path=file.path, digest=source.digest_of(file), size=file.size) for file in wanted)
    return Snapshot(repository.url, commit, files, source, heads, frozenset(file.path for file in listed))


def _listed(job: Job, repository: HubRepository, commit: str) -> list[HubFile]:
    """Return all files of a commit."""
    listing, url = Listing(), repository.name.tree(commit)
    seen = {url}
    for _ in range(MAX_PAGES):
        page, following = job.operation.call(partial(_page, repository, url, seen))
        listing.add(page)
        if following is None:
            return listing.files
        url = following
    raise ProtocolError(f"the hub sends a list of more than {MAX_PAGES} pages")


def _page(repository: HubRepository, url: str, seen: set[str], flow: WorkerFlow) -> tuple[bytes, str | None]:
    return repository.page(url, seen, flow)


def _kept(files: Sequence[HubFile]) -> list[str]:
    """Return the paths of the files that stay in memory: the smallest, as many as there is room for."""
    kept, left = [], _ALL_KEPT
    for file in sorted(files, key=lambda file: file.size):
        left -= file.size
        if file.size > _KEPT or left < 0:
            break
        kept.append(file.path)
    return kept


@dataclass(slots=True)
class HubEnd:
    """A repository of the hub as where something is copied from."""

    job: Job
    name: HubName
    format: str = "modelpack"
    only: Only = None
    exclude: Only = None
    source: HubFiles = field(init=False)

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"format is one of {', '.join(FORMATS)}, not {self.format!r}")

    def document(self) -> Document:
        """Return the manifest that its files get. The same commit has the same one, byte for byte."""
        found = find(self.job, self.name, self.only, self.exclude, with_heads=True)
        self.source = found.source
        annotations = {
            "org.opencontainers.image.source": found.url,
            "org.opencontainers.image.revision": found.commit,
        }
        made = draft(found.files, format=self.format, facts=_facts(self.job, found), annotations=annotations)
        self.source.keep(made.config)
        return made.manifest

    def load(self, digest: Digest) -> Document:
        raise ManifestNotFoundError(f"{self.name} has no manifest {digest.short}")

    def referrers(self, digest: Digest) -> Iterator[Digest]:
        """Yield nothing: the hub keeps no manifests."""
        return iter(())

    def take(self, graph: Graph, end: End, referrers: Referrers) -> None:
        raise NotImplementedError("nothing is copied to the hub")


def _facts(job: Job, found: Snapshot) -> Facts:
    """Return what the headers of the weights say. There may be hundreds: nearly all of that has been read already."""

    def reader(file: ModelFile, flow: WorkerFlow) -> ReadAt:
        read = partial(found.source.read_at, _described(file), flow=flow)
        return Ahead(read, file.size, found.heads.get(file.path, b""))

    return job.operation.call(
        lambda flow: facts_of({file.path: (reader(file, flow), file.size) for file in found.files})
    )


def _described(file: ModelFile) -> Descriptor:
    return Descriptor(file.digest, file.size)


def pull_from_hub(job: Job, name: HubName, asked: FolderPull) -> FolderReport:
    """Pull the files of a repository into a folder. Raises as ``find`` and ``fill_folder`` do."""
    found = find(job, name, asked.only, asked.exclude)
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
