"""One repository of a mirror: its tags, one after the other, so that what they share is moved once."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from transferkit._version import __version__
from transferkit.cluster.dask.lines import DaskLine
from transferkit.cluster.lines import End
from transferkit.cluster.piece import check_version
from transferkit.content.descriptor import Descriptor
from transferkit.errors import CancelledError, ManifestNotFoundError, NotFoundError, TransferKitError
from transferkit.names import Name
from transferkit.registry.plans.places import given_by
from transferkit.registry.registry import Registry
from transferkit.trace import Status, Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryTask:
    """A repository, from one registry to another. ``tags`` are patterns; none: all of them."""

    number: int
    source: str
    target: str
    tags: tuple[str, ...]
    line: DaskLine
    referrers: bool = False
    credentials: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    version: str = __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrored:
    """What became of a repository: ``copied`` and ``present`` tags, and why others failed."""

    number: int
    worker: str
    copied: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    failures: Mapping[str, TransferKitError] = field(default_factory=dict)
    blobs: int = 0
    bytes: int = 0
    skipped: int = 0
    seconds: float = 0.0


class Counting(Trace):
    """Counts what the copies of a repository did, and tells how far they are."""

    def __init__(self, end: End) -> None:
        self.blobs = self.skipped = 0
        self.bytes = 0
        self._end = end
        self._before = self._last = Status()
        self._told = float("-inf")

    def next_tag(self) -> None:
        """Take in that a copy is over."""
        self.bytes += self._last.moved
        self._before = replace(
            self._before,
            completed=self._before.completed + self._last.total,
            total=self._before.total + self._last.total,
            moved=self.bytes,
        )
        self._last = Status()
        self._end.tell(self._before, ())

    def done(self, descriptor: Descriptor) -> None:
        self.blobs += 1

    def cached(self, descriptor: Descriptor) -> None:
        self.skipped += 1

    def status(self, status: Status) -> None:
        self._last, now, before = status, time.monotonic(), self._before
        if now - self._told >= self._end.every:
            self._told = now
            sums = {name: getattr(before, name) + getattr(status, name) for name in ("completed", "total", "moved")}
            self._end.tell(replace(status, blobs=(), **sums), ())


def run_repository(task: RepositoryTask) -> Mirrored:
    """Copy what the target does not have; a tag that fails keeps no other from being copied."""
    began = time.monotonic()
    with task.line.opened(task.number) as end:
        copied, present, failures = list[str](), list[str](), dict[str, TransferKitError]()
        count = Counting(end)
        try:
            check_version(task.version, end.worker)
            given = {**task.settings, **(given_by(task.credentials) if task.credentials else {})}
            with Registry(**given) as registry:
                for tag in chosen(registry.tags(task.source, cancel=end.cancellation), task.tags):
                    try:
                        is_new = _copy(registry, task, tag, count, end)
                        (copied if is_new else present).append(tag)
                    except CancelledError:
                        raise
                    except TransferKitError as error:
                        error.__traceback__ = None
                        failures[tag] = error
                    count.next_tag()
        except TransferKitError as error:
            error.__traceback__ = None
            failures[""] = error
        return Mirrored(
            number=task.number,
            worker=end.worker,
            copied=tuple(copied),
            present=tuple(present),
            failures=failures,
            blobs=count.blobs,
            bytes=count.bytes,
            skipped=count.skipped,
            seconds=time.monotonic() - began,
        )


def _copy(registry: Registry, task: RepositoryTask, tag: str, count: Counting, end: End) -> bool:
    """Copy a tag, and tell whether there was anything to do."""
    source, target = f"{task.source}:{tag}", f"{task.target}:{tag}"
    if not task.referrers:
        wanted = registry.resolve(source, cancel=end.cancellation).digest
        try:
            if registry.resolve(target, cancel=end.cancellation).digest == wanted:
                return False
        except (ManifestNotFoundError, NotFoundError):
            pass
    registry.copy(source, target, referrers=task.referrers, trace=count, cancel=end.cancellation)
    return True


def chosen(tags: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Return the tags that are like one of some patterns; all of them where there are none.

    >>> chosen(["v1", "v2", "latest"], ["v*"])
    ['v1', 'v2']
    """
    return [tag for tag in sorted(tags) if not patterns or any(fnmatch.fnmatchcase(tag, each) for each in patterns)]


def named(where: str, repository: str) -> str:
    """Return the name of a repository of a registry. InvalidNameError: it is none.

    >>> named("http://localhost:5000/mirror/", "team/model")
    'http://localhost:5000/mirror/team/model'
    """
    name = f"{where.rstrip('/')}/{repository}"
    Name.parse(name.rpartition("://")[2])
    return name
