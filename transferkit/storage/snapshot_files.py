"""What the files of a snapshot are: remembered in ``blobs/.partial``, so that a look tells whether they are unchanged.

A file may have changed by way of a hard link that it shares with a blob, and with folders of users.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from transferkit.content.digest import Digest
from transferkit.content.flow import Flow
from transferkit.errors import StorageError
from transferkit.storage.disk import Disk, is_file, remove_quietly
from transferkit.storage.disk_errors import disk_errors
from transferkit.storage.folder import OpenFolder
from transferkit.storage.folder_state import DURABLE, FolderState, Row
from transferkit.storage.matching import matching
from transferkit.storage.pulled_folder import Knows
from transferkit.storage.ticks import is_settled, settle
from transferkit.storage.tree import Tree
from transferkit.storage.unfinished import make_unfinished


class SnapshotFiles:
    """The files of the snapshots of one store. Thread-safe.

    ``knows`` is asked of files whose names have changed: hard links of blobs. Of a state ``placing`` has all digests.
    """

    def __init__(self, blobs: str, disk: Disk, *, durable: bool, knows: Knows, clock: Callable[[], float]) -> None:
        self._blobs = blobs
        self._unfinished = f"{blobs}/.partial"
        self._disk = disk
        self._durable = durable
        self._knows = knows
        self._clock = clock

    def are_right(self, digest: Digest, folder: str) -> bool:
        """Tell, for a ``stat`` a file, whether the files of a snapshot are there, and as they were made."""
        state = self._state(digest)
        return state is not None and not self._unsure(state, folder)

    def examine(self, digest: Digest, folder: str, flow: Flow) -> bool:
        """Hash the files that a look does not tell right, and tell whether all are right.

        Raises:
            StorageError: a file cannot be read.
        """
        state = self._state(digest)
        if state is None:
            return False
        tree = Tree(folder, self._disk)
        for path, status in self._unsure(state, folder).items():
            if status is None or not is_file(status):
                return False
            with tree.open(path) as fd, disk_errors("reading", tree.path_of(path)):
                found, status = matching(self._disk, fd, [state.placing[path]], flow)
            if not found:
                return False
            self._remember(state, path, status)
        with suppress(StorageError):  # this may be somebody else's store: they are hashed once more
            self._save(digest, state)
        return True

    def remember(self, digest: Digest, folder: str, files: dict[str, Digest]) -> None:
        """Take in how the files in a folder are, which becomes the snapshot. StorageError: the disk refused."""
        state = FolderState(version=digest, placing=files)
        statuses = {path: status for path, status in Tree(folder, self._disk).statuses(files).items() if status}
        settle([status.st_mtime_ns for status in statuses.values()], self._clock)
        for path, status in statuses.items():
            self._remember(state, path, status)
        self._save(digest, state)

    def forget(self, digest: Digest) -> None:
        """Know nothing of a snapshot that is gone."""
        remove_quietly(self._disk, f"{self._unfinished}/{_name(digest)}")

    def _state(self, digest: Digest) -> FolderState | None:
        with suppress(OSError), OpenFolder(self._unfinished, self._disk) as folder:
            state = FolderState.load(folder, self._disk.boot, _name(digest))
            return state if state.version == digest else None
        return None

    def _unsure(self, state: FolderState, folder: str) -> dict[str, os.stat_result | None]:
        """Return the files that are missing, or that a look does not tell right."""
        try:
            statuses = Tree(folder, self._disk).statuses(state.placing)
        except StorageError:  # a link or a file is in the place of a folder
            statuses = dict.fromkeys(state.placing)
        unsure = {}
        for path, status in statuses.items():
            row = state.rows.get(path)
            if status is None or not ((row and row.fits(status)) or self._knows(state.placing[path], status)):
                unsure[path] = status
        return unsure

    def _remember(self, state: FolderState, path: str, status: os.stat_result) -> None:
        boot = DURABLE if self._durable else self._disk.boot
        if boot is not None and is_settled(status.st_mtime_ns, self._clock()):
            state.rows[path] = Row.of(state.placing[path], status, boot)

    def _save(self, digest: Digest, state: FolderState) -> None:
        with make_unfinished(self._blobs, self._unfinished, self._disk, durable=self._durable) as folder:
            with disk_errors("writing", f"{self._unfinished}/{_name(digest)}"):
                state.save(folder, _name(digest), durable=self._durable)


def files_in(path: str, disk: Disk) -> dict[str, Digest]:
    """Return the files of a folder that was filled, by what its state, which is at ``path``, says of them."""
    with suppress(OSError), OpenFolder(path, disk) as folder:
        state = FolderState.load(folder, disk.boot)
        return {**state.placing, **{path: row.digest for path, row in state.rows.items()}}
    return {}


def _name(digest: Digest) -> str:
    return f"snapshot.{digest.file_name}.json"
