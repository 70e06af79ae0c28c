"""The manifests of a store by their names: ``manifests/<host>/<namespace>/<model>/<tag>``, as Ollama keeps them.

Every step below the store is opened relative to the folder before, and without following links: what is planted in
there leads nowhere.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from transferkit.content.manifest import MAX_MANIFEST
from transferkit.errors import InvalidNameError, ManifestNotFoundError, StorageError
from transferkit.names import Name
from transferkit.storage.disk import Disk, close_quietly, disk_errors, is_file, sync_folder
from transferkit.storage.folder import OpenFolder

_DEEPEST = 12  # folders: host, parts of a namespace, model


class Links:
    """The names in one store. Thread-safe, and safe next to other processes, Ollama among them."""

    def __init__(self, root: str, disk: Disk) -> None:
        self.path = f"{root}/manifests"
        self._disk = disk

    def names(self) -> list[Name]:
        """Return the names of all manifests, sorted as paths; what is no name of one is left out."""
        return [name for name, _ in self._walk()]

    def _walk(self) -> Iterator[tuple[Name, str]]:
        for path in sorted(self._files("", self.path, 0)):
            with suppress(InvalidNameError):
                yield Name.from_path(path), path

    def _files(self, prefix: str, folder: str, depth: int) -> Iterator[str]:
        if depth > _DEEPEST:
            return
        entries: list[os.DirEntry[str]] = []
        with suppress(OSError), os.scandir(folder) as found:
            entries = list(found)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from self._files(f"{prefix}{entry.name}/", entry.path, depth + 1)
            elif entry.is_file(follow_symlinks=False):
                yield prefix + entry.name

    def find(self, name: Name) -> str | None:
        """Return the path of a name's manifest below ``path``: the first one that is equal without regard to case."""
        return next(self._matching("", self.path, name.path.lower().split("/")), None)

    def _matching(self, prefix: str, folder: str, parts: list[str]) -> Iterator[str]:
        entries: list[os.DirEntry[str]] = []
        with suppress(OSError), os.scandir(folder) as found:
            entries = sorted((e for e in found if e.name.lower() == parts[0]), key=lambda entry: entry.name)
        for entry in entries:
            if len(parts) == 1 and entry.is_file(follow_symlinks=False):
                yield prefix + entry.name
            elif len(parts) > 1 and entry.is_dir(follow_symlinks=False):
                yield from self._matching(f"{prefix}{entry.name}/", entry.path, parts[1:])

    def read(self, name: Name) -> bytes:
        """Return the bytes of a manifest.

        Raises:
            ManifestNotFoundError: there is none, or an empty one; or it is over 4 MiB.
            StorageError: it cannot be read.
        """
        path = self.find(name)
        if path is None:
            raise ManifestNotFoundError(f'model "{name}" not found in {self.path}')
        folder, _, file = path.rpartition("/")
        with self._open(folder.split("/")) as fd, disk_errors("reading", f"{self.path}/{path}"):
            try:
                raw = self._disk.read_file(file, MAX_MANIFEST + 1, fd)
            except FileNotFoundError as error:
                raise ManifestNotFoundError(f'model "{name}" not found in {self.path}') from error
        if not 0 < len(raw) <= MAX_MANIFEST:
            raise ManifestNotFoundError(f"{self.path}/{path} is {'empty' if not raw else 'too long for a manifest'}")
        return raw

    def write(self, name: Name, raw: bytes, partial: OpenFolder, *, durable: bool) -> None:
        """Give a manifest its name, atomically; where it has that already, nothing is touched."""
        path = self.find(name) or name.path
        with suppress(ManifestNotFoundError, StorageError):
            if self.read(name) == raw:
                return
        *folders, file = path.split("/")
        disk, temporary = self._disk, f"manifest.{os.urandom(8).hex()}"
        with self._open(folders, make=True) as fd, disk_errors("writing", f"{self.path}/{path}"):
            new = disk.create(partial.at(temporary), partial.fd)
            try:
                try:
                    disk.pwrite(new, memoryview(raw), 0)
                    if durable:
                        disk.fsync(new)
                finally:
                    disk.close(new)
                disk.rename(partial.at(temporary), file, partial.fd, into=fd)
            except BaseException:
                with suppress(OSError):
                    partial.remove(temporary)
                raise
        if durable:
            for depth in range(len(folders) + 1):
                with disk_errors("syncing", self.path):
                    sync_folder(disk, "/".join((self.path, *folders[:depth])))

    def remove(self, name: Name) -> bool:
        """Remove a name, and the folders that are empty without it; ``False``: there was none."""
        path = self.find(name)
        if path is None:
            return False
        *folders, file = path.split("/")
        with self._open(folders) as fd, disk_errors("removing", f"{self.path}/{path}"):
            try:
                self._disk.unlink(file, fd)
            except FileNotFoundError:
                return False
        while folders:
            last = folders.pop()
            with suppress(OSError, StorageError), self._open(folders) as fd:
                self._disk.remove_folder(last, fd)
        return True

    @contextmanager
    def _open(self, folders: list[str], *, make: bool = False) -> Iterator[int]:
        """Open a folder below ``path``, step by step; ``make`` what is missing. StorageError: a link is in the way."""
        disk, fd, at = self._disk, -1, self.path
        try:
            with disk_errors("opening the folder", self.path):
                if make:
                    disk.make_folder(self.path)
                fd = disk.open_folder(self.path)
            for part in folders:
                at = f"{at}/{part}"
                with disk_errors("opening the folder", at):
                    if make:
                        with suppress(FileExistsError):
                            disk.make_folder_in(part, fd)
                    before, fd = fd, disk.open_folder(part, fd)
                    close_quietly(disk, before)
            yield fd
        finally:
            close_quietly(disk, fd)

    def check(self, name: Name) -> str | None:
        """Return what is wrong with the file of a name, ``None``: nothing."""
        path = f"{self.path}/{self.find(name)}"
        try:
            status = os.lstat(path)
        except OSError as error:
            return error.strerror or errno.errorcode.get(error.errno or 0, "?")
        return None if is_file(status) and status.st_size else "it is empty or no file"
