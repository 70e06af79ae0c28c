"""One repository of a mirror: its tags, one after the other, so that what they share is moved once."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from transferkit._version import __version__
from transferkit.cluster.dask.lines import DaskLine
from transferkit.cluster.failures import portable
from transferkit.cluster.lines import End, Teller
from transferkit.cluster.piece import Done, check_version
from transferkit.content.descriptor import Descriptor
from transferkit.errors import CancelledError, IncompleteError, ManifestNotFoundError, NotFoundError, TransferKitError
from transferkit.names import Name
from transferkit.registry.plans.places import given_by
from transferkit.registry.registry import Registry
from transferkit.report import Report
from transferkit.trace import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryCopy:
    """A repository, from one registry to another. ``size`` is found out where that is done."""

    name: str
    source: str
    target: str
    size: int = 0

    def reasons(self, error: TransferKitError) -> Mapping[str, TransferKitError]:
        """Return what failed for which reason: tags, where it came to those."""
        if isinstance(error, IncompleteError):
            return {f"{self.name}:{tag}": reason for tag, reason in error.failures.items()}
        return {self.name: error}


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryTask:
    """The copy of a repository, as a worker is sent it. ``tags`` are patterns; none: all of them."""

    number: int
    copy: RepositoryCopy
    line: DaskLine
    tags: tuple[str, ...] = ()
    referrers: bool = False
    credentials: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    events: tuple[str, ...] = ()
    attempt: int = 0
    version: str = __version__

    @property
    def key(self) -> tuple[str, ...]:
        return (self.line.topic, self.copy.source, self.copy.target, str(self.attempt))

    def run(self) -> Done:
        """Copy what the target does not have; a tag that fails keeps no other from being copied."""
        began = time.monotonic()
        with self.line.opened(self.number) as end:
            copies = Copies(end, self.events)
            error = None
            try:
                check_version(self.version, end.worker)
                self._copy(copies, end)
            except TransferKitError as caught:
                error = portable(caught)
            copies.flush()
            seconds = time.monotonic() - began
            return Done(
                number=self.number,
                worker=end.worker,
                seconds=seconds,
                report=copies.report,
                size=copies.size,
                error=error,
            )

    def _copy(self, copies: Copies, end: End) -> None:
        failures: dict[str, TransferKitError] = {}
        given = {**self.settings, **(given_by(self.credentials) if self.credentials else {})}
        with Registry(**given) as registry:
            for tag in chosen(registry.tags(self.copy.source, cancel=end.cancellation), self.tags):
                try:
                    self._copy_tag(registry, tag, copies, end)
                except CancelledError:
                    raise
                except TransferKitError as error:
                    failures[tag] = error
                copies.next_tag()
        if failures:
            raise IncompleteError(f"{len(failures)} tags were not copied", failures=failures)

    def _copy_tag(self, registry: Registry, tag: str, copies: Copies, end: End) -> None:
        """Copy a tag, unless it stands for the same in both."""
        source, target = f"{self.copy.source}:{tag}", f"{self.copy.target}:{tag}"
        if not self.referrers:
            wanted = registry.resolve(source, cancel=end.cancellation).digest
            try:
                if registry.resolve(target, cancel=end.cancellation).digest == wanted:
                    return
            except (ManifestNotFoundError, NotFoundError):
                pass
        registry.copy(source, target, referrers=self.referrers, trace=copies, cancel=end.cancellation)


class Copies(Teller):
    """The trace of the copies of a repository, which tells of all of them together, and adds up what they did."""

    def __init__(self, end: End, events: Sequence[str]) -> None:
        super().__init__(end, events)
        self._blobs = self._skipped = 0
        self._before = self._tag = Status()

    @property
    def report(self) -> Report:
        """What the copies that are over did."""
        return Report(blobs=self._blobs + self._skipped, bytes=self._before.moved, skipped=self._skipped)

    @property
    def size(self) -> int:
        """How many bytes the copies have that are over."""
        return self._before.total

    def next_tag(self) -> None:
        """Take in that a copy is over."""
        tag, self._tag = replace(self._tag, completed=self._tag.total), Status()
        self._before = self._sum(tag)
        super().status(self._before)

    def done(self, descriptor: Descriptor) -> None:
        self._blobs += 1

    def cached(self, descriptor: Descriptor) -> None:
        self._skipped += 1

    def status(self, status: Status) -> None:
        self._tag = status
        super().status(self._sum(status))

    def _sum(self, status: Status) -> Status:
        sums = {name: getattr(self._before, name) + getattr(status, name) for name in _SUMS}
        return replace(status, **sums)


_SUMS = ("completed", "total", "cached", "moved", "retried", "healed")


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
