"""The room that blobs will take on the disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass

from transferkit.content.descriptor import MAX_SIZE, Descriptor
from transferkit.errors import OutOfSpaceError
from transferkit.report import human_bytes
from transferkit.storage.disk import Disk, storage_error


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The room in the file system of a folder, whose unfinished blobs lie in ``partial``. Thread-safe."""

    folder: str
    partial: str
    resume_threshold: int
    disk: Disk

    def room_for(self, descriptors: Iterable[Descriptor]) -> tuple[int, int]:
        """Return how many bytes these blobs will still take on the disk, and how many are free.

        A file system that does not say how many are free has room for everything.
        """
        needed = 0
        for descriptor in descriptors:
            needed += descriptor.size
            if descriptor.size >= self.resume_threshold:
                try:
                    status = self.disk.stat(f"{self.partial}/{descriptor.digest.file_name}")
                except OSError:
                    continue
                needed -= min(descriptor.size, getattr(status, "st_blocks", 0) * 512)
        folder = self.folder
        while not os.path.isdir(folder):
            folder = os.path.dirname(folder)
        try:
            return needed, self.disk.free(folder)
        except OSError as error:
            if error.errno == errno.EIO:
                raise storage_error(error, "asking for the free space of", folder) from error
            return needed, MAX_SIZE

    def check_room(self, descriptors: Iterable[Descriptor]) -> None:
        """Check that these blobs will fit.

        Raises:
            OutOfSpaceError: they will not; the message has the figures.
        """
        needed, free = self.room_for(descriptors)
        if needed > free:
            raise OutOfSpaceError(
                f"{self.folder} has {human_bytes(free)} left, and {human_bytes(needed)} are needed: free some, and "
                "run it again; nothing was fetched",
                errno=errno.ENOSPC,
            )
