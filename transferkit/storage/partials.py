"""What earlier runs have left in a folder: partial files, listed and removed when asked for, never silently."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from transferkit.content.digest import Digest
from transferkit.forks import importing
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk, disk_errors, is_file

# sha256-<hex>, or sha256-<hex>.<random> of a process that was killed: a small blob, or one without a lock
_NAME = re.compile(r"(sha256-[0-9a-f]{64}|sha512-[0-9a-f]{128})(\.[0-9a-f]{16})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialFile:
    """A blob that an interrupted download has left, to be continued.

    ``path`` is the file, ``stored`` how many bytes it takes on the disk, ``age`` the seconds since it was last written.
    """

    digest: Digest
    path: str
    stored: int
    age: float


def partials(dest_dir: str | os.PathLike[str]) -> list[PartialFile]:
    """Return what interrupted downloads have left in a folder, to be continued by the next one; oldest first.

    Raises:
        StorageError: the folder cannot be read.
    """
    folder = Directory(dest_dir).unfinished
    found: list[PartialFile] = []
    names: list[str] = []
    with disk_errors("reading", folder), suppress(FileNotFoundError):
        names = os.listdir(folder)
    for match in filter(None, map(_NAME.fullmatch, names)):
        path = f"{folder}/{match[0]}"
        with disk_errors("reading", path), suppress(FileNotFoundError):  # a running download has just finished with it
            status = Disk.lstat(path)
            if is_file(status):
                digest = Digest.from_file_name(match[1])
                age = max(0.0, time.time() - status.st_mtime)
                found.append(PartialFile(digest=digest, path=path, stored=status.st_blocks * 512, age=age))
    return sorted(found, key=lambda partial: -partial.age)


def discard(
    dest_dir: str | os.PathLike[str], digests: Iterable[str] | None = None, *, older_than: float = 24 * 3600.0
) -> list[PartialFile]:
    """Remove what interrupted downloads have left in a folder, and return it.

    Only files that were not written for ``older_than`` seconds (by default a day), of these ``digests`` or of all;
    what a running download holds is left alone.

    Raises:
        InvalidDigestError: one of the digests is none.
        StorageError: a file cannot be removed.
    """
    with importing:
        from transferkit.storage.lock import unheld  # here: its import is a tenth of what a start takes

    wanted = None if digests is None else {Digest(digest) for digest in digests}
    removed = []
    for partial in partials(dest_dir):
        if (wanted is not None and partial.digest not in wanted) or partial.age < older_than:
            continue
        lock = f"{os.path.dirname(partial.path)}/{partial.digest.file_name}.lock"
        with unheld(lock) as is_ours:
            if not is_ours:
                continue
            # The lock goes last: who takes a new one finds nothing that is about to be removed.
            for path in (partial.path, f"{partial.path}.json", f"{partial.path}.json.new", lock):
                with disk_errors("removing", path), suppress(FileNotFoundError):
                    Disk.unlink(path)
            removed.append(partial)
    return removed
