"""A store of models in Ollama's layout, shared with Ollama and with other processes.

``blobs/sha256-<hex>`` and ``manifests/<host>/<namespace>/<model>/<tag>``. Everything of ours that is no final file is
in ``blobs/.partial``. A manifest gets its name last, when each of its blobs has been seen in place.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import BinaryIO

from transferkit.cancellation import Cancellation
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.flow import Flow
from transferkit.content.manifest import MAX_MANIFEST, Index, Manifest, parse
from transferkit.errors import (
    BlobNotFoundError,
    InvalidManifestError,
    ManifestNotFoundError,
    SourceError,
    StorageError,
    TransferKitError,
)
from transferkit.names import DEFAULT_MASK, Name
from transferkit.storage.default_cache import default_cache
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk, close_quietly, is_file
from transferkit.storage.folder import OpenFolder
from transferkit.storage.garbage import GRACE, Garbage, reachable
from transferkit.storage.links import Links
from transferkit.storage.lock import patient_lock
from transferkit.storage.pinned_manifests import PinnedManifests
from transferkit.storage.pins import Pins
from transferkit.storage.snapshots import Snapshots
from transferkit.storage.stack import Stack
from transferkit.storage.storing import store_content, take_away
from transferkit.storage.verifying import Entry, Progress, verify
from transferkit.tables import MOST_ROWS, human_bytes, listing

# Where there can be no lock of a name: in a store that can only be read, and in one that is pruned at this moment.
_NO_LOCK = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT)
TAG = "CACHEDIR.TAG"
# https://bford.info/cachedir/: backup programs leave the folder out.
_TAG_TEXT = b"Signature: 8a477f597d28d172789f06886806bc55\n# A cache of models; they can be fetched again.\n"


class DiskCache(Stack):
    """A store of models: blobs by their digests, manifests by their names. Thread-safe, and safe next to other
    processes, Ollama among them. A store that can only be read can be read.

    ``path`` is by default :func:`default_cache`. ``shared`` are stores, or their paths, that are read where this one
    lacks something, and never written to. Blobs of ``resume_threshold`` bytes and more are continued after a break;
    with ``rehash`` no earlier run is believed; ``durable``: what was stored survives a power cut.

    >>> import tempfile
    >>> cache = DiskCache(tempfile.mkdtemp())
    >>> cache.put(b"hello").digest.short
    'sha256:2cf24dba5fb0'
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
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.root = os.path.abspath(os.path.expanduser(os.fspath(path or default_cache())))
        self.disk = disk or Disk()
        blobs = Directory(
            f"{self.root}/blobs",
            resume_threshold=resume_threshold,
            rehash=rehash,
            durable=durable,
            follow_links=False,
            keep=True,
            disk=self.disk,
        )
        if isinstance(shared, str | os.PathLike):
            raise TypeError("shared is a list of stores or of their paths, such as [path]")
        below = [each if isinstance(each, DiskCache) else DiskCache(each, disk=disk) for each in shared]
        self._shared: tuple[DiskCache, ...] = tuple(store for each in below for store in each._stores)
        super().__init__(blobs, [store.blobs for store in self._shared])
        self._durable = durable
        self._clock = clock
        self._links = Links(self.root, self.disk)
        self._pins = Pins(self.blobs, clock)
        self.pinned_manifests = PinnedManifests(self.root, self.blobs, durable=durable)
        """What is kept by its digest, without a name."""
        self._garbage = Garbage(self.blobs, (self._links, self.pinned_manifests), self._pins, clock)
        self.snapshots = Snapshots(self.root, self.disk, durable=durable, knows=self.blobs.believes, clock=clock)
        """Folders with the files of manifests."""

    @property
    def _stores(self) -> tuple[DiskCache, ...]:
        return (self, *self._shared)  # never kept: who holds himself keeps his folder open

    # -- what comes from this machine

    def open_unfinished(self) -> OpenFolder:
        """Return the folder of what is unfinished; a store that is made for it is marked as a cache."""
        is_new = not os.path.lexists(self.blobs.path) and not os.path.lexists(self._links.path)
        folder = super().open_unfinished()
        if is_new and not os.path.lexists(f"{self.root}/{TAG}"):
            with suppress(OSError):
                folder.place(_TAG_TEXT, f"{self.root}/{TAG}")
        return folder

    def put(self, content: bytes | BinaryIO, digest: str | None = None) -> Descriptor:
        """Store content, and return what it is; it appears whole or not at all, and ``gc`` leaves it for its grace.

        Raises:
            DigestMismatchError: it is not the content of ``digest``.
            StorageError: the disk refused.
        """
        if isinstance(content, bytearray | memoryview):
            content = bytes(content)
        if not isinstance(content, bytes) and not hasattr(content, "read"):
            raise TypeError(f"content is bytes, or a file that is open for reading bytes, not {type(content).__name__}")
        wanted = None if digest is None else Digest(digest)
        with suppress(StorageError):
            self.open_unfinished()  # else it says so when it is stored
        return store_content(self.blobs, content, wanted, durable=self._durable, clock=self._clock)

    def import_file(self, path: str | os.PathLike[str]) -> Descriptor:
        """Store a copy of a file, and return what it is.

        Raises:
            SourceError: it is missing, or none, or cannot be read.
            StorageError: the disk refused.
        """
        path, fd = os.fspath(path), -1
        try:
            try:
                fd = self.disk.open(path)
                if not is_file(self.disk.fstat(fd)):
                    raise SourceError(f"{path} is not a file")
            except OSError as error:
                if isinstance(error, SourceError):
                    raise
                raise SourceError(f"{path} cannot be read: {error.strerror}", errno=error.errno) from error
            with os.fdopen(fd, "rb", closefd=False) as file:
                return self.put(file)
        finally:
            close_quietly(self.disk, fd)

    # -- names

    def links(self) -> list[Name]:
        """Return the names of all models, sorted, those of shared stores too; what is malformed hides no other one.

        StorageError: the names of a store cannot be read.
        """
        names = dict.fromkeys(name for store in self._stores for name in store._links.names())
        return sorted(names, key=lambda name: name.path)

    def manifest(self, name: str | Name) -> bytes:
        """Return the bytes of a name's manifest; ManifestNotFoundError: there is none, or one that cannot be one."""
        name, reason = _name(name), None
        for store in self._stores:
            try:
                return store._links.read(name)
            except ManifestNotFoundError as error:
                reason = reason or error
        raise reason or ManifestNotFoundError(f'model "{name}" not found in {self.root}')

    def linked_at(self, name: str | Name) -> float:
        """Return when a manifest got its name (Unix time); ManifestNotFoundError: there is none."""
        name = _name(name)
        found = (store._links.linked_at(name) for store in self._stores)
        moment = next((moment for moment in found if moment is not None), None)
        if moment is None:
            raise ManifestNotFoundError(f'model "{name}" not found in {self.root}')
        return moment

    def resolve(self, name: str | Name) -> Digest:
        """Return the digest of a name's manifest, which is a blob as well: one that was edited by hand becomes one."""
        raw = self.manifest(name)
        digest = Digest.of(raw)
        try:
            self.read(digest)
        except BlobNotFoundError:
            with suppress(StorageError):  # a store that can only be read
                self.put(raw)
        return digest

    def document(self, name: str | Name) -> Manifest | Index:
        """Return the manifest or index of a name. InvalidManifestError: it is malformed."""
        return parse(self.manifest(name))

    def link(self, name: str | Name, manifest: str | bytes) -> Digest:
        """Give a manifest, which is a blob here or the bytes of one, a name: the last step of a pull.

        Where it has that name already, nothing is touched.

        Raises:
            BlobNotFoundError: there is no such blob.
            InvalidManifestError: it is empty or longer than 4 MiB, so nobody would read it.
            StorageError: the disk refused.
        """
        name = _name(name)
        raw = manifest if isinstance(manifest, bytes) else self.read(Digest(manifest))
        if not 0 < len(raw) <= MAX_MANIFEST:
            raise InvalidManifestError(f"a manifest has 1 to {MAX_MANIFEST} bytes, not {len(raw)}")
        digest = self.put(raw).digest if isinstance(manifest, bytes) else Digest(manifest)
        with suppress(ManifestNotFoundError, StorageError):
            if self._links.read(name) == raw:
                return digest
        self._links.write(name, raw, self.open_unfinished, durable=self._durable)
        return digest

    def unlink(self, name: str | Name) -> bool:
        """Remove a name; its blobs stay until ``gc``. ``False``: this store has none."""
        return self._links.remove(_name(name), durable=self._durable)

    # -- what is kept, and what is not

    def pinned(self, digests: Collection[Digest]) -> AbstractContextManager[None]:
        """Keep blobs from ``gc``, of other processes too, for as long as the context lasts."""
        return self._pins.holding(digests)

    def gc(self, *, grace: float = GRACE, dry_run: bool = False) -> list[Entry]:
        """Remove the blobs of this store that no manifest of it names, and snapshots of none; return them.

        Those that were written within ``grace`` seconds, and those that a running pull needs, stay.

        Raises:
            StorageError: a manifest cannot be read, so nobody can tell; or a blob cannot be removed.
        """
        if not os.path.lexists(self.blobs.path):
            return self._garbage.find(grace)
        folders = self.snapshots.find_garbage(self._garbage.kept, grace)
        if dry_run:
            return self._garbage.find(grace) + folders
        self.snapshots.remove(folders, grace)
        return self._garbage.remove(grace) + folders

    def lock(self, name: Name, flow: Flow) -> AbstractContextManager[bool]:
        """Wait until no other process pulls a name, and keep others from it for as long as the context lasts."""
        return self.locked(f"name.{Digest.of(name.path.lower().encode()).hex[:32]}", flow)

    @contextmanager
    def locked(self, what: str, flow: Flow, look: Callable[[], object] | None = None) -> Iterator[bool]:
        """Hold a lock of this store, as ``patient_lock`` has it; one that cannot be written to needs none."""
        with ExitStack() as stack:
            is_held = False
            try:
                is_held = stack.enter_context(patient_lock(self.open_unfinished(), f"{what}.lock", flow, look))
            except StorageError as error:
                if error.errno not in _NO_LOCK:
                    raise
            yield is_held

    def verify(
        self,
        names: Iterable[str | Name] | None = None,
        *,
        progress: Progress | bool | None = None,
        cancel: Cancellation | None = None,
    ) -> list[Entry]:
        """Hash the blobs of this store, or of some names in it, on all processors; return those that are wrong.

        ``progress(completed, total)`` gets bytes, and is called from this thread; ``True`` draws a bar. What is right
        is remembered, and what is wrong is not taken for right any more.

        Raises:
            ManifestNotFoundError: there is no such name.
            CancelledError: ``cancel`` was triggered.
            StorageError: a blob cannot be looked at.
        """
        found = verify(self.blobs, self._entries(names), progress=progress, cancel=cancel)
        self.blobs.flush()
        return found

    def _entries(self, names: Iterable[str | Name] | None) -> list[Entry]:
        if names is None:
            return self.entries()
        wanted = reachable([self.manifest(name) for name in names], self._read_if_there)
        return [entry for entry in self.entries() if entry.digest in wanted]

    def _read_if_there(self, digest: Digest) -> bytes:
        with suppress(BlobNotFoundError):
            return self.read(digest)
        return b""

    def take_away(self, descriptor: Descriptor) -> None:
        """Take away a blob that ``verify`` found wrong, as far as it cannot be used again."""
        take_away(self.blobs, descriptor)

    def size(self, name: str | Name | None = None) -> int:
        """Return how many bytes the blobs of this store have, or those of them that a name leads to."""
        return sum(entry.size for entry in self._entries(None if name is None else [name]))

    def __repr__(self) -> str:
        return f"<DiskCache {self.root}>"

    def _repr_html_(self) -> str:
        """Return a table of the models; of those that are shown the manifests are read, and nothing else."""
        try:
            names = self.links()
        except StorageError as error:
            return listing(f"{self.root}: {error}", ("name", "size", "layers"), [])
        rows = [(str(name), *self._facts(name)) for name in names[:MOST_ROWS]]
        rows += [("", "", "")] * (len(names) - len(rows))  # they are counted, and not shown
        caption = f"{self.root}: {len(names)} model{'s' * (len(names) != 1)}"
        return listing(caption, ("name", "size", "layers"), rows)

    def _facts(self, name: Name) -> tuple[str, str]:
        """Return the size of a model, and how many layers it has, as far as that can be read."""
        try:
            document = self.document(name)
        except (TransferKitError, OSError):
            return "?", "?"
        if isinstance(document, Index):
            return "", f"an index of {len(document.manifests)}"
        return human_bytes(document.size), str(len(document.layers))


def _name(name: str | Name) -> Name:
    """Return a name that is complete, and whose parts may be names of folders; InvalidNameError: it is none."""
    return Name.from_path((name if isinstance(name, Name) else Name.parse(name).merge(DEFAULT_MASK)).path)
