"""The state of a partial file: what it is the beginning of, and which ranges of it are in place.

A first line says what it is (digest, size, the boot it was written in); it is replaced atomically when the file is
opened. Then comes a line for each range that was written, appended, and now and then one that says how many of those
before it were synced. After a crash of the process all lines count, after a power cut the synced ones. A state that
does not parse, or that speaks of something else, is discarded, never trusted; a last line that is torn is ignored.

    {"version": 2, "digest": ..., "size": ..., "boot": ...}
    [0, 524287]                   these bytes are in place
    {"unverified": [8, 9]}        so are these of a chunk that is not complete yet; a later line for byte 8 replaces it
    {"synced": 1}                 the first of the ranges above was synced; unverified ones are none of them
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import suppress

from transferkit.content.chunk import Chunk, Ranges
from transferkit.content.descriptor import Descriptor
from transferkit.errors import StorageError
from transferkit.storage.disk import close_quietly, sync, sync_folder
from transferkit.storage.disk_errors import disk_errors
from transferkit.storage.folder import OpenFolder

_PAIR = rb"\[(\d{1,99}), (\d{1,99})\]"
_LINE = re.compile(_PAIR + rb'|\{"unverified": ' + _PAIR + rb'\}|\{"synced": (\d{1,99})\}')
_ROWS = 64 * 1024  # of a blob at most, about: who reads little at once writes a row for many reads
_MAX_STATE = 16 * 1024 * 1024  # bytes: twice as many rows of both kinds


class Journal:
    """A blob's state file; writing raises ``StorageError``. Not thread-safe, but ``sync`` may run beside ``add``."""

    def __init__(self, folder: OpenFolder, name: str, descriptor: Descriptor) -> None:
        self.path = f"{folder.path}/{name}"
        self.ranges = Ranges()
        self.unverified = Ranges()
        """What an earlier run has left unverified, and nobody has taken so far; none of ``ranges``."""
        self.rows = 0
        self._folder = folder
        self._name = name
        self._disk = folder.disk
        self._size = descriptor.size
        self._header = {"version": 2, "digest": descriptor.digest, "size": descriptor.size, "boot": self._disk.boot}
        self._fd = -1
        self._held: dict[int, int] = {}  # rows that are too short to be written yet: byte after the last -> first one
        self._hashing: dict[int, tuple[int, int]] = {}  # unverified: first byte -> the last one, the last one written

    def load(self) -> Ranges:
        """Take in what an earlier run has left that can be believed; return which of its ranges were synced."""
        self.ranges, self.unverified = Ranges(), Ranges()
        boot = self._disk.boot
        synced = Ranges()
        with suppress(OSError, ValueError, TypeError, RecursionError):
            # Of a file that is longer the end is read, which is no header.
            text = self._disk.read_file(self._folder.at(self._name), _MAX_STATE, self._folder.fd)
            first, *lines = text.split(b"\n")
            header = json.loads(first)
            if {**header, "boot": boot} == self._header:
                rows, count, unverified = self._parse(lines[:-1])  # the last piece is nothing, or a line that was torn
                synced = _union(rows[:count])
                self.ranges = _union(rows if boot is not None and header.get("boot") == boot else rows[:count])
                self.unverified = _union(unverified.items()).minus(self.ranges)
        return synced

    def _parse(self, lines: list[bytes]) -> tuple[list[tuple[int, int]], int, dict[int, int]]:
        """Return the rows, how many of them were synced, and the unverified ones. None, where one is past the end."""
        rows: list[tuple[int, int]] = []
        unverified: dict[int, int] = {}
        synced = 0
        for line in lines:
            match = _LINE.fullmatch(line)
            if match is None:
                break
            if match[5] is not None:
                synced = min(max(synced, int(match[5])), len(rows))
                continue
            start, end = int(match[1] or match[3]), int(match[2] or match[4])
            if not start <= end < self._size:
                return [], 0, {}
            if match[1] is not None:
                rows.append((start, end))
            else:
                unverified[start] = end
        return rows, synced, unverified

    def rewrite(self, synced: Ranges | None = None) -> None:
        """Write the state anew, with the ranges that are there, ``synced`` among them, and open it for more."""
        self.close()
        first = synced.to_list() if synced is not None else []
        rest = self.ranges.minus(synced).to_list() if synced is not None else self.ranges.to_list()
        mark = [{"synced": len(first)}] if first else []
        unverified = [{"unverified": pair} for pair in self.unverified.to_list()]
        lines = [self._header, *first, *mark, *rest, *unverified]
        with disk_errors("writing", self.path):
            text = "".join(json.dumps(line) + "\n" for line in lines)
            self._folder.replace(self._name, text.encode("ascii"), durable=bool(first))
            self.rows = len(first) + len(rest)
            self._fd = self._disk.open_append(self._folder.at(self._name), self._folder.fd)

    def empty(self) -> None:
        """Write the state of a file of which nothing is there."""
        self.ranges, self.unverified = Ranges(), Ranges()
        self.rewrite()

    def add(self, start: int, end: int) -> None:
        """Add a range; the row of one that is short waits for the next one to go on where it ends."""
        self.ranges.add(start, end)
        self._hashing.pop(start, None)
        start = self._held.pop(start, start)
        if end - start + 1 < self._size // _ROWS:
            self._held[end + 1] = start
        else:
            self._write(f"[{start}, {end}]")
            self.rows += 1

    def add_unverified(self, start: int, end: int) -> None:
        """Say that a chunk is there from its ``start`` to ``end``; rows are not written more often than for ranges."""
        last, written = self._hashing.get(start, (start - 1, start - 1))
        if end < last:  # it is fetched once more
            written = start - 1
        if end - written >= self._size // _ROWS:
            self._write(f'{{"unverified": [{start}, {end}]}}')
            written = end
        self._hashing[start] = end, written

    def take_unverified(self, chunk: Chunk) -> list[Chunk]:
        """Return what an earlier run has left unverified of a chunk, in order: whoever asks deals with it."""
        found = self.unverified.within(chunk)
        if found:
            self.unverified = self.unverified.minus(_union((chunk.start, chunk.end) for chunk in found))
        return found

    def _write(self, line: str) -> None:
        with disk_errors("writing", self.path):
            self._disk.write(self._fd, f"{line}\n".encode("ascii"))

    def sync(self, rows: int) -> None:
        """Say, to last, that the data of the first ``rows`` rows has been synced."""
        self._write(f'{{"synced": {rows}}}')
        with disk_errors("syncing", self.path):
            sync(self._disk, self._fd)
            sync_folder(self._disk, self._folder.path)

    def flush(self) -> None:
        """Write what was held back."""
        held, self._held = self._held, {}
        hashing, self._hashing = self._hashing, {}
        for after, start in held.items():
            self._write(f"[{start}, {after - 1}]")
            self.rows += 1
        for start, (end, written) in hashing.items():
            if written < end:
                self._write(f'{{"unverified": [{start}, {end}]}}')

    def close(self) -> None:
        """Never raises; more than once is fine."""
        with suppress(StorageError):  # it costs the next run these bytes
            self.flush()
        fd, self._fd = self._fd, -1
        close_quietly(self._disk, fd)


def _union(pairs: Iterable[tuple[int, int]]) -> Ranges:
    ranges = Ranges()
    for start, end in pairs:
        ranges.add(start, end)
    return ranges
