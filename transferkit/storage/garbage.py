"""What the manifests of a store lead to, and the removal of everything else.

Nobody but this module removes what is right. It goes by the digests that stand in the texts of manifests, and not by
what those mean: of a manifest that is malformed, of a later kind, or that only Ollama understands, the blobs stay.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Protocol

from transferkit.content.digest import Digest
from transferkit.content.manifest import MAX_MANIFEST
from transferkit.storage.directory import Directory
from transferkit.storage.disk import is_file
from transferkit.storage.disk_errors import disk_errors
from transferkit.storage.lock import brief_lock
from transferkit.storage.pins import GATE, Pins
from transferkit.storage.verifying import Entry, entries

GRACE = 3600.0  # seconds for which a blob that no manifest names is left alone: Ollama's, too
_MOMENT = 0.25  # seconds, about, that a pull that begins may have to wait for those who remove

_DIGEST = re.compile(rb"sha(?:256:[0-9a-f]{64}|512:[0-9a-f]{128})(?![0-9a-f])")


def reachable(manifests: Iterable[bytes], read: Callable[[Digest], bytes]) -> set[Digest]:
    """Return the digests of manifests and of all that they name; those of an index are read as well."""
    found: set[Digest] = set()
    opened: set[Digest] = set()
    queue = list(manifests)
    while queue:
        raw = queue.pop()
        named = {Digest(match.decode("ascii")) for match in _DIGEST.findall(raw)}
        found |= {Digest.of(raw), *named}
        if b'"manifests"' in raw:
            queue += [read(digest) for digest in named - opened]
            opened |= named
    return found


class Manifests(Protocol):
    """Manifests that keep what they name."""

    def contents(self) -> Iterator[bytes]:
        """Yield what is in each file; StorageError: something cannot be read."""


class Garbage:
    """The blobs of one store that nothing leads to: none of the ``manifests``."""

    def __init__(
        self,
        directory: Directory,
        manifests: Sequence[Manifests],
        pins: Pins,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._manifests = manifests
        self._pins = pins
        self._clock = clock

    def find(self, grace: float) -> list[Entry]:
        """Return them, without those that were written within ``grace`` seconds.

        Raises:
            StorageError: a manifest or a folder of manifests cannot be read, so nobody can tell.
        """
        before = self._clock() - grace
        old = [entry for entry in entries(self._directory) if entry.time < before]
        kept = self.kept()
        return [entry for entry in old if entry.digest not in kept]

    def kept(self) -> set[Digest]:
        """Return the digests of all that manifests lead to, or a running pull needs. StorageError: as for ``find``."""
        pinned = self._pins.held()  # first: where a pull ends in between, its manifest is there by then
        return pinned | reachable(chain.from_iterable(each.contents() for each in self._manifests), self._read)

    def remove(self, grace: float) -> list[Entry]:
        """Remove them, and return what was removed; StorageError as for ``find``, or one cannot be removed."""
        folder = self._directory.open_unfinished()
        removed: list[Entry] = []
        while True:
            with brief_lock(folder, GATE):
                until, found = time.monotonic() + _MOMENT, self.find(grace)
                for number, entry in enumerate(found):
                    if number and time.monotonic() > until:
                        break  # and look again: somebody may have begun a pull meanwhile
                    with disk_errors("removing", entry.path):
                        self._directory.disk.unlink(entry.path)
                    removed.append(entry)
                else:
                    return removed

    def _read(self, digest: Digest) -> bytes:
        """Return the text of a manifest that an index names; nothing where it is not here, as for other platforms."""
        disk, path = self._directory.disk, self._directory.blob_path(digest)
        with disk_errors("reading", path):
            try:
                return disk.read_file(path, MAX_MANIFEST) if is_file(disk.lstat(path)) else b""
            except FileNotFoundError:
                return b""
