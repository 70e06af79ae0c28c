"""What is known to be verified: one line a file, by size, times and inode.

Any file may have a final name and the right size; what was hashed once is remembered here, and then costs one ``stat``.
A line that was written without an ``fsync`` of the file's data counts in the same boot only: after a power cut the
size and the time can survive while the data reads as zeros. A line that does not parse is ignored, never trusted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any

from transferkit.content.descriptor import AnyBlob
from transferkit.content.digest import Digest
from transferkit.storage.compaction import compact
from transferkit.storage.disk import Disk
from transferkit.storage.folder import OpenFolder
from transferkit.storage.rows import DURABLE, Rows

NAME = "verified"
_ROW = r"^2 (\S+) (\d+ \d+ \d+ \d+ (?:{}))$"  # a digest, what is remembered of its file, and the boots that count
FLAT: Callable[[Digest], str] = attrgetter("file_name")  # of a folder that has all blobs, as Ollama's store
_NEVER = "0 0 0 0"  # what no file is


class VerifiedIndex:
    """The verified files of ``folder``. Thread-safe; other processes may append at the same time."""

    def __init__(
        self,
        folder: str,
        disk: Disk,
        *,
        durable: bool = False,
        names: Callable[[Digest], str] = FLAT,
        keep: bool = False,
    ) -> None:
        self.folder = folder
        self._names = names
        self._keep = keep  # what is added counts at once, for an object that lives on
        self.disk = disk
        self.durable = durable  # a file gets its name only after its data was synced
        self._boot = disk.boot
        self._written = Rows(folder, NAME, disk)
        # No index yet, or none that can be read: everything is hashed once more.
        text = self._written.read()
        boots = "|".join(map(re.escape, filter(None, (DURABLE, self._boot))))
        # Without an object for a row, or a line of Python: there may be hundreds of thousands.
        self._rows: dict[str, str] = dict(re.findall(_ROW.format(boots), text, re.ASCII | re.MULTILINE)) if text else {}

    def path_of(self, digest: Digest) -> str:
        """Return where the file of ``digest`` is, or would be."""
        return f"{self.folder}/{self._names(digest)}"

    def knows(self, digest: Digest, status: os.stat_result) -> bool:
        """Tell whether the file with ``status`` was verified to be the content of ``digest``."""
        row = self._rows.get(digest)
        return row is not None and row.startswith(f"{version(status)} {status.st_ctime_ns} ")

    def has_row(self, digest: Digest) -> bool:
        """Tell whether a file of ``digest`` was ever verified; whether it is the one that is there, its status says."""
        return digest in self._rows

    def known(self, blobs: Iterable[AnyBlob], stat: Callable[[str], os.stat_result]) -> set[Digest]:
        """Return the digests of those blobs whose files were verified; one ``stat`` for each that has a row here."""
        rows, folder, names = self._rows, self.folder, self._names
        found = set()
        for blob in blobs:
            digest: Any = blob.digest  # a Digest
            row = rows.get(digest)
            if row is not None:
                try:
                    status = stat(f"{folder}/{names(digest)}")
                except (OSError, ValueError):
                    continue
                key = f"{blob.size} {status.st_mtime_ns} {status.st_ino} {status.st_ctime_ns} "
                if status.st_size == blob.size and row.startswith(key):
                    found.add(digest)
        return found

    def add(self, digest: Digest, status: os.stat_result, *, durable: bool) -> None:
        """Remember a verified file; written at the latest by ``close``.

        ``status`` is that of the file under its final name: to rename it changes its ``ctime``.
        """
        boot = DURABLE if durable else self._boot
        if boot is None:
            return  # nothing could tell this boot from the next
        key = f"{version(status)} {status.st_ctime_ns}"
        if self._keep:
            self._rows[digest] = f"{key} {boot}"
        self._written.add(f"2 {digest} {key} {boot}\n")

    def renew(self, digest: Digest, before: os.stat_result, now: os.stat_result) -> None:
        """Go on believing a file that was verified, and of which only the ``ctime`` is another one now."""
        row = self._rows.get(digest)  # once: another thread may forget it
        was = f"{version(now)} {before.st_ctime_ns} "
        if row is not None and row.startswith(was) and version(before) == version(now):
            self.add(digest, now, durable=row.endswith(f" {DURABLE}"))

    def forget(self, digest: Digest) -> None:
        """Remember no more that a file was verified: it was found to be wrong."""
        self._rows.pop(digest, None)
        self._written.add(f"2 {digest} {_NEVER} {DURABLE}\n")

    def close(self) -> None:
        """Write what is remembered, and see that the index does not grow for ever.

        StorageError: a symbolic link or a folder stands where the index belongs.
        """
        self._written.close(self._shorten)

    def _shorten(self, unfinished: OpenFolder, size: int) -> None:
        compact(self.folder, unfinished, NAME, size, (DURABLE, self._boot), self._names)


def version(status: os.stat_result) -> str:
    """Return what differs where the content of a file was changed or replaced."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"
