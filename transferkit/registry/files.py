"""Files of this machine that are pushed: hashed once, on several workers, and then read from where they lie."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePath

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.flow import Flow
from transferkit.content.interfaces import Body
from transferkit.content.title import check_title
from transferkit.errors import BlobNotFoundError, SourceError, StorageError, TransferKitError
from transferkit.models.values import ModelFile, ReadAt
from transferkit.storage.disk import Disk, close_quietly, is_file
from transferkit.storage.disk_errors import disk_errors
from transferkit.storage.file_body import FileBody, VerifiedFileBody
from transferkit.storage.hashes import HashIndex, state
from transferkit.storage.index import version
from transferkit.storage.walk import FoundFile
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.operation import Operation

Files = Iterable["str | os.PathLike[str]"] | Mapping[str, "str | os.PathLike[str]"]


class FileSet:
    """Files as a source of blobs. Thread-safe once ``take`` has returned.

    What ``index`` knows of them is not hashed. A file that is not any more what it was when it was found is a
    SourceError, which names it.
    """

    def __init__(self, disk: Disk, index: HashIndex) -> None:
        self.files: list[ModelFile] = []
        self._disk = disk
        self._index = index
        self._found: dict[Digest, FoundFile] = {}

    def take(self, found: Sequence[FoundFile], operation: Operation, *, then: int | None = None) -> None:
        """Take in files; those of which nothing is known are hashed, the largest first, and remembered.

        What is hashed is progress where ``then`` says how many bytes come after it.
        """
        places = {file.place: file for file in found}
        known: dict[str, Digest] = {}
        unknown: list[FoundFile] = []
        for place, file in places.items():
            if (digest := self._index.find(place, file.status)) is None:
                unknown.append(file)
            else:
                known[place] = digest
        unknown.sort(key=_size, reverse=True)
        total = None if then is None else sum(map(_size, unknown))

        def hash_one(file: FoundFile, flow: WorkerFlow) -> None:
            known[file.place] = self._hash(file, flow)

        try:
            if unknown:
                operation.each(unknown, hash_one, total=total, then=then or 0, doing="hashing")
        finally:
            self._index.close()  # what is hashed so far is not hashed again
        for file in found:
            digest = known[file.place]
            self.files.append(ModelFile(path=file.path, digest=digest, size=_size(file)))
            self._found.setdefault(digest, file)

    def _hash(self, file: FoundFile, flow: WorkerFlow) -> Digest:
        flow.counter.set_position(0)
        hasher, buffer, at = Digest.of(b"").hasher(), flow.buffer, 0
        with _opened(file, self._disk) as fd, disk_errors("reading", file.place):
            while count := self._disk.preadv(fd, buffer, at):
                flow.check()
                hasher.update(buffer[:count])
                at += count
                flow.counter.progress += count  # no limit of bandwidth is meant for the disk
            status = self._disk.fstat(fd)
        if at != _size(file) or not _is_same(status, file.status):
            raise SourceError(f"{file.place} changed while it was hashed; push it again once it is complete")
        digest = Digest(f"sha256:{hasher.hexdigest()}")
        self._index.add(file.place, status, digest)
        return digest

    # -- a source

    def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Flow) -> Body:
        """Open a file. One that was changed in place since it was hashed is hashed once more, on its way out."""
        file = self._found.get(descriptor.digest)
        if file is None:
            raise BlobNotFoundError(f"{descriptor.digest.short} is none of the files")
        body: FileBody = VerifiedFileBody(descriptor, file.place, self._disk, follow=False)
        if state(body.status) != state(file.status):
            body.close()
            if not os.path.samestat(body.status, file.status):
                raise SourceError(f"{file.place} was replaced by another file after it was hashed; push it again")
            body = FileBody(descriptor, file.place, self._disk, follow=False)
        return body.begin_at(offset, flow=flow)

    def concerns_all(self, error: TransferKitError) -> bool:
        return isinstance(error, StorageError)  # without one of the files there is no artifact


def look(title: str, path: str, disk: Disk) -> FoundFile:
    """Return a file that a user has named; links are his choice.

    Raises:
        SourceError: it is missing, no file, or cannot be read.
        InvalidNameError: the title is no relative path of a file.
    """
    check_title(title)
    try:
        status = disk.stat(path)  # first: realpath passes over what is not there, as in nothing/../file
        place = os.path.realpath(path)
    except ValueError as error:  # a NUL, or half a character
        raise SourceError(f"{path!r} is no path") from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}", errno=error.errno) from error
    if not is_file(status):
        raise SourceError(f"{path} is not a file")
    return FoundFile(title, place, status)


def readers(found: Iterable[FoundFile], disk: Disk) -> dict[str, tuple[ReadAt, int]]:
    """Return, by the path of each file, what reads parts of it, and its size; SourceError where it has changed."""
    return {file.path: (_reader(file, disk), _size(file)) for file in found}


def _reader(file: FoundFile, disk: Disk) -> ReadAt:
    def read(offset: int, count: int) -> bytes:
        data, at = memoryview(bytearray(min(count, max(0, _size(file) - offset)))), 0
        with _opened(file, disk) as fd, disk_errors("reading", file.place):
            while at < len(data) and (more := disk.preadv(fd, data[at:], offset + at)):
                at += more
        return bytes(data[:at])

    return read


@contextmanager
def _opened(file: FoundFile, disk: Disk) -> Iterator[int]:
    """Open a file that is as it was found."""
    fd = -1
    try:
        try:
            fd = disk.open(file.place, follow=False)
        except OSError as error:
            raise SourceError(f"{file.place} cannot be read: {error.strerror}", errno=error.errno) from error
        if not _is_same(disk.fstat(fd), file.status):
            raise SourceError(f"{file.place} changed after it was found; push it again once it is complete")
        yield fd
    finally:
        close_quietly(disk, fd)


def titled(files: Files) -> list[tuple[str, str]]:
    """Return title and path of each file: a mapping has them, else a file's title is its name without folders."""
    if isinstance(files, Mapping):
        return [(title, os.fspath(path)) for title, path in files.items()]
    return [(PurePath(os.fspath(path)).name, os.fspath(path)) for path in files]


def _is_same(one: os.stat_result, other: os.stat_result) -> bool:
    return os.path.samestat(one, other) and version(one) == version(other)


def _size(file: FoundFile) -> int:
    return file.status.st_size
