"""The files of a tar layer, written one by one as the layer comes by: none gets its name before all was verified.

Regular files alone: links, devices, pipes and sparse files are left out.
"""

from __future__ import annotations

import logging
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from transferkit.content.digest import Digest
from transferkit.storage.disk import remove_quietly
from transferkit.storage.disk_errors import disk_errors
from transferkit.storage.folder import OpenFolder
from transferkit.storage.tar_stream import TarStream

logger = logging.getLogger(__name__)


class Member(NamedTuple):
    """What a member is called in the folder, and whether it is wanted.

    ``note`` is what stands among the files for a member that is none, such as a link, if something does.
    """

    path: str
    is_wanted: bool
    note: str | None = None


Named = Callable[[str], "Member | None"]
"""Tells what a member is; ``None``: it is none of the files that are meant."""


@dataclass(frozen=True, slots=True)
class UnpackedFile:
    """A file that was unpacked: its content, and its name among the unfinished files, which ends with the call."""

    name: str
    digest: Digest
    size: int


Unpacked = dict[str, UnpackedFile | None]
"""The files of a layer, by path; ``None``: it was not wanted, or is a note."""


def unpack(stream: TarStream, named: Named, folder: OpenFolder) -> Unpacked:
    """Write the wanted files of a layer into the folder of unfinished files; nothing is left there where that fails.

    Raises:
        InvalidModelError: it is no tar file, or one that is out of all bounds.
        VerificationError: it is not the content of its descriptor.
        StorageError: the disk refused.
        TransferKitError: what the body of the stream and ``named`` raise.
    """
    unpacking = _Unpacking(stream, named, folder)
    try:
        stream.each(unpacking.handle)
    except BaseException:
        for file in unpacking.files.values():
            unpacking.drop(file)
        raise
    if unpacking.skipped:
        first = ", ".join(unpacking.skipped[:3])
        logger.warning("%d links, devices or sparse files were left out, such as %s", len(unpacking.skipped), first)
    return unpacking.files


class _Unpacking:
    """One layer under way."""

    def __init__(self, stream: TarStream, named: Named, folder: OpenFolder) -> None:
        self.files: Unpacked = {}
        self.skipped: list[str] = []
        self._stream = stream
        self._named = named
        self._folder = folder

    def handle(self, member: tarfile.TarInfo) -> None:
        if member.isdir():
            return
        found = self._named(member.name)
        if found is None:
            return
        path, is_wanted, note = found
        self.drop(self.files.pop(path, None))  # of several of one name the last one counts, as for tar
        if member.isreg() and not member.issparse():
            self.files[path] = self._write(member.size) if is_wanted else None
            return
        self.skipped.append(member.name[:100])
        if note is not None:
            self.files[note] = None

    def _write(self, size: int) -> UnpackedFile:
        disk, folder, name = self._folder.disk, self._folder, f"file.{os.urandom(8).hex()}"
        hasher, offset = Digest.of(b"").hasher(), 0
        with disk_errors("unpacking into", folder.path):
            fd = disk.create(folder.at(name), folder.fd)
            try:
                for piece in self._stream.take(size):
                    hasher.update(piece)
                    disk.pwrite(fd, piece, offset)
                    offset += len(piece)
                closing, fd = fd, -1
                disk.close(closing)
            except BaseException:
                if fd >= 0:
                    disk.close(fd)
                self.drop(UnpackedFile(name, Digest.of(b""), 0))
                raise
        return UnpackedFile(name, Digest(f"sha256:{hasher.hexdigest()}"), size)

    def drop(self, file: UnpackedFile | None) -> None:
        if file is not None:
            remove_quietly(self._folder.disk, self._folder.at(file.name), self._folder.fd)
