"""What is known to be verified: one line a file, by size, modification time and inode.

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

from transferkit.content.digest import Digest
from transferkit.storage.disk import Disk, storage_error

logger = logging.getLogger(__name__)

_ROW = re.compile(r"^1 (\S+) (\d+ \d+ \d+) (\S+)$", re.ASCII | re.MULTILINE)
_DURABLE = "-"
_BATCH = 512  # rows held back: a write for each of them cost 4 % of the time of 5,000 small blobs
_LIMIT = 64 * 1024 * 1024  # bytes of an index that are read at most: half a million rows


class VerifiedIndex:
    """The verified files of ``folder``. Thread-safe; other processes may append at the same time."""

    def __init__(self, folder: str, disk: Disk, *, durable: bool = False) -> None:
        self.folder = folder
        self.disk = disk
        self.durable = durable  # a file gets its name only after its data was synced
        self._path = f"{folder}/.partial/verified"
        self._boot = disk.boot
        self._fresh: list[str] = []
        self._lock = threading.Lock()
        try:
            text = disk.read_file(self._path, _LIMIT).decode("ascii", "replace")
        except OSError:
            text = ""  # no index yet, or none that can be read: everything is hashed once more
        self._rows = {digest: key for digest, key, boot in _ROW.findall(text) if boot in (_DURABLE, self._boot)}

    def knows(self, digest: Digest, status: os.stat_result) -> bool:
        """Tell whether the file with ``status`` was verified to be the content of ``digest``."""
        return self._rows.get(digest) == version(status)

    def add(self, digest: Digest, status: os.stat_result, *, durable: bool) -> None:
        """Remember a verified file; written at the latest by ``flush``."""
        boot = _DURABLE if durable else self._boot
        if boot is None:
            return  # nothing could tell this boot from the next
        with self._lock:
            self._fresh.append(f"1 {digest} {version(status)} {boot}\n")
        if len(self._fresh) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Write what is remembered so far; what cannot be written is hashed again some day."""
        with self._lock:
            rows, self._fresh = self._fresh, []
        if not rows:
            return
        try:
            self.disk.make_folder(os.path.dirname(self._path))
            self.disk.append(self._path, "".join(rows).encode("ascii"))
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR):
                raise storage_error(error, "writing the index", self._path) from error
            logger.debug("the index %s cannot be written: %s", self._path, error.strerror)


def version(status: os.stat_result) -> str:
    """Return what differs where a file was changed or replaced."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"
