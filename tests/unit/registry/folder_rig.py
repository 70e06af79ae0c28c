"""Folders that are filled from memory, with a disk of the test's."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import transferkit as tk
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.interfaces import Body
from transferkit.models.values import Contents, Entry, Packing
from transferkit.registry.folder_pull import fill_folder
from transferkit.registry.job import Job
from transferkit.report.folder import FolderReport
from transferkit.storage.cache import DiskCache
from transferkit.storage.disk import Disk
from transferkit.transfer.operation import Operation

OPTIONS = tk.TransferOptions(
    chunk_threshold=20_000, chunk_size=20_000, resume_threshold=10_000, retry=tk.RetryOptions(attempts=1, patience=0.0)
)


class Memory(io.BytesIO):
    """A body of content in memory."""

    def __init__(self, data: bytes, offset: int) -> None:
        super().__init__(data)
        self.offset = self.seek(offset)

    @property
    def length(self) -> int:
        return len(self.getbuffer()) - self.offset


class Source:
    """Contents in memory, as a ``Fetcher``; ``asked`` is what was fetched."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.asked: list[str] = []

    def add(self, data: bytes) -> Descriptor:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.contents[digest] = data
        return Descriptor(Digest(digest), len(data))

    def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Any) -> Body:
        self.asked.append(descriptor.digest)
        if descriptor.digest not in self.contents:
            raise tk.BlobNotFoundError(f"{descriptor.digest.short} is not here")
        return Memory(self.contents[descriptor.digest], offset)  # type: ignore[return-value]  # as far as it matters

    def entry(self, path: str, data: bytes) -> Entry:
        return Entry(path=path, descriptor=self.add(data))

    def packed(self, files: dict[str, bytes], path: str = "", inside: str = "") -> Entry:
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as tar:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        blob = self.add(gzip.compress(raw.getvalue(), mtime=0))
        return Entry(path=path, descriptor=blob, packing=Packing.TAR_GZIP, inside=inside)


def contents_of(*entries: Entry, kind: str = "oras") -> Contents:
    return Contents(kind, entries)


def fill(
    source: Source,
    contents: Contents,
    folder: Path,
    *,
    cache: Path | None = None,
    disk: Disk | None = None,
    options: tk.TransferOptions = OPTIONS,
    **more: Any,
) -> FolderReport:
    """Fill a folder as ``Registry.pull`` does it; without ``cache`` straight."""
    with ExitStack() as held, Operation(options=options, concurrency=2) as operation:
        job = Job(operation, None, options, held)  # type: ignore[arg-type]  # no names here
        store = None
        if cache is not None:
            store = held.enter_context(DiskCache(cache, resume_threshold=10_000, durable=False, disk=disk))
        else:
            more["disk"] = disk
        return fill_folder(job, source, contents, folder, cache=store, **{"version": "v", **more})


def files(folder: Path) -> dict[str, bytes]:
    """All files of a folder but ours."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".transferkit" not in path.parts
    }


def left(folder: Path) -> set[str]:
    """What is unfinished in a folder."""
    own = folder / ".transferkit"
    names = {str(path.relative_to(own)) for path in own.rglob("*") if path.is_file()}
    return names - {"state.json", ".partial/verified"}
