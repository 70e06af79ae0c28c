"""What earlier runs have left in a folder: partial files, listed and removed when asked for, never silently."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from transferkit.content.digest import Digest
from transferkit.errors import StorageError
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk, is_file
from transferkit.storage.disk_errors import disk_errors
from transferkit.storage.folder import OpenFolder
from transferkit.storage.lock import BlobLock, is_idle

# sha256-<hex>, or sha256-<hex>.<random> of a process that was killed: a small blob, or one without a lock; or
# sha256-<hex>.at.<start>, a range of a large one, with ``.part`` where it is not complete. A state file counts where
# the content is not beside it: the process was killed while it began or while it ended.
_NAME = re.compile(
    r"(?P<name>(?P<blob>sha256-[0-9a-f]{64}|sha512-[0-9a-f]{128})"
    r"(\.[0-9a-f]{16}|\.at\.[0-9a-f]{16}(\.part(\.[0-9a-f]{16})?)?)?)(\.json(\.new)?)?"
)

UNTOUCHED = 3600.0  # seconds without a byte: a body that is silent is cut long before


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialFile:
    """A blob that an interrupted download has left, to be continued.

    ``path`` is the file, ``stored`` how many bytes it takes on the disk, ``age`` the seconds since it was last written.
    """

    digest: Digest
    path: str
    stored: int
    age: float


def partials(dest_dir: str | os.PathLike[str]) -> list[PartialFile]:
    """Return what interrupted downloads have left in a folder, to be continued by the next one; oldest first.

    Raises:
        StorageError: the folder cannot be read.
    """
    with _opened(dest_dir) as folder:
        left = [] if folder is None else _left(folder)
        return [partial for partial in left if not _is_state(partial)]


def discard(
    dest_dir: str | os.PathLike[str], digests: Iterable[str] | None = None, *, older_than: float = 24 * 3600.0
) -> list[PartialFile]:
    """Remove what interrupted downloads have left in a folder, and return it.

    Only files that were not written for ``older_than`` seconds (by default a day), of these ``digests`` or of all; what
    a running download fills is left alone. Small files may be anybody's while a download runs in the folder, and where
    locks do not tell whether one does: then only those are removed that were not written for an hour.

    Raises:
        InvalidDigestError: one of the digests is none.
        StorageError: a file cannot be removed.
    """
    wanted = None if digests is None else {Digest(digest) for digest in digests}
    removed: list[PartialFile] = []
    with _opened(dest_dir) as folder:
        # First the list, then the look: who begins after that has files of other names.
        found = _left(folder) if folder is not None else []
        least = older_than if folder is not None and is_idle(folder) else max(older_than, UNTOUCHED)
        for partial in found:
            match = _NAME.fullmatch(os.path.basename(partial.path))
            if folder is None or match is None or (wanted is not None and partial.digest not in wanted):
                continue
            is_large = match["name"] == match["blob"]
            if partial.age >= older_than if is_large else partial.age >= least:
                is_gone = _discard_large(folder, match, older_than) if is_large else _remove(folder, match["name"])
                removed += [partial] * is_gone
    return removed


@contextmanager
def _opened(dest_dir: str | os.PathLike[str]) -> Iterator[OpenFolder | None]:
    """Open the ``.partial`` of a folder, ``None`` where there is none."""
    with ExitStack() as stack:
        folder = None
        try:
            folder = stack.enter_context(OpenFolder(Directory(dest_dir).unfinished, Disk()))
        except StorageError as error:
            if error.errno != errno.ENOENT:
                raise
        yield folder


def _left(folder: OpenFolder) -> list[PartialFile]:
    """Return what is left in a folder, oldest first: of each blob the content, or its state where that is alone."""
    with disk_errors("reading", folder.path):
        names = sorted(os.listdir(folder.path))
    left: dict[str, re.Match[str]] = {}
    for match in filter(None, map(_NAME.fullmatch, names)):
        left.setdefault(match["name"], match)  # in order: the content comes before its state
    partials = (_look(folder, match) for match in left.values())
    return sorted(filter(None, partials), key=lambda partial: -partial.age)


def _is_state(partial: PartialFile) -> bool:
    """Tell whether nothing of the content is there to go on with."""
    return partial.path.endswith((".json", ".json.new"))


def _look(folder: OpenFolder, match: re.Match[str]) -> PartialFile | None:
    path = f"{folder.path}/{match[0]}"
    with disk_errors("reading", path), suppress(FileNotFoundError):  # a running download has just finished with it
        status = folder.disk.lstat(folder.at(match[0]), folder.fd)
        if is_file(status):
            digest = Digest.from_file_name(match["blob"])
            age = max(0.0, time.time() - status.st_mtime)
            return PartialFile(digest=digest, path=path, stored=status.st_blocks * 512, age=age)
    return None


def _discard_large(folder: OpenFolder, match: re.Match[str], older_than: float) -> bool:
    """Remove a partial file, unless somebody fills it, or has just filled it."""
    lock = BlobLock(folder, f"{match['name']}.lock")
    try:
        if not lock.attempt():
            return False
        partial = _look(folder, match)
        if partial is not None and partial.age < older_than:
            return False
        if partial is not None:
            _remove(folder, match["name"])
        lock.remove()  # last: who takes another one finds nothing that is about to be removed
        return partial is not None
    finally:
        lock.release()


def _remove(folder: OpenFolder, name: str) -> bool:
    """Remove a file and its state; ``StorageError`` where it cannot be."""
    for ending in ("", ".json", ".json.new"):
        with disk_errors("removing", f"{folder.path}/{name}{ending}"), suppress(FileNotFoundError):
            folder.remove(name + ending)
    return True
