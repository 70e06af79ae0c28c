"""Reflinks: a new file that shares the blocks of another one until either is written to, where the system has that."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

_FICLONE = 0x40049409  # ioctl_ficlone(2): btrfs, xfs, bcachefs, NFS 4.2, and overlayfs above one of them
_CWD = -2  # AT_FDCWD of <sys/fcntl.h> on macOS


def clone(source: int, path: str, folder: int | None, create: Callable[[str, int | None], int]) -> None:
    """Make ``path`` a clone of the open file ``source``; ``create`` makes a new file. ``OSError``: none was made."""
    if sys.platform == "darwin":
        _clone_on_macos(source, path, folder)
        return
    fd = create(path, folder)
    try:
        _share_blocks(source, fd)
    except BaseException:
        os.unlink(path, dir_fd=folder)
        raise
    finally:
        os.close(fd)


def _share_blocks(source: int, target: int) -> None:
    try:
        import fcntl
    except ImportError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    fcntl.ioctl(target, _FICLONE, source)


def _clone_on_macos(source: int, path: str, folder: int | None) -> None:
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    if library.fclonefileat(source, _CWD if folder is None else folder, os.fsencode(path), 0):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
