"""What the errors of system calls mean: which a transfer can do without, and what is to be done about the others."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from transferkit.errors import OutOfSpaceError, StorageError, TransferKitError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_BROKEN = frozenset({errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE})  # the medium is, or it has gone away
_CHOICES = "(to=, cache= or TRANSFERKIT_CACHE)"  # how a folder is chosen

OPTIONAL: dict[str, frozenset[int]] = {
    "open_folder": _BROKEN | {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EMFILE, errno.ENFILE},
    "lock": _BROKEN,
    "fsync": _BROKEN | _FULL | {errno.EROFS},
    "sync_folder": _BROKEN | _FULL | {errno.EROFS},
    "free": _BROKEN,
    "set_mode": _BROKEN,
    "write_holder": frozenset(),
    "unlink": frozenset(),
    "stat": frozenset(),
    "lstat": _BROKEN,
    "read_file": frozenset(),
    "append": frozenset({errno.ELOOP, errno.EISDIR}),
}
"""The system calls that a transfer can do without, each with the errors that end it all the same. Any other error means
that this file system has no such call: CIFS, sshfs, NFS, FUSE, ramfs and autofs differ too much for a list of those.

================ ==============================================================================================
``open_folder``  files of ``.partial`` are found by its path, and not by its descriptor
``lock``         each process writes to a partial file of its own
``fsync``        what was not asked to be ``durable`` is fetched or hashed again after a power cut
``sync_folder``  after a power cut a file may be missing
``free``         a disk that is full is found out while it is written to
``set_mode``     other users of a shared folder are kept out of ``.partial``
``write_holder`` who waits for a lock is not told for whom
``unlink``       a file that nobody needs any more stays there
``stat``         a blob that is there is fetched again, or after its download hashed once more by the next run
``lstat``        nobody can tell whether a file was replaced by another one
``read_file``    what an earlier run has left is fetched or hashed again
``append``       the same for the next run; a link or a folder in the place of the index is an error
================ ==============================================================================================

Every other call is needed, and each of its errors ends the transfer; so does one of ``fsync`` with ``durable=True``.
"""


def can_do_without(call: str, error: OSError) -> bool:
    """Tell whether a transfer goes on without a call that failed."""
    return error.errno not in OPTIONAL[call]


def storage_error(error: OSError, doing: str, path: str) -> StorageError:
    """Return our exception for a system call's error; ``doing`` and ``path`` say what could not be done, and where."""
    if error.errno in _FULL:
        return OutOfSpaceError(f"no space left {doing} {path}: free some, and run it again", errno=error.errno)
    hint = {
        errno.EACCES: _permissions(path),
        errno.EPERM: _permissions(path),
        errno.EROFS: f"; the file system is read-only: choose a folder on another one {_CHOICES}",
        errno.ENOTDIR: "; a part of the path is a file",
        errno.EMFILE: "; too many open files: raise the limit (ulimit -n) or lower concurrency",
    }.get(error.errno or 0, "")
    reason = error.strerror or str(error) or type(error).__name__
    return StorageError(f"{doing} {path} failed: {reason}{hint}", errno=error.errno)


def _permissions(path: str) -> str:
    """Return what to do where something is not permitted: whose the first folder is that is there, and who we are."""
    while path and path != os.path.dirname(path) and not os.path.lexists(path):
        path = os.path.dirname(path)
    try:
        status = os.lstat(path or ".")
        owner = f"; {path or '.'} belongs to user {status.st_uid} (mode {stat.S_IMODE(status.st_mode):03o})"
        us = f", and this is user {os.geteuid()}"
    except (OSError, AttributeError):
        owner = us = ""
    return f"{owner}{us}; check the permissions, or choose another folder {_CHOICES}"


@contextmanager
def disk_errors(doing: str, path: str) -> Iterator[None]:
    """Turn an ``OSError`` into a ``StorageError`` that says what failed and where."""
    try:
        yield
    except TransferKitError:
        raise
    except OSError as error:
        raise storage_error(error, doing, path) from error
