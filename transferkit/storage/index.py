"""What is known to be verified: one line a file, by size, modification time and inode.

A file under a final name proves nothing by its name and size: Ollama, a user or a crash may have put it there. What
this library has hashed once it remembers here, so that the next time costs one ``stat``. A line that was written
without an ``fsync`` of the file's data counts in the same boot only: after a power cut the size and the time can
survive while the data reads as zeros. Lines are appended; one that does not parse is ignored, never trusted.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
import threading
from pathlib import Path

from transferkit.content.digest import Digest
from transferkit.storage.disk import Disk, storage_error

logger = logging.getLogger(__name__)

_ROW = re.compile(r"^1 (\S+) (\d+ \d+ \d+) (\S+)$", re.ASCII | re.MULTILINE)
_DURABLE = "-"
_BATCH = 512  # rows held back: a write for each of them cost 4 % of the time of 5,000 small blobs
_LIMIT = 64 * 1024 * 1024  # bytes of an index that are read at most: half a million rows


def boot_id() -> str | None:
    """Return what names this boot of the machine, ``None`` where nothing does."""
    if sys.platform == "linux":
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
    if sys.platform == "darwin":
        import subprocess

        command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)  # noqa: S603 - a constant
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() or None
    return None


class VerifiedIndex:
    """The verified files of one folder. Thread-safe; other processes may append at the same time."""

    def __init__(self, path: str, *, disk: Disk, boot: str | None) -> None:
        self._path = path
        self._disk = disk
        self._boot = boot
        self._rows: dict[str, str] = {}
        self._fresh: list[str] = []
        self._lock = threading.Lock()
        self._load()

    def _load(self) -> None:
        try:
            text = self._disk.read_file(self._path, _LIMIT).decode("ascii", "replace")
        except OSError:
            return  # no index yet, or none that can be read: everything is hashed once more
        for digest, key, boot in _ROW.findall(text):
            if boot in (_DURABLE, self._boot):
                self._rows[digest] = key

    def knows(self, digest: Digest, status: os.stat_result) -> bool:
        """Tell whether the file with ``status`` was verified to be the content of ``digest``."""
        return self._rows.get(digest) == _key(status)

    def add(self, digest: Digest, status: os.stat_result, *, durable: bool) -> None:
        """Remember a verified file; written at the latest by ``flush``."""
        if self._boot is None and not durable:
            return  # nothing could tell this boot from the next
        row = f"1 {digest} {_key(status)} {_DURABLE if durable else self._boot}\n"
        with self._lock:
            self._fresh.append(row)
            if len(self._fresh) < _BATCH:
                return
            rows, self._fresh = self._fresh, []
        self._write(rows)

    def flush(self) -> None:
        """Write what is remembered so far; what cannot be written is hashed again some day."""
        with self._lock:
            rows, self._fresh = self._fresh, []
        if rows:
            self._write(rows)

    def _write(self, rows: list[str]) -> None:
        try:
            self._disk.make_folder(os.path.dirname(self._path))
            self._disk.append(self._path, "".join(rows).encode("ascii"))
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR):
                raise storage_error(error, "writing the index", self._path) from error
            logger.debug("the index %s cannot be written: %s", self._path, error.strerror)


def _key(status: os.stat_result) -> str:
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"
