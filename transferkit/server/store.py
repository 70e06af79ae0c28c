"""The directory on disk: contents stored once, and linked from the repositories that have them.

::

    blobs/sha256-<hex>                                  every content, manifests too
    blobs/sha256-<hex>.chunks-<bytes>                   the digests of its parts, each of that many bytes
    repositories/<name>/_blobs/sha256-<hex>             an empty file: this repository has that blob
    repositories/<name>/_manifests/sha256-<hex>         the media type of a manifest of this repository
    repositories/<name>/_referrers/sha256-<a>/sha256-<b>  an empty file: the manifest b names a as its subject
    repositories/<name>/_tags/<tag>                     the digest that the tag points to
    uploads/<repository>.<uuid>                         an upload under way, and whose it is, as a short hash
    uploads/sha256-0...0.<hex>                          small files before their rename

A repository's own folders begin with an underscore, and no component of a repository name does: they cannot collide.
This is the one gate from a request to a path: :mod:`transferkit.names` and
:class:`~transferkit.content.digest.Digest` hold every text against its grammar. Knows nothing of HTTP.

A content is there before what links to it, and a manifest before its tags, each by a rename: whoever looks finds the
whole or nothing, after ``kill -9`` as well. With ``durable``, data and names are synced before a method returns.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path

from transferkit.content.digest import Digest
from transferkit.grammar import STRICT, check_repository
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk, sync_folder
from transferkit.storage.disk_errors import disk_errors
from transferkit.storage.folder import OpenFolder
from transferkit.storage.group_sync import GroupingDisk
from transferkit.storage.unfinished import make_folders, make_unfinished
from transferkit.storage.writer import Writer

_UPLOAD = re.compile(r"[0-9a-f]{16}\.[0-9a-f-]{36}\Z", re.ASCII)
_OLD = 3600.0  # seconds: a small file that has no name by then gets none
_LOCKS = 64  # for all repositories together
_MOST = 64 * 1024 * 1024  # bytes that are read of a small file; what is stored as one was bounded on its way in


class Store:
    """The whole directory. Thread-safe, and so is every :class:`Repository` of it.

    ``read_only``: nothing is made or changed, so the directory has to be there.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        durable: bool = True,
        read_only: bool = False,
        disk: Disk | None = None,
    ) -> None:
        self.root = Path(os.path.abspath(os.path.expanduser(os.fspath(root))))
        self.disk = disk or GroupingDisk()
        self.durable = durable
        self.read_only = read_only
        self.blobs = Directory(os.path.join(self.root, "blobs"), durable=durable, follow_links=False, disk=self.disk)
        self._repositories = os.path.join(self.root, "repositories")
        self._locks = tuple(threading.Lock() for _ in range(_LOCKS))
        if not read_only:
            for folder in (self.blobs.path, self._repositories):
                make_folders(folder, self.disk, durable=durable)

    def repository(self, name: str) -> Repository:
        """Return the repository of that name, whether there is anything in it or not.

        Raises:
            InvalidNameError: ``name`` is not a repository name.
        """
        check_repository(name, STRICT)
        return Repository(self, name, os.path.join(self._repositories, *name.split("/")))

    def content(self, digest: Digest) -> str:
        """Return the path of a content; nothing says that it is there."""
        return self.blobs.blob_path(digest)

    def chunksums(self, digest: Digest, chunk_size: int) -> str:
        """Return the path of the list of a content's chunks; nothing says that it is there."""
        return f"{self.content(digest)}.chunks-{chunk_size}"

    def changing(self, name: str) -> threading.Lock:
        """Return what keeps others from giving tags to a repository's manifests, or taking manifests from it.

        A manifest that is removed just before its new tag is written would leave a tag that leads nowhere.
        """
        return self._locks[hash(name) % _LOCKS]

    # Uploads

    @cached_property
    def uploads(self) -> OpenFolder:
        """The folder of what is under way, by its path, without what a process that was killed has left."""
        path = os.path.join(self.root, "uploads")
        with make_unfinished(str(self.root), path, self.disk, durable=self.durable) as folder:
            for name in os.listdir(path):
                # Another process may be writing a young one, where two have the directory for a moment.
                with suppress(FileNotFoundError):
                    if _UPLOAD.match(name) is None and time.time() - os.lstat(f"{path}/{name}").st_mtime > _OLD:
                        folder.remove(name)
        return folder

    def upload_names(self) -> list[str]:
        """Return the names of the uploads that are under way."""
        return [name for name in os.listdir(self.uploads.path) if _UPLOAD.match(name) is not None]

    def writer(self, name: str, algorithm: str = "sha256") -> Writer:
        """Return what fills the upload ``name``; nothing says that it is there."""
        return Writer(self.blobs, self.uploads, name, algorithm=algorithm, durable=self.durable)

    # Small files

    def write(self, path: str, data: bytes) -> None:
        """Make a file appear whole, in the place of one that may be there."""
        sync = self.disk.fsync if self.durable else None
        self._make(path, partial(self.uploads.place, data, path, sync=sync))

    def mark(self, path: str) -> None:
        """Make an empty file."""

        def make() -> None:
            with suppress(FileExistsError):
                self.disk.close(self.disk.create(path))

        self._make(path, make)

    def _make(self, path: str, make: Callable[[], None]) -> None:
        folder = os.path.dirname(path)
        with disk_errors("writing", path):
            try:
                make()
            except FileNotFoundError:
                make_folders(folder, self.disk, durable=self.durable)
                make()
            self._sync(folder)

    def remove(self, path: str) -> bool:
        """Remove a file, and tell whether it was there."""
        try:
            self.disk.unlink(path)
        except FileNotFoundError:
            return False
        self._sync(os.path.dirname(path))
        return True

    def _sync(self, folder: str) -> None:
        if self.durable:
            with suppress(FileNotFoundError):
                sync_folder(self.disk, folder)


class Repository:
    """What one repository has: a set of links into the store."""

    def __init__(self, store: Store, name: str, path: str) -> None:
        self.store = store
        self.name = name
        self._path = path

    def __repr__(self) -> str:
        return f"<Repository {self.name}>"

    def exists(self) -> bool:
        return self._has("_blobs") or self._has("_manifests")

    # Blobs

    def has_blob(self, digest: Digest) -> bool:
        """Tell whether it has a content: as a blob or, as in Ollama's registry, as a manifest."""
        return self._has("_blobs", digest.file_name) or self.has_manifest(digest)

    def link_blob(self, digest: Digest) -> None:
        """Take in a content that is in the store."""
        self.store.mark(self._at("_blobs", digest.file_name))

    def unlink_blob(self, digest: Digest) -> bool:
        """Take the blob out of this repository and tell whether it was there; the content stays in the store."""
        return self.store.remove(self._at("_blobs", digest.file_name))

    # Manifests and tags

    def manifest(self, reference: Digest | str) -> tuple[Digest, str, bytes] | None:
        """Return digest, media type and bytes of a manifest, by digest or by a tag that has been checked."""
        if not isinstance(reference, Digest):
            text = self._read(self._at("_tags", reference))
            if text is None:
                return None
            reference = Digest(text.decode())
        media_type = self._read(self._at("_manifests", reference.file_name))
        # There is no content where somebody tidied the directory up by hand.
        raw = None if media_type is None else self._read(self.store.content(reference))
        return None if raw is None or media_type is None else (reference, media_type.decode("latin-1"), raw)

    def has_manifest(self, digest: Digest) -> bool:
        return self._has("_manifests", digest.file_name)

    def put_manifest(
        self, digest: Digest, media_type: str, raw: bytes, *, tags: Iterable[str], subject: Digest | None = None
    ) -> None:
        """Take in a manifest, and let tags point to it."""
        self.store.write(self.store.content(digest), raw)
        if subject is not None:
            self.store.mark(self._at("_referrers", subject.file_name, digest.file_name))
        with self.store.changing(self.name):
            self.store.write(self._at("_manifests", digest.file_name), media_type.encode("latin-1"))
            for tag in tags:
                self.store.write(self._at("_tags", tag), digest.encode())

    def remove_tag(self, tag: str) -> bool:
        return self.store.remove(self._at("_tags", tag))

    def remove_manifest(self, digest: Digest) -> bool:
        """Take a manifest out, with the tags that point to it, and tell whether it was there."""
        with self.store.changing(self.name):
            for tag in self.tags():
                if self._read(self._at("_tags", tag)) == digest.encode():
                    self.remove_tag(tag)
            return self.store.remove(self._at("_manifests", digest.file_name))

    def tags(self) -> list[str]:
        return sorted(self._list("_tags"))

    def referrers(self, subject: Digest) -> list[Digest]:
        """Return which manifests have named a subject; some may have been removed since."""
        return [Digest.from_file_name(name) for name in sorted(self._list("_referrers", subject.file_name))]

    # Uploads

    def upload(self, identifier: str) -> str:
        """Return the name of an upload under way; nothing says that it is there."""
        return f"{hashlib.sha256(self.name.encode(), usedforsecurity=False).hexdigest()[:16]}.{identifier}"

    # Files

    def _at(self, *parts: str) -> str:
        return os.path.join(self._path, *parts)

    def _has(self, *parts: str) -> bool:
        return os.path.exists(self._at(*parts))

    def _read(self, path: str) -> bytes | None:
        with suppress(FileNotFoundError):
            return self.store.disk.read_file(path, _MOST)
        return None

    def _list(self, *parts: str) -> list[str]:
        with suppress(FileNotFoundError):
            return os.listdir(self._at(*parts))
        return []
