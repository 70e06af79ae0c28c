"""The files of packed layers that lie above each other: what a member is called in the folder, and which one counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from transferkit.content.title import check_title
from transferkit.errors import InvalidNameError
from transferkit.models.values import Contents, Entry, Packing
from transferkit.storage.pulled_folder import check_own
from transferkit.storage.unpacking import Member, Named

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

    Of members outside of what is meant nothing is asked, but whether they take away all of it in an image; any other
    one is an InvalidNameError where it leads elsewhere.
    """
    of_image = is_image(contents)

    def name(member: str) -> Member | None:
        while member.startswith("./"):
            member = member[2:].lstrip("/")
        if of_image:
            member = member.lstrip("/")
        if entry.inside:
            if not member.startswith(f"{entry.inside}/"):
                return Member(_OPAQUE, False, _OPAQUE) if of_image and _covers(member, entry.inside) else None
            member = member[len(entry.inside) + 1 :]
        path = check_own(check_title(f"{entry.path}/{member}" if entry.path else member))
        if not of_image:
            return Member(path, wanted(path))
        if is_whiteout(path):
            return Member(path, False, path)
        folder, slash, last = path.rpartition("/")
        return Member(path, wanted(path), f"{folder}{slash}{_WHITEOUT}{last}")

    return name


def merged(contents: Contents, layers: Iterable[tuple[Entry, Mapping[str, T]]]) -> dict[str, tuple[Entry, T]]:
    """Return the files of layers that lie above each other, by path, with the layer that each is of.

    Those of an image replace and remove files of the layers below; a file may become a folder, and a folder a file.

    Raises:
        InvalidNameError: two layers that are none of an image have the same file.
    """
    of_image = is_image(contents)
    found: dict[str, tuple[Entry, T]] = {}
    for entry, files in layers:
        if of_image:
            _cover(found, files)
        for path, file in files.items():
            if of_image and is_whiteout(path):
                continue
            if path in found:
                raise InvalidNameError(f"two layers have the file {path[:200]!r}")
            found[path] = (entry, file)
    return found


def is_image(contents: Contents) -> bool:
    """Tell whether layers lie above each other, as those of an image do."""
    return contents.format == _IMAGE


def is_whiteout(path: str) -> bool:
    """Tell whether a path of an image is a note that something of the layers below is gone."""
    return path.rpartition("/")[2].startswith(_WHITEOUT)


def _cover(found: dict[str, tuple[Entry, T]], files: Iterable[str]) -> None:
    """Remove from the layers below what the files and whiteouts of a layer stand for or cover."""
    gone: set[str] = set()  # with all that is below it
    emptied: set[str] = set()
    folders: set[str] = set()
    for path in files:
        (emptied if _is_opaque(path) else gone).add(_target(path))
        folders.update(_above(path))
    for path in list(found):
        above = _above(path)
        if path in gone or path in folders or not gone.isdisjoint(above) or not emptied.isdisjoint(above):
            del found[path]


def _covers(member: str, inside: str) -> bool:
    """Tell whether a member of a layer takes away, or takes the place of, a folder of the layers below."""
    target = _target(member)
    return bool(member) and f"{inside}/".startswith(f"{target}/" if target else "")


def _target(path: str) -> str:
    """Return what a whiteout stands for; a file stands for itself."""
    folder, slash, name = path.rpartition("/")
    return folder if name == _OPAQUE else f"{folder}{slash}{name.removeprefix(_WHITEOUT)}"


def _is_opaque(path: str) -> bool:
    return path.rpartition("/")[2] == _OPAQUE


def _above(path: str) -> list[str]:
    """Return the folders that a path is in, from the top, which is the empty path."""
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(len(parts))]


def packed(contents: Contents) -> list[Entry]:
    """Return the layers that have to be unpacked, each once; one of an image may lie there several times."""
    found = [entry for entry in contents.entries if entry.packing is not Packing.NONE]
    return found if is_image(contents) else list({key_of(entry): entry for entry in found}.values())
