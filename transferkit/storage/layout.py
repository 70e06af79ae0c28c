"""OCI image layouts: ``oci-layout``, ``index.json`` and ``blobs/<algorithm>/<hex>``, as a folder or as a tar file.

Source: OCI image specification v1.1, image-layout.md. What is read is bounded (CVE-2023-25153).
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import HEX_LENGTHS, Digest
from transferkit.content.flow import Flow
from transferkit.content.graph import Document
from transferkit.content.interfaces import Body, Ingest
from transferkit.content.manifest import MAX_MANIFEST, parse
from transferkit.errors import (
    BlobNotFoundError,
    InvalidManifestError,
    ManifestNotFoundError,
    SourceError,
    StorageError,
)
from transferkit.storage import layout_index
from transferkit.storage.archive import Archive, Part, write_archive
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk, is_file
from transferkit.storage.disk_errors import disk_errors
from transferkit.storage.lock import brief_lock
from transferkit.storage.stack import BlobStore
from transferkit.storage.storing import store_content

_INDEX, _VERSION = "index.json", "oci-layout"


def _name(digest: Digest) -> str:
    return f"{digest.algorithm}/{digest.hex}"


@dataclass(frozen=True, slots=True)
class Tagged:
    """What a layout calls ``tag``; without one, the only manifest in it."""

    layout: OCILayout
    tag: str | None = None


class OCILayout(BlobStore):
    """An OCI image layout, as a source and a target. Thread-safe; several processes may fill and tag one folder.

    ``path`` is a folder, or a tar file where it is one or ends with ``.tar``. What is stored in a tar file is kept in
    ``<path>.partial`` until :meth:`flush` writes the file anew, whole; one process at a time does that.

    >>> import tempfile
    >>> OCILayout(tempfile.mkdtemp()).tags()
    []
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        resume_threshold: int = 16 * 1024 * 1024,
        durable: bool = False,
        disk: Disk | None = None,
    ) -> None:
        self.path = os.path.abspath(os.path.expanduser(os.fspath(path)))
        self.disk = disk or Disk()
        is_there = os.path.isfile(self.path)
        self._is_tar = is_there or (self.path.endswith(".tar") and not os.path.isdir(self.path))
        self._folder = f"{self.path}.partial" if self._is_tar else self.path
        self._archive = Archive(self.path, self.disk) if is_there else None
        self._right: set[Descriptor] = set()  # what was found to be right in the archive
        self._changing = threading.Lock()
        self._durable = durable
        self.blobs = Directory(
            f"{self._folder}/blobs",
            resume_threshold=resume_threshold,
            durable=durable,
            follow_links=False,
            names=_name,
            keep=True,
            disk=self.disk,
        )

    # -- blobs

    def prepare(self, descriptors: Iterable[Descriptor]) -> None:
        """Make the layout, and see that these blobs will fit; as ``Directory.prepare`` has it."""
        missing = [blob for blob in descriptors if not self._is_archived(blob)]
        for algorithm in {"sha256", *(descriptor.digest.algorithm for descriptor in missing)}:
            self._make(algorithm)
        if not os.path.lexists(f"{self._folder}/{_VERSION}"):
            self._replace(_VERSION, layout_index.VERSION)
        self.blobs.prepare(missing)

    def _make(self, algorithm: str) -> None:
        """Make the folder of an algorithm; a link in its place leads nowhere."""
        folder = f"{self.blobs.path}/{algorithm}"
        for path in (self._folder, folder) if self._is_tar else (folder,):
            if os.path.islink(path):
                raise StorageError(f"{path} is a symbolic link, which is not followed; remove it", errno=errno.ELOOP)
        if not os.path.isdir(folder):
            self.blobs.check_place()
            with disk_errors("making the layout", self._folder):
                self.disk.make_folder(folder)

    def _is_archived(self, blob: Descriptor) -> bool:
        part = self._archive.parts.get(_path(blob.digest)) if self._archive is not None else None
        return part is not None and part.size == blob.size

    def has(self, descriptor: Descriptor) -> bool:
        """Tell whether there is something of the right name and size; nobody may have verified it."""
        return self._is_archived(descriptor) or self.blobs.has(descriptor)

    def knows(self, descriptor: Descriptor) -> bool:
        """Tell whether the content is here and was verified by an earlier run, or in the tar file by this one."""
        return descriptor in self._right or self.blobs.knows(descriptor)

    def known(self, descriptors: Iterable[Descriptor]) -> set[Digest]:
        """Return the digests of those blobs that are here and were verified."""
        return {descriptor.digest for descriptor in descriptors if self.knows(descriptor)}

    def exists(self, descriptor: Descriptor, *, flow: Flow) -> bool:
        """Tell whether the content is here; what nobody has verified is hashed first."""
        if descriptor in self._right or self.blobs.exists(descriptor, flow=flow):
            return True
        if self._archive is None or not self._is_archived(descriptor):
            return False
        with suppress(SourceError), self._archive.fetch(descriptor, _path(descriptor.digest), flow=flow) as body:
            while body.readinto(flow.buffer):
                flow.check()
            self._right.add(descriptor)
        return descriptor in self._right

    def check_source(self, descriptor: Descriptor) -> None:
        """See that a blob that is to be sent can be read and has the right size; ``SourceError`` where not."""
        if not self._is_archived(descriptor):
            self.blobs.check_source(descriptor)

    def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Flow) -> Body:
        if self._archive is not None and not self.blobs.has(descriptor):
            return self._archive.fetch(descriptor, _path(descriptor.digest), offset=offset, flow=flow)
        return self.blobs.fetch(descriptor, offset=offset, flow=flow)

    def ingest(self, descriptor: Descriptor, *, flow: Flow) -> Ingest | None:
        if self._is_archived(descriptor) and self.exists(descriptor, flow=flow):
            return None
        self._make(descriptor.digest.algorithm)
        return self.blobs.ingest(descriptor, flow=flow)

    def store(self, descriptor: Descriptor, content: memoryview, *, flow: Flow) -> None:
        """Make a small content that is all here visible, as ``Storer`` has it."""
        self._make(descriptor.digest.algorithm)
        self.blobs.store(descriptor, content, flow=flow)

    def put(self, content: bytes | BinaryIO) -> Descriptor:
        """Store content, and return what it is."""
        self.prepare(())
        return store_content(self.blobs, content, durable=self._durable)

    def read(self, digest: Digest) -> bytes:
        """Return the content of a small blob, verified. BlobNotFoundError: it is not here, or is not what it should."""
        with suppress(StorageError):
            raw = self._read(_path(digest), MAX_MANIFEST)
            if raw is not None and Digest.of(raw, digest.algorithm) == digest:
                return raw
        raise BlobNotFoundError(f"{digest.short} is not in {self.path}, or has other content")

    def _read(self, name: str, limit: int) -> bytes | None:
        """Return the content of a file of the layout, ``None``: there is none.

        Raises:
            StorageError: it is longer than ``limit`` bytes, or cannot be read.
        """
        with disk_errors("reading", f"{self._folder}/{name}"), suppress(FileNotFoundError):
            raw = self.disk.read_file(f"{self._folder}/{name}", limit + 1)
            if len(raw) > limit:
                raise StorageError(f"{self._folder}/{name} is longer than {limit} bytes")
            return raw
        return None if self._archive is None else self._archive.read(name, limit)

    # -- names

    def at(self, tag: str | None = None) -> Tagged:
        """Return the source or target of a copy that is called ``tag`` in here."""
        return Tagged(self, tag)

    def tags(self) -> list[str]:
        """Return the names that the layout gives to manifests."""
        return [name for entry in self._entries() if (name := layout_index.name_of(entry)) is not None]

    def document(self, tag: str | None = None) -> Document:
        """Return the manifest or index of a tag or a digest; without one, the only one that there is.

        Raises:
            ManifestNotFoundError: there is none, or several to choose from.
            InvalidManifestError: ``index.json`` or the manifest is malformed.
        """
        return self.load(*layout_index.choose(self._entries(), tag, self.path))

    def load(self, digest: Digest, media_type: str = "") -> Document:
        """Return a manifest or index by its digest. ManifestNotFoundError: it is not here."""
        try:
            return parse(self.read(digest), media_type=media_type)
        except BlobNotFoundError as error:
            raise ManifestNotFoundError(str(error)) from error

    def referrers(self, digest: Digest) -> list[Digest]:
        """Return the manifests in ``index.json`` that name ``digest`` as their subject."""
        found: dict[Digest, None] = {}
        for entry in self._entries():
            with suppress(ManifestNotFoundError, InvalidManifestError):
                subject = self.load(Digest(entry["digest"])).json().get("subject")
                if isinstance(subject, dict) and subject.get("digest") == digest:
                    found[Digest(entry["digest"])] = None
        return list(found)

    def tag(self, document: Document, tag: str) -> None:
        """Give a document, which is stored as well, a name, and take that from another one."""
        self._enter(document, tag)

    def add(self, document: Document) -> None:
        """Enter a document, which is stored as well, without a name."""
        self._enter(document, None)

    def _enter(self, document: Document, name: str | None) -> None:
        self.put(document.raw)
        with brief_lock(self.blobs.open_unfinished(), f"{_INDEX}.lock"), self._changing:
            entries = layout_index.with_document(self._entries(), document, name)
            self._replace(_INDEX, layout_index.text_of(entries))

    def _entries(self) -> list[layout_index.Entry]:
        try:
            layout_index.check_version(self._read(_VERSION, 4096), self.path)
            raw = self._read(_INDEX, layout_index.MAX_INDEX)
        except StorageError as error:
            if error.errno is not None:
                raise
            raise InvalidManifestError(str(error)) from error
        return layout_index.entries_of(raw)

    def _replace(self, name: str, data: bytes) -> None:
        folder, target = self.blobs.open_unfinished(), f"{self._folder}/{name}"
        with disk_errors("writing", target):
            sync = self.disk.fsync if self._durable else None
            folder.place(data, target, sync=sync)

    # -- tar files

    def pack(self, path: str | os.PathLike[str]) -> None:
        """Write the layout as a tar file, whole or not at all; the same content gives the same bytes."""
        write_archive(os.path.abspath(os.fspath(path)), self._parts(), self.disk, durable=self._durable)

    def _parts(self) -> list[Part]:
        """Return what belongs to the layout, in a fixed order: that of the folder, and of the tar file the rest."""
        parts = dict(self._archive.parts) if self._archive is not None else {}
        parts.update((part.name, part) for part in self._stored())
        ours = {name: part for name, part in parts.items() if name in (_VERSION, _INDEX) or _is_blob(name)}
        return [ours[name] for name in sorted(ours, key=lambda name: (name != _VERSION, name != _INDEX, name))]

    def _stored(self) -> Iterator[Part]:
        names = [_VERSION, _INDEX]
        for algorithm in HEX_LENGTHS:
            with suppress(FileNotFoundError):
                names += [f"blobs/{algorithm}/{name}" for name in os.listdir(f"{self.blobs.path}/{algorithm}")]
        for name in names:
            path = f"{self._folder}/{name}"
            with suppress(FileNotFoundError):
                status = self.disk.lstat(path)
                if is_file(status):
                    yield Part(name, path, 0, status.st_size)

    def flush(self) -> None:
        """Write down what is known to be verified, and a tar file anew, where something came to it."""
        self.blobs.flush()
        with self._changing:
            if self._is_tar and os.path.lexists(f"{self._folder}/{_INDEX}"):
                self.pack(self.path)
                self.blobs.close()
                shutil.rmtree(self._folder, ignore_errors=True)
                self._archive = Archive(self.path, self.disk)

    def close(self) -> None:
        """As ``flush``; the layout can be used again."""
        self.flush()
        self.blobs.close()

    def __repr__(self) -> str:
        return f"<OCILayout {self.path}>"


def _path(digest: Digest) -> str:
    return f"blobs/{_name(digest)}"


def _is_blob(name: str) -> bool:
    """Tell whether a file is a blob by its name: what else lies around in a layout is not packed."""
    with suppress(ValueError):
        folder, algorithm, hexdigest = name.split("/")
        return folder == "blobs" and bool(Digest(f"{algorithm}:{hexdigest}"))
    return False
