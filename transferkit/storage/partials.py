"""What earlier runs have left in a folder: partial files, listed and removed when asked for, never silently."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from transferkit.content.digest import Digest
from transferkit.storage.disk import Disk, disk_errors, is_file
from transferkit.storage.lock import unheld

DAY = 24 * 3600.0
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


def find_partials(folder: str, *, disk: Disk) -> list[PartialFile]:
    """Return the partial files in ``folder`` (a ``.partial`` one), oldest first."""
    found: list[PartialFile] = []
    now = time.time()
    with disk_errors("reading", folder):
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return []
        for name in names:
            match = _NAME.fullmatch(name)
            if match is None:
                continue
            path = f"{folder}/{name}"
            try:
                status = disk.lstat(path)
            except FileNotFoundError:
                continue  # a running download has just finished with it
            if is_file(status):
                digest = Digest.from_file_name(match[1])
                age = max(0.0, now - status.st_mtime)
                stored = getattr(status, "st_blocks", 0) * 512
                found.append(PartialFile(digest=digest, path=path, stored=stored, age=age))
    return sorted(found, key=lambda partial: -partial.age)


def remove_partials(folder: str, digests: Iterable[str] | None, *, older_than: float, disk: Disk) -> list[PartialFile]:
    """Remove partial files that are older than ``older_than`` seconds, of these digests or of all, but for those that a
    running download holds; return them."""
    wanted = None if digests is None else {Digest(digest) for digest in digests}
    removed = []
    for partial in find_partials(folder, disk=disk):
        if (wanted is not None and partial.digest not in wanted) or partial.age < older_than:
            continue
        lock = f"{folder}/{partial.digest.file_name}.lock"
        with unheld(lock) as is_ours:
            if not is_ours:
                continue
            # The lock goes last: who takes a new one finds nothing that is about to be removed.
            for path in (partial.path, f"{partial.path}.json", f"{partial.path}.json.new", lock):
                with disk_errors("removing", path), suppress(FileNotFoundError):
                    disk.unlink(path)
            removed.append(partial)
    return removed
