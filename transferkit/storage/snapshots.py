"""Snapshots in a store: ``snapshots/sha256-<hex>/``, the files of one manifest, complete and read-only.

One is built in ``snapshots/.partial``, and renamed when it is whole. Its files are reflinks, hard links or copies, and
need nothing of the store; it is kept for as long as a name leads to its manifest. A file that is gone or was changed is
found out by a look.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress

from transferkit.content.digest import Digest
from transferkit.content.flow import Flow
from transferkit.storage.disk import Disk, close_quietly, sync, sync_folder
from transferkit.storage.disk_errors import disk_errors
from transferkit.storage.lock import changes
from transferkit.storage.pulled_folder import OWN, Knows
from transferkit.storage.snapshot_files import SnapshotFiles, files_in
from transferkit.storage.verifying import Entry

_UNFINISHED = ".partial"
_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
_THERE = (errno.ENOTEMPTY, errno.EEXIST)  # somebody else was first


class Snapshots:
    """The snapshots of one store. Thread-safe, and safe next to other processes.

    ``knows`` is asked of files whose names have changed: hard links of blobs.
    """

    def __init__(
        self,
        root: str,
        disk: Disk,
        *,
        durable: bool = False,
        knows: Knows = lambda digest, status: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._files = SnapshotFiles(f"{root}/blobs", disk, durable=durable, knows=knows, clock=clock)
        self.path = f"{root}/snapshots"
        self._disk = disk
        self._durable = durable
        self._clock = clock

    def path_of(self, digest: Digest) -> str:
        """Return where the snapshot of a manifest is, or would be."""
        return f"{self.path}/{digest.file_name}"

    def find(self, digest: Digest) -> str | None:
        """Return the path of a snapshot, if there is one, and a ``stat`` a file says that it is as it was made."""
        path = self.path_of(digest)
        with suppress(OSError):
            if self._is_there(digest) and self._files.are_right(digest, path):
                with suppress(OSError), _opened(self._disk, path) as fd:
                    _take_right(self._disk, fd)  # whoever published it may have been killed before
                return path
        return None

    def examine(self, digest: Digest, flow: Flow) -> str | None:
        """Return the path of a snapshot whose files are right; those are hashed that a look does not tell right.

        Raises:
            StorageError: a file cannot be read.
        """
        path = self.path_of(digest)
        return path if self._is_there(digest) and self._files.examine(digest, path, flow) else None

    def _is_there(self, digest: Digest) -> bool:
        with suppress(OSError):
            return not os.path.islink(self.path) and stat.S_ISDIR(self._disk.lstat(self.path_of(digest)).st_mode)
        return False

    def growth(self) -> object:
        """Tell how far somebody is who makes a snapshot: what changes while bytes come to it."""
        path, made = f"{self.path}/{_UNFINISHED}", f"{OWN}/{_UNFINISHED}"
        with suppress(OSError):
            return changes(path), [changes(f"{path}/{name}/{made}") for name in os.listdir(path)]
        return None

    def begin(self, digest: Digest, *, is_alone: bool) -> str:
        """Make a new folder to be filled, and return its path. ``is_alone``: what others have left is nobody's."""
        with disk_errors("making a snapshot in", self.path), self._unfinished(make=True) as unfinished:
            for name in os.listdir(unfinished) if is_alone else ():
                if name.startswith(digest.file_name):
                    _remove_tree(self._disk, name, unfinished)
            name = f"{digest.file_name}.{os.urandom(8).hex()}"
            self._disk.make_folder_in(name, unfinished)
        return f"{self.path}/{_UNFINISHED}/{name}"

    def publish(self, folder: str, digest: Digest) -> str:
        """Make a folder that ``begin`` has made, and that is filled, the snapshot; return the path of that.

        One that is there, and as it was made, stays; another one makes room for it.
        """
        disk, name, final = self._disk, os.path.basename(folder), self.path_of(digest)
        with disk_errors("making the snapshot", final), self._unfinished() as unfinished:
            with _opened(disk, name, unfinished) as fd:
                files = files_in(f"{folder}/{OWN}", disk)
                with suppress(FileNotFoundError):
                    _remove_tree(disk, OWN, fd)
                self._seal(fd)
                if self.find(digest) or not self._put(folder, digest, files, unfinished):
                    _remove_tree(disk, name, unfinished)
                    return final
                _take_right(disk, fd)  # now: to move a folder, one must be allowed to write to it
            if self._durable:
                sync_folder(disk, self.path)
        return final

    def _put(self, folder: str, digest: Digest, files: dict[str, Digest], unfinished: int) -> bool:
        """Put a folder in the place of a snapshot, and remember its files; ``False``: somebody else was first."""
        with _opened(self._disk, self.path) as place:
            self._move_away(digest, place, unfinished)
            self._files.remember(digest, folder, files)
            try:
                self._disk.rename(os.path.basename(folder), digest.file_name, unfinished, into=place)
            except OSError as error:
                if error.errno not in _THERE:
                    raise
                return False
        return True

    def _move_away(self, digest: Digest, place: int, unfinished: int) -> None:
        """Remove a snapshot, at once for who looks."""
        disk, name = self._disk, f"{digest.file_name}.{os.urandom(8).hex()}"
        with suppress(FileNotFoundError), _opened(disk, digest.file_name, place) as fd:
            disk.set_mode(fd, 0o700)
            disk.rename(digest.file_name, name, place, into=unfinished)
            _remove_tree(disk, name, unfinished)

    def _seal(self, folder: int) -> None:
        """Make all that is in a folder read-only, and durable where that is wanted."""
        disk = self._disk
        for name, is_folder in _listed(folder):
            with _opened(disk, name, folder, is_folder=is_folder) as fd:
                if is_folder:
                    self._seal(fd)
                _take_right(disk, fd)
                if self._durable:
                    sync(disk, fd)
        if self._durable:
            sync(disk, folder)

    # -- what nobody needs any more

    def find_garbage(self, kept: Callable[[], Container[Digest]], grace: float) -> list[Entry]:
        """Return the snapshots of manifests that nobody keeps, without those that are younger than ``grace`` seconds.

        A size is what its removal gives back: files that have other names as well count for nothing.
        """
        old: list[Entry] = []
        before = self._clock() - grace
        if os.path.islink(self.path):
            return old
        with disk_errors("reading", self.path), suppress(FileNotFoundError), os.scandir(self.path) as folders:
            for folder in sorted(folders, key=lambda entry: entry.name):
                with suppress(ValueError, FileNotFoundError):
                    digest = Digest.from_file_name(folder.name)
                    age = folder.stat(follow_symlinks=False).st_mtime
                    if age < before and folder.is_dir(follow_symlinks=False):
                        old.append(Entry(digest, _size(folder.path), age, folder.path))
        needed = kept() if old else ()
        return [entry for entry in old if entry.digest not in needed]

    def remove(self, garbage: list[Entry], grace: float) -> None:
        """Remove snapshots, each at once for who looks, and what was left of unfinished ones for ``grace`` seconds.

        Raises:
            StorageError: one cannot be removed.
        """
        if not os.path.lexists(self.path):
            return
        disk = self._disk
        with disk_errors("removing snapshots from", self.path), self._unfinished(make=True) as unfinished:
            with _opened(disk, self.path) as place:
                for entry in garbage:
                    self._move_away(entry.digest, place, unfinished)
                    self._files.forget(entry.digest)
            before = self._clock() - grace
            for name in os.listdir(unfinished):
                if disk.lstat(name, unfinished).st_mtime < before:
                    _remove_tree(disk, name, unfinished)

    @contextmanager
    def _unfinished(self, *, make: bool = False) -> Iterator[int]:
        """Open the folder of unfinished snapshots, step by step, without following links."""
        disk = self._disk
        if make:
            disk.make_folder(os.path.dirname(self.path))
            with suppress(FileExistsError):
                disk.make_folder_in(self.path)
        with _opened(disk, self.path) as place:
            if make:
                with suppress(FileExistsError):
                    disk.make_folder_in(_UNFINISHED, place)
            with _opened(disk, _UNFINISHED, place) as fd:
                yield fd


@contextmanager
def _opened(disk: Disk, name: str, folder: int | None = None, *, is_folder: bool = True) -> Iterator[int]:
    fd = disk.open_folder(name, folder) if is_folder else disk.open(name, folder, follow=False)
    try:
        yield fd
    finally:
        close_quietly(disk, fd)


def _listed(folder: int) -> list[tuple[str, bool]]:
    """Return what is in a folder, and of each whether it is one."""
    with os.scandir(folder) as entries:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]


def _take_right(disk: Disk, fd: int) -> None:
    """Take the right to write from everybody."""
    mode = stat.S_IMODE(disk.fstat(fd).st_mode)
    if mode & _WRITABLE:  # else its ctime stays, which tells a hard link's store that it is still right
        disk.set_mode(fd, mode & ~_WRITABLE)


def _remove_tree(disk: Disk, name: str, folder: int) -> None:
    """Remove a folder, read-only ones in it too, and follow no link."""
    with _opened(disk, name, folder) as fd:
        disk.set_mode(fd, 0o700)
        for each, is_folder in _listed(fd):
            if is_folder:
                _remove_tree(disk, each, fd)
            else:
                disk.unlink(each, fd)
    disk.remove_folder(name, folder)


def _size(path: str) -> int:
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                status = os.lstat(f"{folder}/{name}")
                total += status.st_size if status.st_nlink == 1 else 0
    return total
