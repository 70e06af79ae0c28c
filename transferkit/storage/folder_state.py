"""What is known of the files in a folder that was pulled: ``.transferkit/state.json``, so that a look is enough.

A row without an ``fsync`` of the file's data counts in the same boot only, as in ``storage.index``. A state that does
not parse is none: the files are hashed.
"""

from __future__ import annotations

import base64
import json
import os
from contextlib import suppress
from dataclasses import dataclass, field, replace

from transferkit.content.digest import Digest
from transferkit.storage.folder import OpenFolder

NAME = "state.json"
_VERSION = 1
_LIMIT = 64 * 1024 * 1024  # bytes that are read: of 200,000 files
DURABLE = "-"  # in the place of a boot: the data was synced


@dataclass(frozen=True, slots=True)
class Row:
    """One file that was found right: its content, and what its status was then; ``changed`` is its ctime in ns."""

    digest: Digest
    size: int
    modified: int
    inode: int
    changed: int
    boot: str

    @classmethod
    def of(cls, digest: Digest, status: os.stat_result, boot: str) -> Row:
        """Return the row of a file with this status."""
        return cls(digest, status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns, boot)

    def fits(self, status: os.stat_result) -> bool:
        """Tell whether the file with this status is the one that the row speaks of, unchanged."""
        return self == Row.of(self.digest, status, self.boot)

    @property
    def doubted(self) -> Row:
        """The row of the same content that fits no file: the file is hashed before it counts."""
        return replace(self, modified=-1)


@dataclass(slots=True)
class FolderState:
    """What a folder has, and what it is meant to have."""

    version: str = ""
    """What was pulled last: the digest of a manifest."""
    rows: dict[str, Row] = field(default_factory=dict)
    """Files by path; those of older versions too, while they are there."""
    placing: dict[str, Digest] = field(default_factory=dict)
    """What files were about to become when the process ended: content that nobody but us has put there."""
    begun: str = ""
    """The version whose files were about to get their names when a process ended; "" where none was."""
    layers: dict[str, dict[str, str]] = field(default_factory=dict)
    """The files of packed layers, by path: their digests, "" for those that nobody wanted."""
    config: bytes = b""
    """The config of a manifest without which its files have no names."""

    @classmethod
    def load(cls, folder: OpenFolder, boot: str | None, name: str = NAME) -> FolderState:
        """Read the state; rows of another boot are doubted."""
        with suppress(OSError, ValueError, LookupError, ArithmeticError, TypeError, AttributeError, RecursionError):
            data = json.loads(folder.disk.read_file(folder.at(name), _LIMIT, folder.fd))
            if data["format"] == _VERSION:
                found = {
                    path: Row(Digest(row[0]), int(row[1]), int(row[2]), int(row[3]), int(row[4]), str(row[5]))
                    for path, row in data["files"].items()
                }
                rows = {path: row if row.boot in (DURABLE, boot) else row.doubted for path, row in found.items()}
                return cls(
                    version=str(data["version"]),
                    rows=rows,
                    placing={path: Digest(digest) for path, digest in data["placing"].items()},
                    begun=str(data.get("begun", "")),
                    layers={
                        layer: {path: Digest(digest) if digest else "" for path, digest in files.items()}
                        for layer, files in data["layers"].items()
                    },
                    config=base64.b64decode(data["config"], validate=True),
                )
        return cls()

    def save(self, folder: OpenFolder, name: str = NAME, *, durable: bool) -> None:
        """Write the state, whole or not at all; ``OSError``."""
        rows = {
            path: [row.digest, row.size, row.modified, row.inode, row.changed, row.boot]
            for path, row in sorted(self.rows.items())
        }
        data = {
            "format": _VERSION,
            "version": self.version,
            "files": rows,
            "placing": self.placing,
            "begun": self.begun,
            "layers": self.layers,
            "config": base64.b64encode(self.config).decode("ascii"),
        }
        folder.replace(name, json.dumps(data, separators=(",", ":")).encode(), durable=durable)
