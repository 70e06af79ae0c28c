"""A store of models in Ollama's layout, shared with Ollama and with other processes.

``blobs/sha256-<hex>`` and ``manifests/<host>/<namespace>/<model>/<tag>``. Everything of ours that is no final file is
in ``blobs/.partial``. A manifest gets its name last, when each of its blobs has been seen in place.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import BinaryIO

from transferkit.cancellation import Cancellation
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.interfaces import Body, Flow, Ingest
from transferkit.content.manifest import MAX_MANIFEST, Index, Manifest, parse
from transferkit.errors import (
    BlobNotFoundError,
    InvalidManifestError,
    ManifestNotFoundError,
    StorageError,
    TransferKitError,
)
from transferkit.names import DEFAULT_MASK, Name
from transferkit.report import Plan
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk, disk_errors, is_file
from transferkit.storage.folder import OpenFolder
from transferkit.storage.links import Links
from transferkit.storage.lock import BlobLock
from transferkit.storage.pins import Pins
from transferkit.storage.storing import store_content, take_away
from transferkit.storage.verifying import Entry, verify

TAG = "CACHEDIR.TAG"
# https://bford.info/cachedir/: backup programs leave the folder out.
_TAG_TEXT = b"Signature: 8a477f597d28d172789f06886806bc55\n# A cache of models; they can be fetched again.\n"
GRACE = 3600.0  # seconds for which a blob that no manifest names is left alone: Ollama's, too


def default_cache() -> str:
    """Return where models are kept unless somebody says otherwise.

    ``TRANSFERKIT_CACHE``, else Ollama's own store (``OLLAMA_MODELS``, or ``~/.ollama/models`` where that is), else
    ``transferkit`` in ``XDG_CACHE_HOME`` or ``~/.cache``.
    """
    for variable in ("TRANSFERKIT_CACHE", "OLLAMA_MODELS"):
        if path := os.environ.get(variable):
            return path
    theirs = os.path.expanduser("~/.ollama/models")
    if os.path.isdir(theirs):
        return theirs
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "transferkit")


class DiskCache:
    """A store of models: blobs by their digests, manifests by their names.

    ``path`` is by default :func:`default_cache`. ``shared`` are stores that are read where this one lacks something,
    and never written. Thread-safe, and safe next to other processes. A store that can only be read can be read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        shared: Sequence[DiskCache | str | os.PathLike[str]] = (),
        resume_threshold: int = 16 * 1024 * 1024,
        rehash: bool = False,
        durable: bool = True,
        disk: Disk | None = None,
    ) -> None:
        self.root = os.path.abspath(os.path.expanduser(os.fspath(path or default_cache())))
        self.shared = tuple(each if isinstance(each, DiskCache) else DiskCache(each, disk=disk) for each in shared)
        self.disk = disk or Disk()
        self._durable = durable
        self.blobs = Directory(
            f"{self.root}/blobs",
            resume_threshold=resume_threshold,
            rehash=rehash,
            durable=durable,
            follow_links=False,
            keep=True,
            disk=self.disk,
        )
        self._links = Links(self.root, self.disk)
        self._pins = Pins(self.blobs)

    # -- blobs

    def path(self, digest: str) -> str:
        """Return where the content of ``digest`` is, or would be. InvalidDigestError: it is none."""
        checked = Digest(digest)
        for store in (self, *self.shared):
            path = store.blobs.blob_path(checked)
            if os.path.lexists(path):
                return path
        return self.blobs.blob_path(checked)

    def get(self, digest: str) -> Entry:
        """Return a blob's entry; BlobNotFoundError: it is not here. Whether it is right, ``verify`` says."""
        path = self.path(digest)
        with suppress(OSError):
            status = self.disk.lstat(path)
            if is_file(status):
                return Entry(Digest(digest), status.st_size, status.st_mtime, path)
        raise BlobNotFoundError(f"{Digest(digest).short} is not in {self.root}")

    def put(self, content: bytes | BinaryIO, digest: str | None = None) -> Descriptor:
        """Store content, and return what it is; it appears whole or not at all.

        Raises:
            DigestMismatchError: it is not the content of ``digest``.
            StorageError: the disk refused.
        """
        self._open()
        return store_content(self.blobs, content, None if digest is None else Digest(digest), durable=self._durable)

    def import_file(self, path: str | os.PathLike[str]) -> Descriptor:
        """Store a copy of a file, and return what it is. StorageError: it cannot be read, or the disk refused."""
        with disk_errors("reading", os.fspath(path)):
            file = open(path, "rb")  # noqa: SIM115 - closed below
        with file:
            return self.put(file)

    def read(self, digest: Digest) -> bytes:
        """Return the content of a small blob, verified. BlobNotFoundError: it is not here, or is not what it should."""
        path = self.path(digest)
        with suppress(OSError):
            raw = self.disk.read_file(path, MAX_MANIFEST + 1)
            if Digest.of(raw, digest.algorithm) == digest:
                return raw
        raise BlobNotFoundError(f"{digest.short} is not in {self.root}, or has other content")

    def entries(self) -> list[Entry]:
        """Return all blobs of this store, sorted by digest; what is no blob is left out."""
        found: list[Entry] = []
        with suppress(OSError), os.scandir(self.blobs.path) as files:
            for file in files:
                with suppress(OSError, ValueError):
                    if file.is_file(follow_symlinks=False):
                        status = file.stat(follow_symlinks=False)
                        digest = Digest.from_file_name(file.name)
                        found.append(Entry(digest, status.st_size, status.st_mtime, file.path))
        return sorted(found, key=lambda entry: entry.digest)

    # -- a source and a target

    def prepare(self, descriptors: Iterable[Descriptor]) -> None:
        """Make the store, and see that these blobs will fit; as ``Directory.prepare`` has it."""
        missing = [blob for blob in descriptors if not any(store.blobs.has(blob) for store in self.shared)]
        if missing:
            self._open()
        self.blobs.prepare(missing)

    def _open(self) -> OpenFolder:
        """Return the folder of what is unfinished; a store that is made for it is marked as a cache."""
        is_new = not os.path.isdir(self.root)
        folder = self.blobs.open_unfinished()
        if is_new:
            with suppress(OSError):
                self.disk.append(f"{self.root}/{TAG}", _TAG_TEXT)
        return folder

    def knows(self, descriptor: Descriptor) -> bool:
        """Tell, for one ``stat``, whether the content is here and was verified by an earlier run."""
        return any(store.blobs.knows(descriptor) for store in (self, *self.shared))

    def exists(self, descriptor: Descriptor, *, flow: Flow) -> bool:
        """Tell whether the content is here; what nobody has verified is hashed first."""
        return any(store.blobs.exists(descriptor, flow=flow) for store in (self, *self.shared))

    def check_source(self, descriptor: Descriptor) -> None:
        """See that a blob that is to be sent can be read and has the right size; ``SourceError`` where not."""
        self._store_of(descriptor).check_source(descriptor)

    def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Flow) -> Body:
        return self._store_of(descriptor).fetch(descriptor, offset=offset, flow=flow)

    def ingest(self, descriptor: Descriptor, *, flow: Flow) -> Ingest | None:
        if any(store.blobs.exists(descriptor, flow=flow) for store in self.shared):
            return None
        return self.blobs.ingest(descriptor, flow=flow)

    def received(self, descriptors: Iterable[Descriptor]) -> dict[Digest, int]:
        """Return what interrupted pulls have left, in bytes."""
        return self.blobs.received(descriptors)

    def concerns_all(self, error: TransferKitError) -> bool:
        return self.blobs.concerns_all(error)

    def _store_of(self, descriptor: Descriptor) -> Directory:
        return next((store.blobs for store in (self, *self.shared) if store.blobs.has(descriptor)), self.blobs)

    def missing(self, descriptors: Iterable[Descriptor]) -> list[Descriptor]:
        """Return those of some blobs that are not here; one ``stat`` each."""
        return [blob for blob in descriptors if not any(store.blobs.has(blob) for store in (self, *self.shared))]

    # -- names

    def links(self) -> list[Name]:
        """Return the names of all models, sorted; a manifest that is malformed hides no other one."""
        names = dict.fromkeys(self._links.names())
        for store in self.shared:
            names.update(dict.fromkeys(store.links()))
        return list(names)

    def manifest(self, name: str | Name) -> bytes:
        """Return the bytes of a name's manifest; ManifestNotFoundError: there is none."""
        name = _name(name)
        for store in (self, *self.shared):
            with suppress(ManifestNotFoundError):
                return store._links.read(name)
        raise ManifestNotFoundError(f'model "{name}" not found in {self.root}')

    def resolve(self, name: str | Name) -> Digest:
        """Return the digest of a name's manifest, which is a blob as well: one that was edited by hand becomes one."""
        raw = self.manifest(name)
        digest = Digest.of(raw)
        if not any(store.blobs.has(Descriptor(digest, len(raw))) for store in (self, *self.shared)):
            with suppress(StorageError):  # a store that can only be read
                self.put(raw)
        return digest

    def document(self, name: str | Name) -> Manifest | Index:
        """Return the manifest or index of a name. InvalidManifestError: it is malformed."""
        return parse(self.manifest(name))

    def link(self, name: str | Name, manifest: str | bytes) -> Digest:
        """Give a manifest, which is a blob here or the bytes of one, a name. The last step of a pull."""
        name = _name(name)
        raw = manifest if isinstance(manifest, bytes) else self.read(Digest(manifest))
        digest = self.put(raw).digest if isinstance(manifest, bytes) else Digest(manifest)
        self._links.write(name, raw, self._open(), durable=self._durable)
        return digest

    def unlink(self, name: str | Name) -> bool:
        """Remove a name; its blobs stay until ``gc``. ``False``: there was none."""
        return self._links.remove(_name(name))

    # -- what is kept, and what is not

    @contextmanager
    def pinned(self, digests: Collection[Digest]) -> Iterator[None]:
        """Keep blobs from ``gc``, of other processes too, for as long as the context lasts."""
        with self._pins.holding(digests):
            yield

    def referenced(self, names: Iterable[Name] | None = None) -> set[Digest]:
        """Return the digests of all that names lead to, manifests included; by default those of this store."""
        found: set[Digest] = set()
        for name in self._links.names() if names is None else names:
            with suppress(ManifestNotFoundError, StorageError):
                self._add_references(self._links.read(name), found)
        return found

    def _add_references(self, raw: bytes, found: set[Digest]) -> None:
        digest = Digest.of(raw)
        if digest in found:
            return
        found.add(digest)
        try:
            document = parse(raw)
        except InvalidManifestError:
            return
        if isinstance(document, Manifest):
            found.update(blob.digest for blob in document.blobs)
            return
        for entry in document.manifests:
            with suppress(BlobNotFoundError):
                self._add_references(self.read(entry.digest), found)
            found.add(entry.digest)

    def gc(self, *, grace: float = GRACE, dry_run: bool = False) -> list[Entry]:
        """Remove blobs that no manifest names, and return them.

        Those that were written within ``grace`` seconds, and those that a running pull needs, stay.
        """
        before = time.time() - grace
        candidates = [entry for entry in self.entries() if entry.time < before]
        kept = self.referenced() | self._pins.held()
        removed = [entry for entry in candidates if entry.digest not in kept]
        for entry in removed if not dry_run else ():
            with disk_errors("removing", entry.path), suppress(FileNotFoundError):
                self.disk.unlink(entry.path)
        return removed

    @contextmanager
    def lock(self, name: Name, flow: Flow) -> Iterator[None]:
        """Wait until no other process pulls a name, and keep others from it for as long as the context lasts."""
        try:
            folder = self._open()
        except StorageError:  # it can only be read: nobody pulls anything
            yield
            return
        lock = BlobLock(folder, f"name.{Digest.of(name.path.lower().encode()).hex[:32]}.lock")
        try:
            lock.acquire(flow, partial(_growth, folder.path))
            yield
        finally:
            lock.remove()
            lock.release()

    def verify(
        self,
        names: Iterable[str | Name] | None = None,
        *,
        progress: Callable[[int, int], object] | None = None,
        cancel: Cancellation | None = None,
    ) -> list[Entry]:
        """Hash the blobs of this store, or of some names in it, on all processors; return those that are wrong.

        ``progress(completed, total)`` gets bytes, and is called from this thread. What is right is remembered.
        """
        entries = self.entries()
        if names is not None:
            wanted = self.referenced(map(_name, names))
            entries = [entry for entry in entries if entry.digest in wanted]
        return verify(self.blobs, entries, progress=progress, cancel=cancel)

    def take_away(self, descriptor: Descriptor) -> None:
        """Take away a blob that ``verify`` found wrong, as far as it cannot be used again."""
        take_away(self.blobs, descriptor)

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

    def size(self) -> int:
        """Return how many bytes the blobs of this store have."""
        return sum(entry.size for entry in self.entries())

    def close(self) -> None:
        """Write what is known to be verified. Never raises."""
        self.blobs.close()

    def __repr__(self) -> str:
        return f"<DiskCache {self.root}>"


def _growth(folder: str) -> object:
    """Tell how far somebody is who fills a store: what changes while bytes arrive."""
    with suppress(OSError), os.scandir(folder) as files:
        return [(file.name, file.stat().st_mtime_ns) for file in files]
    return None


def _name(name: str | Name) -> Name:
    return name if isinstance(name, Name) else Name.parse(name).merge(DEFAULT_MASK)
