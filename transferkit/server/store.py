"""The directory on disk: contents stored once, and linked from the repositories that have them.

::

    blobs/sha256-<hex>                                  every content, manifests too
    blobs/sha256-<hex>.chunks-<bytes>                   the digests of its parts, each of that many bytes
    repositories/<name>/_blobs/sha256-<hex>             an empty file: this repository has that blob
    repositories/<name>/_manifests/sha256-<hex>         the media type of a manifest of this repository
    repositories/<name>/_tags/<tag>                     the digest that the tag points to
    repositories/<name>/_uploads/<uuid>                 an upload under way
    incoming/<uuid>                                     small files before their rename

A repository's own folders begin with an underscore, and no component of a repository name does: they cannot collide.
This is the one gate from a request to a path: :mod:`transferkit.names` and
:class:`~transferkit.content.digest.Digest` hold every text against its grammar. Knows nothing of HTTP.

Nothing is fsynced: a file is there whole or not at all for whoever looks, but a power cut may take it back.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from transferkit.content.digest import Digest
from transferkit.names import STRICT, check_repository


class Store:
    """The whole directory. Thread-safe, and so is every :class:`Repository` of it: files appear by rename."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self._blobs = os.path.join(root, "blobs")
        self._repositories = os.path.join(root, "repositories")
        self._incoming = os.path.join(root, "incoming")
        for folder in (self._blobs, self._repositories, self._incoming):
            os.makedirs(folder, exist_ok=True)

    def repository(self, name: str) -> Repository:
        """Return the repository of that name, whether there is anything in it or not.

        Raises:
            InvalidNameError: ``name`` is not a repository name.
        """
        check_repository(name, STRICT)
        return Repository(self, name, os.path.join(self._repositories, *name.split("/")))

    def content(self, digest: Digest) -> str:
        """Return the path of a content; nothing says that it is there."""
        return os.path.join(self._blobs, digest.file_name)

    def chunksums(self, digest: Digest, chunk_size: int) -> str:
        """Return the path of the list of a content's chunks; nothing says that it is there."""
        return f"{self.content(digest)}.chunks-{chunk_size}"

    def write(self, path: str, data: bytes) -> None:
        """Make a file appear whole."""
        temporary = os.path.join(self._incoming, str(uuid.uuid4()))
        with open(temporary, "xb") as file:
            file.write(data)
        self.move(temporary, path)

    def move(self, temporary: str, path: str) -> None:
        """Give a finished file its name."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.replace(temporary, path)


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
        return self._has("_blobs", digest.file_name)

    def link_blob(self, digest: Digest) -> None:
        os.makedirs(os.path.join(self._path, "_blobs"), exist_ok=True)
        with open(os.path.join(self._path, "_blobs", digest.file_name), "wb"):
            pass

    def unlink_blob(self, digest: Digest) -> bool:
        """Take the blob out of this repository and tell whether it was there; the content stays in the store."""
        return self._remove("_blobs", digest.file_name)

    # Manifests and tags

    def manifest(self, reference: Digest | str) -> tuple[Digest, str, bytes] | None:
        """Return digest, media type and bytes of a manifest, by digest or by a tag that has been checked."""
        if not isinstance(reference, Digest):
            text = self._read("_tags", reference)
            if text is None:
                return None
            reference = Digest(text.decode())
        media_type = self._read("_manifests", reference.file_name)
        if media_type is None:
            return None
        try:
            with open(self.store.content(reference), "rb") as file:
                return reference, media_type.decode("latin-1"), file.read()
        except FileNotFoundError:  # somebody tidied the directory up by hand
            return None

    def has_manifest(self, digest: Digest) -> bool:
        return self._has("_manifests", digest.file_name)

    def put_manifest(self, digest: Digest, media_type: str, raw: bytes, tag: str | None) -> None:
        self.store.write(self.store.content(digest), raw)
        self.store.write(os.path.join(self._path, "_manifests", digest.file_name), media_type.encode("latin-1"))
        if tag is not None:
            self.store.write(os.path.join(self._path, "_tags", tag), digest.encode())

    def remove_tag(self, tag: str) -> bool:
        return self._remove("_tags", tag)

    def remove_manifest(self, digest: Digest) -> bool:
        """Take a manifest out, with the tags that point to it, and tell whether it was there."""
        for tag in self.tags():
            if self._read("_tags", tag) == digest.encode():
                self.remove_tag(tag)
        return self._remove("_manifests", digest.file_name)

    def tags(self) -> list[str]:
        return sorted(self._list("_tags"))

    def manifests(self) -> list[Digest]:
        return [Digest.from_file_name(name) for name in sorted(self._list("_manifests"))]

    # Uploads

    def upload(self, identifier: uuid.UUID) -> str:
        """Return the path of an upload under way; nothing says that it is there."""
        return os.path.join(self._path, "_uploads", str(identifier))

    # Files

    def _has(self, *parts: str) -> bool:
        return os.path.exists(os.path.join(self._path, *parts))

    def _read(self, *parts: str) -> bytes | None:
        try:
            with open(os.path.join(self._path, *parts), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def _remove(self, *parts: str) -> bool:
        try:
            os.unlink(os.path.join(self._path, *parts))
        except FileNotFoundError:
            return False
        return True

    def _list(self, *parts: str) -> list[str]:
        try:
            return os.listdir(os.path.join(self._path, *parts))
        except FileNotFoundError:
            return []
