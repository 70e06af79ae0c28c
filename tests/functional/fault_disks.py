"""The fault matrix, disks: every call that fails, what others have planted, locks that nobody grants."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from fault_cases import RIGHT, Expected, whole_call

import transferkit as tk
from transferkit.storage.disk import Disk

FULL = {"ENOSPC": errno.ENOSPC, "EDQUOT": errno.EDQUOT}
CODES = {**FULL, "EIO": errno.EIO, "EROFS": errno.EROFS, "EACCES": errno.EACCES}
ONE_EACH = ("ENOSPC", "EIO")
"""Of those that say the disk is full, and of the others, one each; for locks, of those that say there are none."""


def marks(first_of_its_class: bool):
    return [] if first_of_its_class else [pytest.mark.full]


class FailingDisk(Disk):
    """A disk on which one kind of call fails, from the n-th on."""

    def __init__(self, call: str, code: int, first: int) -> None:
        self.failed = 0
        self._calls = 0
        self._lock = threading.Lock()
        real = getattr(self, call)

        def failing(*arguments, **keywords):
            with self._lock:
                self._calls += 1
                fails = self._calls >= first
                self.failed += fails
            if fails:
                if call == "close":
                    real(*arguments, **keywords)  # as Linux does: the descriptor is gone, whatever close says
                raise OSError(code, os.strerror(code))
            return real(*arguments, **keywords)

        setattr(self, call, failing)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskRun:
    """A call of a disk that fails with a code, from the n-th of its kind on."""

    direction: str
    call: str
    first: int
    code: int
    kind: str
    expected: Expected


# What a call's failure ends in: nothing at all (a cache that is not written, a look that finds nothing), or an error.
DOWN = {
    # call: kinds of content for which its failure is an error, and those for which it goes by
    "make_folder": (("small", "large", "rest"), ()),
    "create": (("small", "large", "rest"), ()),
    "reopen": (("rest",), ()),  # but a file of another user's is replaced
    "pwrite": (("small", "large", "rest"), ()),
    "preadv": (("rest",), ("small",)),
    "fstat": (("small", "large", "rest"), ()),
    "fsync": (("small", "large", "rest"), ()),
    "close": (("small", "large"), ()),
    "rename": (("small", "large", "rest"), ()),
    "append": ((), ("small", "large", "rest")),
    "stat": ((), ("small", "large", "rest")),
    "unlink": ((), ("small", "large", "rest")),
}
LATER = {"pwrite": {"large": (2, 3), "rest": (2,)}}
"""Besides the first call, these."""
UP = {
    "stat": None,
    "open": tk.SourceError,
    "fstat": tk.SourceError,
    "preadv": tk.StorageError,
    "close": None,
}


def error_of(code: int) -> Expected:
    return whole_call(tk.OutOfSpaceError if code in FULL.values() else tk.StorageError)


def calls():
    runs = []
    for call, (fatal, harmless) in DOWN.items():
        for kind in (*fatal, *harmless):
            for first in (1, *LATER.get(call, {}).get(kind, ())):
                for name, code in CODES.items():
                    is_foreign = call == "reopen" and name == "EACCES"
                    expected = error_of(code) if kind in fatal and not is_foreign else RIGHT
                    run = DiskRun(direction="down", call=call, first=first, code=code, kind=kind, expected=expected)
                    runs.append(
                        pytest.param(run, id=f"down-{call}-{first}-{kind}-{name}", marks=marks(name in ONE_EACH))
                    )
    for call, kind_of_error in UP.items():
        for kind in ("small", "large"):
            for name in ("EIO", "EACCES"):
                expected = RIGHT if kind_of_error is None else whole_call(kind_of_error)
                run = DiskRun(direction="up", call=call, first=1, code=CODES[name], kind=kind, expected=expected)
                runs.append(pytest.param(run, id=f"up-{call}-{kind}-{name}", marks=marks(name in ONE_EACH)))
    return runs


# -- calls that a file system may not have

OPEN = "EACCES EBUSY EFAULT EINTR EINVAL ENAMETOOLONG ENOMEM EOPNOTSUPP EOVERFLOW EPERM EROFS ETXTBSY ENOSYS"
DOCUMENTED = {
    # call: kinds of content that it is made for, the errnos of the manual pages of Linux and macOS with which a
    # transfer goes on, and those that end it. ENOSYS and EOPNOTSUPP are what FUSE and others say besides.
    "open_folder": (("small", "large", "rest"), OPEN, "EIO ELOOP EMFILE ENFILE ENODEV ENOENT ENOTDIR ENXIO"),
    # EWOULDBLOCK is no refusal: somebody else has it.
    "lock": (("small", "large", "rest"), "EBADF EINTR EINVAL ENOLCK EOPNOTSUPP ENOSYS EPERM EACCES EDEADLK", "EIO"),
    "fsync": (("large", "rest"), "EBADF EINTR EINVAL EOPNOTSUPP ENOSYS", "EIO ENOSPC EDQUOT EROFS"),
    "sync_folder": (
        ("small", "large", "rest"),
        f"{OPEN} EBADF EISDIR ENOENT".replace("EROFS", ""),
        "EIO ENOSPC EDQUOT",
    ),
    "free": (
        ("small", "large", "rest"),
        "EACCES EBADF EFAULT EINTR ELOOP ENAMETOOLONG ENOENT ENOMEM ENOSYS ENOTDIR EOVERFLOW EPERM",
        "EIO",
    ),
    "set_mode": (
        ("small", "large"),
        "EACCES EBADF EFAULT EINTR EINVAL ELOOP ENAMETOOLONG ENOENT ENOMEM ENOTDIR EOPNOTSUPP EPERM EROFS ENOSYS",
        "EIO",
    ),
    "write_holder": (
        ("large", "rest"),
        "EBADF EDQUOT EFAULT EFBIG EINTR EINVAL EIO ENOSPC ENXIO EOVERFLOW EPERM ESPIPE",
        "",
    ),
    "unlink": (
        ("large", "rest"),
        "EACCES EBUSY EFAULT EIO EISDIR ELOOP ENAMETOOLONG ENOENT ENOMEM ENOTDIR EPERM EROFS EINVAL",
        "",
    ),
    "stat": (("small", "large", "rest"), "EACCES EBADF EFAULT EIO ELOOP ENAMETOOLONG ENOENT ENOMEM EOVERFLOW", ""),
    "lstat": (("large", "rest"), "EACCES EBADF EFAULT EINVAL ELOOP ENAMETOOLONG ENOENT ENOMEM EOVERFLOW ENOSYS", "EIO"),
    "read_file": (("rest",), f"{OPEN} EIO EISDIR ENOENT ELOOP", ""),
    "append": (("small", "large", "rest"), f"{OPEN} EIO ENOSPC EDQUOT EFBIG ENXIO", "ELOOP EISDIR"),
}


def optional():
    runs = []
    for call, (kinds, goes_on, ends) in DOCUMENTED.items():
        for kind in kinds:
            for number, name in enumerate([*goes_on.split(), *ends.split()]):
                code = getattr(errno, name)
                expected = error_of(code) if name in ends.split() else RIGHT
                run = DiskRun(direction="down", call=call, first=1, code=code, kind=kind, expected=expected)
                is_first = number in (0, len(goes_on.split()))
                runs.append(pytest.param(run, id=f"none-{call}-{kind}-{name}", marks=marks(is_first)))
    return runs


# -- what others have planted: a function of the folder, the name and the right bytes, and how a download ends


def file_of(make):
    """Plant a file whose content is made of the right one."""

    def plant(folder: Path, place: Path, data: bytes) -> None:
        place.write_bytes(make(data))

    return plant


def link_to(make):
    """Plant a symbolic link to a file outside, which must stay as it is."""

    def plant(folder: Path, place: Path, data: bytes) -> None:
        outside = folder.parent / "precious"
        if make is not None:
            outside.write_bytes(make(data))
        place.symlink_to(outside)

    return plant


def a_folder(folder: Path, place: Path, data: bytes) -> None:
    place.mkdir()


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:] if data else b"x"


def same(data: bytes) -> bytes:
    return data


BLOCKED = whole_call(tk.StorageError)
ALL = ("small", "large")
PLANTED = [
    # name, where ({} is the blob's name), what, kinds, how it ends
    ("final-wrong", "{}", file_of(flipped), (*ALL, "empty"), RIGHT),
    ("final-zeros", "{}", file_of(lambda data: bytes(len(data))), ALL, RIGHT),
    ("final-shorter", "{}", file_of(lambda data: data[:-1]), ALL, RIGHT),
    ("final-longer", "{}", file_of(lambda data: data + b"x"), (*ALL, "empty"), RIGHT),
    ("final-right", "{}", file_of(same), (*ALL, "empty"), RIGHT),
    ("final-folder", "{}", a_folder, (*ALL, "empty"), BLOCKED),
    ("final-link-right", "{}", link_to(same), ALL, RIGHT),
    ("final-link-wrong", "{}", link_to(flipped), ALL, RIGHT),
    ("final-link-nowhere", "{}", link_to(None), ALL, RIGHT),
    ("partial-link", ".partial/{}", link_to(lambda data: b"keep me"), ALL, RIGHT),
    ("partial-wrong", ".partial/{}", file_of(flipped), ALL, RIGHT),
    ("partial-longer", ".partial/{}", file_of(lambda data: data + b"x"), ALL, RIGHT),
    ("partial-folder", ".partial/{}", a_folder, ("large",), BLOCKED),
    ("state-link", ".partial/{}.json", link_to(lambda data: b"keep me"), ALL, RIGHT),
    ("state-garbage", ".partial/{}.json", file_of(lambda data: b"[" * 9000), ALL, RIGHT),
    ("state-folder", ".partial/{}.json", a_folder, ("large",), BLOCKED),
    ("lock-link", ".partial/{}.lock", link_to(lambda data: b"keep me"), ("large",), BLOCKED),
    ("lock-folder", ".partial/{}.lock", a_folder, ("large",), BLOCKED),
    ("lock-there", ".partial/{}.lock", file_of(lambda data: b"123"), ALL, RIGHT),
    ("index-link", ".partial/verified", link_to(lambda data: b"keep me"), ALL, BLOCKED),
    ("index-garbage", ".partial/verified", file_of(lambda data: b"\xff\n1 sha256:x\n" * 999), ALL, RIGHT),
    ("index-folder", ".partial/verified", a_folder, ALL, BLOCKED),
    ("partial-is-file", ".partial", file_of(lambda data: b"keep me"), ALL, BLOCKED),
    ("partial-is-link", ".partial", link_to(None), ALL, BLOCKED),
]


def planted():
    return [
        pytest.param(where, plant, kind, ends, id=f"{name}-{kind}")
        for name, where, plant, kinds, ends in PLANTED
        for kind in kinds
    ]


# -- locks


def no_flock(code):
    """A file system whose locks answer with this error."""

    def arm(monkeypatch) -> None:
        def flock(fd, operation):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(fcntl, "flock", flock)

    return arm


LOCKS = [
    pytest.param(arm, kind, ends, id=f"lock-{name}-{kind}", marks=marks(name not in ("EOPNOTSUPP", "ENOLCK")))
    for name, arm, ends in [
        ("ENOSYS", no_flock(errno.ENOSYS), RIGHT),
        ("EOPNOTSUPP", no_flock(errno.EOPNOTSUPP), RIGHT),
        ("ENOLCK", no_flock(errno.ENOLCK), RIGHT),
        ("EIO", no_flock(errno.EIO), BLOCKED),
    ]
    for kind in ("large", "rest")
]
