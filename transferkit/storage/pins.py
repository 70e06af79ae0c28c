"""Pins: which blobs of a store a running pull needs, so that nobody removes them before a manifest names them.

A pin is a file in ``.partial`` with the digests, and a lock beside it that ends with its process. Where locks do not
work, a pin counts for a day.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

from transferkit.content.digest import Digest
from transferkit.errors import StorageError
from transferkit.storage.directory import Directory
from transferkit.storage.lock import BlobLock

_NAME = re.compile(r"pin\.[0-9a-f]{16}\Z", re.ASCII)
_DAY = 24 * 3600.0
_LONGEST = 16 * 1024 * 1024  # bytes of a pin that are read: 200,000 digests


class Pins:
    """The pins of one store. Thread-safe."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    @contextmanager
    def holding(self, digests: Collection[Digest]) -> Iterator[None]:
        """Keep a pin for as long as the context lasts; a store that cannot be written to needs none."""
        try:
            folder = self._directory.open_unfinished()
        except StorageError:
            yield
            return
        name = f"pin.{os.urandom(8).hex()}"
        lock = BlobLock(folder, f"{name}.lock")
        try:
            with suppress(StorageError):
                lock.attempt()
            with suppress(OSError):
                folder.replace(name, "".join(f"{digest}\n" for digest in digests).encode("ascii"))
            yield
        finally:
            for each in (name, f"{name}.lock"):
                with suppress(OSError):
                    folder.remove(each)
            lock.release()

    def held(self) -> set[Digest]:
        """Return the digests of all pins whose process runs, and remove those of others."""
        found: set[Digest] = set()
        try:
            folder = self._directory.open_unfinished()
            names = os.listdir(folder.path)
        except (StorageError, OSError):
            return found
        for name in filter(_NAME.match, names):
            lock = BlobLock(folder, f"{name}.lock")
            try:
                age = time.time() - folder.disk.lstat(folder.at(name), folder.fd).st_mtime
                is_over = lock.attempt() and (lock.is_held or age > _DAY)
                if is_over:
                    for each in (name, f"{name}.lock"):
                        folder.remove(each)
                    continue
                text = folder.disk.read_file(folder.at(name), _LONGEST, folder.fd).decode("ascii", "replace")
            except (OSError, StorageError):
                continue  # its process has just ended
            finally:
                lock.release()
            for line in text.split():
                with suppress(ValueError):
                    found.add(Digest(line))
        return found
