"""The files of packed layers that lie above each other: what a member is called in the folder, and which one counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from transferkit.content.title import check_title
from transferkit.errors import InvalidNameError
from transferkit.models.values import Contents, Entry, Packing
from transferkit.storage.pulled_folder import check_own
from transferkit.storage.unpacking import Named

T = TypeVar("T")

# Source: OCI image specification v1.1, layer.md, "Whiteouts".
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_IMAGE = "image"


def key_of(entry: Entry) -> str:
    """Return what a packed layer is remembered by: the same layer may be unpacked to two places."""
    return f"{entry.descriptor.digest} {entry.packing.value} {entry.inside} {entry.path}"


def named(entry: Entry, contents: Contents, wanted: Callable[[str], bool]) -> Named:
    """Return what tells the path of a member of a layer, and whether it is wanted.

    Of members outside of what is meant nothing is asked; any other one is an InvalidNameError where it leads elsewhere.
    """
    of_image = is_image(contents)

    def name(member: str) -> tuple[str, bool] | None:
        while member.startswith("./"):
            member = member[2:].lstrip("/")
        if of_image:
            member = member.lstrip("/")
        if entry.inside:
            if not member.startswith(f"{entry.inside}/"):
                return None
            member = member[len(entry.inside) + 1 :]
        path = check_own(check_title(f"{entry.path}/{member}" if entry.path else member))
        return path, wanted(path) and not (of_image and is_whiteout(path))

    return name


def merged(contents: Contents, layers: Iterable[tuple[Entry, Mapping[str, T]]]) -> dict[str, tuple[Entry, T]]:
    """Return the files of layers that lie above each other, by path, with the layer that each is of.

    Those of an image replace and remove files of the layers below.

    Raises:
        InvalidNameError: two layers that are none of an image have the same file.
    """
    of_image = is_image(contents)
    found: dict[str, tuple[Entry, T]] = {}
    for entry, files in layers:
        for path in files if of_image else ():
            if is_whiteout(path):
                _remove(found, path)
        for path, file in files.items():
            if of_image and is_whiteout(path):
                continue
            if path in found and not of_image:
                raise InvalidNameError(f"two layers have the file {path[:200]!r}")
            found[path] = (entry, file)
    return found


def is_image(contents: Contents) -> bool:
    """Tell whether layers lie above each other, as those of an image do."""
    return contents.format == _IMAGE


def is_whiteout(path: str) -> bool:
    """Tell whether a path of an image is a note that something of the layers below is gone."""
    return path.rpartition("/")[2].startswith(_WHITEOUT)


def _remove(found: dict[str, tuple[Entry, T]], whiteout: str) -> None:
    """Remove what a whiteout stands for: a file, or a folder with all that is in it."""
    folder, slash, name = whiteout.rpartition("/")
    gone = folder if name == _OPAQUE else f"{folder}{slash}{name.removeprefix(_WHITEOUT)}"
    for path in [path for path in found if path == gone or path.startswith(f"{gone}/" if gone else "")]:
        del found[path]


def packed(contents: Contents) -> list[Entry]:
    """Return the layers that have to be unpacked, each once; one of an image may lie there several times."""
    found = [entry for entry in contents.entries if entry.packing is not Packing.NONE]
    return found if is_image(contents) else list({key_of(entry): entry for entry in found}.values())
