"""What stands in a folder that is to be filled: what is right, what may be replaced, and what is in the way."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from transferkit.content.digest import Digest
from transferkit.errors import StorageError
from transferkit.storage.pulled_folder import PulledFolder, Standing
from transferkit.storage.tree import is_same
from transferkit.transfer.flow import WorkerFlow

logger = logging.getLogger(__name__)


class Each(Protocol):
    """Does something for each path, in several workers; ``total``: the bytes of all, ``doing``: what it is."""

    def __call__(
        self, items: Sequence[str], work: Callable[[str, WorkerFlow], object], *, total: int = 0, doing: str = ""
    ) -> object: ...


@dataclass(slots=True)
class Survey:
    """What one call knows of a folder. One thread's, but for what ``each`` runs.

    ``is_shared(digest, status)`` tells of a right file that it has to be replaced all the same.
    """

    place: PulledFolder
    overwrite: bool
    each: Each
    is_shared: Callable[[Digest, os.stat_result], bool]
    standing: dict[str, Standing] = field(default_factory=dict)
    seen: dict[str, os.stat_result | None] = field(default_factory=dict)
    """What each file's status was, before anything was decided."""
    in_the_way: set[str] = field(default_factory=set)
    """Files that have to go, as a folder comes in their place, or a file in the place of theirs."""
    folders: set[str] = field(default_factory=set)
    """Folders in whose place files come."""

    def clear(self) -> None:
        """Know nothing."""
        for known in (self.standing, self.seen, self.in_the_way, self.folders):
            known.clear()

    def is_right(self, path: str) -> bool:
        return self.standing.get(path) is Standing.RIGHT

    def look(self, wanted: Mapping[str, Digest]) -> None:
        """Look at what stands under some names, without a byte of it.

        Raises:
            StorageError: a folder has a file's name, and files in it that no pull has put there; or a link is in the
                place of a folder.
        """
        for path, status in self.place.tree.statuses(wanted, self.in_the_way).items():
            self._found(path, status, wanted[path])
            if self.standing[path] is Standing.FOLDER:
                self.folders.add(path)
                self.in_the_way.update(self._ours_in(path))
        for path, status in self.place.tree.statuses(self.in_the_way).items():
            self._found(path, status, self._meant(path))

    def _meant(self, path: str) -> Digest | None:
        """Return what a file that is in the way would be if it is ours; ``None``: it is not."""
        return next(iter(self.place.digests(path)), None)

    def _found(self, path: str, status: os.stat_result | None, wanted: Digest | None) -> None:
        self.seen[path] = status
        standing = Standing.CHANGED if wanted is None else self.place.standing(path, status, wanted)
        self.standing[path] = standing
        self._set_apart(path, wanted)

    def _set_apart(self, path: str, wanted: Digest | None) -> None:
        """Take a right file for one of ours that is to be replaced, where it must not be the file that it is."""
        status = self.seen[path]
        if wanted and status and path not in self.in_the_way and self.is_right(path) and self.is_shared(wanted, status):
            self.standing[path] = Standing.OURS

    def _ours_in(self, folder: str) -> list[str]:
        """Return the files in a folder that has to go. StorageError: one of them is none of ours."""
        found = []
        for path in self.place.tree.below(folder):
            if not self.place.digests(path):
                raise StorageError(
                    f"{self.place.tree.path_of(folder)} is a folder, and a file goes there; {path} in it was put "
                    "there by somebody else: move it away",
                    errno=errno.EISDIR,
                )
            found.append(path)
        return found

    def judge(self, wanted: Mapping[str, Digest]) -> int:
        """Hash what cannot be told by a look, and return how many bytes that were.

        Raises:
            StorageError: somebody has changed a file that would be replaced.
        """
        meant = {**{path: self._meant(path) for path in self.in_the_way}, **wanted}
        unknown = {path: digest for path, digest in meant.items() if self.standing.get(path) is Standing.UNKNOWN}
        size = sum(status.st_size for path in unknown if (status := self.seen[path]) is not None)
        if unknown:
            logger.info("%d files in %s are hashed, as they may be right", len(unknown), self.place.tree.path)

        def judge(path: str, flow: WorkerFlow) -> None:
            digest = unknown[path]
            self.standing[path] = self.place.judge(path, digest, flow) if digest else Standing.CHANGED
            self._set_apart(path, digest)

        self.each(list(unknown), judge, total=size, doing="verifying")
        changed = [path for path in meant if self.standing.get(path) is Standing.CHANGED]
        if changed and not self.overwrite:
            raise conflict(self.place, changed, "they were left, and nothing was replaced")
        return size

    def is_current(self) -> bool:
        """Tell whether all stands there as it was looked at."""
        blocking: set[str] = set()
        now = self.place.tree.statuses(set(self.seen) - self.folders, blocking)
        return blocking <= self.in_the_way and all(is_same(self.seen[path], now[path]) for path in now)

    def may_replace(self, path: str) -> os.stat_result | None:
        """Return the status of what a file may replace, which is there; ``None``: nothing is."""
        return None if path in self.folders else self.seen.get(path)


def conflict(place: PulledFolder, paths: Collection[str], what: str) -> StorageError:
    """Return the error that says which files are somebody else's, and what became of them."""
    return StorageError(
        f"{place.tree.path} has files that somebody else has put there or changed: {_listed(paths)}; {what}: move them "
        "away, or pass overwrite=True",
        errno=errno.EEXIST,
    )


def _listed(paths: Iterable[str]) -> str:
    found = sorted(paths)
    return ", ".join(found[:20]) + (f" and {len(found) - 20} more" if len(found) > 20 else "")
