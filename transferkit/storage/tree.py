"""Files in folders, by relative paths that somebody else has chosen: nothing is written through a link, or outside."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import groupby
from types import EllipsisType

from transferkit.content.flow import Flow
from transferkit.content.interfaces import Body
from transferkit.content.title import check_title
from transferkit.storage.disk import Disk, close_quietly, remove_quietly
from transferkit.storage.disk_errors import disk_errors
from transferkit.storage.index import version

Over = os.stat_result | None | EllipsisType
"""What a file may replace: one with this status, nothing (``None``), or whatever is there (``...``)."""


class _FileInTheWay(NotADirectoryError):
    """A file has the name of a folder: ``title``."""

    def __init__(self, title: str) -> None:
        super().__init__(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        self.title = title

    def __reduce__(self) -> tuple[type[_FileInTheWay], tuple[str]]:
        return type(self), (self.title,)


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
        return f"{self.path}/{title}" if title else self.path

    # -- what is there

    def statuses(self, titles: Iterable[str], in_the_way: set[str] | None = None) -> dict[str, os.stat_result | None]:
        """Return the status of what stands under each title, which may be a link; ``None``: nothing does.

        ``in_the_way`` gets the titles of files that are in the place of folders.

        Raises:
            StorageError: a link is in the place of a folder, or a file without ``in_the_way``, or the disk refused.
        """
        found: dict[str, os.stat_result | None] = {}
        for folder, group in groupby(sorted(titles, key=_split), key=lambda title: _split(title)[0]):
            names = list(group)
            found.update(dict.fromkeys(names))
            with disk_errors("looking at", self.path_of(folder)), suppress(FileNotFoundError):
                try:
                    with self._opened(folder.split("/") if folder else [], make=False) as place:
                        for title in names:
                            with suppress(FileNotFoundError):
                                found[title] = self.disk.lstat(_split(title)[1], place)
                except _FileInTheWay as error:
                    if in_the_way is None:
                        raise
                    in_the_way.add(error.title)
        return found

    def below(self, title: str) -> Iterator[str]:
        """Yield the titles of all that is in a folder and in folders of it, but not of these. StorageError: refused."""
        with disk_errors("looking at", self.path_of(title)):
            with self._opened(title.split("/"), make=False) as place, os.scandir(place) as entries:
                listed = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
        for name, is_folder in listed:
            yield from self.below(f"{title}/{name}") if is_folder else (f"{title}/{name}",)

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

    # -- changing it

    def prepare(self, titles: Iterable[str]) -> None:
        """Make the folders of some titles; StorageError: one cannot be made, or no file can be put there."""
        with disk_errors("making the folder", self.path):
            self.disk.make_folder(self.path)
        for folder in sorted({_split(title)[0] for title in titles}):
            with disk_errors("writing to", self.path_of(folder)):
                with self._opened(folder.split("/") if folder else [], make=True) as place:
                    if not self.disk.can_write(place):  # some file systems say so where it is not true
                        name = f".{os.urandom(8).hex()}"
                        close_quietly(self.disk, self.disk.create(name, place))
                        remove_quietly(self.disk, name, place)

    def place(self, title: str, source: str, folder: int | None = None, *, over: Over = ...) -> os.stat_result | None:
        """Rename a file, which ``folder`` has if it is no path, to ``title``; return its status there, if known.

        Raises:
            InvalidNameError: ``title`` is no relative path of a file.
            StorageError: the disk refused, or a link stands in the way; EEXIST: something else is there than ``over``.
        """
        *folders, name = check_title(title).split("/")
        with disk_errors("writing", self.path_of(title)):
            self.disk.make_folder(self.path)
            with self._opened(folders, make=True) as place:
                self._rename(source, folder, name, place, over)
                with suppress(OSError):
                    return self.disk.lstat(name, place)
        return None

    def _rename(self, source: str, folder: int | None, name: str, place: int, over: Over) -> None:
        disk = self.disk
        if over is not ...:
            now = None
            with suppress(FileNotFoundError):
                now = disk.lstat(name, place)
            if not is_same(over, now):
                raise FileExistsError(errno.EEXIST, "somebody has put another file there meanwhile")
            if over is None:
                try:
                    disk.rename_new(source, name, folder, into=place)
                    return
                except FileExistsError:
                    raise
                except OSError:
                    pass  # this file system has no hard links: the look has to do
        disk.rename(source, name, folder, into=place)

    def remove(self, title: str) -> None:
        """Remove a file, or a folder with nothing but folders in it; StorageError: there is more in it, or refused."""
        *folders, name = check_title(title).split("/")
        with disk_errors("removing", self.path_of(title)), suppress(FileNotFoundError):
            with self._opened(folders, make=False) as place:
                if stat.S_ISDIR(self.disk.lstat(name, place).st_mode):
                    self._remove_folders(name, place)
                else:
                    self.disk.unlink(name, place)

    def _remove_folders(self, name: str, place: int) -> None:
        fd = self.disk.open_folder(name, place)
        try:
            for each in os.listdir(fd):
                self._remove_folders(each, fd)
        finally:
            close_quietly(self.disk, fd)
        self.disk.remove_folder(name, place)

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
            for count, folder in enumerate(folders, 1):
                if make:
                    with suppress(FileExistsError):
                        disk.make_folder_in(folder, fd)
                try:
                    before, fd = fd, disk.open_folder(folder, fd)
                except OSError as error:
                    self._explain(error, "/".join(folders[:count]), folder, fd)
                    raise
                close_quietly(disk, before)
            yield fd
        finally:
            close_quietly(disk, fd)

    def _explain(self, error: OSError, title: str, name: str, place: int) -> None:
        """Raise what says more of why a folder cannot be opened, where something else stands in its place."""
        mode = 0
        with suppress(OSError):
            mode = self.disk.lstat(name, place).st_mode if error.errno in (errno.ENOTDIR, errno.ELOOP) else 0
        if stat.S_ISLNK(mode):
            raise OSError(errno.ELOOP, f"{title} is a symbolic link, which is not followed; remove it") from error
        if stat.S_ISREG(mode):
            raise _FileInTheWay(title) from error


def is_same(before: os.stat_result | None, now: os.stat_result | None) -> bool:
    """Tell whether the same file still stands there, unchanged, or still nothing does.

    The ctime of a file with several names is not looked at: each name that comes or goes changes it.
    """
    if before is None or now is None:
        return before is now
    is_shared = before.st_nlink > 1 or now.st_nlink > 1
    return version(before) == version(now) and (is_shared or before.st_ctime_ns == now.st_ctime_ns)


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
