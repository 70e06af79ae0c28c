"""The few system calls that a blob's life takes, in one object that tests replace, and what their errors mean."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from transferkit.content.descriptor import MAX_SIZE
from transferkit.errors import OutOfSpaceError, StorageError, TransferKitError
from transferkit.forks import cached

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_SYNC = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EISDIR})
_MODE = 0o666  # the umask decides: a shared store is shared, a private one is not


class Disk:
    """System calls on files. Thread-safe; every method raises ``OSError`` as the call does."""

    close = staticmethod(os.close)
    fsync = staticmethod(os.fsync)
    unlink = staticmethod(os.unlink)
    stat = staticmethod(os.stat)
    lstat = staticmethod(os.lstat)
    fstat = staticmethod(os.fstat)

    def create(self, path: str) -> int:
        """Open a new file for writing; it must not exist, not even as a symbolic link."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)

    def reopen(self, path: str) -> int:
        """Open a file that is there for reading and writing; never through a symbolic link."""
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)

    def open(self, path: str) -> int:
        """Open a file for reading; a named pipe is not waited for."""
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def read_file(self, path: str, limit: int) -> bytes:
        """Return the last ``limit`` bytes, or less, of a file of ours; a link or a named pipe is an error."""
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
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

    def preadv(self, fd: int, buffer: memoryview, offset: int) -> int:
        return os.preadv(fd, [buffer], offset)

    def sync_folder(self, path: str) -> None:
        """Make the names in a folder durable, where the file system can: CIFS and sshfs cannot, and say so."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno not in _NO_SYNC:
                raise
        finally:
            os.close(fd)

    def rename(self, source: str, target: str) -> None:
        os.replace(source, target)

    def open_append(self, path: str) -> int:
        """Open a file, or a new one, for lines that are added to its end; never through a symbolic link."""
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)

    def write(self, fd: int, data: bytes) -> None:
        """Write all of ``data`` with one call, or raise: it is short, and only a disk that is full cuts it off."""
        if os.write(fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def free(self, path: str) -> int:
        """Return how many bytes a user may still write to the file system of ``path``, as far as it counts them."""
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize if status.f_blocks else MAX_SIZE  # ramfs says 0 of 0

    def append(self, path: str, data: bytes) -> None:
        """Add ``data`` to the end of a file with one call, so that two processes do not mix their lines."""
        fd = self.open_append(path)
        try:
            self.write(fd, data)
        finally:
            os.close(fd)

    def make_folder(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)

    @cached
    def boot(self) -> str | None:
        """What names this boot of the machine, ``None`` where nothing does: the next may lack what was not synced."""
        with suppress(OSError, ValueError):
            if sys.platform == "linux":
                return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
            if sys.platform == "darwin":
                import subprocess

                command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
                done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a constant
                return done.stdout.strip() or None
        return None


def is_file(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode)


def remove_quietly(disk: Disk, path: str) -> None:
    """Remove a file of ours, if it is there; one that cannot be removed is reported by whoever needs its name."""
    with suppress(OSError):
        disk.unlink(path)


def close_quietly(disk: Disk, fd: int) -> None:
    """Close a descriptor of ours, if it is one; what an error says about the data is found out by the digest."""
    with suppress(OSError):
        if fd >= 0:
            disk.close(fd)


def storage_error(error: OSError, doing: str, path: str) -> StorageError:
    """Return our exception for a system call's error; ``doing`` and ``path`` say what could not be done, and where."""
    if error.errno in _FULL:
        return OutOfSpaceError(f"no space left {doing} {path}: free some, and run it again", errno=error.errno)
    hint = {
        errno.EACCES: "; check the permissions",
        errno.EPERM: "; check the permissions",
        errno.EROFS: "; the file system is read-only",
        errno.ENOTDIR: "; a part of the path is a file",
        errno.EMFILE: "; too many open files: raise the limit (ulimit -n) or lower concurrency",
    }.get(error.errno or 0, "")
    reason = error.strerror or str(error) or type(error).__name__
    return StorageError(f"{doing} {path} failed: {reason}{hint}", errno=error.errno)


@contextmanager
def disk_errors(doing: str, path: str) -> Iterator[None]:
    """Turn an ``OSError`` into a ``StorageError`` that says what failed and where."""
    try:
        yield
    except TransferKitError:
        raise
    except OSError as error:
        raise storage_error(error, doing, path) from error
