"""What a later process needs to go on with an upload: one small file a blob and repository, beside the index.

The file holds the address of the session at the registry, which may carry the registry's own state, so only its owner
may read it. Nothing rests on it: one that cannot be written, read or locked means that the upload begins anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from contextlib import suppress
from typing import Any

from transferkit.content.descriptor import Descriptor
from transferkit.storage.disk import Disk, is_file
from transferkit.storage.folder import OpenFolder
from transferkit.storage.lock import BlobLock

logger = logging.getLogger(__name__)

_LIMIT = 64 * 1024  # bytes of a note that are read
_MODE = 0o600


class UploadNotes:
    """The notes on uploads from ``folder`` to one ``place``, a registry and a repository. Thread-safe: one thread a
    blob.

    Blobs of ``threshold`` bytes and more have one. A note belongs to the process that holds its lock: two processes do
    not send to one session.
    """

    def __init__(self, folder: str, place: str, *, threshold: int) -> None:
        self._folder = f"{folder}/.partial/uploads"
        self._place = hashlib.sha256(place.encode()).hexdigest()[:16]
        self._threshold = threshold
        self._locks: dict[str, BlobLock] = {}
        self._works = True

    def load(self, descriptor: Descriptor) -> dict[str, Any]:
        """Return what an earlier process has left; nothing where there is none, or another process is at it."""
        path = self._path(descriptor)
        if not self._wanted(descriptor) or not os.path.exists(path) or not self._claim(path):
            return {}
        with suppress(OSError, ValueError, RecursionError):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                note = json.loads(os.read(fd, _LIMIT)) if is_file(os.fstat(fd)) else None
            finally:
                os.close(fd)
            if isinstance(note, dict) and note.get("size") == descriptor.size:
                return note
        return {}

    def save(self, descriptor: Descriptor, note: dict[str, Any]) -> None:
        """Write down how an upload can be gone on with."""
        path = self._path(descriptor)
        if not self._wanted(descriptor):
            return
        try:
            if path not in self._locks:
                if os.path.islink(os.path.dirname(self._folder)):
                    raise OSError("a symbolic link is in the place of its folder")
                os.makedirs(self._folder, exist_ok=True)
                if not self._claim(path):
                    return
            new = f"{path}.{os.urandom(8).hex()}"
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
            try:
                os.write(fd, json.dumps({**note, "size": descriptor.size}).encode("ascii"))
            finally:
                os.close(fd)
            os.replace(new, path)
        except OSError as error:
            self._works = False  # a folder that can only be read costs one attempt
            logger.debug("uploads are not noted in %s: %s", self._folder, error.strerror or error)

    def forget(self, descriptor: Descriptor) -> None:
        """Remove the note: the upload has ended."""
        if descriptor.size < self._threshold:
            return
        path = self._path(descriptor)
        if path in self._locks or (os.path.exists(path) and self._claim(path)):
            lock = self._locks.pop(path)
            with suppress(OSError):
                os.unlink(path)
            with suppress(OSError):
                os.unlink(f"{path}.lock")
            lock.release()

    def close(self) -> None:
        """Let go of the notes, for another process to go on with them."""
        while self._locks:
            self._locks.popitem()[1].release()

    def _wanted(self, descriptor: Descriptor) -> bool:
        return self._works and descriptor.size >= self._threshold

    def _path(self, descriptor: Descriptor) -> str:
        return f"{self._folder}/{descriptor.digest.file_name}.{self._place}"

    def _claim(self, path: str) -> bool:
        """Take the lock of a note, and tell whether it is ours; one that keeps nobody away is not."""
        if path in self._locks:
            return True
        lock = None
        with suppress(OSError):  # a StorageError is one
            folder = OpenFolder(self._folder, Disk())
            lock = BlobLock(folder, f"{os.path.basename(path)}.lock")
            if lock.attempt() and lock.is_held:
                self._locks[path] = lock
                return True
        if lock is not None:
            lock.release()
        return False
