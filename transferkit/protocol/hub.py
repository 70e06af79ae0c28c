"""The rules of the Hugging Face hub's API as pure code: which commit a revision is, its files, and its refusals.

Sources: huggingface_hub 1.31 (``hf_api.py``, ``utils/_http.py``), https://huggingface.co/docs/hub/api, and exchanges
with the hub that github.com/wzshiming/xet has recorded in September 2026 (``client/hf/hftest/testdata``):

* ``GET /api/models/{repository}/revision/{revision}`` is an object whose ``sha`` is the commit.
* ``GET /api/models/{repository}/tree/{commit}?recursive=true`` is a list in pages, which ``Link: <...>; rel="next"``
  leads through. An entry has ``type`` (``file`` or ``directory``), ``path``, ``size`` and ``oid``, the hash of a git
  blob. A file in LFS has ``lfs`` too: its ``oid`` is the SHA-256 of the content, and its ``size`` that of the content.
* ``GET /{repository}/resolve/{commit}/{path}`` is the content (with ``ETag: "<oid>"``), or leads to it: 307 to another
  path of the hub, 302 to a CDN for what is in LFS, with a signed query.
* Refusals have ``X-Error-Code`` (``RepoNotFound``, ``RevisionNotFound``, ``EntryNotFound``, ``GatedRepo``) and
  ``X-Error-Message``. Who shows no token gets 401 for a repository that does not exist, too.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from transferkit.content.budget import Budget, values_in
from transferkit.content.descriptor import MAX_SIZE
from transferkit.content.digest import Digest, Hasher
from transferkit.errors import InvalidDigestError, NotFoundError, ProtocolError, RegistryError, TransferKitError
from transferkit.protocol.hub_name import COMMIT, HubName

ENDPOINT = "https://huggingface.co"
MAX_INFO = 16 * 1024 * 1024  # bytes; it lists the names of all files, too
_MAX_VALUES = 1_000_000  # of an answer's JSON; the name of a file takes two
# Files and folders of one repository: the hub advises to stay below 100,000 files
# (https://huggingface.co/docs/hub/storage-limits).
MAX_ENTRIES = 200_000
_LONGEST = 1024  # characters of a path; the path policy has the same
_ALL_PATHS = 32 * 1024 * 1024  # characters of all paths; 160 for each
_SHOWN = 100
_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can hold half of a character, and no URL can


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a commit, as it is listed: ``digest`` is known of those in LFS, ``oid`` is the hash of a git blob."""

    path: str
    size: int
    oid: str
    digest: Digest | None = None

    def git_hasher(self) -> Hasher:
        """Return what finds the ``oid`` of a file that is not in LFS: it has seen what git puts before the content."""
        name = "sha1" if len(self.oid) == 40 else "sha256"
        return hashlib.new(name, b"blob %d\0" % self.size, usedforsecurity=False)


def read_commit(raw: bytes) -> str:
    """Return the commit that a revision is; ProtocolError: the answer does not say."""
    data = _json(raw)
    commit = data.get("sha") if isinstance(data, dict) else None
    if not isinstance(commit, str) or COMMIT.match(commit) is None:
        raise ProtocolError("the hub does not say which commit the revision is")
    return commit


@dataclass(slots=True)
class Listing:
    """The files of a commit, page by page. ProtocolError: a page is none, or there is no end of entries."""

    files: list[HubFile] = field(default_factory=list)
    _entries: Budget = field(default_factory=lambda: Budget(MAX_ENTRIES))
    _characters: Budget = field(default_factory=lambda: Budget(_ALL_PATHS))
    _paths: set[str] = field(default_factory=set)

    def add(self, raw: bytes) -> None:
        """Take in a page."""
        data = _json(raw)
        if not isinstance(data, list):
            raise ProtocolError("the hub's answer is no list of files")
        if not self._entries.take(len(data)):
            raise ProtocolError(f"the hub lists more than {MAX_ENTRIES} files and folders; refused")
        for file in list(_files(data)):
            if file.path in self._paths:
                raise ProtocolError(f"the hub lists {file.path[:_SHOWN]!r} twice")
            if not self._characters.take(len(file.path)):
                raise ProtocolError(f"the hub lists paths of more than {_ALL_PATHS} characters together; refused")
            self._paths.add(file.path)
            self.files.append(file)


def _files(entries: list[Any]) -> Iterator[HubFile]:
    for entry in entries:
        kind, path = (entry.get("type"), entry.get("path")) if isinstance(entry, dict) else (None, None)
        if not isinstance(path, str) or not 0 < len(path) <= _LONGEST or _SURROGATE.search(path):
            raise ProtocolError("the hub lists a file without a path that one can have")
        if kind == "directory":
            continue
        if kind != "file":
            raise ProtocolError(f"the hub lists {path[:_SHOWN]!r} as {str(kind)[:20]!r}, and not as a file or a folder")
        lfs, oid = entry.get("lfs"), entry.get("oid")
        size = (lfs if isinstance(lfs, dict) else entry).get("size")
        if type(size) is not int or not 0 <= size <= MAX_SIZE:
            raise ProtocolError(f"the hub lists {path[:_SHOWN]!r} without a size that a file can have")
        if not isinstance(oid, str) or COMMIT.match(oid) is None:
            raise ProtocolError(f"the hub lists {path[:_SHOWN]!r} without the hash of its git blob")
        yield HubFile(path, size, oid, None if lfs is None else _digest(path, lfs))


def _digest(path: str, lfs: Any) -> Digest:
    try:
        return Digest(f"sha256:{lfs.get('oid')}" if isinstance(lfs, dict) else "")
    except InvalidDigestError as error:
        raise ProtocolError(f"the hub lists {path[:_SHOWN]!r} as in LFS, and without its SHA-256") from error


def _json(raw: bytes) -> Any:
    try:
        if values_in(raw) > _MAX_VALUES:
            raise ProtocolError(f"the hub's answer has more than {_MAX_VALUES} values; refused")
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the hub's answer is not JSON ({type(error).__name__})") from error


def explained(error: RegistryError, name: HubName, endpoint: str) -> TransferKitError:
    """Return what a refusal of the hub's means to the user."""
    if error.code == "RepoNotFound":
        # 401 to who shows no token: it does not tell what is private from what does not exist.
        return NotFoundError(f"{error}; there is no such repository, or it is private and the token may not see it")
    if error.code == "GatedRepo":
        error.args = (f"{error}; its owner gives access at {endpoint}{name.page}, to the account of the token",)
    return error
