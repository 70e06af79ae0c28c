"""Content that comes from this machine into a folder of blobs, and content that was found wrong in there."""

from __future__ import annotations

import errno
import io
import os
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import BinaryIO

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.errors import DigestMismatchError, StorageError
from transferkit.storage.directory import Directory
from transferkit.storage.disk import close_quietly, remove_quietly, sync_folder
from transferkit.storage.disk_errors import disk_errors
from transferkit.storage.folder import OpenFolder, temporary_name
from transferkit.storage.journal import Journal
from transferkit.storage.lock import BlobLock, brief_lock
from transferkit.storage.pins import GATE

_BLOCK = 1024 * 1024  # bytes that are read at once
_YOUNG = 1800.0  # seconds: a file that is younger is written anew by nobody; half of the grace of ``gc``


def store_content(
    directory: Directory,
    content: bytes | BinaryIO,
    wanted: Digest | None = None,
    *,
    durable: bool,
    clock: Callable[[], float] = time.time,
) -> Descriptor:
    """Store content of which nobody knows more, and return what it is; it appears whole or not at all.

    What is there for long already is written anew, so that its grace begins again.

    Raises:
        DigestMismatchError: it is not the content of ``wanted``.
        StorageError: the disk refused.
    """
    if not isinstance(content, bytes):
        return _write_again(directory, content, wanted, durable=durable)
    descriptor = Descriptor(Digest.of(content, wanted.algorithm if wanted else "sha256"), len(content))
    is_known = directory.knows(descriptor) and wanted in (None, descriptor.digest)
    if is_known:
        with suppress(OSError):
            if clock() - directory.disk.lstat(directory.blob_path(descriptor.digest)).st_mtime < _YOUNG:
                return descriptor
    try:
        return _write_again(directory, io.BytesIO(content), wanted, durable=durable)
    except StorageError:
        # In a store that can only be read, nobody collects anything, and nobody may have noted what was verified.
        if not is_known and (wanted not in (None, descriptor.digest) or not _has(directory, descriptor, content)):
            raise
        return descriptor


def _has(directory: Directory, descriptor: Descriptor, content: bytes) -> bool:
    """Tell whether a blob's file has just this content."""
    with suppress(OSError):
        return directory.disk.read_file(directory.blob_path(descriptor.digest), len(content) + 1) == content
    return False


def _write_again(directory: Directory, content: BinaryIO, wanted: Digest | None, *, durable: bool) -> Descriptor:
    """Write content; once more where somebody has removed the folder of what is unfinished, as Ollama does."""
    begin = content.tell() if content.seekable() else None
    try:
        return _write(directory, content, wanted, durable=durable)
    except StorageError as error:
        if begin is None or error.errno != errno.ENOENT:
            raise
        content.seek(begin)
        return _write(directory, content, wanted, durable=durable)


def _write(directory: Directory, content: BinaryIO, wanted: Digest | None, *, durable: bool) -> Descriptor:
    disk, folder = directory.disk, directory.open_unfinished()
    algorithm = wanted.algorithm if wanted is not None else "sha256"
    hasher = Digest.of(b"", algorithm).hasher()
    name = temporary_name()
    with disk_errors("storing content in", directory.path):
        fd = disk.create(folder.at(name), folder.fd)
        try:
            size = 0
            while block := content.read(_BLOCK):
                hasher.update(block)
                disk.pwrite(fd, memoryview(block), size)
                size += len(block)
            digest = Digest(f"{algorithm}:{hasher.hexdigest()}")
            if wanted is not None and digest != wanted:
                raise DigestMismatchError(f"the content has the digest {digest.short}, not {wanted.short}")
            closing, fd = fd, -1
            place(directory, folder, name, closing, digest, durable=durable, gate=folder)
            with suppress(OSError):
                directory.remember(digest, disk.lstat(directory.blob_path(digest)), durable=durable)
        finally:
            close_quietly(disk, fd)
            remove_quietly(disk, folder.at(name), folder.fd)
    return Descriptor(digest, size)


def place(
    directory: Directory,
    folder: OpenFolder,
    name: str,
    fd: int,
    digest: Digest,
    *,
    durable: bool,
    gate: OpenFolder | None = None,
) -> None:
    """Close a file that has the content of ``digest``, and give it its final name; ``OSError``.

    ``durable``: its data is synced before, and its name after. ``gate`` has the lock of ``gc``, where there is one: an
    old file of that name is not just being collected.
    """
    disk, final = directory.disk, directory.blob_path(digest)
    try:
        if durable:
            disk.fsync(fd)
    finally:
        disk.close(fd)  # before the rename: NFS and some quotas report a full disk here
    with ExitStack() as stack:
        if gate is not None and os.path.lexists(final):
            stack.enter_context(brief_lock(gate, GATE))
        disk.rename(folder.at(name), final, folder.fd)
    if durable:
        sync_folder(disk, os.path.dirname(final))


def take_away(directory: Directory, descriptor: Descriptor) -> None:
    """Take away a blob's file that has other content than it should.

    Of a large one all is kept as unverified: where the registry has digests of its chunks, the right ones stay.
    """
    directory.forget(descriptor.digest)
    final = directory.blob_path(descriptor.digest)
    if descriptor.size >= directory.resume_threshold and directory.has(descriptor) and _salvage(directory, descriptor):
        return
    with disk_errors("removing", final), suppress(FileNotFoundError):
        directory.disk.unlink(final)


def _salvage(directory: Directory, descriptor: Descriptor) -> bool:
    """Make a partial file of a blob's file; ``False``: it cannot be one, as somebody fetches it already."""
    disk, name, final = directory.disk, descriptor.digest.file_name, directory.blob_path(descriptor.digest)
    folder = directory.open_unfinished()
    lock = BlobLock(folder, f"{name}.lock")
    try:
        if not lock.attempt():
            return False
        # Before its state speaks of other bytes, what an earlier download has left has to go.
        remove_quietly(disk, folder.at(name), folder.fd)
        journal = Journal(folder, f"{name}.json", descriptor)
        journal.unverified.add(0, descriptor.size - 1)
        journal.rewrite()
        journal.close()
        with disk_errors("moving", final):
            disk.rename(final, folder.at(name), None, into=folder.fd)
        lock.remove()
        return True
    except StorageError as error:
        if error.errno != errno.ENOENT:  # somebody has just removed the folder of what is unfinished
            raise
        return False
    finally:
        lock.release()
