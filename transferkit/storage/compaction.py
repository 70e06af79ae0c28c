"""Keeps an index of files small: of each file that is there, its newest line stays."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container, Iterable
from contextlib import suppress

from transferkit.content.digest import Digest
from transferkit.storage.disk import Disk, close_quietly, is_named
from transferkit.storage.folder import OpenFolder
from transferkit.storage.lock import EXCLUSIVE, is_granted

SMALLEST = 1024 * 1024  # bytes: with less, nobody even looks into the folder
LINE = 400  # bytes that an index may have for each file that is there: more than two lines
LIMIT = 64 * 1024 * 1024  # bytes of an index that are read at most: its newest 400,000 lines

_ROW = re.compile(r"^2 (sha\d+):([0-9a-f]+) \d+ \d+ \d+ \d+ (\S+)$", re.ASCII | re.MULTILINE)


def compact(
    folder: str,
    unfinished: OpenFolder,
    name: str,
    size: int,
    boots: Container[str | None],
    names: Callable[[Digest], str],
) -> None:
    """Write the index of a folder's files anew, where its ``size`` says that most of it is of no use; ``OSError``.

    Lines of other ``boots`` count for nobody.
    """
    if size < SMALLEST:
        return
    there = _files(folder)
    if size < LINE * len(there):
        return

    def newest(old: str) -> Iterable[str]:
        matches = (match for match in _ROW.finditer(old) if match[3] in boots and _name(match, names) in there)
        return {match[2]: match[0] for match in matches}.values()

    rewrite(unfinished, name, newest)


def rewrite(unfinished: OpenFolder, name: str, choose: Callable[[str], Iterable[str]]) -> None:
    """Write an index anew, with the lines that ``choose`` returns of the old one; ``OSError``.

    Others may append meanwhile: what they add to the old file before the new one has its name goes over as well. One
    process at a time does this, where there are locks. Where there are none and two do it at once, lines may be lost,
    and their files are hashed once more.
    """
    disk = unfinished.disk
    fd = disk.reopen(unfinished.at(name), unfinished.fd)
    try:
        with suppress(OSError):  # no locks here
            if not is_granted(disk, fd, EXCLUSIVE):
                return
        if is_named(disk, fd, unfinished.at(name), unfinished.fd) is False:
            return  # somebody has just done it
        start = max(0, disk.fstat(fd).st_size - LIMIT)
        old = _read(disk, fd, start)
        chosen = choose(old.decode("ascii", "replace"))
        unfinished.replace(name, "".join(f"{row}\n" for row in chosen).encode("ascii"))
        added = _read(disk, fd, start + len(old))
        if added:
            disk.append(unfinished.at(name), added, unfinished.fd)
    finally:
        close_quietly(disk, fd)


def _files(folder: str) -> set[str]:
    """Return the names of the files in a folder, and in its folders: a layout has one for each algorithm."""
    found: set[str] = set()
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name == ".partial" or not entry.is_dir(follow_symlinks=False):
                found.add(entry.name)
            else:
                found.update(f"{entry.name}/{name}" for name in os.listdir(entry.path))
    return found


def _name(match: re.Match[str], names: Callable[[Digest], str]) -> str | None:
    try:
        return names(Digest(f"{match[1]}:{match[2]}"))
    except ValueError:
        return None


def _read(disk: Disk, fd: int, start: int) -> bytes:
    """Return what a file has from ``start`` on."""
    data = bytearray(max(0, disk.fstat(fd).st_size - start))
    return bytes(data[: disk.preadv(fd, memoryview(data), start)]) if data else b""
