"""A folder that is filled with the files of a model, by their names: what stands there, whose it is, and how files get
their names in it.

All that is ours is in ``.transferkit``: the state, and what is unfinished. One process at a time fills a folder.
"""

from __future__ import annotations

import enum
import os
import re
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress

from transferkit.content.digest import Digest
from transferkit.content.flow import Closing, Flow
from transferkit.content.title import check_title
from transferkit.errors import InvalidNameError, StorageError
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk, close_quietly, is_file, remove_quietly, sync_folder
from transferkit.storage.disk_errors import disk_errors
from transferkit.storage.folder import OpenFolder
from transferkit.storage.folder_state import DURABLE, NAME, FolderState, Row
from transferkit.storage.lock import changes, patient_lock
from transferkit.storage.matching import matching
from transferkit.storage.ticks import is_settled, settle
from transferkit.storage.tree import Over, Tree
from transferkit.storage.unfinished import make_unfinished

OWN = ".transferkit"
_LEFT = re.compile(r"(?:file\.[0-9a-f]{16}|sha(?:256|512)-[0-9a-f]{64,128}.*)\Z", re.ASCII | re.DOTALL)

Knows = Callable[[Digest, os.stat_result], bool]
"""Tells whether a file with this status is known to be the content of a digest."""


class Standing(enum.Enum):
    """What stands under the name of a file that is wanted."""

    ABSENT = "nothing"
    RIGHT = "the wanted content"
    OURS = "other content, which an earlier pull has put there"
    CHANGED = "content of somebody else's"
    UNKNOWN = "a file that has to be hashed to tell"
    FOLDER = "a folder"


class PulledFolder(Closing):
    """One folder. Until ``fill`` begins to write, it is only looked at. One thread's, but for ``judge``.

    ``knows`` is asked of files that the state does not know: hard links of blobs, which other names have changed.
    """

    unfinished: OpenFolder
    """Where files are made; ``fill`` opens it."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        disk: Disk,
        *,
        durable: bool,
        resume_threshold: int,
        rehash: bool = False,
        knows: Knows | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.tree = Tree(path, disk)
        self.disk = disk
        self.path = f"{self.tree.path}/{OWN}"
        self.staging = Directory(
            self.path, resume_threshold=resume_threshold, durable=durable, follow_links=False, keep=True, disk=disk
        )
        """Blobs that go straight to the folder, while they arrive."""
        self.durable = durable
        self._rehash = rehash  # no earlier call is believed
        self._knows = knows or (lambda digest, status: False)
        self._clock = clock
        self._stack = ExitStack()
        self._is_alone = False
        self._placed: set[str] = set()
        self._seen: object = None
        self._load()

    def read(self) -> None:
        """Read the state, as it is now."""
        self._seen = self._state_file()
        self._load()

    def _load(self) -> None:
        self.state = FolderState()
        with suppress(OSError), OpenFolder(self.path, self.disk) as folder:
            self.state = FolderState.load(folder, self.disk.boot)

    def _state_file(self) -> object:
        with suppress(OSError), OpenFolder(self.path, self.disk) as folder:
            status = self.disk.lstat(folder.at(NAME), folder.fd)
            return status.st_ino, status.st_mtime_ns, status.st_size
        return None

    @property
    def is_current(self) -> bool:
        """Whether nobody else has written the state since it was read or written here."""
        return self._seen == self._state_file()

    # -- what is there

    def standing(self, path: str, status: os.stat_result | None, wanted: Digest) -> Standing:
        """Tell what stands under a name, by its ``status``."""
        if status is None:
            return Standing.ABSENT
        if not is_file(status):
            return Standing.FOLDER if stat.S_ISDIR(status.st_mode) else Standing.CHANGED
        row = self.state.rows.get(path)
        for digest in () if self._rehash else self.digests(path):
            if (row is not None and row.digest == digest and row.fits(status)) or self._knows(digest, status):
                return Standing.RIGHT if digest == wanted else Standing.OURS
        return Standing.UNKNOWN

    def digests(self, path: str) -> list[Digest]:
        """Return what earlier pulls have put under a name, or were about to."""
        row, placing = self.state.rows.get(path), self.state.placing.get(path)
        return [digest for digest in (row.digest if row else None, placing) if digest is not None]

    def judge(self, path: str, wanted: Digest, flow: Flow) -> Standing:
        """Hash what stands under a name, and tell what it is; what is right or ours is remembered as what it is."""
        with self.tree.open(path) as fd, disk_errors("reading", self.tree.path_of(path)):
            if not is_file(self.disk.fstat(fd)):
                return Standing.CHANGED
            found, status = matching(self.disk, fd, {wanted, *self.digests(path)}, flow)
        if not found:
            return Standing.CHANGED
        is_right = wanted in found
        self.remember(path, wanted if is_right else found.pop(), status)
        return Standing.RIGHT if is_right else Standing.OURS

    def gone_from(self, paths: Iterable[str]) -> list[str]:
        """Return what older versions have put here that is none of ``paths``, and is still there."""
        others = sorted({*self.state.rows, *self.state.placing} - set(paths))
        found: list[str] = []
        for path in others:
            with suppress(StorageError, InvalidNameError):  # a row that somebody has written by hand
                if check_own(check_title(path)) and self.tree.statuses([path])[path] is not None:
                    found.append(path)
        for path in set(others) - set(found):
            self.forget(path)
        return found

    def remember(self, path: str, digest: Digest, status: os.stat_result, *, synced: bool = False) -> None:
        """Take in what a file is; ``synced``: its data is durable."""
        boot = DURABLE if synced else self.disk.boot
        if boot is None:  # nothing could tell this boot from the next
            self.state.placing[path] = digest
        else:
            self.state.rows[path] = Row.of(digest, status, boot)
            self.state.placing.pop(path, None)

    def forget(self, path: str) -> None:
        """Take in that nothing of ours has a name."""
        self.state.rows.pop(path, None)
        self.state.placing.pop(path, None)

    # -- filling it

    def fill(self, flow: Flow, look: Callable[[], object] = lambda: None) -> None:
        """Begin to write: make what is ours, wait until no other process fills the folder, and read the state again.

        ``look`` tells how far that process is, beside what changes in the folder.

        Raises:
            StorageError: the folder cannot be written to, or a link is in the place of what is ours.
        """
        self.staging.check_place()
        self.unfinished = folder = make_unfinished(self.path, self.staging.unfinished, self.disk, durable=self.durable)
        self._stack.callback(folder.close)
        lock = patient_lock(folder, "folder.lock", flow, lambda: (changes(folder.path), look()))
        self._is_alone = self._stack.enter_context(lock)
        self._stack.callback(self._clean, folder, "file.")
        self._clean(folder, "file.")
        self.read()

    def take(self, path: str, source: str, folder: int | None, digest: Digest, *, over: Over = ...) -> None:
        """Give a file its name: an unfinished one in ``folder``, or one at a path.

        StorageError: the disk refused; EEXIST: something else has the name than ``over``, as ``Tree.place`` has it.
        """
        if self.durable:
            with disk_errors("syncing", source):
                fd = self.disk.open(source, folder, follow=False)
                try:
                    self.disk.fsync(fd)
                finally:
                    close_quietly(self.disk, fd)
        status = self.tree.place(path, source, folder, over=over)
        self._placed.add(path)
        if status is not None:
            self.remember(path, digest, status, synced=self.durable)

    def save(self) -> None:
        """Write the state. StorageError: the disk refused.

        A file that was written within the last tick of the clock could be changed without a trace: its row is doubted.
        """
        now, rows = self._clock(), self.state.rows
        rows.update({path: row.doubted for path, row in rows.items() if not is_settled(row.modified, now)})
        with disk_errors("writing", f"{self.path}/{NAME}"), OpenFolder(self.path, self.disk) as folder:
            self.state.save(folder, durable=self.durable)
        self._seen = self._state_file()

    def finish(self) -> None:
        """Write the state of a folder that is whole, and remove all that was unfinished."""
        if self.durable:
            for where in {os.path.dirname(self.tree.path_of(path)) for path in self._placed}:
                with disk_errors("syncing", where):
                    sync_folder(self.disk, where)
        self.state.begun = ""
        fresh = [row.modified for path, row in self.state.rows.items() if path in self._placed]
        settle(fresh, self._clock)
        self.save()
        self.staging.close()
        self._clean(self.unfinished, "")
        with suppress(OSError), OpenFolder(self.path, self.disk) as folder:
            self._clean(folder, "sha")

    def _clean(self, folder: OpenFolder, prefix: str) -> None:
        """Remove what earlier runs have left, where nobody else can be at it."""
        with suppress(OSError):
            for name in os.listdir(folder.path) if self._is_alone else ():
                if name.startswith(prefix) and _LEFT.match(name):
                    remove_quietly(self.disk, folder.at(name), folder.fd)

    def close(self) -> None:
        self._stack.close()
        self.staging.close()


def check_own(path: str) -> str:
    """Return a path if it does not lead into what is ours. InvalidNameError: it does."""
    if path.partition("/")[0].casefold() == OWN:
        raise InvalidNameError(f"the title {path[:200]!r} is refused as the name of a file: {OWN} is ours")
    return path
