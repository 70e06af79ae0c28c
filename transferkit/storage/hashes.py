"""The digests of files that are anywhere: what was hashed once to be pushed is not hashed for the next push.

A row is a line of ``.partial/hashes`` in the cache: device, size, times and inode of a file, its digest, a boot, and
where it is. A row counts for a file that is just as the row says. A row that does not parse is ignored, and a wrong one
harms nobody: the registry hashes what it is sent.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from urllib.parse import quote_from_bytes, unquote_to_bytes

from transferkit.content.digest import Digest
from transferkit.storage.compaction import SMALLEST, rewrite
from transferkit.storage.disk import Disk
from transferkit.storage.folder import OpenFolder
from transferkit.storage.index import version
from transferkit.storage.rows import DURABLE, Rows
from transferkit.storage.ticks import is_settled

NAME = "hashes"
_ROW = re.compile(r"^1 (\d+ \d+ \d+ \d+ \d+) (sha256:[0-9a-f]{64}) (\S+) (\S+)$", re.ASCII | re.MULTILINE)
_SETTLED = 3600.0  # seconds: what was not changed for so long is on the disk, and not only in memory


class HashIndex:
    """What is known of files anywhere. Thread-safe; other processes may append to it at the same time.

    ``folder`` is the one whose ``.partial`` has it. With ``rehash`` no earlier run is believed.
    """

    def __init__(
        self, folder: str, disk: Disk, *, rehash: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self._disk = disk
        self._clock = clock
        self._written = Rows(folder, NAME, disk)
        rows = [] if rehash else self._usable(self._written.read())
        self._rows = {path: (key, digest) for key, digest, _, path in rows}

    def _usable(self, text: str) -> list[tuple[str, str, str, str]]:
        return [row for row in _ROW.findall(text) if row[2] in (DURABLE, self._disk.boot)]

    def find(self, path: str, status: os.stat_result) -> Digest | None:
        """Return the digest of the file at an absolute path with this status, if it is known."""
        key, digest = self._rows.get(_quoted(path), ("", ""))
        return Digest(digest) if key == state(status) else None

    def add(self, path: str, status: os.stat_result, digest: Digest) -> None:
        """Remember a file that has just been hashed; ``status`` is from after that. ``close`` writes it at the latest.

        One that was changed in this very moment is not remembered: the next change might leave no trace.
        """
        age = self._clock() - status.st_ctime_ns / 1e9
        boot = DURABLE if age > _SETTLED else self._disk.boot
        if boot is not None and is_settled(status.st_ctime_ns, self._clock()):
            self._written.add(f"1 {state(status)} {digest} {boot} {_quoted(path)}\n")

    def close(self) -> None:
        """Write what was added. StorageError: a symbolic link or a folder stands where the index belongs."""
        self._written.close(self._shorten)

    def _shorten(self, unfinished: OpenFolder, size: int) -> None:
        if size < SMALLEST:
            return
        if 2 * sum(map(len, self._useful(self._written.read()))) < size:
            rewrite(unfinished, NAME, self._useful)

    def _useful(self, text: str) -> Iterable[str]:
        """Return the newest row of each file that is as it was."""
        newest = {row[3]: row for row in self._usable(text)}
        return [f"1 {' '.join(row)}" for path, row in newest.items() if row[0] == self._key_of(path)]

    def _key_of(self, path: str) -> str | None:
        with suppress(OSError, ValueError):
            return state(self._disk.lstat(os.fsdecode(unquote_to_bytes(path))))
        return None


def state(status: os.stat_result) -> str:
    """Return what differs where a file, or its content, is another one."""
    return f"{status.st_dev} {version(status)} {status.st_ctime_ns}"


def _quoted(path: str) -> str:
    return quote_from_bytes(os.fsencode(path))
