"""How ``.partial`` comes to be: made where it is missing, with the mode of its folder, and opened."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack
from pathlib import Path

from transferkit.errors import StorageError
from transferkit.storage.disk import Disk, sync_folder
from transferkit.storage.disk_errors import can_do_without, disk_errors
from transferkit.storage.folder import OpenFolder
from transferkit.storage.lock import share

_RACES = 3  # times that it is made anew where somebody has removed it just after it was made


def make_unfinished(place: str, path: str, disk: Disk, *, durable: bool) -> OpenFolder:
    """Return ``path``, the folder of what is unfinished in ``place``, open; StorageError: it cannot be made."""
    for attempt in range(_RACES):
        try:
            is_new = make_folders(path, disk, durable=durable)
            with ExitStack() as stack:
                folder = stack.enter_context(OpenFolder(path, disk))
                if is_new:
                    _set_mode(folder, place)
                share(folder)
                stack.pop_all()
            break
        except StorageError as error:
            if error.errno != errno.ENOENT or attempt == _RACES - 1:
                raise
    return folder


def make_folders(path: str, disk: Disk, *, durable: bool) -> bool:
    """Make a folder and those that it is in, and tell whether it was not there; StorageError: it cannot be made."""
    missing = [folder for folder in (Path(path), *Path(path).parents) if not os.path.isdir(folder)]
    with disk_errors("making the folder", path):
        disk.make_folder(path)
        for folder in missing if durable else ():
            sync_folder(disk, str(folder.parent))
    return bool(missing)


def _set_mode(folder: OpenFolder, place: str) -> None:
    """Let whoever may write to a shared folder write to ``.partial``, too."""
    with disk_errors("setting the mode of", folder.path):
        try:
            mode = stat.S_IMODE(os.stat(place).st_mode)
            folder.disk.set_mode(folder.path if folder.fd is None else folder.fd, mode)
        except OSError as error:
            if not can_do_without("set_mode", error):
                raise
