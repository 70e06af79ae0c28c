"""How the content of a blob becomes another file: blocks are shared, a name is added, or the bytes are copied."""

from __future__ import annotations

import errno
import os
import stat

from transferkit.content.descriptor import Descriptor
from transferkit.content.flow import Flow
from transferkit.errors import SourceError, StorageError, TransferKitError
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk, close_quietly, is_file, remove_quietly
from transferkit.storage.disk_errors import disk_errors, storage_error
from transferkit.storage.folder import OpenFolder
from transferkit.storage.index import version
from transferkit.storage.tree import write_body

REFLINK, HARD, COPY = "reflink", "hard", "copy"
WAYS = {"auto": (REFLINK, HARD, COPY), REFLINK: (REFLINK,), HARD: (HARD,), COPY: (COPY,)}
"""What is tried for each way that is asked for, in order."""

# The disk is broken or full: another way would meet the same.
_FATAL = frozenset({errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.ENOSPC, errno.EDQUOT, errno.ENOENT})
_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


class Linking:
    """Makes files of blobs in a folder of unfinished files, in the way that was asked for. Thread-safe.

    ``own`` is the store whose files may get more names: its blobs become read-only with that. Of the others, which are
    somebody else's, files are reflinked or copied. ``counted``: the bytes that are copied are progress.
    """

    def __init__(self, folder: OpenFolder, way: str, *, own: Directory | None = None, counted: bool = False) -> None:
        self._folder = folder
        self._disk = folder.disk
        self._ways = WAYS[way]
        self._own = own
        self._counted = counted
        self._refused: dict[tuple[str, str], OSError] = {}  # by way and store: nobody asks 1,000 times

    def make(self, blob: Descriptor, store: Directory, flow: Flow) -> tuple[str, str]:
        """Make a file with the content of a blob; return its name in the folder, and the way.

        Raises:
            SourceError: the blob is missing, or not what its digest says.
            StorageError: the file system does not have the way that was asked for, or the disk refused.
        """
        path = store.blob_path(blob.digest)
        makers = {REFLINK: self._reflink, HARD: self._hard_link, COPY: self._copy}
        reason: OSError | None = None
        for way in self._ways:
            name = f"file.{os.urandom(8).hex()}"
            try:
                if refused := self._refused.get((way, store.path)):
                    raise refused
                makers[way](blob, store, name, flow)
                return name, way
            except TransferKitError:
                remove_quietly(self._disk, self._folder.at(name), self._folder.fd)
                raise
            except OSError as error:
                remove_quietly(self._disk, self._folder.at(name), self._folder.fd)
                if error.errno in _FATAL or way == COPY:
                    raise storage_error(error, f"making a {way} of {path} in", self._folder.path) from error
                reason = self._refused[way, store.path] = error
        text = (
            f'{path} cannot become a {self._ways[-1]} in {self._folder.path}: {reason and reason.strerror}; link="auto"'
        )
        raise StorageError(f"{text} takes what there is", errno=reason.errno if reason else None) from reason

    def _reflink(self, blob: Descriptor, store: Directory, name: str, flow: Flow) -> None:
        self._check(blob, store, flow)
        fd = self._disk.open(store.blob_path(blob.digest), follow=False)
        try:
            before = self._disk.fstat(fd)
            self._disk.clone(fd, self._folder.at(name), self._folder.fd)
            self._hold(blob, before, self._disk.fstat(fd))
        finally:
            close_quietly(self._disk, fd)

    def _hard_link(self, blob: Descriptor, store: Directory, name: str, flow: Flow) -> None:
        """Give the blob's own file another name, and take the right to write from it."""
        disk, folder, path = self._disk, self._folder, store.blob_path(blob.digest)
        if store is not self._own:
            raise OSError(errno.EPERM, "the store is another one's")
        before = disk.lstat(path)
        self._check(blob, store, flow)
        with store.renamed(blob.digest):
            disk.hard_link(path, folder.at(name), folder.fd)
            fd = disk.open(folder.at(name), folder.fd, follow=False)
            try:
                status = disk.fstat(fd)
                self._hold(blob, before, status)
                if status.st_mode & _WRITABLE:
                    disk.set_mode(fd, stat.S_IMODE(status.st_mode) & ~_WRITABLE)
            finally:
                close_quietly(disk, fd)

    def _copy(self, blob: Descriptor, store: Directory, name: str, flow: Flow) -> None:
        with store.fetch(blob, flow=flow) as body:
            write_body(self._disk, body, self._folder.at(name), self._folder.fd, flow, counted=self._counted)

    def _check(self, blob: Descriptor, store: Directory, flow: Flow) -> None:
        """See that a blob's file is right; one that nobody has verified is hashed."""
        if not store.exists(blob, flow=flow):
            raise SourceError(f"{store.blob_path(blob.digest)} is missing, or not the content of {blob.digest.short}")

    def _hold(self, blob: Descriptor, before: os.stat_result, now: os.stat_result) -> None:
        if not is_file(now) or version(before) != version(now):
            raise SourceError(f"the file of {blob.digest.short} changed while it was linked")


def check_one_disk(disk: Disk, store: str, folder: str) -> None:
    """See that a file of a store may get a name in a folder, before it is fetched; StorageError: it may not."""
    while not os.path.exists(store) and store != os.path.dirname(store):
        store = os.path.dirname(store)
    with disk_errors("looking at", folder):
        is_one = disk.stat(store).st_dev == disk.stat(folder).st_dev
    if not is_one:
        text = f"{store} and {folder} are on two file systems, which no hard link joins"
        raise StorageError(f'{text}; link="auto" takes what there is', errno=errno.EXDEV)
