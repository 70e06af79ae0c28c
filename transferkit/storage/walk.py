"""What is in a folder that is to be pushed: its files, and what of it cannot be one.

Folders are opened step by step from the top, without following links, so that nothing outside the folder is ever taken
for a file of it, whoever puts links there meanwhile. A link that is found is followed to what it leads to within the
folder. No content is read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from transferkit.content.flow import Flow
from transferkit.errors import SourceError
from transferkit.storage.disk import Disk, close_quietly

LEFT_OUT = (".git", ".partial", ".transferkit", ".cache/huggingface", ".DS_Store")
"""What belongs to other programs, or to this one, wherever it is in a folder, and whatever link leads to it."""

_LONGEST = 1024  # characters of a path: nothing below it can have a title
_MOST = 1_000_000  # entries that are looked at: links from folder to folder multiply what is there
_KINDS = {stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a named pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
_NOWHERE: dict[int | None, str] = {errno.ENOENT: "nothing", errno.ELOOP: "itself"}


def is_left_out(path: str) -> bool:
    """Tell whether a path in a folder is, or is in, what is never pushed or copied from there."""
    return any(f"/{name}/" in f"/{path}/" for name in LEFT_OUT)


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of a folder: its path there, with slashes; the absolute one without links; and its status."""

    path: str
    place: str
    status: os.stat_result


@dataclass(frozen=True, slots=True)
class Refused:
    """What cannot be pushed, and why. Where it ``is_folder``, files may be missing whose paths nobody knows."""

    path: str
    reason: str
    is_folder: bool = False


@dataclass(slots=True)
class Walk:
    """What was found in a folder."""

    root: str
    files: list[FoundFile] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder that is to be looked into: its path, with a slash where it has one, and the real ones on the way."""

    prefix: str
    way: tuple[str, ...]


def walk(folder: str, disk: Disk, flow: Flow) -> Walk:
    """Return all that is in a folder and its folders, but for what is ``LEFT_OUT``.

    Raises:
        SourceError: it cannot be read, is no folder, or has no end.
    """
    found = Walk(os.path.realpath(folder))
    pending, seen = [_Folder("", ("",))], 0
    while pending:
        current = pending.pop()
        try:
            with _opened(found.root, current.way[-1], disk) as fd:
                names = _listed(fd)
                seen += len(names)
                if seen > _MOST:
                    raise SourceError(f"{folder} has more than {_MOST} entries, links to folders included")
                for name in names:
                    flow.check()
                    pending += _look(found, current, name, fd, disk)
        except OSError as error:
            if isinstance(error, SourceError):
                raise
            reason = f"cannot be read: {error.strerror}"
            if not current.prefix:
                raise SourceError(f"the folder {folder} {reason}", errno=error.errno) from error
            found.refused.append(Refused(current.prefix[:-1], f"it {reason}", is_folder=True))
    return found


def _look(found: Walk, parent: _Folder, name: str, fd: int, disk: Disk) -> Iterator[_Folder]:
    """Take in one entry of a folder that is open; yield it where it is a folder itself."""
    path, real = f"{parent.prefix}{name}", f"{parent.way[-1]}/{name}".lstrip("/")
    if is_left_out(path) or is_left_out(real):
        return
    status = disk.lstat(name, fd)
    if stat.S_ISLNK(status.st_mode):
        link = f"{found.root}/{real}"
        target = os.path.realpath(link)
        real = os.path.relpath(target, found.root)
        if real == ".." or real.startswith("../"):
            reason = f"it is a link out of the folder, to {target[:300]!r}"
            found.refused.append(Refused(path, reason, is_folder=os.path.isdir(target)))
            return
        if is_left_out(real):
            return
        real = "" if real == "." else real
        try:
            os.stat(link)  # realpath passes over what is not there, as in nothing/../folder; the system does not
            status = _status(found.root, real, disk)
        except OSError as error:
            what = _NOWHERE.get(error.errno, "a place that cannot be reached")
            found.refused.append(Refused(path, f"it is a link to {what}"))
            return
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        found.files.append(FoundFile(path, f"{found.root}/{real}", status))
    elif kind != stat.S_IFDIR:
        found.refused.append(Refused(path, f"it is {_KINDS.get(kind, 'a link')}"))
    elif real in parent.way:
        found.refused.append(Refused(path, "it is a link to a folder that it is in", is_folder=True))
    elif len(path) > _LONGEST:
        found.refused.append(Refused(path[:_LONGEST], "its path is too long", is_folder=True))
    else:
        yield _Folder(f"{path}/", (*parent.way, real))


def _listed(fd: int) -> list[str]:
    """Return what is in an open folder; ``OSError``."""
    try:
        return os.listdir(fd)
    except OSError as error:
        if error.errno == errno.EBADF:  # a disk opens what nobody may read all the same: for files that are made there
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from error
        raise


def _status(root: str, real: str, disk: Disk) -> os.stat_result:
    """Return the status of what is at a real path in a folder; ``OSError``."""
    above, _, name = real.rpartition("/")
    with _opened(root, above, disk) as fd:
        return disk.lstat(name or ".", fd)


@contextmanager
def _opened(root: str, real: str, disk: Disk) -> Iterator[int]:
    fd = disk.open_folder(root)
    try:
        for part in filter(None, real.split("/")):
            above, fd = fd, disk.open_folder(part, fd)
            close_quietly(disk, above)
        yield fd
    finally:
        close_quietly(disk, fd)
