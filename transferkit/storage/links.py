"""The manifests of a store by their names: ``manifests/<host>/<namespace>/<model>/<tag>``, as Ollama keeps them.

Every step below the store is opened relative to the folder before, and without following links: what is planted in
there leads nowhere.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from transferkit.content.manifest import MAX_MANIFEST
from transferkit.errors import InvalidNameError, ManifestNotFoundError, StorageError
from transferkit.names import Name
from transferkit.storage.disk import Disk, close_quietly, sync_folder
from transferkit.storage.disk_errors import disk_errors, storage_error
from transferkit.storage.folder import OpenFolder

_DEEPEST = 12  # folders: host, parts of a namespace, model
_SCANNED = 64 * 1024 * 1024  # bytes of a file that are looked through for what it names, however malformed it is
_RACES = 100  # times that a folder is made which somebody else removes, as it is empty


class Links:
    """The names in one store. Thread-safe, and safe next to other processes, Ollama among them.

    ``folder`` has them; in another one than Ollama's they are ours alone.
    """

    def __init__(self, root: str, disk: Disk, folder: str = "manifests") -> None:
        self.path = f"{root}/{folder}"
        self._root = root
        self._disk = disk

    def names(self) -> list[Name]:
        """Return the names of all manifests, sorted as paths; what is no name of one is left out.

        StorageError: the folder of all of them cannot be read; one below it hides its own names only.
        """
        found: dict[Name, None] = {}
        for path in self._files(strict=False):
            with suppress(InvalidNameError):
                found.setdefault(Name.from_path(path))
        return list(found)

    def contents(self) -> Iterator[bytes]:
        """Yield what is in each file, be it a manifest or not, under whatever name.

        Raises:
            StorageError: something cannot be read, or a link may lead to more.
        """
        for path in self._files(strict=True):
            with suppress(FileNotFoundError):
                yield self._read(path, _SCANNED)

    def _files(self, *, strict: bool) -> list[str]:
        """Return the paths of all files, sorted; unless ``strict``, without what cannot be read."""
        return sorted(self._below("", 0, strict))

    def _below(self, prefix: str, depth: int, strict: bool) -> Iterator[str]:
        try:
            found = self._scan(prefix, strict) if depth <= _DEEPEST else []
        except StorageError:
            if strict or not prefix:
                raise
            found = []
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                yield from self._below(f"{prefix}{entry.name}/", depth + 1, strict)
            elif entry.is_file(follow_symlinks=False):
                yield prefix + entry.name
            elif strict and entry.is_symlink():
                raise _link(entry.path)

    def _scan(self, prefix: str, strict: bool = False) -> list[os.DirEntry[str]]:
        """Return what is in a folder, sorted; StorageError: it cannot be read."""
        folder = f"{self.path}/{prefix}"[:-1] if prefix else self.path
        try:
            if os.path.islink(folder):
                raise _link(folder)
            with os.scandir(folder) as found:
                return sorted(found, key=lambda entry: entry.name)
        except FileNotFoundError:
            return []
        except OSError as error:
            if not strict and isinstance(error, StorageError | NotADirectoryError):  # it leads nowhere
                return []
            raise error if isinstance(error, StorageError) else storage_error(error, "reading", folder) from error

    def find(self, name: Name) -> list[str]:
        """Return the paths of a name's manifests below ``path``: those that are equal without regard to case, sorted.

        The first one is what the name stands for. StorageError: a folder on the way cannot be read.
        """
        return list(self._matching("", name.path.lower().split("/")))

    def _matching(self, prefix: str, parts: list[str]) -> Iterator[str]:
        for entry in self._scan(prefix):
            if entry.name.lower() != parts[0]:
                continue
            if len(parts) == 1 and entry.is_file(follow_symlinks=False):
                yield prefix + entry.name
            elif len(parts) > 1 and entry.is_dir(follow_symlinks=False):
                yield from self._matching(f"{prefix}{entry.name}/", parts[1:])

    def read(self, name: Name) -> bytes:
        """Return the bytes of a manifest.

        Raises:
            ManifestNotFoundError: there is none, or an empty one; or it is over 4 MiB.
            StorageError: it cannot be read.
        """
        path, raw = next(iter(self.find(name)), None), None
        if path is not None:
            with suppress(FileNotFoundError):
                raw = self._read(path, MAX_MANIFEST + 1)
        if raw is None:
            raise ManifestNotFoundError(f'model "{name}" not found in {self._root}')
        if not 0 < len(raw) <= MAX_MANIFEST:
            problem = f"has more than {MAX_MANIFEST} bytes" if raw else "is empty"
            raise ManifestNotFoundError(f'model "{name}" not found: {self.path}/{path} {problem}; pull it again')
        return raw

    def linked_at(self, name: Name) -> float | None:
        """Return when a manifest got its name (Unix time), ``None`` where there is none."""
        for path in self.find(name):
            with suppress(OSError):
                return self._disk.lstat(f"{self.path}/{path}").st_mtime
        return None

    def _read(self, path: str, limit: int) -> bytes:
        """Return the last ``limit`` bytes of a file, or less; ``FileNotFoundError``: it has gone."""
        *folders, file = path.split("/")
        with self._open(folders) as fd:
            try:
                return self._disk.read_file(file, limit, fd)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise storage_error(error, "reading", f"{self.path}/{path}") from error

    def write(self, name: Name, raw: bytes, unfinished: Callable[[], OpenFolder], *, durable: bool) -> None:
        """Give a manifest its name, atomically; ``unfinished`` returns the folder in which its file is made.

        Raises:
            StorageError: the disk refused, or a link or a file is in the place of a folder.
        """
        path = next(iter(self.find(name)), name.path)
        *folders, file = path.split("/")
        for attempt in range(_RACES):
            partial = unfinished()
            try:
                with self._open(folders, make=True) as fd, disk_errors("writing", f"{self.path}/{path}"):
                    partial.place(raw, file, into=fd, sync=self._disk.fsync if durable else None)
                break
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
                if attempt == _RACES - 1:
                    raise storage_error(error, "writing", f"{self.path}/{path}") from error
        if durable:
            self._sync(*(folders[:depth] for depth in range(len(folders) + 1)))
            with disk_errors("syncing", self._root):
                sync_folder(self._disk, self._root)

    def remove(self, name: Name, *, durable: bool) -> bool:
        """Remove a name, and the folders that are empty without it; ``False``: there was none."""
        is_there = False
        for path in self.find(name):
            *folders, file = path.split("/")
            with suppress(FileNotFoundError), self._open(folders) as fd:
                with disk_errors("removing", f"{self.path}/{path}"), suppress(FileNotFoundError):
                    self._disk.unlink(file, fd)
                    is_there = True
            if durable:
                self._sync(folders)  # or after a power cut it names blobs that were removed meanwhile
            while folders:
                last = folders.pop()
                with suppress(OSError), self._open(folders) as fd:
                    self._disk.remove_folder(last, fd)
        return is_there

    def _sync(self, *folders: list[str]) -> None:
        for parts in folders:
            with disk_errors("syncing", self.path), suppress(FileNotFoundError):
                sync_folder(self._disk, "/".join((self.path, *parts)))

    @contextmanager
    def _open(self, folders: list[str], *, make: bool = False) -> Iterator[int]:
        """Open a folder below ``path``, step by step; ``make`` what is missing.

        Raises:
            FileNotFoundError: there is none.
            StorageError: a link is in the way, or the disk refused.
        """
        disk, fd, at = self._disk, -1, self.path
        try:
            try:
                if make:
                    disk.make_folder(self._root)
                    _make(disk, self.path)
                fd = disk.open_folder(self.path)
                for part in folders:
                    at = f"{at}/{part}"
                    if make:
                        _make(disk, part, fd)
                    before, fd = fd, disk.open_folder(part, fd)
                    close_quietly(disk, before)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise _link(at) if os.path.islink(at) else storage_error(error, "opening the folder", at) from error
            yield fd
        finally:
            close_quietly(disk, fd)


def _make(disk: Disk, name: str, folder: int | None = None) -> None:
    with suppress(FileExistsError):
        disk.make_folder_in(name, folder)


def _link(path: str) -> StorageError:
    return StorageError(f"{path} is a symbolic link, which is not followed; remove it", errno=errno.ELOOP)
