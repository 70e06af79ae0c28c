"""Which of some digests the content of an open file has."""

from __future__ import annotations

import os
from collections.abc import Collection

from transferkit.content.digest import Digest
from transferkit.content.flow import Flow
from transferkit.storage.disk import Disk


def matching(disk: Disk, fd: int, digests: Collection[Digest], flow: Flow) -> tuple[set[Digest], os.stat_result]:
    """Hash an open file; return those of some digests that it has, and its status.

    It has none of them where it changes meanwhile. Its bytes are progress. ``OSError``: the disk refused.
    """
    status = disk.fstat(fd)
    hashers = {digest.algorithm: digest.hasher() for digest in digests}
    offset = 0
    flow.counter.set_position(0)
    while count := disk.preadv(fd, flow.buffer, offset):
        flow.moved(count)
        flow.check()
        for hasher in hashers.values():
            hasher.update(flow.buffer[:count])
        offset += count
    now = disk.fstat(fd)
    if (status.st_size, status.st_mtime_ns, status.st_ctime_ns) != (now.st_size, now.st_mtime_ns, now.st_ctime_ns):
        return set(), now
    return {digest for digest in digests if digest.matches(hashers[digest.algorithm])}, status
