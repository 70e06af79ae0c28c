"""The state of a partial file: what it is the beginning of, and which ranges of it are in place.

A first line says what it is (digest, size, the boot it was written in); it is replaced atomically when the file is
opened. Then comes a line for each range that was written, appended, and now and then one that says how many of those
before it were synced. After a crash of the process all lines count, after a power cut the synced ones. A state that
does not parse, or that speaks of something else, is discarded, never trusted; a last line that is torn is ignored.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress

from transferkit.content.chunk import Ranges
from transferkit.content.descriptor import Descriptor
from transferkit.errors import StorageError
from transferkit.storage.disk import Disk, close_quietly, disk_errors, remove_quietly

_LINE = re.compile(rb'\[(\d{1,99}), (\d{1,99})\]|\{"synced": (\d{1,99})\}')
_ROWS = 64 * 1024  # of a blob at most, about: who reads little at once writes a row for many reads
_MAX_STATE = 8 * 1024 * 1024  # bytes: three times as many rows


class Journal:
    """A blob's state file; writing raises ``StorageError``. Not thread-safe, but ``sync`` may run beside ``add``."""

    def __init__(self, path: str, descriptor: Descriptor, disk: Disk) -> None:
        self.path = path
        self.ranges = Ranges()
        self.rows = 0
        self._size = descriptor.size
        self._header = {"version": 2, "digest": descriptor.digest, "size": descriptor.size, "boot": disk.boot}
        self._disk = disk
        self._fd = -1
        self._held: dict[int, int] = {}  # rows that are too short to be written yet: byte after the last -> first one

    def load(self) -> Ranges:
        """Return what an earlier run has left that can be believed."""
        boot = self._disk.boot
        rows: list[tuple[int, int]] = []
        synced = 0
        try:
            # Of a file that is longer the end is read, which is no header.
            first, *lines = self._disk.read_file(self.path, _MAX_STATE).split(b"\n")
            header = json.loads(first)
            if {**header, "boot": boot} != self._header:
                return Ranges()
            for line in lines[:-1]:  # the last piece is nothing, or a line that was torn
                match = _LINE.fullmatch(line)
                if match is None:
                    break
                if match[3] is None:
                    rows.append((int(match[1]), int(match[2])))
                else:
                    synced = min(max(synced, int(match[3])), len(rows))
            believed = Ranges()
            for start, end in rows if boot is not None and header.get("boot") == boot else rows[:synced]:
                if end >= self._size:
                    return Ranges()
                believed.add(start, end)
            return believed
        except (OSError, ValueError, TypeError, RecursionError):
            return Ranges()

    def rewrite(self, ranges: Ranges) -> None:
        """Write the state anew, with these ``ranges``, and open it for more. None of them counts as synced."""
        self.close()
        rows = ranges.to_list()
        text = "\n".join([json.dumps(self._header), *map(json.dumps, rows), ""])
        temporary = f"{self.path}.new"  # always the same: kill -9 between two lines leaves one, and no more
        with disk_errors("writing", self.path):
            remove_quietly(self._disk, temporary)
            fd = self._disk.create(temporary)
            try:
                try:
                    self._disk.pwrite(fd, memoryview(text.encode("ascii")), 0)
                finally:
                    self._disk.close(fd)
                self._disk.rename(temporary, self.path)
            except BaseException:
                remove_quietly(self._disk, temporary)
                raise
            self.ranges = ranges
            self.rows = len(rows)
            self._fd = self._disk.open_append(self.path)

    def add(self, start: int, end: int) -> None:
        """Add a range; the row of one that is short waits for the next one to go on where it ends."""
        self.ranges.add(start, end)
        start = self._held.pop(start, start)
        if end - start + 1 < self._size // _ROWS:
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
            self._disk.sync_folder(os.path.dirname(self.path))

    def close(self) -> None:
        """Never raises; more than once is fine."""
        held, self._held = self._held, {}
        with suppress(StorageError):  # it costs the next run these bytes
            for after, start in held.items():
                self._write_row(start, after - 1)
        fd, self._fd = self._fd, -1
        close_quietly(self._disk, fd)
