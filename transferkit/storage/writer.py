"""Content that arrives without a descriptor: a file that grows at its end, and becomes a blob once its digest is told.

The file is all that is kept: whoever comes later, in another process too, goes on where it ends. The hash of what has
arrived is kept in memory as well, and made from the file where it is not there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from functools import partial

from transferkit.content.digest import Digest, Hasher
from transferkit.errors import DigestMismatchError
from transferkit.storage.directory import Directory
from transferkit.storage.disk import close_quietly, remove_quietly
from transferkit.storage.disk_errors import disk_errors
from transferkit.storage.folder import OpenFolder
from transferkit.storage.storing import place

_BLOCK = 1024 * 1024  # bytes that are read at once where a file is hashed later
# Bytes after which the disk begins to write, so that the sync in the end has little left to wait for: 1 GiB took 1.03 s
# in the place of 1.39 s. With 32 MiB it is the same.
_STEP = 8 * 1024 * 1024


class Writer:
    """The file ``name`` in ``folder``, on its way into ``directory``, which is on the same file system.

    One thread at a time, but for ``status``. ``algorithm`` is a guess: the digest is told only at the end. ``durable``:
    what was committed survives a power cut.
    """

    def __init__(
        self, directory: Directory, folder: OpenFolder, name: str, *, algorithm: str = "sha256", durable: bool = True
    ) -> None:
        self.name = name
        self._directory = directory
        self._disk = folder.disk
        self._folder = folder
        self._durable = durable
        self._begin(algorithm)
        self._fd = -1
        self._is_placed = False

    def _begin(self, algorithm: str) -> None:
        self._hasher: Hasher = hashlib.new(algorithm, usedforsecurity=False)
        self._algorithm = algorithm
        self._hashed = 0  # bytes that the hasher has seen: none yet of what an earlier process has received

    def create(self) -> None:
        """Make the file, which must not be there; StorageError."""
        with disk_errors("creating", f"{self._folder.path}/{self.name}"):
            self._fd = self._disk.create(self._folder.at(self.name), self._folder.fd)

    def status(self) -> os.stat_result:
        """Return the status of the file, whose size is how much has arrived; FileNotFoundError: it is over."""
        return self._disk.lstat(self._folder.at(self.name), self._folder.fd)

    def append(self, blocks: Iterable[bytes | memoryview]) -> None:
        """Add to the end. What came before an exception of ``blocks`` is kept. No block is held on to.

        StorageError: the disk refused; what is in the file then counts all the same.
        """
        fd, errors = self._open(), partial(disk_errors, "writing", f"{self._folder.path}/{self.name}")
        with errors():
            offset = self._disk.fstat(fd).st_size
        in_step, begun = offset == self._hashed, offset
        for block in blocks:
            with errors():
                self._disk.pwrite(fd, memoryview(block), offset)
            offset += len(block)
            if in_step:
                self._hasher.update(block)
                self._hashed = offset
            if self._durable and offset - begun >= _STEP:
                self._disk.write_back(fd, begun, offset - begun)
                begun = offset

    def digest(self, algorithm: str) -> Digest:
        """Return the digest of what has arrived; StorageError."""
        fd = self._open()
        if self._algorithm != algorithm:
            self._begin(algorithm)
        with disk_errors("reading", f"{self._folder.path}/{self.name}"):
            size = self._disk.fstat(fd).st_size
            buffer = memoryview(bytearray(_BLOCK if self._hashed < size else 0))
            while self._hashed < size and (count := self._disk.preadv(fd, buffer, self._hashed)):
                self._hasher.update(buffer[:count])
                self._hashed += count
        return Digest(f"{algorithm}:{self._hasher.hexdigest()}")

    def commit(self, digest: Digest) -> None:
        """Make a blob of the file, if it is the content of ``digest``; after that there is no file of this name.

        Raises:
            DigestMismatchError: it is not.
            StorageError: the disk refused.
        """
        found = self.digest(digest.algorithm)
        if found != digest:
            raise DigestMismatchError(f"the content has the digest {found.short}, not {digest.short}")
        fd, self._fd = self._fd, -1
        with disk_errors("storing", f"{self._folder.path}/{self.name}"):
            place(self._directory, self._folder, self.name, fd, digest, durable=self._durable)
        self._is_placed = True

    def _open(self) -> int:
        if self._fd < 0:
            with disk_errors("opening", f"{self._folder.path}/{self.name}"):
                self._fd = self._disk.reopen(self._folder.at(self.name), self._folder.fd)
        return self._fd

    def close(self) -> None:
        """Leave the file for whoever goes on; never raises, twice is fine."""
        fd, self._fd = self._fd, -1
        close_quietly(self._disk, fd)

    def abort(self) -> None:
        """Remove the file, if it is still there."""
        self.close()
        if not self._is_placed:
            remove_quietly(self._disk, self._folder.at(self.name), self._folder.fd)
