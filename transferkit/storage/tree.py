"""Files in folders, by relative paths that somebody else has chosen: nothing is written through a link, or outside."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from pathlib import Path

from transferkit.content.flow import Flow
from transferkit.content.interfaces import Body
from transferkit.content.title import check_title
from transferkit.storage.disk import Disk, close_quietly, disk_errors


class Tree:
    """One folder that is filled with files. Thread-safe.

    A file is written in ``.partial`` and then renamed. Folders below the top are opened step by step, without following
    links (CVE-2026-50162): one that is planted is a StorageError, and a file's own name is replaced.
    """

    def __init__(self, path: Path, disk: Disk | None = None) -> None:
        self.path = os.path.abspath(os.path.expanduser(path))
        self.unfinished = f"{self.path}/.partial"
        self._disk = disk or Disk()

    def write(self, title: str, body: Body, flow: Flow) -> str:
        """Write the bytes of ``body`` to the file ``title``, and return its path.

        Raises:
            InvalidNameError: ``title`` is no relative path of a file.
            StorageError: the disk refused, or a link stands in the way.
        """
        *folders, name = check_title(title).split("/")
        disk, buffer = self._disk, flow.buffer
        path, temporary = f"{self.path}/{title}", os.urandom(8).hex()
        with ExitStack() as stack, disk_errors("writing", path):
            disk.make_folder(self.unfinished)
            partial = self._opened(stack, self.unfinished)
            place = self._opened(stack, os.path.realpath(self.path))  # the user's own link is his choice
            for folder in folders:
                with suppress(FileExistsError):
                    disk.make_folder_in(folder, place)
                place = self._opened(stack, folder, place)
            fd = disk.create(temporary, partial)
            stack.callback(_remove_quietly, disk, temporary, partial)
            try:
                offset = 0
                while count := body.readinto(buffer):
                    flow.moved(count)
                    disk.pwrite(fd, buffer[:count], offset)
                    offset += count
            finally:
                disk.close(fd)
            disk.rename(temporary, name, partial, into=place)
        return path

    def _opened(self, stack: ExitStack, path: str, folder: int | None = None) -> int:
        fd = self._disk.open_folder(path, folder)
        stack.callback(close_quietly, self._disk, fd)
        return fd


def _remove_quietly(disk: Disk, name: str, folder: int) -> None:
    with suppress(OSError):
        disk.unlink(name, folder)
