"""Folders of blobs, one above the other, as one source and target: the first is written to, all are read."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.flow import Closing, Flow
from transferkit.content.interfaces import Body, Ingest
from transferkit.content.manifest import MAX_MANIFEST
from transferkit.errors import BlobNotFoundError, StorageError, TransferKitError
from transferkit.report.plan import Plan
from transferkit.storage.directory import Directory
from transferkit.storage.disk import is_file
from transferkit.storage.folder import OpenFolder
from transferkit.storage.verifying import Entry, entries


class BlobStore(Closing):
    """A store that keeps its ``blobs`` in a folder, as the engine wants to know about it."""

    blobs: Directory

    @property
    def resume_threshold(self) -> int:
        return self.blobs.resume_threshold

    def received(self, descriptors: Iterable[Descriptor]) -> dict[Digest, int]:
        """Return what interrupted transfers have left, in bytes, which the next one will not fetch again."""
        return self.blobs.received(descriptors)

    def concerns_all(self, error: TransferKitError) -> bool:
        return self.blobs.concerns_all(error)


class Stack(BlobStore):
    """The blobs of a store, and of others that are read where it lacks something. Thread-safe."""

    def __init__(self, blobs: Directory, shared: Sequence[Directory] = ()) -> None:
        self.blobs = blobs
        self.directories = (blobs, *shared)
        self._users: set[object] = set()
        self._lock = threading.Lock()
        self._is_closed = False

    # -- looking

    def path(self, digest: str) -> str:
        """Return where the content of ``digest`` is, or would be. InvalidDigestError: it is none."""
        found = self._find(Digest(digest))
        return found.path if found is not None else self.blobs.blob_path(Digest(digest))

    def get(self, digest: str) -> Entry:
        """Return a blob's entry; BlobNotFoundError: it is not here. Whether it is right, ``verify`` says."""
        found = self._find(Digest(digest))
        if found is None:
            raise BlobNotFoundError(f"{Digest(digest).short} is not in {self.blobs.path}")
        return found

    def _find(self, digest: Digest) -> Entry | None:
        for store in self.directories:
            path = store.blob_path(digest)
            with suppress(OSError):
                store.check_place()
                status = store.disk.lstat(path)
                if is_file(status):
                    return Entry(digest, status.st_size, status.st_mtime, path)
        return None

    def read(self, digest: Digest) -> bytes:
        """Return the content of a small blob, verified. BlobNotFoundError: it is not here, or is not what it should."""
        for store in self.directories:
            with suppress(OSError):
                store.check_place()
                raw = store.disk.read_file(store.blob_path(digest), MAX_MANIFEST + 1)
                if Digest.of(raw, digest.algorithm) == digest:
                    return raw
        raise BlobNotFoundError(f"{digest.short} is not in {self.blobs.path}, or has other content")

    def entries(self) -> list[Entry]:
        """Return all blobs of this store itself, sorted by digest; what is no blob is left out."""
        return entries(self.blobs)

    # -- a source and a target

    def open_unfinished(self) -> OpenFolder:
        """Return the folder of what is unfinished, made anew where it has gone; StorageError: it cannot be made."""
        return self.blobs.open_unfinished()

    def prepare(self, descriptors: Iterable[Descriptor]) -> None:
        """Make the store, and see that these blobs will fit; as ``Directory.prepare`` has it."""
        missing = [blob for blob in descriptors if not any(store.has(blob) for store in self.directories[1:])]
        if not all(map(self.blobs.has, missing)):  # else it may be one that can only be read
            self.open_unfinished()
        self.blobs.prepare(missing)

    def has(self, descriptor: Descriptor) -> bool:
        """Tell whether there is a file of the right name and size; nobody may have verified it."""
        return any(store.has(descriptor) for store in self.directories)

    def knows(self, descriptor: Descriptor) -> bool:
        """Tell, for one ``stat``, whether the content is here and was verified by an earlier run."""
        return any(store.knows(descriptor) for store in self.directories)

    def known(self, descriptors: Iterable[Descriptor]) -> set[Digest]:
        """Return the digests of those blobs that are here and were verified."""
        descriptors = list(descriptors)
        return {digest for store in self.directories for digest in store.known(descriptors)}

    def exists(self, descriptor: Descriptor, *, flow: Flow) -> bool:
        """Tell whether the content is here; what nobody has verified is hashed first."""
        return any(store.exists(descriptor, flow=flow) for store in self.directories)

    def check_source(self, descriptor: Descriptor) -> None:
        """See that a blob that is to be sent can be read and has the right size; ``SourceError`` where not."""
        self.store_of(descriptor).check_source(descriptor)

    def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Flow) -> Body:
        return self.store_of(descriptor).fetch(descriptor, offset=offset, flow=flow)

    def ingest(self, descriptor: Descriptor, *, flow: Flow) -> Ingest | None:
        if any(store.exists(descriptor, flow=flow) for store in self.directories[1:]):
            return None
        return self.blobs.ingest(descriptor, flow=flow)

    def store(self, descriptor: Descriptor, content: memoryview, *, flow: Flow) -> None:
        """Make a small content that is all here visible, as ``Storer`` has it."""
        self.blobs.store(descriptor, content, flow=flow)

    def store_of(self, descriptor: Descriptor) -> Directory:
        """Return the folder that has a blob, or would have it."""
        return next((store for store in self.directories if store.has(descriptor)), self.blobs)

    def missing(self, descriptors: Iterable[Descriptor]) -> list[Descriptor]:
        """Return those of some blobs that are not here; one ``stat`` each."""
        return [blob for blob in descriptors if not self.has(blob)]

    def plan(self, descriptors: Sequence[Descriptor]) -> Plan:
        """Tell what it takes to bring some blobs here; what nobody has verified counts as being here."""
        missing = self.missing(descriptors)
        received = self.blobs.received(missing)
        needed, free = self.blobs.room_for(missing)
        return Plan(
            blobs=len(descriptors),
            present=len(descriptors) - len(missing),
            bytes=sum(blob.size - received.get(blob.digest, 0) for blob in missing),
            needed=needed,
            free=free,
        )

    @contextmanager
    def used(self) -> Iterator[None]:
        """Keep open what is open until the block ends, whoever closes the store meanwhile."""
        user = object()
        try:
            with self._lock:
                self._users.add(user)
            yield
        finally:
            with self._lock:
                self._users.discard(user)
                if self._is_closed and not self._users:
                    self._close()

    def close(self) -> None:
        """Write what is known to be verified, as far as that can be written. The store can be used again; what is open
        stays so until nobody uses it any more."""
        with self._lock:
            self._is_closed = True
            self._close()

    def _close(self) -> None:
        for store in self.directories:
            with suppress(StorageError):
                # Those that are read have owners of their own.
                store.close() if store is self.blobs and not self._users else store.flush()
        self._is_closed = bool(self._users)
