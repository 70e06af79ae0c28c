"""Filling a folder, step by step: what is there, what has to come, and how it gets its names at the end.

No file gets its name before everything that was asked for is here, and verified. Each step runs in the workers of one
job; what is begun and not ended goes away with the next call, or is gone on with.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar, cast

from transferkit.content.descriptor import Descriptor, unique
from transferkit.content.digest import Digest
from transferkit.content.interfaces import Fetcher
from transferkit.content.title import check_paths
from transferkit.errors import InvalidManifestError, InvalidNameError, StorageError
from transferkit.models.values import Contents, Entry, Packing
from transferkit.registry.folder_layers import is_image, is_whiteout, key_of, merged, named, packed
from transferkit.registry.folder_naming import Made, give_names
from transferkit.registry.folder_survey import Survey
from transferkit.registry.job import Job
from transferkit.remote.steady import SteadySource
from transferkit.storage.cache import DiskCache
from transferkit.storage.disk import remove_quietly
from transferkit.storage.linking import COPY, HARD, REFLINK, Linking, check_one_disk
from transferkit.storage.pulled_folder import PulledFolder, check_own
from transferkit.storage.tar_stream import TarStream
from transferkit.storage.unpacking import Unpacked, UnpackedFile, unpack
from transferkit.transfer.flow import WorkerFlow

logger = logging.getLogger(__name__)

T = TypeVar("T")

Bring = Callable[[Sequence[Descriptor]], "tuple[int, int]"]
"""Brings blobs into the cache; returns how many bytes came, and of how many the progress has told."""

_AT_ONCE = 8  # files that are hashed, copied or unpacked at once: more of them only wait for each other's disk
_AGAIN = 5  # times that all begins anew as somebody else was at the folder meanwhile


@dataclass(slots=True)
class Filling:
    """One call of ``fill_folder``. One thread's, but for what ``each`` runs."""

    job: Job
    source: Fetcher
    contents: Contents
    place: PulledFolder
    cache: DiskCache | None
    link: str
    overwrite: bool
    wanted: Callable[[str], bool]
    version: str = ""
    config: bytes = b""
    plain: dict[str, Descriptor] = field(default_factory=dict)
    made: dict[str, Made] = field(default_factory=dict)
    moved: int = 0
    survey: Survey = field(init=False)
    _base: int = 0  # bytes that the progress has told of
    _left: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.survey = Survey(self.place, self.overwrite, self._each, self._is_shared)
        for entry in self.contents.entries:
            if entry.path:
                check_own(entry.path)
            if entry.packing is Packing.NONE and self.wanted(entry.path):
                self.plain[entry.path] = entry.descriptor
        if not self.plain and not packed(self.contents):
            there = ", ".join(entry.path for entry in self.contents.entries)
            raise InvalidManifestError(f"no file of it is wanted; it has {there[:300]}")

    def fill(self, bring: Bring | None) -> list[str]:
        """Bring what is missing, and give all files their names; return what older versions have left.

        Raises:
            StorageError: somebody has changed a file, the disk refused, or others are at the folder all the time.
        """
        if (begun := self.place.state.begun) not in ("", self.version):
            logger.warning("%s: the pull of %s did not end; files of it may be there", self.place.tree.path, begun)
        for attempt in range(_AGAIN):
            self.job.operation.call(lambda flow: self.look())
            self._base += self.survey.judge(self.files)
            layers = self.layers()
            self.fetch(layers, bring if attempt == 0 else None)  # else it holds its locks already
            self.unpack(layers)
            self.check()
            self.make()
            if self.job.operation.call(self._name):
                return self._left
            logger.warning("somebody else was at %s meanwhile: it is looked at again", self.place.tree.path)
            self._drop()
        raise StorageError(
            f"{self.place.tree.path} is changed by somebody else as fast as it is filled: see who that is",
            errno=errno.EBUSY,
        )

    def _name(self, flow: WorkerFlow) -> bool:
        return give_names(self.survey, self.made, self.version, flow, self._finish)

    def _finish(self) -> None:
        """Write down that the folder is whole."""
        self._left = self.left()
        state = self.place.state
        state.version, state.config = self.version, self.config
        state.layers = {key: files for key, files in state.layers.items() if key in self.keys}
        self.place.finish()

    def _drop(self) -> None:
        """Make nothing of what waits for its name, and read the state anew."""
        for made in self.made.values():
            if not made.is_path:
                remove_quietly(self.place.disk, self.place.unfinished.at(made.source), self.place.unfinished.fd)
        self.made.clear()
        self.place.read()

    # -- what is there

    def look(self) -> bool:
        """Look at what stands there, without a byte of it; ``True``: it is all that is wanted."""
        known = self._known()
        wanted = self._digests(known)
        self.survey.clear()
        self.survey.look(wanted)
        return len(known) == len(packed(self.contents)) and all(map(self.survey.is_right, wanted))

    def _is_shared(self, digest: Digest, status: os.stat_result) -> bool:
        """Tell whether a file is the blob of the cache itself, where a file of its own is asked for."""
        if self.cache is None or self.link not in (COPY, REFLINK) or status.st_nlink == 1:
            return False
        with suppress(OSError):
            return os.path.samestat(status, self.cache.disk.lstat(self.cache.blobs.blob_path(digest)))
        return False

    def _known(self) -> list[tuple[Entry, dict[str, str]]]:
        """Return the packed layers whose files are known, all wanted ones among them, from an earlier call."""
        found = []
        for entry in packed(self.contents):
            files = self.place.state.layers.get(key_of(entry))
            if files is not None and all(files[path] for path in files if self.wanted(path) and not is_whiteout(path)):
                found.append((entry, files))
        return found

    def _digests(self, known: list[tuple[Entry, dict[str, str]]]) -> dict[str, Digest]:
        """Return the digests of all files that are wanted, as far as they are known."""
        found = {path: descriptor.digest for path, descriptor in self.plain.items()}
        for path, (_, digest) in merged(self.contents, known).items():
            if path in found:
                raise InvalidNameError(f"two layers have the file {path[:200]!r}")
            if digest and self.wanted(path):
                found[path] = Digest(digest)
        return found

    # -- what has to come

    @property
    def missing(self) -> dict[str, Descriptor]:
        """The files that are layers of their own, and not there."""
        return {path: blob for path, blob in self.plain.items() if not self.survey.is_right(path)}

    def layers(self) -> list[Entry]:
        """Return the packed layers that have to be read: they are not known, or files of them are missing.

        Those of an image lie above each other, and are read all or none.
        """
        known = self._known()
        there = {key_of(entry) for entry, _ in known}
        broken = {
            key_of(entry)
            for path, (entry, digest) in merged(self.contents, known).items()
            if digest and self.wanted(path) and not self.survey.is_right(path)
        }
        everything = packed(self.contents)
        needed = [entry for entry in everything if key_of(entry) not in there - broken]
        return everything if needed and is_image(self.contents) else needed

    def fetch(self, layers: list[Entry], bring: Bring | None) -> None:
        """Bring the blobs that are needed into the cache, or beside the folder; packed layers come straight."""
        plain, cache = unique(self.missing.values()), self.cache
        blobs = unique([*plain, *(entry.descriptor for entry in layers)])
        if cache is None:
            self.job.operation.announce(blobs)
            self.moved += self.job.fill(self.place.staging, plain, self.source) if plain else 0
            self._base = sum(blob.size for blob in plain)
        elif blobs:
            if plain and self.link == HARD:
                check_one_disk(cache.disk, cache.blobs.path, self.place.path)
            self.job.hold(lambda flow: cache.pinned([blob.digest for blob in blobs]))
            moved, self._base = (bring or self._bring)(blobs)
            self.moved += moved

    def _bring(self, blobs: Sequence[Descriptor]) -> tuple[int, int]:
        cache = cast(DiskCache, self.cache)
        self.job.operation.announce(blobs)
        moved = self.job.fill(cache, blobs, self.source)
        cache.blobs.flush()
        return moved, sum(blob.size for blob in blobs)

    def unpack(self, layers: list[Entry]) -> None:
        """Unpack layers into files without names. Raises as ``unpack`` of the storage does, and for conflicts."""
        results: dict[str, Unpacked] = {}
        size = sum({key_of(entry): entry.descriptor.size for entry in layers}.values())
        source, is_straight = (SteadySource(self.source), True) if self.cache is None else (self.cache, False)

        def read(entry: Entry, flow: WorkerFlow) -> None:
            flow.counter.set_position(0)
            if is_straight:
                flow.watch.start()
            try:
                with source.fetch(entry.descriptor, flow=flow) as body:
                    gzip, ratio = entry.packing is Packing.TAR_GZIP, self.job.options.unpack_ratio
                    stream = TarStream(body, entry.descriptor, flow, gzip=gzip, ratio=ratio)
                    names = named(entry, self.contents, self.wanted)
                    results[key_of(entry)] = unpack(stream, names, self.place.unfinished)
            finally:
                flow.watch.stop()

        self._each(list({key_of(entry): entry for entry in layers}.values()), read, total=size, doing="unpacking")
        self._base += size
        self.moved += size if is_straight else 0
        for key, files in results.items():
            self.place.state.layers[key] = {path: file.digest if file else "" for path, file in files.items()}
        found = merged(self.contents, [(entry, results[key_of(entry)]) for entry in layers])
        self._settle({path: file for path, (_, file) in found.items() if file is not None})

    def _settle(self, unpacked: dict[str, UnpackedFile]) -> None:
        """Tell which unpacked files are there already; the others wait for their names."""
        digests = {path: file.digest for path, file in unpacked.items()}
        self.survey.look(digests)
        self._base += self.survey.judge(digests)
        for path, file in unpacked.items():
            if not self.survey.is_right(path):
                self.made[path] = Made(file.name, False, file.digest, "unpacked")

    def check(self) -> None:
        """See that there is something, now that all files are known, and that no two of them would be one."""
        files = self.files
        check_paths((path, Descriptor(digest, 0)) for path, digest in files.items())
        if not files:
            layers = (self.place.state.layers[key_of(entry)] for entry in packed(self.contents))
            there = sorted(path for layer in layers for path in layer)
            raise InvalidManifestError(f"no file of it is wanted; it has {', '.join(there)[:300] or 'none'}")

    @property
    def files(self) -> dict[str, Digest]:
        """All files that are wanted, as far as they are known."""
        return self._digests(self._known())

    # -- how it gets its names

    def make(self) -> None:
        """Make a file of each blob, under no name yet."""
        missing = self.missing
        counted = self.link == COPY or (self.cache is not None and self._is_elsewhere(self.cache))
        size = sum(blob.size for blob in missing.values()) if counted else 0
        staged = self.place.staging
        linking = Linking(
            self.place.unfinished,
            self.link if self.cache is not None else "auto",
            own=self.cache.blobs if self.cache is not None else None,
            counted=counted,
        )
        last = {blob.digest: path for path, blob in missing.items()}

        def make(path: str, flow: WorkerFlow) -> None:
            blob = missing[path]
            flow.counter.set_position(0)
            if self.cache is None and last[blob.digest] == path:  # the others with this content are made of it before
                self.made[path] = Made(staged.blob_path(blob.digest), True, blob.digest, "straight")
                return
            store = self.cache.store_of(blob) if self.cache is not None else staged
            name, way = linking.make(blob, store, flow)
            self.made[path] = Made(name, False, blob.digest, way, store if way == HARD else None)
            if counted:
                flow.counter.set_position(blob.size)

        self._each(list(missing), make, total=size, doing="copying" if counted else "")

    def _is_elsewhere(self, cache: DiskCache) -> bool:
        """Tell whether the folder is on another file system than the cache, so that all will be copied."""
        with suppress(OSError):
            return os.stat(cache.blobs.path).st_dev != os.stat(self.place.path).st_dev
        return False

    @property
    def keys(self) -> set[str]:
        """What the packed layers of this version are remembered by."""
        return {key_of(entry) for entry in packed(self.contents)}

    def left(self) -> list[str]:
        """Return the files of older versions that are still there, and that this one does not have."""
        here = {entry.path for entry in self.contents.entries if entry.packing is Packing.NONE}
        for key in self.keys:
            here.update(self.place.state.layers.get(key, ()))
        return self.place.gone_from(here)

    def _each(
        self, items: Sequence[T], work: Callable[[T, WorkerFlow], object], *, total: int = 0, doing: str = ""
    ) -> None:
        if items:
            base = self._base
            size = base + total
            self.job.operation.each(items, work, total=size, present=base, workers=_AT_ONCE, doing=doing)
