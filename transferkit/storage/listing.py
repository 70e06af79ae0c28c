"""Which of many blobs may be in a folder: one listing in the place of a ``stat`` for each."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence

from transferkit.content.descriptor import Descriptor

_FEW = 16  # blobs; fewer are asked for one by one
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
