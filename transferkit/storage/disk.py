"""The few system calls that a blob's life takes, in one object that tests replace."""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

from transferkit.content.descriptor import MAX_SIZE
from transferkit.forks import cached
from transferkit.storage.clone import clone
from transferkit.storage.disk_errors import can_do_without
from transferkit.storage.write_back import write_back

with suppress(ImportError):  # Windows has none
    import fcntl  # noqa: F401 - now: a call imports nothing that a forked child would wait for

_MODE = 0o666  # the umask decides: a shared store is shared, a private one is not


class Disk:
    """System calls on files. Thread-safe; every method raises ``OSError`` as the call does.

    ``folder`` is the descriptor of the folder that a path is relative to, where it is relative.
    """

    close = staticmethod(os.close)
    fsync = staticmethod(os.fsync)
    stat = staticmethod(os.stat)
    fstat = staticmethod(os.fstat)
    set_mode = staticmethod(os.chmod)
    write_back = staticmethod(write_back)

    def open_folder(self, path: str, folder: int | None = None) -> int:
        """Open a folder, and nothing else, not even through a symbolic link."""
        flags = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(path, os.O_RDONLY | flags, dir_fd=folder)
        except PermissionError:
            if not hasattr(os, "O_PATH"):
                raise
            # Files can be made in a folder that cannot be read.
            return os.open(path, os.O_PATH | flags, dir_fd=folder)

    def create(self, path: str, folder: int | None = None) -> int:
        """Open a new file for writing; it must not exist, not even as a symbolic link."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(path, flags, _MODE, dir_fd=folder)

    def reopen(self, path: str, folder: int | None = None) -> int:
        """Open a file that is there for reading and writing; never through a symbolic link."""
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)

    def open_lock(self, path: str, folder: int | None = None) -> int:
        """Open a file, or a new one, to lock it; never through a symbolic link."""
        flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | flags, _MODE, dir_fd=folder)
        except PermissionError:
            return os.open(path, os.O_RDONLY | flags, dir_fd=folder)  # another user's can be locked as well

    def lock(self, fd: int, operation: int) -> None:
        """Lock a file or a folder without waiting, or unlock it: an operation of ``flock``."""
        try:
            import fcntl
        except ImportError:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
        fcntl.flock(fd, operation | fcntl.LOCK_NB)

    def write_holder(self, fd: int, text: bytes) -> None:
        """Write into the file of a lock who has it."""
        os.pwrite(fd, text, 0)

    def open(self, path: str, folder: int | None = None, *, follow: bool = True) -> int:
        """Open a file for reading; a named pipe is not waited for. ``follow``: also through a symbolic link."""
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
        return os.open(path, flags, dir_fd=folder)

    def clone(self, source: int, path: str, folder: int | None = None) -> None:
        """Make a new file that shares the blocks of an open one, until either is written to."""
        clone(source, path, folder, self.create)

    def hard_link(self, source: str, path: str, folder: int | None = None) -> None:
        """Give a file one more name; a symbolic link is not followed."""
        os.link(source, path, dst_dir_fd=folder, follow_symlinks=False)

    def unlink(self, path: str, folder: int | None = None) -> None:
        os.unlink(path, dir_fd=folder)

    def lstat(self, path: str, folder: int | None = None) -> os.stat_result:
        return os.stat(path, dir_fd=folder, follow_symlinks=False)

    def read_file(self, path: str, limit: int, folder: int | None = None) -> bytes:
        """Return the last ``limit`` bytes, or less, of a file of ours; a link or a named pipe is an error."""
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        try:
            status = os.fstat(fd)
            if not is_file(status):
                raise OSError(errno.EINVAL, f"{path} is not a file")
            return os.pread(fd, min(limit, status.st_size), max(0, status.st_size - limit))
        finally:
            os.close(fd)

    def pwrite(self, fd: int, data: memoryview, offset: int) -> None:
        """Write all of ``data``. A short write is how some file systems say that they are full: the rest asks again."""
        while len(data):
            count = os.pwrite(fd, data, offset)
            if count == 0:
                raise OSError(errno.EIO, "the file system took no more bytes")
            data, offset = data[count:], offset + count

    def duplicate(self, fd: int) -> int:
        """Return another descriptor of an open file."""
        return os.dup(fd)

    def preadv(self, fd: int, buffer: memoryview, offset: int) -> int:
        return os.preadv(fd, [buffer], offset)

    def sync_folder(self, path: str) -> None:
        """Make the names in a folder durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, source: str, target: str, folder: int | None = None, *, into: int | None = None) -> None:
        os.replace(source, target, src_dir_fd=folder, dst_dir_fd=folder if into is None else into)

    def rename_new(self, source: str, target: str, folder: int | None = None, *, into: int | None = None) -> None:
        """Rename a file to a name that nothing has; ``FileExistsError``: something has it.

        A process that ends meanwhile leaves both names.
        """
        place = folder if into is None else into
        os.link(source, target, src_dir_fd=folder, dst_dir_fd=place, follow_symlinks=False)
        os.unlink(source, dir_fd=folder)

    def can_write(self, folder: int) -> bool:
        """Tell whether files can be made in an open folder, as far as its mode and the file system say it."""
        return os.access(".", os.W_OK | os.X_OK, dir_fd=folder, effective_ids=os.access in os.supports_effective_ids)

    def open_append(self, path: str, folder: int | None = None) -> int:
        """Open a file, or a new one, for lines that are added to its end; never through a symbolic link."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(path, flags, _MODE, dir_fd=folder)

    def write(self, fd: int, data: bytes) -> None:
        """Write all of ``data`` with one call, or raise: it is short, and only a disk that is full cuts it off."""
        if os.write(fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def free(self, path: str) -> int:
        """Return how many bytes a user may still write to the file system of ``path``, as far as it counts them."""
        status = os.statvfs(path)
        block = status.f_frsize or status.f_bsize
        return status.f_bavail * block if status.f_blocks and block else MAX_SIZE  # ramfs says 0 of 0

    def append(self, path: str, data: bytes, folder: int | None = None) -> int:
        """Add ``data`` to a file's end with one call, so that processes do not mix their lines; return its new size."""
        fd = self.open_append(path, folder)
        try:
            self.write(fd, data)
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    def make_folder(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)

    def make_folder_in(self, name: str, folder: int | None = None) -> None:
        os.mkdir(name, dir_fd=folder)

    def remove_folder(self, name: str, folder: int) -> None:
        os.rmdir(name, dir_fd=folder)

    @cached
    def boot(self) -> str | None:
        """What names this boot of the machine, ``None`` where nothing does: the next may lack what was not synced."""
        with suppress(OSError, ValueError):
            if sys.platform == "linux":
                # As bytes: a text file imports its codec, and a child that is forked then waits for it for ever.
                return Path("/proc/sys/kernel/random/boot_id").read_bytes().decode("ascii").strip()
            if sys.platform == "darwin":
                import subprocess

                command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
                done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a constant
                return done.stdout.strip() or None
        return None


def is_file(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode)


def remove_quietly(disk: Disk, path: str, folder: int | None = None) -> None:
    """Remove a file of ours, if it is there; one that cannot be removed is reported by whoever needs its name."""
    with suppress(OSError):
        disk.unlink(path, folder)


def is_named(disk: Disk, fd: int, path: str, folder: int | None = None) -> bool | None:
    """Tell whether a name is that of an open file, where that can be told."""
    try:
        named = disk.lstat(path, folder)
    except FileNotFoundError:
        return False
    except OSError as error:
        if not can_do_without("lstat", error):
            raise
        return None
    return os.path.samestat(named, disk.fstat(fd))


def sync(disk: Disk, fd: int) -> bool:
    """Make a file's data durable, and tell whether the file system can; ``OSError`` where it has to be raised."""
    try:
        disk.fsync(fd)
    except OSError as error:
        if not can_do_without("fsync", error):
            raise
        return False
    return True


def sync_folder(disk: Disk, path: str) -> None:
    """Make the names in a folder durable, where the file system can; ``OSError`` where it has to be raised."""
    try:
        disk.sync_folder(path)
    except OSError as error:
        if not can_do_without("sync_folder", error):
            raise


def close_quietly(disk: Disk, fd: int) -> None:
    """Close a descriptor of ours, if it is one; what an error says about the data is found out by the digest."""
    with suppress(OSError):
        if fd >= 0:
            disk.close(fd)
