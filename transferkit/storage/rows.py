"""A file of rows in ``.partial``: what is remembered of other files, a line each, and the newest counts.

Several processes add to it at the same time. Nothing rests on it: what cannot be read or written is found out again.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable
from contextlib import suppress

from transferkit.errors import StorageError
from transferkit.storage.compaction import LIMIT
from transferkit.storage.disk import Disk
from transferkit.storage.disk_errors import can_do_without, storage_error
from transferkit.storage.folder import OpenFolder

logger = logging.getLogger(__name__)

DURABLE = "-"  # in the place of a boot: the row counts in every one
_BATCH = 512  # rows held back: a write for each of them cost 4 % of the time of 5,000 small blobs


class Rows:
    """The file ``name`` in the ``.partial`` of ``folder``. Thread-safe."""

    def __init__(self, folder: str, name: str, disk: Disk) -> None:
        self.folder = folder
        self.name = name
        self.disk = disk
        self._path = f"{folder}/.partial"
        self._fresh: list[str] = []
        self._lock = threading.Lock()
        self._size = 0

    def read(self) -> str:
        """Return the newest rows, oldest first; none where there is no such file, or none that can be read."""
        with suppress(OSError), OpenFolder(self._path, self.disk) as unfinished:
            return self.disk.read_file(unfinished.at(self.name), LIMIT, unfinished.fd).decode("ascii", "replace")
        return ""

    def add(self, row: str) -> None:
        """Add a row, which is one line; it is written at the latest by ``close``."""
        with self._lock:
            self._fresh.append(row)
        if len(self._fresh) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        """Write what was added so far."""
        with self._lock:
            rows, self._fresh = self._fresh, []
        if not rows:
            return
        try:
            self.disk.make_folder(self._path)
            with OpenFolder(self._path, self.disk) as unfinished:
                self._size = self.disk.append(unfinished.at(self.name), "".join(rows).encode("ascii"), unfinished.fd)
        except OSError as error:
            if isinstance(error, StorageError) and error.errno != errno.ENOENT:
                raise
            if not can_do_without("append", error):
                raise storage_error(error, "writing the index", f"{self._path}/{self.name}") from error
            logger.debug("the index %s/%s cannot be written: %s", self._path, self.name, error.strerror)

    def close(self, shorten: Callable[[OpenFolder, int], None]) -> None:
        """Write what was added; ``shorten(unfinished, size)`` sees that the file does not grow for ever.

        StorageError: a symbolic link or a folder stands where the file belongs.
        """
        self._flush()
        size, self._size = self._size, 0
        if size:
            with suppress(OSError), OpenFolder(self._path, self.disk) as unfinished:
                shorten(unfinished, size)
