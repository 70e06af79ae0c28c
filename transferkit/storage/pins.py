"""Pins: which blobs of a store a running pull needs, so that nobody removes them before a manifest names them.

A pin is a file in ``.partial`` with the digests, and a lock beside it that ends with its process. Where locks do not
work, a pin counts for a day. Who makes a pin and who removes what is not pinned exclude each other by ``GATE``: a pull
that begins finds a blob, and it stays, or finds that it has gone.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress

from transferkit.content.digest import Digest
from transferkit.errors import StorageError
from transferkit.storage.directory import Directory
from transferkit.storage.disk_errors import disk_errors, storage_error
from transferkit.storage.folder import OpenFolder
from transferkit.storage.lock import BlobLock, brief_lock

GATE = "gc.lock"
_NAME = re.compile(r"(pin\.[0-9a-f]{16})(?:\.new|\.lock)?\Z", re.ASCII)
_DAY = 24 * 3600.0
_LONGEST = 16 * 1024 * 1024  # bytes of a pin that are read: 200,000 digests


class Pins:
    """The pins of one store. Thread-safe."""

    def __init__(self, directory: Directory, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._clock = clock

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
            with suppress(StorageError, OSError), brief_lock(folder, GATE):
                lock.attempt()
                folder.replace(name, "".join(f"{digest}\n" for digest in digests).encode("ascii"))
            yield
        finally:
            _remove(folder, name, lock)

    def held(self) -> set[Digest]:
        """Return the digests of all pins whose process runs, and remove what others have left.

        Raises:
            StorageError: a pin cannot be looked at.
        """
        found: set[Digest] = set()
        if not os.path.lexists(self._directory.unfinished):
            return found
        folder = self._directory.open_unfinished()
        names: set[str] = set()
        with disk_errors("reading", folder.path), suppress(FileNotFoundError):
            names = {match[1] for match in map(_NAME.match, os.listdir(folder.path)) if match}
        for name in names:
            lock = BlobLock(folder, f"{name}.lock")
            try:
                if lock.attempt() and (lock.is_held or self._age(folder, name) > _DAY):
                    _remove(folder, name, lock)
                else:
                    found.update(_digests(folder.disk.read_file(folder.at(name), _LONGEST, folder.fd)))
            except OSError as error:
                if error.errno != errno.ENOENT:  # its process has just ended
                    raise (
                        error
                        if isinstance(error, StorageError)
                        else storage_error(error, "reading", f"{folder.path}/{name}")
                    ) from error
            finally:
                lock.release()
        return found

    def _age(self, folder: OpenFolder, name: str) -> float:
        return self._clock() - folder.disk.lstat(folder.at(name), folder.fd).st_mtime


def _remove(folder: OpenFolder, name: str, lock: BlobLock) -> None:
    for each in (name, f"{name}.new"):
        with suppress(OSError):
            folder.remove(each)
    lock.remove()  # last: until then nobody else looks at the pin
    lock.release()


def _digests(text: bytes) -> Iterator[Digest]:
    for line in text.decode("ascii", "replace").split():
        with suppress(ValueError):
            yield Digest(line)
