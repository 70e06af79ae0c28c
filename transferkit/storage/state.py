"""The state of a partial file: what it is the beginning of, and which ranges of it are in place.

A first line says what it is (digest, size, the boot it was written in); it is replaced atomically when the file is
opened. Then comes a line for each range that was written, appended, and now and then one that says how many of those
before it were synced. After a crash of the process all lines count, after a power cut the synced ones. A state that
does not parse, or that speaks of something else, is discarded, never trusted; a last line that is torn is ignored.

What writes raises ``StorageError`` where the disk refuses.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

from transferkit.content.chunk import Ranges
from transferkit.content.descriptor import Descriptor
from transferkit.errors import InvalidDescriptorError, StorageError
from transferkit.storage.disk import Disk, close_quietly, disk_errors, remove_quietly

VERSION = 2
_LINE = re.compile(rb'\[(\d{1,99}), (\d{1,99})\]|\{"synced": (\d{1,99})\}')
_ROWS = 64 * 1024  # of a blob at most, about: who reads little at once writes a row for many reads
_MAX_STATE = 8 * 1024 * 1024  # bytes: three times as many rows


class State:
    """The state file of one blob. Not thread-safe, but for ``sync``, beside which rows may be added."""

    def __init__(self, path: str, descriptor: Descriptor, *, disk: Disk, boot: str | None) -> None:
        self.path = path
        self.rows = 0
        self._descriptor = descriptor
        self._disk = disk
        self._boot = boot
        self._fd = -1
        self._held: dict[int, int] = {}
        """First bytes of rows that are too short to be written yet, by the byte after their last."""
        self._named = False
        """Whether the name is as durable as the rows that were synced."""

    def load(self) -> Ranges:
        """Return what an earlier run has left that can be believed."""
        try:
            text = self._disk.read_file(self.path, _MAX_STATE + 1)
            first, _, rest = text.partition(b"\n")
            header = json.loads(first)
        except (OSError, ValueError, RecursionError):
            return Ranges()
        if len(text) > _MAX_STATE or not isinstance(header, dict) or {**header, "boot": self._boot} != self._header():
            return Ranges()
        rows, synced = self._read_rows(rest)
        same_boot = self._boot is not None and header.get("boot") == self._boot
        ranges = Ranges()
        try:
            for start, end in rows if same_boot else rows[:synced]:
                if end >= self._descriptor.size:
                    return Ranges()
                ranges.add(start, end)
        except InvalidDescriptorError:
            return Ranges()
        return ranges

    @staticmethod
    def _read_rows(text: bytes) -> tuple[list[tuple[int, int]], int]:
        """Return the rows up to the first that does not parse, and how many of them were synced."""
        rows: list[tuple[int, int]] = []
        synced = 0
        # The last piece is what follows the last line end: nothing, or a line that was torn.
        for line in text.split(b"\n")[:-1]:
            match = _LINE.fullmatch(line)
            if match is None:
                break
            if match[3] is None:
                rows.append((int(match[1]), int(match[2])))
            else:
                synced = min(max(synced, int(match[3])), len(rows))
        return rows, synced

    def _header(self) -> dict[str, Any]:
        wanted = self._descriptor
        return {"version": VERSION, "digest": wanted.digest, "size": wanted.size, "boot": self._boot}

    def rewrite(self, ranges: Ranges) -> None:
        """Write the state anew, and open it for more rows. None of them counts as synced."""
        self.close()
        self._held.clear()
        rows = ranges.to_list()
        lines = [json.dumps(self._header()), *(json.dumps(row) for row in rows), ""]
        temporary = f"{self.path}.new"  # always the same: kill -9 between two lines leaves one, and no more
        with disk_errors("writing", self.path):
            remove_quietly(self._disk, temporary)
            fd = self._disk.create(temporary)
            try:
                try:
                    self._disk.pwrite(fd, memoryview("\n".join(lines).encode("ascii")), 0)
                finally:
                    self._disk.close(fd)
                self._disk.rename(temporary, self.path)
            except BaseException:
                remove_quietly(self._disk, temporary)
                raise
            self.rows = len(rows)
            self._named = False
            self._fd = self._disk.open_append(self.path)

    def add(self, start: int, end: int) -> None:
        """Add a row; one that is short waits for the next one to go on where it ends."""
        start = self._held.pop(start, start)
        if end - start + 1 < self._descriptor.size // _ROWS:
            self._held[end + 1] = start
        else:
            self._write_row(start, end)

    def _write_row(self, start: int, end: int) -> None:
        with disk_errors("writing", self.path):
            self._disk.write(self._fd, f"[{start}, {end}]\n".encode("ascii"))
        self.rows += 1

    def sync(self, rows: int) -> None:
        """Say, to last, that the data of the first ``rows`` rows has been synced."""
        with disk_errors("syncing", self.path):
            self._disk.write(self._fd, f'{{"synced": {rows}}}\n'.encode("ascii"))
            self._disk.fsync(self._fd)
            if not self._named:
                self._disk.sync_folder(os.path.dirname(self.path))
                self._named = True

    def close(self) -> None:
        """Never raises; more than once is fine."""
        while self._held and self._fd >= 0:
            after, start = self._held.popitem()
            try:
                self._write_row(start, after - 1)
            except StorageError:
                break  # it costs the next run these bytes
        fd, self._fd = self._fd, -1
        close_quietly(self._disk, fd)
