"""Ingesting content: from a body into a temporary file, hashed on the way, and under its name once it is verified.

The words are containerd's: an *ingest* is open until *commit*, which checks and always closes, or *abort*.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Protocol

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Hasher
from transferkit.content.interfaces import Fetcher, Flow
from transferkit.errors import DigestMismatchError, SizeMismatchError
from transferkit.storage.disk import Disk, storage_error


class Ingest:
    """Content on its way into a folder, in order. One thread's; a context manager that aborts what was not committed.

    ``offset`` is how many bytes are in the file, hashed.
    """

    def __init__(self, descriptor: Descriptor, *, disk: Disk, path: str, fd: int, final: str, durable: bool) -> None:
        self.descriptor = descriptor
        self.offset = 0
        self._disk = disk
        self._path = path
        self._final = final
        self._durable = durable
        self._fd = fd
        self._hasher: Hasher = descriptor.digest.hasher()

    def append(self, data: memoryview) -> None:
        """Write and hash the next bytes.

        Raises:
            SizeMismatchError: the content is longer than its descriptor says; the surplus is not written.
            StorageError: the disk refused.
        """
        if self.offset + len(data) > self.descriptor.size:
            raise SizeMismatchError(
                f"{self.descriptor.digest.short}: more than the {self.descriptor.size} bytes that were expected"
            )
        try:
            self._disk.pwrite(self._fd, data, self.offset)
        except OSError as error:
            raise storage_error(error, "writing", self._path) from error
        self._hasher.update(data)
        self.offset += len(data)

    def commit(self) -> os.stat_result:
        """Check size and digest, give the file its name, close it, and return its status.

        Raises:
            SizeMismatchError, DigestMismatchError: it is not the content; the file is gone.
            StorageError: the disk refused; the file is gone.
        """
        try:
            self._verify()
            if self._durable:
                self._disk.fsync(self._fd)
            status = self._disk.fstat(self._fd)
            fd, self._fd = self._fd, -1
            # Before the rename: NFS and some quotas report a full disk here.
            self._disk.close(fd)
            self._disk.rename(self._path, self._final)
            if self._durable:
                self._disk.sync_folder(os.path.dirname(self._final))
        except OSError as error:
            if isinstance(error, (SizeMismatchError, DigestMismatchError)):
                raise
            raise storage_error(error, "storing", self._final) from error
        self._path = ""
        return status

    def _verify(self) -> None:
        wanted = self.descriptor
        if self.offset != wanted.size:
            raise SizeMismatchError(f"{wanted.digest.short}: {self.offset} bytes arrived, {wanted.size} were expected")
        if not wanted.digest.matches(self._hasher):
            raise DigestMismatchError(
                f"{wanted.digest.short}: the content that arrived has the digest "
                f"{wanted.digest.algorithm}:{self._hasher.hexdigest()[:12]}..."
            )

    def interrupt(self, rest: memoryview) -> int:
        """Break the attempt off, ``rest`` being what has arrived and is not written yet; tell how many bytes survive.

        None do, for a small blob.
        """
        return 0

    def restart(self) -> None:
        """Begin again at the first byte."""
        self.offset = 0
        self._hasher = self.descriptor.digest.hasher()

    def abort(self) -> None:
        """Close and remove what is there. Never raises; more than once is fine."""
        fd, self._fd = self._fd, -1
        path, self._path = self._path, ""
        try:
            if fd >= 0:
                self._disk.close(fd)
        except OSError:
            pass  # the content is thrown away
        try:
            if path:
                self._disk.unlink(path)
        except OSError:
            pass  # gone already, or a disk that refuses everything: the temporary name is nobody's

    def __enter__(self) -> Ingest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.abort()


def temporary_name(folder: str, descriptor: Descriptor) -> str:
    """Return a name in ``folder`` that no other process or thread uses: safety never rests on a lock."""
    return f"{folder}/{descriptor.digest.file_name}.{os.urandom(8).hex()}"


class Sequential(Protocol):
    """An ingest that is filled in order."""

    descriptor: Descriptor
    offset: int

    def append(self, data: memoryview) -> None: ...
    def interrupt(self, rest: memoryview) -> int: ...
    def restart(self) -> None: ...


def receive(ingest: Sequential, source: Fetcher, flow: Flow) -> None:
    """Read the rest of the content from ``source`` into ``ingest``, which stays open.

    What was counted and does not survive a failure is taken back, so that progress stays exact.
    """
    descriptor = ingest.descriptor
    buffer = flow.buffer
    filled = 0
    try:
        with source.fetch(descriptor, offset=ingest.offset, flow=flow) as body:
            flow.watch.begin()
            if body.offset != ingest.offset:
                # The source cannot resume. What was there is fetched again, and is no progress any more.
                ingest.restart()
                flow.counter.set_position(0)
            size = len(buffer)
            left = descriptor.size - ingest.offset
            while True:
                # Fill the buffer before hashing and writing: TLS hands out 16 KiB at most.
                count = body.readinto(buffer[filled:] if filled else buffer)
                if not count:
                    break
                flow.moved(count if count <= left else left)  # what is too much is no progress
                left -= count
                filled += count
                if filled == size:
                    filled = 0
                    flow.watch.paused = True
                    ingest.append(buffer)
                    flow.watch.paused = False
                elif left < 0:
                    break
            if filled:
                whole, filled = filled, 0
                ingest.append(buffer[:whole])
            if body.length is None and ingest.offset < descriptor.size:
                # Nobody said how long it would be: an early end may be a connection that was cut.
                raise SizeMismatchError(
                    f"{descriptor.digest.short}: {ingest.offset} bytes arrived, {descriptor.size} were expected",
                    retryable=True,
                )
    except BaseException:
        flow.counter.set_position(ingest.interrupt(buffer[:filled]))
        raise
    finally:
        flow.watch.end()
