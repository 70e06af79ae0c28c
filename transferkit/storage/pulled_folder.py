"""A folder that is filled with the files of a model, by their names: what stands there, whose it is, and how files get
their names in it.

All that is ours is in ``.transferkit``: the state, and what is unfinished. One process at a time fills a folder.
"""

from __future__ import annotations

import enum
import errno
import os
import re
import stat
from collections.abc import Iterable
from contextlib import ExitStack, suppress

from transferkit.content.digest import Digest
from transferkit.content.flow import Closing, Flow
from transferkit.content.title import check_title
from transferkit.errors import InvalidNameError, StorageError
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk, close_quietly, disk_errors, is_file, remove_quietly, sync_folder
from transferkit.storage.folder import OpenFolder
from transferkit.storage.folder_state import DURABLE, FolderState, Row
from transferkit.storage.lock import patient_lock
from transferkit.storage.tree import Tree
from transferkit.storage.unfinished import make_unfinished

OWN = ".transferkit"
_LEFT = re.compile(r"(?:file\.[0-9a-f]{16}|sha(?:256|512)-[0-9a-f]{64,128}.*)\Z", re.ASCII | re.DOTALL)


class Standing(enum.Enum):
    """What stands under the name of a file that is wanted."""

    ABSENT = "nothing"
    RIGHT = "the wanted content"
    OURS = "other content, which an earlier pull has put there"
    CHANGED = "content of somebody else's"
    UNKNOWN = "a file that has to be hashed to tell"


class PulledFolder(Closing):
    """One folder. Until ``fill`` begins to write, it is only looked at. One thread's, but for ``judge``."""

    unfinished: OpenFolder
    """Where files are made; ``fill`` opens it."""

    def __init__(
        self, path: str | os.PathLike[str], disk: Disk, *, durable: bool, resume_threshold: int, rehash: bool = False
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
        self.state = FolderState()
        self._stack = ExitStack()
        self._is_alone = False
        self._load()

    def _load(self) -> None:
        with suppress(OSError), OpenFolder(self.path, self.disk) as folder:
            self.state = FolderState.load(folder, self.disk.boot)

    # -- what is there

    def standing(self, path: str, status: os.stat_result | None, wanted: Digest) -> Standing:
        """Tell what stands under a name, by its ``status``. StorageError: a folder does."""
        if status is None:
            return Standing.ABSENT
        if not is_file(status):
            if stat.S_ISDIR(status.st_mode):
                raise StorageError(f"{self.tree.path_of(path)} is a folder, and a file goes there", errno=errno.EISDIR)
            return Standing.CHANGED
        row = self.state.rows.get(path)
        if row is not None and row.fits(status) and not self._rehash:
            return Standing.RIGHT if row.digest == wanted else Standing.OURS
        return Standing.UNKNOWN

    def judge(self, path: str, wanted: Digest, flow: Flow) -> Standing:
        """Hash what stands under a name, and tell what it is; what is right is remembered."""
        row, placing = self.state.rows.get(path), self.state.placing.get(path)
        with self.tree.open(path) as fd, disk_errors("reading", self.tree.path_of(path)):
            status = self.disk.fstat(fd)
            if not is_file(status):
                return Standing.CHANGED
            ours = {digest for digest in (row.digest if row else None, placing) if digest is not None}
            hashers = {digest.algorithm: digest.hasher() for digest in {wanted, *ours}}
            offset = 0
            flow.counter.set_position(0)
            while count := self.disk.preadv(fd, flow.buffer, offset):
                flow.moved(count)
                for hasher in hashers.values():
                    hasher.update(flow.buffer[:count])
                offset += count
            is_same = Row.of(wanted, status, "").fits(self.disk.fstat(fd))
        if is_same and wanted.matches(hashers[wanted.algorithm]):
            self.remember(path, wanted, status, shared=status.st_nlink > 1)
            return Standing.RIGHT
        is_ours = is_same and any(digest.matches(hashers[digest.algorithm]) for digest in ours)
        return Standing.OURS if is_ours else Standing.CHANGED

    def gone_from(self, paths: Iterable[str]) -> list[str]:
        """Return what older versions have put here that is none of ``paths``, and is still there."""
        others = sorted(set(self.state.rows) - set(paths))
        found: list[str] = []
        for path in others:
            with suppress(StorageError, InvalidNameError):  # a row that somebody has written by hand
                if check_own(check_title(path)) and self.tree.statuses([path])[path] is not None:
                    found.append(path)
        for path in set(others) - set(found):
            del self.state.rows[path]
        return found

    def remember(
        self, path: str, digest: Digest, status: os.stat_result, *, shared: bool = False, synced: bool = False
    ) -> None:
        """Take in that a file is right; ``synced``: its data is durable."""
        boot = DURABLE if synced else self.disk.boot
        if boot is not None:  # else nothing could tell this boot from the next
            self.state.rows[path] = Row.of(digest, status, boot, shared=shared)

    # -- filling it

    def fill(self, flow: Flow) -> None:
        """Begin to write: make what is ours, wait until no other process fills the folder, and read the state again.

        Raises:
            StorageError: the folder cannot be written to, or a link is in the place of what is ours.
        """
        self.staging.check_place()
        self.unfinished = folder = make_unfinished(self.path, self.staging.unfinished, self.disk, durable=self.durable)
        self._stack.callback(folder.close)
        self._is_alone = self._stack.enter_context(patient_lock(folder, "folder.lock", flow))
        self._stack.callback(self._clean, folder, "file.")
        self._clean(folder, "file.")
        self._load()

    def take(self, path: str, source: str, folder: int | None, digest: Digest, *, shared: bool) -> None:
        """Give a file its name: an unfinished one in ``folder``, or one at a path. StorageError: the disk refused."""
        if self.durable:
            with disk_errors("syncing", source):
                fd = self.disk.open(source, folder, follow=False)
                try:
                    self.disk.fsync(fd)
                finally:
                    close_quietly(self.disk, fd)
        status = self.tree.place(path, source, folder)
        if status is not None:
            self.remember(path, digest, status, shared=shared, synced=self.durable)

    def save(self) -> None:
        """Write the state. StorageError: the disk refused."""
        with disk_errors("writing", f"{self.path}/state.json"), OpenFolder(self.path, self.disk) as folder:
            self.state.save(folder, durable=self.durable)

    def finish(self) -> None:
        """Write the state of a folder that is whole, and remove all that was unfinished."""
        if self.durable:
            for where in {os.path.dirname(self.tree.path_of(path)) for path in self.state.placing}:
                with disk_errors("syncing", where):
                    sync_folder(self.disk, where)
        self.state.placing.clear()
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
