"""Having the system begin to write a file to the disk while the rest of it still comes: Linux's ``sync_file_range``.

Linux leaves what is written in memory for seconds, and a sync in the end then waits for all of it. Nothing rests on
this: it promises nothing, and takes no error away from the sync that does.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

_WRITE = 2  # SYNC_FILE_RANGE_WRITE of <linux/fs.h>: begin, and do not wait


def write_back(fd: int, offset: int, count: int) -> None:
    """Begin to write a range; where the system has no such call, or refuses it, nothing happens."""
    call = _call()
    if call is not None:
        call(fd, offset, count, _WRITE)


@cache
def _call() -> Any:
    if sys.platform != "linux":
        return None
    import ctypes

    call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if call is not None:
        call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return call
