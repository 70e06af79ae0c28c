"""The last step of filling a folder: all files get their names, if it still is as it was when that was decided."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass

from transferkit.content.digest import Digest
from transferkit.errors import StorageError
from transferkit.registry.folder_survey import Survey, conflict
from transferkit.storage.directory import Directory
from transferkit.storage.lock import patient_lock
from transferkit.transfer.flow import WorkerFlow


@dataclass(slots=True)
class Made:
    """A file that waits for its name: ``source`` is its name among the unfinished files, or the path of a blob."""

    source: str
    is_path: bool
    digest: Digest
    way: str
    store: Directory | None = None
    """The store whose blob it is, if it is a hard link."""


def give_names(
    survey: Survey, made: Mapping[str, Made], version: str, flow: WorkerFlow, finish: Callable[[], None]
) -> bool:
    """Give all files their names, and ``finish``; ``False``: somebody else was at the folder, and nothing was done.

    Nothing rests on the lock of who fills the folder, which is given up where nothing seems to happen for long.

    Raises:
        StorageError: the disk refused, or somebody has put a file there in this very moment.
    """
    place = survey.place
    with patient_lock(place.unfinished, "naming.lock", flow):
        if not (place.is_current and survey.is_current()):
            return False
        inside = {path for path in made if any(path.startswith(f"{file}/") for file in survey.in_the_way)}
        place.tree.prepare(set(made) - inside)  # before anything is replaced
        place.state.begun = version
        placing = {path: file.digest for path, file in made.items()}
        place.state.placing.update(placing)
        place.save()
        try:
            for path in sorted(survey.in_the_way):
                place.tree.remove(path)
                place.forget(path)
            for path in survey.folders:
                place.tree.remove(path)
            place.tree.prepare(inside)
            for path, file in sorted(made.items()):
                flow.check()
                _take(survey, path, file)
        except BaseException:
            place.state.placing.update(placing)
            with suppress(StorageError):
                place.save()
            raise
        finish()
    return True


def _take(survey: Survey, path: str, made: Made) -> None:
    place = survey.place
    source, folder = (made.source, None) if made.is_path else (place.unfinished.at(made.source), place.unfinished.fd)
    over = ... if survey.overwrite else survey.may_replace(path)
    try:
        with made.store.renamed(made.digest) if made.store is not None else nullcontext():
            place.take(path, source, folder, made.digest, over=over)
    except StorageError as error:
        if error.errno != errno.EEXIST:
            raise
        raise conflict(place, [path], "it came while the others got their names, and was left") from error
