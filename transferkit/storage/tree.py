"""Files in folders, by relative paths that somebody else has chosen: nothing is written through a link, or outside."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import groupby

from transferkit.content.flow import Flow
from transferkit.content.interfaces import Body
from transferkit.content.title import check_title
from transferkit.storage.disk import Disk, close_quietly, disk_errors, remove_quietly


class Tree:
    """One folder that is filled with files. Thread-safe.

    A file is written in ``.partial`` and then renamed. Folders below the top are opened step by step, without following
    links (CVE-2026-50162): one that is planted is a StorageError, and a file's own name is replaced.
    """

    def __init__(self, path: str | os.PathLike[str], disk: Disk | None = None) -> None:
        self.path = os.path.abspath(os.path.expanduser(os.fspath(path)))
        self.unfinished = f"{self.path}/.partial"
        self.disk = disk or Disk()

    def path_of(self, title: str) -> str:
        """Return where a file is, or would be."""
        return f"{self.path}/{title}"

    def statuses(self, titles: Iterable[str]) -> dict[str, os.stat_result | None]:
        """Return the status of what stands under each title, which may be a link; ``None``: nothing does.

        Raises:
            StorageError: a link or a file is in the place of a folder, or the disk refused.
        """
        found: dict[str, os.stat_result | None] = {}
        for folder, group in groupby(sorted(titles, key=_split), key=lambda title: _split(title)[0]):
            names = list(group)
            found.update(dict.fromkeys(names))
            with disk_errors("looking at", self.path_of(folder)), suppress(FileNotFoundError):
                with self._opened(folder.split("/") if folder else [], make=False) as place:
                    for title in names:
                        with suppress(FileNotFoundError):
                            found[title] = self.disk.lstat(_split(title)[1], place)
        return found

    @contextmanager
    def open(self, title: str) -> Iterator[int]:
        """Open a file for reading, no link; StorageError: it cannot be read."""
        *folders, name = title.split("/")
        fd = -1
        try:
            with disk_errors("reading", self.path_of(title)), self._opened(folders, make=False) as place:
                fd = self.disk.open(name, place, follow=False)
            yield fd
        finally:
            close_quietly(self.disk, fd)

    def place(self, title: str, source: str, folder: int | None = None) -> os.stat_result | None:
        """Rename a file, which ``folder`` has if it is no path, to ``title``; return its status there, if known.

        Raises:
            InvalidNameError: ``title`` is no relative path of a file.
            StorageError: the disk refused, or a link stands in the way.
        """
        *folders, name = check_title(title).split("/")
        with disk_errors("writing", self.path_of(title)):
            self.disk.make_folder(self.path)
            with self._opened(folders, make=True) as place:
                self.disk.rename(source, name, folder, into=place)
                with suppress(OSError):
                    return self.disk.lstat(name, place)
        return None

    def write(self, title: str, body: Body, flow: Flow) -> str:
        """Write the bytes of ``body`` to the file ``title``, and return its path. Raises as ``place`` does."""
        path, temporary, disk = self.path_of(check_title(title)), os.urandom(8).hex(), self.disk
        with disk_errors("writing", path), ExitStack() as stack:
            disk.make_folder(self.unfinished)
            partial = disk.open_folder(self.unfinished)
            stack.callback(close_quietly, disk, partial)
            stack.callback(remove_quietly, disk, temporary, partial)
            write_body(disk, body, temporary, partial, flow)
            self.place(title, temporary, partial)
        return path

    @contextmanager
    def _opened(self, folders: list[str], *, make: bool) -> Iterator[int]:
        """Open a folder below the top, step by step; ``make`` what is missing."""
        disk, fd = self.disk, -1
        try:
            fd = disk.open_folder(os.path.realpath(self.path))  # the user's own link is his choice
            for folder in folders:
                if make:
                    with suppress(FileExistsError):
                        disk.make_folder_in(folder, fd)
                before, fd = fd, disk.open_folder(folder, fd)
                close_quietly(disk, before)
            yield fd
        finally:
            close_quietly(disk, fd)


def write_body(disk: Disk, body: Body, name: str, folder: int | None, flow: Flow, *, counted: bool = True) -> None:
    """Write a new file; ``counted``: its bytes are what the worker moves. ``OSError``: the disk refused."""
    fd, offset, buffer = disk.create(name, folder), 0, flow.buffer
    try:
        while count := body.readinto(buffer):
            if counted:
                flow.moved(count)
            flow.check()
            disk.pwrite(fd, buffer[:count], offset)
            offset += count
    finally:
        disk.close(fd)


def _split(title: str) -> tuple[str, str]:
    """Return the folder of a title, and the name in there."""
    folder, _, name = title.rpartition("/")
    return folder, name
