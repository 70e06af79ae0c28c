"""Whether the store of this machine can do what transfers need: its folder, disk and locks, and what is left in it.

What is tried is tried in ``.partial``, with files that are removed again. A store that is not there yet is not made.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress

from transferkit.content.finding import Finding, Level
from transferkit.errors import StorageError
from transferkit.report import human_bytes
from transferkit.storage.cache import DiskCache
from transferkit.storage.default_cache import VARIABLES, default_cache
from transferkit.storage.disk import Disk, close_quietly, remove_quietly
from transferkit.storage.folder import OpenFolder, temporary_name
from transferkit.storage.lock import BlobLock, holders
from transferkit.storage.partials import partials

_LITTLE = 10 * 1024**3  # bytes; a model of today has some
_OLD = 7 * 24 * 3600.0  # seconds
_ANOTHER = "change its permissions, or choose another folder with --cache or TRANSFERKIT_CACHE"


def check_store(cache: DiskCache) -> Iterator[Finding]:
    """Yield what there is to say of a store, the most important first."""
    there = os.path.isdir(cache.root)
    yield _where(cache, there=there)
    base = cache.root
    while not os.path.lexists(base) and os.path.dirname(base) != base:
        base = os.path.dirname(base)
    yield _space(cache.disk, base)
    if shut := next(_shut(cache), None):
        text = f"{shut} cannot be read: the models in it are not seen"
        yield Finding(level="problem", about="store", text=text, advice=_ANOTHER)
        return
    if not there:
        if not os.access(base, os.W_OK | os.X_OK):
            advice = "choose another folder with --cache or TRANSFERKIT_CACHE, or change the permissions"
            yield Finding(level="problem", about="store", text=f"{base} cannot be written to", advice=advice)
        return
    try:
        folder = cache.open_unfinished()
    except StorageError as error:
        yield _refused(error, f"it can only be read: {error}")
        return
    yield from _tried(folder)
    for name, holder in holders(folder):
        yield Finding(level="note", about="lock", text=f"{folder.path}/{name} is held by {holder}; others wait for it")
    yield from _left(cache)


def _shut(cache: DiskCache) -> Iterator[str]:
    """Yield the folders of a store that are there and cannot be read."""
    for path in (cache.root, cache.blobs.path, os.path.join(cache.root, "manifests")):
        if os.path.isdir(path) and not os.access(path, os.R_OK | os.X_OK):
            yield path


def _refused(error: OSError, text: str) -> Finding:
    """Return that nothing can be written; many a store is there to be read alone, and that is no fault of it."""
    level: Level = "warning" if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) else "problem"
    advice = "models in it can be used; to pull, choose another folder with --cache or TRANSFERKIT_CACHE"
    return Finding(level=level, about="store", text=text, advice=advice)


def _where(cache: DiskCache, *, there: bool) -> Finding:
    if not there:
        return Finding(level="note", about="store", text=f"{cache.root} is not there yet; the first pull makes it")
    try:
        count = len(cache.links())
    except StorageError as error:
        return Finding(level="problem", about="store", text=f"its models are not seen: {error}", advice=_ANOTHER)
    text = f"{cache.root} ({_named_by(cache.root)}) has {count} model{'' if count == 1 else 's'}"
    return Finding(level="ok", about="store", text=text)


def _named_by(root: str) -> str:
    """Return why this store is the one."""
    if root != os.path.abspath(os.path.expanduser(default_cache())):
        return "as was asked for"
    names = [name for name in VARIABLES if os.environ.get(name)]
    return f"from {names[0]}" if names else "the default"


def _space(disk: Disk, path: str) -> Finding:
    try:
        free = disk.free(path)
    except OSError as error:
        return Finding(level="note", about="space", text=f"{path} does not tell how much is free: {error.strerror}")
    if free < _LITTLE:
        advice = "transferkit gc removes blobs that no model names; transferkit rm removes models"
        return Finding(level="warning", about="space", text=f"only {human_bytes(free)} are free", advice=advice)
    return Finding(level="ok", about="space", text=f"{human_bytes(free)} are free")


def _tried(folder: OpenFolder) -> Iterator[Finding]:
    """Try each call that transfers make, on files of our own."""
    disk, first, second = folder.disk, temporary_name(), temporary_name()
    fd = -1

    def at(name: str) -> tuple[str, int | None]:
        return folder.at(name), folder.fd

    try:
        fd = disk.create(*at(first))
        disk.pwrite(fd, memoryview(b"transferkit"), 0)
        kept = "after a power cut, what was pulled is hashed or fetched again"
        yield _of("fsync", lambda: disk.fsync(fd), "warning", "data can be made durable", kept)
        yield _locks(folder, first)
        apart = "files that a folder gets from the cache are hard links or copies"
        yield _of("reflink", lambda: disk.clone(fd, *at(second)), "note", "a copy of a file takes no space", apart)
        remove_quietly(disk, *at(second))
        moved = "nothing can be stored there: choose a folder of another file system, with --cache"
        rename = lambda: disk.rename(folder.at(first), folder.at(second), folder.fd)  # noqa: E731
        yield _of("rename", rename, "problem", "files get their names at once", moved)
    except OSError as error:
        yield _refused(error, f"no file can be made in {folder.path}: {error.strerror}")
    finally:
        close_quietly(disk, fd)
        for name in (first, second):
            remove_quietly(disk, *at(name))


def _of(call: str, attempt: Callable[[], object], level: Level, good: str, so: str) -> Finding:
    """Return whether one call works, and what follows where it does not."""
    try:
        attempt()
    except OSError as error:
        text = f"the file system has none: {error.strerror}"
        return Finding(level=level, about=call, text=text, advice=so)
    return Finding(level="ok", about=call, text=good)


def _locks(folder: OpenFolder, name: str) -> Finding:
    """Return whether a lock keeps others away: some file systems have none, and some grant all of them."""
    lock = BlobLock(folder, f"{name}.lock")
    try:
        if lock.attempt() and lock.is_held:
            return Finding(level="ok", about="lock", text="processes can wait for each other")
    finally:
        lock.remove()
        lock.release()
    text = "the file system has no locks, or grants them to everybody"
    advice = "two processes that pull the same blob fetch it twice; the result is right all the same"
    return Finding(level="warning", about="lock", text=text, advice=advice)


def _left(cache: DiskCache) -> Iterator[Finding]:
    with suppress(StorageError):
        left = partials(cache.blobs.path)
        old = [each for each in left if each.age > _OLD]
        if left:
            size = human_bytes(sum(each.stored for each in left))
            text = f"{len(left)} interrupted transfers have left {size}, {len(old)} of them older than a week"
            advice = "transferkit partials lists them; transferkit partials --discard --older-than 7d removes old ones"
            yield Finding(level="note", about="partials", text=text, advice=advice if old else "")
