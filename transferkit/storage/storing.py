"""Content that comes from this machine into a folder of blobs, and content that was found wrong in there."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import BinaryIO

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.errors import DigestMismatchError
from transferkit.storage.directory import Directory
from transferkit.storage.disk import close_quietly, disk_errors, remove_quietly, sync_folder
from transferkit.storage.journal import Journal
from transferkit.storage.lock import BlobLock

_BLOCK = 1024 * 1024  # bytes that are read at once


def store_content(
    directory: Directory, content: bytes | BinaryIO, wanted: Digest | None, *, durable: bool
) -> Descriptor:
    """Store content of which nobody knows more, and return what it is; it appears whole or not at all.

    Raises:
        DigestMismatchError: it is not the content of ``wanted``.
        StorageError: the disk refused.
    """
    disk, folder = directory.disk, directory.open_unfinished()
    algorithm = wanted.algorithm if wanted is not None else "sha256"
    hasher = Digest.of(b"", algorithm).hasher()
    # The name of a small blob that is unfinished: ``discard`` knows it.
    name = f"sha256-{64 * '0'}.{os.urandom(8).hex()}"
    with disk_errors("storing content in", directory.path):
        fd = disk.create(folder.at(name), folder.fd)
        try:
            size = 0
            for block in (content,) if isinstance(content, bytes) else iter(lambda: content.read(_BLOCK), b""):
                hasher.update(block)
                disk.pwrite(fd, memoryview(block), size)
                size += len(block)
            digest = Digest(f"{algorithm}:{hasher.hexdigest()}")
            if wanted is not None and digest != wanted:
                raise DigestMismatchError(f"the content has the digest {digest.short}, not {wanted.short}")
            descriptor, final = Descriptor(digest, size), directory.blob_path(digest)
            if directory.knows(descriptor):
                return descriptor
            if durable:
                disk.fsync(fd)
            closing, fd = fd, -1
            disk.close(closing)
            disk.rename(folder.at(name), final, folder.fd)
            if durable:
                sync_folder(disk, os.path.dirname(final))
            with suppress(OSError):
                directory.remember(digest, disk.lstat(final))
            return descriptor
        finally:
            close_quietly(disk, fd)
            remove_quietly(disk, folder.at(name), folder.fd)


def take_away(directory: Directory, descriptor: Descriptor) -> None:
    """Take away a blob's file that has other content than it should.

    Of a large one all is kept as unverified: where the registry has digests of its chunks, the right ones stay.
    """
    disk, name, final = directory.disk, descriptor.digest.file_name, directory.blob_path(descriptor.digest)
    if descriptor.size >= directory.resume_threshold and directory.has(descriptor):
        folder = directory.open_unfinished()
        lock = BlobLock(folder, f"{name}.lock")
        try:
            if lock.attempt():  # else somebody fetches it already
                journal = Journal(folder, f"{name}.json", descriptor)
                journal.unverified.add(0, descriptor.size - 1)
                journal.rewrite()
                journal.close()
                with disk_errors("moving", final):
                    disk.rename(final, folder.at(name), None, into=folder.fd)
                return
        finally:
            lock.release()
    with disk_errors("removing", final), suppress(FileNotFoundError):
        disk.unlink(final)
