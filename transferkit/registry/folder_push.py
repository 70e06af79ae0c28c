"""A folder that is pushed as a model: its files by their names, and one manifest, or two over the same blobs.

Everything that can be found out before the first request is found out there: what cannot be pushed, what the files
contain, and the manifests themselves.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from transferkit.arguments import check
from transferkit.content.descriptor import Descriptor, unique
from transferkit.content.digest import Digest
from transferkit.content.flow import Flow
from transferkit.content.interfaces import Fetcher
from transferkit.content.manifest import Manifest
from transferkit.content.title import check_title, collisions
from transferkit.errors import InvalidNameError, ProtocolError, RegistryError, SourceError
from transferkit.grammar import check_reference
from transferkit.models.facts import UNKNOWN, Facts, facts_of
from transferkit.models.limits import broken_limits
from transferkit.models.ollama import check_weights
from transferkit.models.values import ModelFile
from transferkit.models.writing import FORMATS, Draft, draft, ollama_draft
from transferkit.names import Reference
from transferkit.registry.artifacts import EMPTY, InMemory
from transferkit.registry.call import Arguments, Call
from transferkit.registry.export import Only, chosen
from transferkit.registry.files import FileSet, readers
from transferkit.registry.job import Job
from transferkit.registry.pushing import hashed, noted
from transferkit.registry.signing import Sign, Signature, sign_manifest
from transferkit.remote.repository import Repository
from transferkit.report.plan import PushPlan
from transferkit.storage.cache import DiskCache
from transferkit.storage.disk import Disk
from transferkit.storage.walk import FoundFile, walk
from transferkit.transfer.flow import WorkerFlow

_SHOWN = 50  # entries of a folder that an error names; ``SourceError.problems`` has all


class PushArguments(Arguments, total=False):
    """Keywords of a push that go with ``folder``, besides those of each call."""

    format: str
    only: Only
    exclude: Only
    ollama: bool
    sign: Sign | None


def split(method: str, keywords: PushArguments) -> tuple[dict[str, Any], Call]:
    """Return the keywords of a method that go with ``folder``, and those of each call. TypeError: it takes no such."""
    names = PushArguments.__annotations__.keys() - Arguments.__annotations__.keys()
    own = {name: value for name, value in keywords.items() if name in names}
    return own, Call.of(method, {name: value for name, value in keywords.items() if name not in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderPush:
    """What of a folder is pushed, and as what: the keywords of ``Registry.push`` that go with ``folder``."""

    folder: str | os.PathLike[str]
    format: str = "modelpack"
    annotations: Mapping[str, str] = field(default_factory=dict)
    only: Only = None
    exclude: Only = None
    ollama: bool = False
    sign: Sign | None = None

    def __post_init__(self) -> None:
        check(folder=self.folder, annotations=self.annotations, only=self.only, exclude=self.exclude)
        check(ollama=self.ollama, sign=self.sign)
        if self.format not in FORMATS:
            raise ValueError(f"format is one of {', '.join(FORMATS)}, not {self.format!r}")


@dataclass(frozen=True, slots=True)
class _Model:
    """A folder that can be pushed: its files, and what is to be their manifests, by tags."""

    files: FileSet
    drafts: dict[str, Draft]

    @property
    def blobs(self) -> list[Descriptor]:
        return _blobs(self.drafts.values())


def push_folder(
    job: Job, cache: DiskCache, target: Reference, wanted: FolderPush, logger: logging.Logger | None
) -> Manifest:
    """Push a folder, and return its manifest. Raises as ``Registry.push`` does."""
    model = _prepare(job, cache, target, wanted, is_sent=True)
    manifests = [each.manifest for each in model.drafts.values()]
    for sentence in _limits(target, model):
        (logger or logging.getLogger(__name__)).warning("%s", sentence)
    signatures = [sign_manifest(manifest, wanted.sign) for manifest in manifests] if wanted.sign else []
    _send(job, model.drafts, model.files, noted(job, cache, job.site(target).repository), signatures)
    return manifests[0]


def plan_folder(job: Job, cache: DiskCache, target: Reference, wanted: FolderPush) -> PushPlan:
    """Tell what ``push_folder`` would send, for a question a blob."""
    model = _prepare(job, cache, target, wanted, is_sent=False)
    repository, blobs = job.site(target).repository, model.blobs
    there: list[Descriptor] = []

    def look(blob: Descriptor, flow: WorkerFlow) -> None:
        if _is_there(repository, blob, flow):
            there.append(blob)

    job.operation.each(blobs, look, total=None)
    return PushPlan(
        files=tuple(file.path for file in model.files.files),
        blobs=len(blobs),
        present=len(there),
        bytes=sum(blob.size for blob in blobs) - sum(blob.size for blob in there),
        limits=tuple(_limits(target, model)),
    )


def _send(
    job: Job,
    drafts: Mapping[str, Draft],
    source: Fetcher,
    repository: Repository,
    signatures: Sequence[Signature] = (),
) -> None:
    """Send files and configs, then the manifests under their tags, and then what is signed of them."""
    contents = {each.manifest.config.digest: each.config for each in drafts.values() if each.manifest.config}
    for signature in signatures:
        contents |= {**EMPTY, signature.manifest.layers[0].digest: signature.bundle}
    everything, blobs = InMemory(contents, source), _blobs(drafts.values())
    beside = [blob for signature in signatures for blob in signature.manifest.blobs]
    job.operation.announce(blobs)
    # The largest first, as they take longest; the documents about them are nothing without them.
    order = sorted(unique([*blobs, *beside]), key=lambda blob: (blob.digest in contents, -blob.size))
    job.send(order, everything, repository, mount=None)
    for tag, each in drafts.items():
        job.push(each.manifest, everything, repository, tag)
    for signature in signatures:
        job.push(signature.manifest, everything, repository, signature.manifest.digest)
        job.operation.call(signature.entering(repository))


def _blobs(drafts: Iterable[Draft]) -> list[Descriptor]:
    """Return the layers of some manifests, each content once, and then their configs."""
    manifests = [each.manifest for each in drafts]
    layers = [layer for manifest in manifests for layer in manifest.layers]
    return unique([*layers, *(manifest.config for manifest in manifests if manifest.config is not None)])


def _prepare(job: Job, cache: DiskCache, target: Reference, wanted: FolderPush, *, is_sent: bool) -> _Model:
    tag, created = target.name.tag, _created()
    second = check_reference(f"{tag}-ollama") if wanted.ollama else ""
    found = job.operation.call(lambda flow: _find(wanted, cache.disk, flow))
    parts = readers(found, cache.disk)

    def drafted(files: Sequence[ModelFile], facts: Facts) -> dict[str, Draft]:
        first = draft(files, format=wanted.format, facts=facts, annotations=wanted.annotations, created=created)
        return {tag: first, **({second: ollama_draft(files, facts)} if second else {})}

    # First with digests of the paths: what makes no model is refused before 80 GB are hashed.
    named = [
        ModelFile(path=file.path, digest=Digest.of(file.path.encode()), size=file.status.st_size) for file in found
    ]
    drafted(named, UNKNOWN)
    if second:
        job.operation.call(lambda flow: check_weights(parts))
    sizes = {file.place: file.status.st_size for file in found} if is_sent else {}
    files = hashed(job, cache, found, then=sum(sizes.values()))
    facts = job.operation.call(lambda flow: facts_of(parts))
    return _Model(files, drafted(files.files, facts))


def _find(wanted: FolderPush, disk: Disk, flow: Flow) -> list[FoundFile]:
    """Return the files that are wanted, sorted by path.

    Raises:
        SourceError: the folder has none, or something in it cannot be pushed; ``problems`` has all of that.
    """
    folder, only, exclude = os.fspath(wanted.folder), wanted.only, wanted.exclude
    found = walk(os.path.expanduser(folder), disk, flow)
    files = sorted((file for file in found.files if chosen(file.path, only, exclude)), key=lambda file: file.path)
    # Of a folder that cannot be read nobody knows whether there is something wanted in it.
    refused = [each for each in found.refused if chosen(each.path, None if each.is_folder else only, exclude)]
    problems = [f"{each.path!r}: {each.reason}" for each in sorted(refused, key=lambda each: each.path)]
    for file in files:
        try:
            check_title(file.path)
        except InvalidNameError as error:
            problems.append(str(error))
    problems += collisions(file.path for file in files)
    if problems:
        shown = "; ".join(problems[:_SHOWN])
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        text = f"{len(problems)} entries of {folder} cannot be pushed, and nothing was sent: {shown}{more}"
        raise SourceError(f"{text}. Leave them out with exclude=, or change them", problems=tuple(problems))
    if not files:
        at = os.path.abspath(folder)
        if not found.files:
            raise SourceError(f"{at} has no files: there is nothing to push; is it the right folder?")
        count = len(found.files)
        raise SourceError(
            f"none of the {count} files in {at} is wanted: there is nothing to push; see only= and exclude="
        )
    return files


def _limits(target: Reference, model: _Model) -> list[str]:
    layers = [layer for each in model.drafts.values() for layer in each.manifest.layers]
    return broken_limits(target.name.host, unique(layers))


def _created() -> str | None:
    """Return the time that the environment gives to what is made: https://reproducible-builds.org/specs."""
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    try:
        return datetime.fromtimestamp(int(text), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(f"SOURCE_DATE_EPOCH is a number of seconds since 1970, not {text[:40]!r}") from error


def _is_there(repository: Repository, blob: Descriptor, flow: Flow) -> bool:
    """Tell whether a repository says that it has a blob; one that is made by the push, or is closed, says nothing."""
    try:
        return repository.exists(blob, flow=flow)
    except (RegistryError, ProtocolError) as error:
        if error.retryable:
            raise
        return False
