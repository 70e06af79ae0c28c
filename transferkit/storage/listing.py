"""Which of many blobs may be in a folder: one listing in the place of a ``stat`` for each."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Sequence

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest

_FEW = 16  # blobs; fewer are asked for one by one
_FRESH = 1.0  # seconds for which a listing is believed: then another process may have brought what was missing
_ENTRIES = 4  # in the folder for each blob that is looked for; of a larger folder a listing costs more


def listed(folder: str, descriptors: Sequence[Descriptor]) -> Sequence[Descriptor]:
    """Return those of some blobs that may have a file in a flat folder; all where a listing costs more than asking."""
    if len(descriptors) < _FEW:
        return descriptors
    most = _ENTRIES * len(descriptors)
    names: set[str] = set()
    try:
        with os.scandir(folder) as files:
            names.update(file.name for file in itertools.islice(files, most))
    except FileNotFoundError:
        return ()
    except OSError:
        return descriptors  # each of them says what is wrong
    return descriptors if len(names) == most else [d for d in descriptors if d.digest.file_name in names]


class Missing:
    """What a folder was just found to lack: who asks for such a blob needs no ``stat`` for it, once. Thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._digests: set[Digest] = set()
        self._until = 0.0

    def note(self, descriptors: Iterable[Descriptor]) -> None:
        """Take in what is missing now."""
        self._digests = {descriptor.digest for descriptor in descriptors}
        self._until = self._clock() + _FRESH

    def take(self, digest: Digest) -> bool:
        """Tell whether a blob is known to be missing; the next time somebody has to look."""
        if digest not in self._digests or self._clock() >= self._until:
            return False
        self._digests.discard(digest)
        return True
