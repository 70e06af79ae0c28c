"""Files of a folder that are pushed as the layers of an artifact."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

from transferkit.content.descriptor import OCTET_STREAM, Descriptor
from transferkit.content.digest import Digest
from transferkit.content.flow import Flow
from transferkit.content.interfaces import Body
from transferkit.content.manifest import OCI_MANIFEST, Manifest
from transferkit.content.title import TITLE, check_title, check_titles
from transferkit.errors import BlobNotFoundError, SourceError, StorageError, TransferKitError
from transferkit.storage.disk import Disk, disk_errors, is_file
from transferkit.storage.file_body import FileBody
from transferkit.transport.request import BytesBody

# Source: OCI image specification v1.1, "Guidance for an empty descriptor".
EMPTY_CONFIG = b"{}"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
DEFAULT_TYPE = "application/vnd.transferkit.files.v1"  # of an artifact whose user names none

Files = Iterable["str | os.PathLike[str]"] | Mapping[str, "str | os.PathLike[str]"]


@dataclass
class FileSet:
    """Files as a source of blobs, with their titles. Thread-safe once ``add`` has been called for each of them."""

    disk: Disk = field(default_factory=Disk)
    layers: list[Descriptor] = field(default_factory=list)
    paths: dict[Digest, str] = field(default_factory=dict)

    def add(self, title: str, path: str, flow: Flow) -> None:
        """Hash a file, and take it in under a title.

        Raises:
            SourceError: it is missing, no file, or cannot be read.
            InvalidNameError: the title is no relative path of a file.
        """
        check_title(title)
        hasher = Digest.of(b"").hasher()
        try:
            fd = self.disk.open(path)
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror}", errno=error.errno) from error
        try:
            status = self.disk.fstat(fd)
            if not is_file(status):
                raise SourceError(f"{path} is not a file")
            size, buffer = 0, flow.buffer
            with disk_errors("reading", path):
                while count := self.disk.preadv(fd, buffer, size):
                    flow.check()
                    hasher.update(buffer[:count])
                    size += count
        finally:
            self.disk.close(fd)
        digest = Digest(f"sha256:{hasher.hexdigest()}")
        self.paths[digest] = path
        self.layers.append(Descriptor(digest, size, media_type=OCTET_STREAM, annotations=((TITLE, title),)))

    def clear(self) -> None:
        """Forget all files."""
        self.layers.clear()
        self.paths.clear()

    def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Flow) -> Body:
        if descriptor.digest == Digest.of(EMPTY_CONFIG):
            return BytesBody(EMPTY_CONFIG)
        if descriptor.digest not in self.paths:
            raise BlobNotFoundError(f"{descriptor.digest.short} is none of the files")
        return FileBody(descriptor, self.paths[descriptor.digest], self.disk).begin_at(offset, flow=flow)

    def concerns_all(self, error: TransferKitError) -> bool:
        return isinstance(error, StorageError)  # without one of the files there is no artifact

    def manifest(self, artifact_type: str | None, annotations: Mapping[str, str]) -> Manifest:
        """Return the manifest of an artifact that has the files, in their order, as layers.

        InvalidNameError: two files have one title.
        """
        check_titles(tuple(self.layers))
        config = {"mediaType": EMPTY_TYPE, "digest": Digest.of(EMPTY_CONFIG), "size": len(EMPTY_CONFIG)}
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": artifact_type or DEFAULT_TYPE,
            "config": config,
            "layers": [
                {
                    "mediaType": layer.media_type,
                    "digest": layer.digest,
                    "size": layer.size,
                    "annotations": dict(layer.annotations),
                }
                for layer in self.layers
            ],
            **({"annotations": dict(annotations)} if annotations else {}),
        }
        return Manifest(json.dumps(document, separators=(",", ":")).encode(), media_type=OCI_MANIFEST)


def titled(files: Files) -> list[tuple[str, str]]:
    """Return title and path of each file: a mapping has them, else a file's title is its name without folders."""
    if isinstance(files, Mapping):
        return [(title, os.fspath(path)) for title, path in files.items()]
    return [(PurePath(os.fspath(path)).name, os.fspath(path)) for path in files]
