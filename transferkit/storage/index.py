"""What is known to be verified: one line a file, by size, times and inode.

Any file may have a final name and the right size; what was hashed once is remembered here, and then costs one ``stat``.
A line that was written without an ``fsync`` of the file's data counts in the same boot only: after a power cut the
size and the time can survive while the data reads as zeros. A line that does not parse is ignored, never trusted.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from operator import attrgetter

from transferkit.content.digest import Digest
from transferkit.errors import StorageError
from transferkit.storage.compaction import LIMIT, compact
from transferkit.storage.disk import Disk, can_do_without, storage_error
from transferkit.storage.folder import OpenFolder

logger = logging.getLogger(__name__)

NAME = "verified"
ROW = re.compile(r"^2 (\S+) (\d+ \d+ \d+ \d+) (\S+)$", re.ASCII | re.MULTILINE)
FLAT: Callable[[Digest], str] = attrgetter("file_name")  # of a folder that has all blobs, as Ollama's store
_DURABLE = "-"
_NEVER = "0 0 0 0"  # what no file is
_BATCH = 512  # rows held back: a write for each of them cost 4 % of the time of 5,000 small blobs


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
        self._path = f"{folder}/.partial"
        self._boot = disk.boot
        self._fresh: list[str] = []
        self._lock = threading.Lock()
        self._size = 0
        text = ""
        # No index yet, or none that can be read: everything is hashed once more.
        with suppress(OSError), OpenFolder(self._path, disk) as unfinished:
            text = disk.read_file(unfinished.at(NAME), LIMIT, unfinished.fd).decode("ascii", "replace")
        self._rows = {digest: key for digest, key, boot in ROW.findall(text) if boot in (_DURABLE, self._boot)}

    def path_of(self, digest: Digest) -> str:
        """Return where the file of ``digest`` is, or would be."""
        return f"{self.folder}/{self._names(digest)}"

    def knows(self, digest: Digest, status: os.stat_result) -> bool:
        """Tell whether the file with ``status`` was verified to be the content of ``digest``."""
        return self._rows.get(digest) == f"{version(status)} {status.st_ctime_ns}"

    def add(self, digest: Digest, status: os.stat_result, *, durable: bool) -> None:
        """Remember a verified file; written at the latest by ``close``.

        ``status`` is that of the file under its final name: to rename it changes its ``ctime``.
        """
        boot = _DURABLE if durable else self._boot
        if boot is None:
            return  # nothing could tell this boot from the next
        key = f"{version(status)} {status.st_ctime_ns}"
        with self._lock:
            self._fresh.append(f"2 {digest} {key} {boot}\n")
            if self._keep:
                self._rows[digest] = key
        if len(self._fresh) >= _BATCH:
            self._flush()

    def forget(self, digest: Digest) -> None:
        """Remember no more that a file was verified: it was found to be wrong."""
        with self._lock:
            self._rows.pop(digest, None)
            self._fresh.append(f"2 {digest} {_NEVER} {_DURABLE}\n")

    def _flush(self) -> None:
        """Write what is remembered so far; what cannot be written is hashed again some day."""
        with self._lock:
            rows, self._fresh = self._fresh, []
        if not rows:
            return
        try:
            self.disk.make_folder(self._path)
            with OpenFolder(self._path, self.disk) as unfinished:
                self._size = self.disk.append(unfinished.at(NAME), "".join(rows).encode("ascii"), unfinished.fd)
        except OSError as error:
            if isinstance(error, StorageError) and error.errno != errno.ENOENT:
                raise
            if not can_do_without("append", error):
                raise storage_error(error, "writing the index", f"{self._path}/{NAME}") from error
            logger.debug("the index %s/%s cannot be written: %s", self._path, NAME, error.strerror)

    def close(self) -> None:
        """Write what is remembered, and see that the index does not grow for ever.

        StorageError: a symbolic link or a folder stands where the index belongs.
        """
        self._flush()
        size, self._size = self._size, 0
        if size:
            with suppress(OSError), OpenFolder(self._path, self.disk) as unfinished:
                compact(self.folder, unfinished, NAME, size, (_DURABLE, self._boot), self._names)


def version(status: os.stat_result) -> str:
    """Return what differs where the content of a file was changed or replaced."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"
