"""A disk whose power can be cut: what was not synced is lost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal

from transferkit.storage.disk import Disk

Loss = Literal["names", "data", "order"]
"""What a power cut takes: ``names`` that were not synced with their folder, and data; ``data`` alone, which reads as
zeros; ``order``: the journals (``.json``) survive as they were written, and all other data does not."""


class VolatileDisk(Disk):
    """Real files, and a note of what of them is durable. Folders themselves always are."""

    def __init__(self) -> None:
        self._contents: dict[int, int] = {}  # inode -> number of the file, as inodes are used again
        self._files = 0
        self._synced: dict[int, bytes] = {}
        self._names: dict[str, int] = {}

    def _new(self, fd: int) -> int:
        self._files += 1
        self._contents[os.fstat(fd).st_ino] = self._files
        return fd

    def _number(self, path: str) -> int:
        return self._contents.setdefault(os.stat(path).st_ino, -os.stat(path).st_ino)

    def create(self, path: str, folder: int | None = None) -> int:
        return self._new(super().create(path, folder))

    def open_lock(self, path: str, folder: int | None = None) -> int:
        fd = super().open_lock(path, folder)
        return fd if os.fstat(fd).st_ino in self._contents else self._new(fd)

    def append(self, path: str, data: bytes, folder: int | None = None) -> int:
        try:
            super().lstat(path, folder)
        except FileNotFoundError:
            size = super().append(path, data, folder)
            self._files += 1
            self._contents[super().lstat(path, folder).st_ino] = self._files
            return size
        return super().append(path, data, folder)

    def fsync(self, fd: int) -> None:
        super().fsync(fd)
        with open(f"/proc/self/fd/{fd}", "rb") as file:
            self._synced[self._contents[os.fstat(fd).st_ino]] = file.read()

    def sync_folder(self, path: str) -> None:
        super().sync_folder(path)
        kept = {name: number for name, number in self._names.items() if os.path.dirname(name) != path}
        here = {entry.path: self._number(entry.path) for entry in os.scandir(path) if entry.is_file()}
        self._names = {**kept, **here}

    def cut(self, folder: Path, loss: Loss) -> None:
        """Cut the power: leave in ``folder`` what a reader finds after the machine has started again."""
        found = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        numbers = {path: self._number(path) for path in found}
        left: dict[str, bytes] = {}
        if loss == "names":
            left = {path: self._synced.get(number, b"") for path, number in self._names.items()}
        else:
            for path, data in found.items():
                durable = self._synced.get(numbers[path], b"")[: len(data)]
                survives = loss == "order" and path.endswith(".json")
                # What was synced and overwritten since, is one or the other; the zeros are worse.
                left[path] = data if survives else durable + bytes(len(data) - len(durable))
        folders = [path for path in folder.rglob("*") if path.is_dir()]
        shutil.rmtree(folder)
        for path in [folder, *sorted(folders)]:
            path.mkdir(parents=True)
        for name, data in left.items():
            Path(name).write_bytes(data)
        self.__init__()  # type: ignore[misc]  # another boot: all that is there is durable
        for name, data in left.items():
            self._names[name] = self._number(name)
            self._synced[self._number(name)] = data
