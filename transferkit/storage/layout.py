"""OCI image layouts: ``oci-layout``, ``index.json`` and ``blobs/<algorithm>/<hex>``, as a folder or as a tar file.

Source: OCI image specification v1.1, image-layout.md. What is read is bounded (CVE-2023-25153).
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.graph import Document
from transferkit.content.interfaces import Body, Flow, Ingest
from transferkit.content.manifest import MAX_MANIFEST, Index, parse
from transferkit.errors import (
    BlobNotFoundError,
    InvalidManifestError,
    ManifestNotFoundError,
    SourceError,
    StorageError,
    TransferKitError,
)
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk, disk_errors
from transferkit.storage.file_body import FileBody
from transferkit.storage.storing import store_content

REF_NAME = "org.opencontainers.image.ref.name"
_VERSION = {"imageLayoutVersion": "1.0.0"}
_MAX_INDEX = 4 * 1024 * 1024  # bytes of index.json
_MAX_MEMBERS = 100_000  # of a tar file


def _name(digest: Digest) -> str:
    return f"{digest.algorithm}/{digest.hex}"


@dataclass(frozen=True, slots=True)
class Tagged:
    """What a layout calls ``tag``; without one, the only manifest in it."""

    layout: OCILayout
    tag: str | None = None


class OCILayout:
    """An image layout in a folder, as a source and a target. Thread-safe; several processes may add blobs, and one at
    a time tags.

    A tar file is read where ``path`` is one; it is written by :meth:`pack`.

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
        self.blobs = Directory(
            f"{self.path}/blobs",
            resume_threshold=resume_threshold,
            durable=durable,
            follow_links=False,
            names=_name,
            keep=True,
            disk=disk,
        )
        self._durable = durable
        self._members: dict[str, tuple[int, int]] | None = None
        if os.path.isfile(self.path):
            self._members = _members(self.path)

    # -- blobs

    def prepare(self, descriptors: Iterable[Descriptor]) -> None:
        """Make the layout, and see that these blobs will fit; as ``Directory.prepare`` has it."""
        self._writable()
        missing = list(descriptors)
        for algorithm in {"sha256", *(descriptor.digest.algorithm for descriptor in missing)}:
            self._make(algorithm)
        if not os.path.exists(f"{self.path}/oci-layout"):
            self._replace("oci-layout", json.dumps(_VERSION).encode())
        self.blobs.prepare(missing)

    def knows(self, descriptor: Descriptor) -> bool:
        return self._members is None and self.blobs.knows(descriptor)

    def exists(self, descriptor: Descriptor, *, flow: Flow) -> bool:
        """Tell whether the content is here; of a tar file, whether it has a member of that name and size."""
        if self._members is None:
            return self.blobs.exists(descriptor, flow=flow)
        return self._member(descriptor.digest)[1] == descriptor.size

    def check_source(self, descriptor: Descriptor) -> None:
        if self._members is None:
            self.blobs.check_source(descriptor)
        elif self._member(descriptor.digest)[1] != descriptor.size:
            raise SourceError(f"{self.path} does not have {descriptor.digest.short} with {descriptor.size} bytes")

    def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Flow) -> Body:
        if self._members is None:
            return self.blobs.fetch(descriptor, offset=offset, flow=flow)
        start, size = self._member(descriptor.digest)
        if size != descriptor.size:
            raise SourceError(f"{self.path} has {size} bytes of {descriptor.digest.short}, not {descriptor.size}")
        body = FileBody(descriptor, self.path, self.blobs.disk, start=start)
        try:
            body.seek(offset, flow=flow)
        except BaseException:
            body.close()
            raise
        body.offset = offset
        return body

    def ingest(self, descriptor: Descriptor, *, flow: Flow) -> Ingest | None:
        self._writable()
        self._make(descriptor.digest.algorithm)
        return self.blobs.ingest(descriptor, flow=flow)

    def received(self, descriptors: Iterable[Descriptor]) -> dict[Digest, int]:
        """Return what interrupted copies have left, in bytes."""
        return self.blobs.received(descriptors)

    def concerns_all(self, error: TransferKitError) -> bool:
        return self.blobs.concerns_all(error)

    def _make(self, algorithm: str) -> None:
        folder = f"{self.blobs.path}/{algorithm}"
        if not os.path.isdir(folder):
            with disk_errors("making the layout", self.path):
                self.blobs.disk.make_folder(folder)

    def read(self, digest: Digest) -> bytes:
        """Return the content of a small blob, verified. BlobNotFoundError: it is not here, or is not what it should."""
        with suppress(OSError, BlobNotFoundError):
            if self._members is None:
                raw = self.blobs.disk.read_file(self.blobs.blob_path(digest), MAX_MANIFEST + 1)
            else:
                raw = self._read_member(_path(digest), MAX_MANIFEST)
            if Digest.of(raw, digest.algorithm) == digest:
                return raw
        raise BlobNotFoundError(f"{digest.short} is not in {self.path}, or has other content")

    # -- names

    def at(self, tag: str | None = None) -> Tagged:
        """Return the source or target of a copy that is called ``tag`` in here."""
        return Tagged(self, tag)

    def load(self, digest: Digest) -> Document:
        """Return a manifest or index by its digest. ManifestNotFoundError: it is not here."""
        try:
            return parse(self.read(digest))
        except BlobNotFoundError as error:
            raise ManifestNotFoundError(str(error)) from error

    def referrers(self, digest: Digest) -> list[Digest]:
        """Return the manifests in ``index.json`` that name ``digest`` as their subject."""
        found = []
        for entry in self._entries():
            described = Digest(entry["digest"])
            with suppress(ManifestNotFoundError, InvalidManifestError):
                subject = self.load(described).json().get("subject")
                if isinstance(subject, dict) and subject.get("digest") == digest:
                    found.append(described)
        return found

    def tags(self) -> list[str]:
        """Return the names that the layout gives to manifests."""
        return [name for entry in self._entries() if isinstance(name := _annotation(entry), str)]

    def document(self, tag: str | None = None) -> Document:
        """Return the manifest or index of a tag; without one, the only one that there is.

        Raises:
            ManifestNotFoundError: there is none, or several to choose from.
            InvalidManifestError: ``index.json`` or the manifest is malformed.
        """
        entries = self._entries()
        found = [entry for entry in entries if tag is None or tag in (_annotation(entry), entry.get("digest"))]
        if len(found) != 1:
            there = ", ".join(self.tags()) or f"{len(entries)} manifests without names"
            raise ManifestNotFoundError(
                f"{self.path} has no manifest {tag or 'that stands alone'}; it has {there[:300]}"
            )
        (described,) = Index(json.dumps({"schemaVersion": 2, "manifests": found}).encode()).manifests
        return parse(self.read(described.digest), media_type=described.media_type)

    def tag(self, document: Document, tag: str) -> None:
        """Give a document, which is stored as well, a name, and take that from another one."""
        self._enter(document, {"annotations": {REF_NAME: tag}}, lambda entry: _annotation(entry) == tag)

    def add(self, document: Document) -> None:
        """Enter a document, which is stored as well, without a name."""
        self._enter(document, {}, lambda entry: entry.get("digest") == document.digest and _annotation(entry) is None)

    def _enter(self, document: Document, more: dict[str, Any], replaces: Callable[[dict[str, Any]], bool]) -> None:
        self.put(document.raw)
        described = {"mediaType": document.media_type, "digest": document.digest, "size": len(document.raw), **more}
        entries = [entry for entry in self._entries() if not replaces(entry)]
        index = {"schemaVersion": 2, "manifests": [*entries, described]}
        self._replace("index.json", json.dumps(index).encode())

    def put(self, content: bytes) -> Descriptor:
        """Store content, and return what it is."""
        self.prepare(())
        return store_content(self.blobs, content, None, durable=self._durable)

    def _entries(self) -> list[dict[str, Any]]:
        try:
            if self._members is None:
                raw = self.blobs.disk.read_file(f"{self.path}/index.json", _MAX_INDEX + 1)
            else:
                raw = self._read_member("index.json", _MAX_INDEX)
        except (FileNotFoundError, BlobNotFoundError):
            return []
        except OSError as error:
            raise StorageError(f"{self.path}/index.json cannot be read: {error.strerror}", errno=error.errno) from error
        if len(raw) > _MAX_INDEX:
            raise InvalidManifestError(f"{self.path}/index.json is longer than {_MAX_INDEX} bytes")
        Index(raw)  # checks what is in it
        manifests: list[dict[str, Any]] = json.loads(raw)["manifests"]
        return manifests

    def _replace(self, name: str, data: bytes) -> None:
        disk, folder = self.blobs.disk, self.blobs.open_unfinished()
        temporary = f"{name}.{os.urandom(8).hex()}"
        with disk_errors("writing", f"{self.path}/{name}"):
            fd = disk.create(folder.at(temporary), folder.fd)
            try:
                disk.pwrite(fd, memoryview(data), 0)
                if self._durable:
                    disk.fsync(fd)
            finally:
                disk.close(fd)
            disk.rename(folder.at(temporary), f"{self.path}/{name}", folder.fd)

    def flush(self) -> None:
        """Write down what is known to be verified."""
        if self._members is None:
            self.blobs.flush()

    def close(self) -> None:
        if self._members is None:
            self.blobs.close()

    # -- tar files

    def pack(self, path: str | os.PathLike[str]) -> None:
        """Write the layout as a tar file, whole or not at all; the same content gives the same bytes."""
        target = os.path.abspath(os.fspath(path))
        temporary = f"{target}.{os.urandom(8).hex()}"
        with disk_errors("writing", target):
            try:
                with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
                    for name in self._files():
                        info = tarfile.TarInfo(name)
                        info.size, info.mode = os.path.getsize(f"{self.path}/{name}"), 0o644
                        with open(f"{self.path}/{name}", "rb") as file:
                            tar.addfile(info, file)
                os.replace(temporary, target)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)
                raise

    def _files(self) -> list[str]:
        names = [name for name in ("oci-layout", "index.json") if os.path.isfile(f"{self.path}/{name}")]
        for algorithm in ("sha256", "sha512"):
            with suppress(FileNotFoundError):
                names += [f"blobs/{algorithm}/{name}" for name in sorted(os.listdir(f"{self.blobs.path}/{algorithm}"))]
        return names

    def _writable(self) -> None:
        if self._members is not None:
            raise StorageError(f"{self.path} is a tar file, which is read alone; write a folder, and pack() that")

    def _member(self, digest: Digest) -> tuple[int, int]:
        found = (self._members or {}).get(_path(digest))
        if found is None:
            raise BlobNotFoundError(f"{digest.short} is not in {self.path}")
        return found

    def _read_member(self, name: str, limit: int) -> bytes:
        start, size = (self._members or {}).get(name, (0, -1))
        if not 0 <= size <= limit:
            raise BlobNotFoundError(f"{self.path} has no {name}, or one of more than {limit} bytes")
        with open(self.path, "rb") as file:
            file.seek(start)
            return file.read(size)

    def __repr__(self) -> str:
        return f"<OCILayout {self.path}>"


def _path(digest: Digest) -> str:
    return f"blobs/{_name(digest)}"


def _annotation(entry: dict[str, Any]) -> Any:
    annotations = entry.get("annotations")
    return annotations.get(REF_NAME) if isinstance(annotations, dict) else None


def _members(path: str) -> dict[str, tuple[int, int]]:
    """Return where the plain files in a tar file begin, and how long they are."""
    found: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.isreg() and not member.issparse():
                    found[member.name.removeprefix("./")] = member.offset_data, member.size
                if len(found) > _MAX_MEMBERS:
                    raise InvalidManifestError(f"{path} has more than {_MAX_MEMBERS} files")
    except (OSError, tarfile.TarError) as error:
        raise StorageError(f"{path} cannot be read as a tar file that is not compressed: {error}") from error
    return found
