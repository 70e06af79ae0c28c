"""The folder of unfinished files, ``.partial``, held open: whatever its name leads to later, files are made in here."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial

from transferkit.content.flow import Closing
from transferkit.errors import StorageError
from transferkit.storage.disk import Disk, close_quietly, is_named, remove_quietly, sync
from transferkit.storage.disk_errors import can_do_without, storage_error

_BY_DESCRIPTOR = {os.open, os.stat, os.unlink, os.rename} <= os.supports_dir_fd  # Linux, macOS


def temporary_name() -> str:
    """Return a new name for a file that has it for moments; ``discard`` takes it for a small blob, unfinished."""
    return f"sha256-{64 * '0'}.{os.urandom(8).hex()}"


class OpenFolder(Closing):
    """One opening of ``.partial``. Thread-safe. Closed with the last ingest that uses it, or by ``close``.

    ``at(name)`` and ``fd`` are what the calls of a ``Disk`` take. Where a file system does not open folders, ``at`` is
    the whole path, and ``fd`` ``None``.
    """

    def __init__(self, path: str, disk: Disk) -> None:
        self.path = path
        self.disk = disk
        self.fd: int | None = None
        self.prefix = f"{path}/"
        try:
            if _BY_DESCRIPTOR:
                self.fd = disk.open_folder(path)
                self.prefix = ""
        except OSError as error:
            if not os.path.islink(path):
                if can_do_without("open_folder", error):
                    return
                raise storage_error(error, "opening the folder", path) from error
        # makedirs takes a link to a folder for one, and what is in there may be anybody's.
        if self.fd is None and os.path.islink(path):
            raise StorageError(f"{path} is a symbolic link; remove it", errno=errno.ELOOP)

    def at(self, name: str) -> str:
        """Return how a ``Disk`` is told of a file in here, together with ``fd``."""
        return self.prefix + name

    @property
    def is_current(self) -> bool:
        """Whether the path still leads here."""
        if self.fd is None:
            return os.path.isdir(self.path) and not os.path.islink(self.path)
        try:
            return is_named(self.disk, self.fd, self.path) is not False
        except OSError as error:
            raise storage_error(error, "reading", self.path) from error

    def remove(self, name: str) -> None:
        """Remove a file in here; ``FileNotFoundError``: there is none."""
        self.disk.unlink(self.prefix + name, self.fd)

    def replace(self, name: str, data: bytes, *, durable: bool = False) -> None:
        """Put a file with this content in the place of one that may be there; ``OSError``.

        ``durable``: after a power cut it is one or the other.
        """
        temporary = f"{name}.new"  # always the same: kill -9 leaves one, and no more
        remove_quietly(self.disk, self.at(temporary), self.fd)
        self.place(data, self.at(name), sync=partial(sync, self.disk) if durable else None, temporary=temporary)

    def place(
        self,
        data: bytes,
        target: str,
        *,
        into: int | None = None,
        sync: Callable[[int], object] | None = None,
        temporary: str = "",
    ) -> None:
        """Write a file in here, ``sync`` it, and rename it to ``target``: a path, or a name in the folder ``into``."""
        temporary = temporary or temporary_name()
        disk, at, fd = self.disk, self.at(temporary), self.fd
        file = disk.create(at, fd)
        try:
            try:
                disk.pwrite(file, memoryview(data), 0)
                if sync is not None:
                    sync(file)
            finally:
                disk.close(file)
            disk.rename(at, target, fd, **({} if into is None else {"into": into}))
        except BaseException:
            remove_quietly(disk, at, fd)
            raise

    def close(self) -> None:
        fd, self.fd, self.prefix = self.fd, None, f"{self.path}/"
        close_quietly(self.disk, -1 if fd is None else fd)

    __del__ = close
