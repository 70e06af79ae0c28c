"""The files of a repository of the Hugging Face hub at one commit: which there are, and what is in them.

Every request names the commit that the revision was at the beginning: what comes is of one version. Files that are not
in LFS are read here, as nobody says their SHA-256 beforehand; the others stream past when they are wanted.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from transferkit.content.descriptor import Descriptor, unique
from transferkit.content.digest import Digest
from transferkit.content.title import check_title, collisions
from transferkit.errors import InvalidNameError, NotFoundError, ProtocolError, StorageError
from transferkit.models.values import ModelFile
from transferkit.protocol.hub import HubFile, Listing
from transferkit.protocol.hub_name import HubName
from transferkit.protocol.listing import MAX_PAGES
from transferkit.registry.export import Only, chosen
from transferkit.registry.job import Job
from transferkit.remote.hub import HubFiles, HubRepository
from transferkit.storage.disk import is_file
from transferkit.storage.disk_errors import disk_errors
from transferkit.storage.tree import Tree
from transferkit.storage.walk import is_left_out
from transferkit.transfer.flow import WorkerFlow

MIB = 1024 * 1024
_KEPT = 16 * MIB  # bytes of a file that stays in memory; the hub wants what is larger than 10 MB in LFS
_ALL_KEPT = 64 * MIB  # bytes of all of them


@dataclass(frozen=True, slots=True)
class Found:
    """The files of a repository at one commit that are wanted, sorted by path, and what they are read from."""

    url: str
    commit: str
    files: tuple[ModelFile, ...]
    source: HubFiles
    paths: frozenset[str]
    """Those of all files, wanted or not."""

    @property
    def blobs(self) -> list[Descriptor]:
        """What is in them, each content once."""
        return unique(Descriptor(file.digest, file.size) for file in self.files)


def find(
    job: Job,
    name: HubName,
    only: Only,
    exclude: Only,
    *,
    there: Tree | None = None,
) -> Found:
    """Find out which files a repository has at a revision, and what is in those that are wanted.

    What is not in LFS is read for that, but for what is ``there`` already.

    Raises:
        NotFoundError: there is no such repository, or revision, or none of its files is wanted.
        UnauthorizedError, DeniedError: it is private or gated, and the token may not see it.
        InvalidNameError: a file that is wanted would be none, or another one, on some system.
        ProtocolError: the hub's list is none, or has no end.
        VerificationError: the hub sends something else than it lists.
    """
    repository = job.sites.hub(name)
    commit = job.operation.call(repository.commit)
    listed = _listed(job, repository, commit)
    wanted = sorted(
        (file for file in listed if not is_left_out(file.path) and chosen(file.path, only, exclude)),
        key=lambda file: file.path,
    )
    if not wanted:
        has = ", ".join(file.path for file in listed[:20])[:300] or "none"
        raise NotFoundError(f"no file of {name} is wanted; it has {has}")
    job.operation.call(partial(_check_names, wanted))
    plain = [file for file in wanted if file.digest is None]
    source = HubFiles(repository, commit, wanted, _kept(plain))
    if there is not None:
        _recognise(job, source, plain, there)
        plain = [file for file in plain if source.digest_of(file) is None]

    size = sum(file.size for file in plain)
    job.operation.each(plain, source.learn, total=size)
    found = ((file, source.digest_of(file)) for file in wanted)
    files = tuple(ModelFile(path=file.path, digest=digest, size=file.size) for file, digest in found if digest)
    return Found(repository.url, commit, files, source, frozenset(file.path for file in listed))


def _check_names(files: Sequence[HubFile], flow: WorkerFlow) -> None:
    """Raise InvalidNameError where some system would have another file, or one in the place of two."""
    for file in files:
        flow.check()
        check_title(file.path)
    for problem in collisions(file.path for file in files):
        raise InvalidNameError(problem)


def _recognise(job: Job, source: HubFiles, files: Sequence[HubFile], there: Tree) -> None:
    """Find out which files a folder has already: those whose content has the hash of their git blob."""
    with suppress(StorageError):  # what is wrong with the folder, whoever fills it says
        statuses = job.operation.call(lambda flow: there.statuses([file.path for file in files]))
        found = [file for file in files if _may_be(file, statuses[file.path])]
        job.operation.each(found, partial(_read_there, source, there), doing="hashing")


def _may_be(file: HubFile, status: os.stat_result | None) -> bool:
    return status is not None and is_file(status) and status.st_size == file.size


def _read_there(source: HubFiles, there: Tree, file: HubFile, flow: WorkerFlow) -> None:
    with there.open(file.path) as fd, disk_errors("reading", there.path_of(file.path)):
        git, sha256, offset = file.git_hasher(), hashlib.sha256(), 0
        while count := there.disk.preadv(fd, flow.buffer, offset):
            flow.check()
            git.update(flow.buffer[:count])
            sha256.update(flow.buffer[:count])
            offset += count
    if git.hexdigest() == file.oid:
        source.know(file, Digest(f"sha256:{sha256.hexdigest()}"))


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
